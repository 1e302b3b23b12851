"""Attacks are run for real. Those that last, and all of them with one wall taken away, are for `-m slow`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clew.sandbox.attack import Attack
from clew.sandbox.attacks import ATTACKS
from clew.sandbox.siege import besiege
from clew.sandbox.worker import Isolation

QUICK = [attack for attack in ATTACKS if not attack.lasts]
BY_NAME = {attack.name: attack for attack in ATTACKS}


def names(attack: Attack) -> str:
    return attack.name


def test_there_are_many_and_each_has_a_name():
    assert len(BY_NAME) == len(ATTACKS) >= 40


@pytest.mark.parametrize("attack", QUICK[::6], ids=names)
def test_some_of_the_quick_attacks_fail(pool, attack):
    assert besiege(attack, Isolation()).escapes == ()


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=names)
def test_every_attack_fails(pool, attack):
    assert besiege(attack, Isolation()).escapes == ()


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=names)
def test_every_attack_fails_without_the_filter_of_system_calls(pool, attack):
    assert besiege(attack, Isolation(filter_calls=False)).escapes == ()


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("connect to a local port", "a socket outside was reached"),
        ("send a datagram", "a socket outside was reached"),
        ("connect to an abstract unix socket", "a socket outside was reached"),
        ("send to an abstract unix socket from a pair", "a socket outside was reached"),
        ("connect to a unix socket in a file", "a socket outside was reached"),
        ("read a file outside", "it read something outside"),
        ("follow symbolic links out of /tmp", "it read something outside"),
        ("read /etc", "ESCAPED"),
        ("read /proc", "ESCAPED"),
        ("start a shell", "ESCAPED"),
    ],
)
def test_the_besieger_notices_attacks_that_succeed(pool, name, seen):
    """The same harmless attacks without any wall: were these not noticed, no escape would be."""
    attack = BY_NAME[name]
    program = attack.program.replace("/tmp/out", "@DIRECTORY@/../@TOKEN@o").replace(
        "/tmp/up", "@DIRECTORY@/../@TOKEN@u"
    )
    program += "\nfor name in ('o', 'u'):\n    tries(os.unlink, '@DIRECTORY@/../@TOKEN@' + name)"
    open_field = Attack(name=name, program=program, success=attack.success)
    escapes = besiege(open_field, Isolation(dangerously_without_isolation=True)).escapes
    assert any(seen in escape for escape in escapes), escapes


def test_the_besieger_notices_tests_that_pass(pool):
    honest = Attack(name="honest", program="def answer(x): return x + 1", success="", tests="assert answer(7) == 8")
    assert besiege(honest, Isolation()).escapes == ("the tests passed",)


@pytest.mark.parametrize("name", ["read the answer in the frames", "read the answer in all objects"])
def test_attacks_that_look_for_answers_would_find_them_in_one_process(name):
    """Run beside the tests, as other harnesses do, the same program passes them."""
    tests = f"assert answer(7) == {2**61 + 12345}"
    harness = "import sys\nprogram, tests = sys.argv[1:]\nexec(program + chr(10) + tests)\nprint('passed')"
    command = [sys.executable, "-c", harness, BY_NAME[name].program, tests]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout == "passed\n"
