"""Two ranks learn what one process does, end together, and leave one run behind."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rank_work
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_policy import SIZE, SPEC, fine_tuned

from clew.cli import main
from clew.core.errors import ClewError, InvalidValue, UsageError
from clew.learn.ranks import ALONE, Place, _packed, here, share, shared, whole
from clew.models.architecture import build_model
from clew.models.checkpoint import save_checkpoint
from clew.models.tokenizer import build_tokenizer
from clew.recipes.sft import SftConfig
from clew.scale.launch import SILENT, _status, in_ranks, launch, standing

pytestmark = pytest.mark.timeout(600)
WORK = str(Path(rank_work.__file__))
OF_TWO = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
UNEQUAL = {"seconds", "worst_token"}
"""What no two runs have in common, and the place of a largest difference where all are rounding."""


@given(st.lists(st.integers(), max_size=9), st.integers(1, 4))
def test_shares_are_disjoint_even_and_whole_again(items, ranks):
    shares = [share(items, Place(rank, ranks)) for rank in range(ranks)]
    assert whole(shares) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_divided_and_no_one_is_asked():
    assert here() == ALONE
    assert shared("numbers", [1, 2, 3], lambda own: [2 * one for one in own]) == [2, 4, 6]
    assert shared("numbers", [], lambda own: 1 / 0) == []


def test_tensors_travel_as_their_own_numbers():
    large = torch.arange(100_000.0)
    views = [large[3:5], large[7], torch.zeros(0, 3), torch.tensor([True, False]), large[:4].to(torch.bfloat16)]
    data = _packed((views, "text"))
    assert len(data) < 2000
    found, text = pickle.loads(data)  # noqa: S301  bytes of this test
    assert text == "text"
    for one, other in zip(found, views, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert torch.equal(one, other)


def test_the_environment_tells_the_place():
    assert standing({}) is None
    assert standing({**OF_TWO, "WORLD_SIZE": "1"}) is None
    assert standing({name: value for name, value in OF_TWO.items() if name != "MASTER_PORT"}) is None
    assert standing(OF_TWO) == (1, 2)


def test_numbers_of_ranks_that_cannot_be(monkeypatch):
    config = SftConfig(checkpoint=Path("none"), out=Path("none"), ranks=0)
    with pytest.raises(InvalidValue, match="--ranks is 0"):
        in_ranks(lambda config: 0, config, [])
    for name, value in OF_TWO.items():
        monkeypatch.setenv(name, value)
    config = SftConfig(checkpoint=Path("none"), out=Path("none"), ranks=3)
    with pytest.raises(UsageError, match="2, the number of processes that were started"):
        in_ranks(lambda config: 0, config, [])


def test_the_status_is_that_of_the_rank_that_said_why():
    assert _status([0, 0]) == 0
    assert _status([SILENT, 1]) == 1
    assert _status([130, SILENT]) == 130
    assert _status([None, 2]) == 2
    with pytest.raises(ClewError, match="process 2 of 2 was ended by signal 9"):
        _status([SILENT, -9])
    with pytest.raises(ClewError, match="without saying why"):
        _status([SILENT, None])


@pytest.fixture(scope="module", autouse=True)
def paths():
    """Processes find what this one finds, and share two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(WORK).parent), *filter(None, sys.path)]))
        patch.setenv("OMP_NUM_THREADS", "2")
        yield
    torch.set_num_threads(before)


def assert_gradients_equal(checkpoint, out):
    for rows in (1, 7):
        gradients, loss, tokens = rank_work.one_gradient(checkpoint, rows)
        for rank in range(2):
            found = load_file(out / f"{rows} rows {rank}.safetensors")
            assert found.keys() == gradients.keys()
            for name, gradient in gradients.items():
                torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-6 * float(gradient.abs().max()))
            told = json.loads((out / f"{rows} rows {rank}.json").read_text())
            assert told == [pytest.approx(loss, rel=1e-6), tokens]


def test_the_gradient_of_two_ranks_is_that_of_one(tmp_path):
    checkpoint = tmp_path / "start"
    save_checkpoint(build_model(SIZE, build_tokenizer(), seed=0), build_tokenizer(), checkpoint)
    assert launch([sys.executable, WORK, str(checkpoint), str(tmp_path)], 2) == 0
    assert_gradients_equal(checkpoint, tmp_path)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return fine_tuned(tmp_path_factory.mktemp("policy"), steps=60)


@pytest.fixture(scope="module")
def learnt_by_two(start, tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks")
    assert launch([sys.executable, WORK, str(start), str(out), *rank_work.CASES], 2) == 0
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", rank_work.CASES)
def test_two_ranks_learn_what_one_process_does(start, learnt_by_two, name):
    weights, rows = rank_work.learnt(name, start)
    before = rank_work.load_policy(start).model.state_dict()
    assert any(not torch.equal(weights[key], before[key]) for key in weights)
    for rank in range(2):
        found = load_file(learnt_by_two / f"{name} {rank}.safetensors")
        for key, weight in weights.items():
            torch.testing.assert_close(found[key], weight, rtol=0.0, atol=1e-5)
        told = json.loads((learnt_by_two / f"{name} {rank}.json").read_text())
        for one, other in zip(rows, told, strict=True):
            assert one.keys() == other.keys()
            numbers = {key for key in one if isinstance(one[key], float)} - UNEQUAL
            assert {key: other[key] for key in numbers} == {
                key: pytest.approx(one[key], rel=1e-3, abs=1e-5) for key in numbers
            }


FEW = {
    "rl": ["--settings.steps", "2", "--settings.problems", "3", "--settings.group-size", "4"],
    "sft": ["--settings.steps", "3", "--settings.rows", "8"],
    "dpo": ["--settings.problems", "24", "--settings.samples", "6", "--settings.rows", "4"],
    "distill": ["--settings.problems", "24", "--settings.samples", "4", "--settings.rounds", "1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", FEW)
def test_a_run_of_two_ranks_is_the_run_of_one(start, tmp_path, capfd, verb):
    told = [verb, "--checkpoint", str(start), "--task", SPEC, "--held-out", "16", *FEW[verb]]
    told += ["--settings.lr-matrix", "5e-4", "--settings.lr-other", "2e-5"]
    told += [] if verb == "sft" else ["--settings.max-tokens", "24"]
    assert main([*told, "--out", str(tmp_path / "two"), "--ranks", "2"]) == 0
    shown = capfd.readouterr()
    assert shown.out.count("report.html") == 1
    assert shown.err.count("begins") == 1
    assert main([*told, "--out", str(tmp_path / "one")]) == 0
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*")}
    assert {path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*")} == files
    (trained,) = (path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("model.safetensors"))
    one, two = (load_file(tmp_path / run / trained) for run in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0.0, atol=1e-5)
    lines = [(tmp_path / run / "metrics.jsonl").read_text().splitlines() for run in ("one", "two")]
    assert len(lines[0]) == len(lines[1]) > 0
    assert json.loads((tmp_path / "two" / "config.json").read_text())["ranks"] == 2


FAILS = """
import os, sys, time
import clew.recipes.rl as recipe
from clew.cli import main
from clew.core.errors import InvalidValue
from clew.learn.ranks import exchanged, here

def train(config):
    rank = here().rank
    print("a line of output")
    {what}
    for _ in range(200):
        time.sleep(0.05)
        exchanged("turn", rank)
    return 0

recipe.main = train
sys.exit(main(["rl", "--checkpoint", "none", "--out", "none"]))
"""
REFUSES = "if rank == {rank}: raise InvalidValue('size', 7, 'less', 'lower it')"


def ended(what, capfd):
    """Status and standard error of two ranks of which `what` happens to one."""
    begun = time.monotonic()
    try:
        status = launch([sys.executable, "-c", FAILS.format(what=what)], 2)
    except ClewError as error:
        status = str(error)
    assert time.monotonic() - begun < 100
    shown = capfd.readouterr()
    assert shown.out.count("a line of output") == 1
    assert "Traceback" not in shown.err
    return status, shown.err


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_one_error_ends_all_with_one_message(rank, capfd):
    status, told = ended(REFUSES.format(rank=rank), capfd)
    assert status == 2
    assert told.count("clew: ") == told.count("size is 7") == 1


@pytest.mark.slow
def test_an_error_of_all_is_told_once(capfd):
    status, told = ended("raise InvalidValue('size', 7, 'less', 'lower it')", capfd)
    assert status == 2
    assert told.count("clew: ") == told.count("size is 7") == 1


@pytest.mark.slow
def test_ranks_that_come_apart_say_so(capfd):
    status, told = ended("exchanged(f'turn of {rank}', rank)", capfd)
    assert status == 1
    assert told.count("clew: ") == told.count("came apart: turn of 0 / turn of 1") == 1


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_all(rank, capfd):
    status, told = ended(f"if rank == {rank}: os.kill(os.getpid(), 9)", capfd)
    assert (status == 1 and told.count("clew: another process") == 1) or "was ended by signal 9" in str(status)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_what_ends_the_command_ends_its_ranks(sent, tmp_path):
    inside = FAILS.format(what=f"open(os.path.join({str(tmp_path)!r}, str(rank)), 'w').write(str(os.getpid()))")
    # A shell that starts commands in the background lets them ignore the signal.
    outside = (
        "import signal, sys\nfrom clew.scale.launch import launch\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.exit(launch([sys.executable, '-c', {inside!r}], 2))"
    )
    with subprocess.Popen([sys.executable, "-c", outside], stderr=subprocess.PIPE, text=True) as process:
        while not all((tmp_path / rank).exists() and (tmp_path / rank).read_text() for rank in "01"):
            time.sleep(0.05)
        time.sleep(random.random())
        process.send_signal(sent)
        told = process.stderr.read()
    pids = [int((tmp_path / rank).read_text()) for rank in "01"]
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert "Traceback" not in told
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert told.count("clew: interrupted") == 1
