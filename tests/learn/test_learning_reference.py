"""The numbers of docs/reference/learning.md, and that every function it names exists."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import clew.learn

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "learning.md"
ELSEWHERE = {"overlong", "epsilon_high", "loss_scale_factor", "simpo_gamma", "valid", "target", "learn", "models"}
"""Names on the page that are settings, rewards or other libraries' words."""


def test_the_numbers():
    found = doctest.testfile(str(PAGE), module_relative=False)
    assert found.failed == 0
    assert found.attempted >= 20


def test_every_function_named_in_a_table_exists():
    rooms = [importlib.import_module(m.name) for m in pkgutil.iter_modules(clew.learn.__path__, "clew.learn.")]
    known = {name for room in rooms for name in vars(room)} | ELSEWHERE
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    named = {word for row in rows for code in re.findall(r"`([^`]+)`", row) for word in re.findall(r"[a-z]\w+", code)}
    named -= {"clew", "rl", "advantages", "returns", "tests", "test_exact_gradients", "py"}
    assert {n for n in named if n not in known} == set()
