"""The numbers of docs/reference/learning.md, and that every function it names exists."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import clew.learn
from clew.recipes.rl_algorithms import ALGORITHMS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "learning.md"
ELSEWHERE = {"overlong", "epsilon_high", "loss_scale_factor", "simpo_gamma", "valid", "target", "learn", "models"}
"""Names on the page that are settings, rewards or other libraries' words."""
METRICS = {"behind_mean", "behind_most", "mixed", "tokens_carried", "tokens_waiting", "unfinished", "dropped_old"}


def test_the_numbers():
    found = doctest.testfile(str(PAGE), module_relative=False)
    assert found.failed == 0
    assert found.attempted >= 20


def test_every_function_named_in_a_table_exists():
    rooms = [importlib.import_module(m.name) for m in pkgutil.iter_modules(clew.learn.__path__, "clew.learn.")]
    known = {name for room in rooms for name in vars(room)} | ELSEWHERE | METRICS
    parts = {word for name in ALGORITHMS for word in re.findall(r"[a-z]\w+", name)}
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    codes = [code for row in rows for code in re.findall(r"`([^`]+)`", row) if "--" not in code]
    named = {word for code in codes for word in re.findall(r"[a-z]\w+", code)}
    named -= {"clew", "rl", "advantages", "returns", "tests", "test_exact_gradients", "py"}
    assert {n for n in named - parts if n not in known} == set()


ADVANTAGES = {
    "centred": "group_centred",
    "normalised": "group_normalised",
    "leave-one-out": "leave_one_out",
    "moving-average": "above_moving_average",
    "greedy": "above_greedy",
    "whitened": "reinforce_plus_plus",
    "whitened-baseline": "reinforce_plus_plus_baseline",
    "gae": "gae",
    "step-values": "value_differences",
    "implicit": "prime",
    "tree-parent": "above_parent",
}
LOSSES = {"clipped": "clipped_surrogate", "reinforce": "reinforce", "gspo": "gspo", "cispo": "cispo"}
AGGREGATIONS = {"tokens": "token_mean", "sequences": "sequence_mean", "constant": "constant_denominator"}
KL = {"none": (), "k1-reward": ("`k1` in the reward",), "k2-loss": ("`k2` as a loss",), "k3-loss": ("`k3` as a loss",)}


def test_every_name_of_the_command_line_has_its_row_and_the_row_says_what_it_does():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text(encoding="utf-8").splitlines()]
    of = {row[1].strip("`"): row for row in rows if len(row) == 6 and row[1].strip("`") in ALGORITHMS}
    assert set(of) == set(ALGORITHMS)
    for name, method in ALGORITHMS.items():
        _, _, advantage, loss, aggregation, more = of[name]
        assert re.search(rf"\b{ADVANTAGES[method.advantage]}\b", advantage), name
        assert loss.startswith(f"`{LOSSES[method.loss]}`") and aggregation == f"`{AGGREGATIONS[method.aggregation]}`"
        assert ("0.28" in loss) == (method.clip_high == 0.28), name
        penalty = more.split("; ")[-1]
        if method.kl == "none":
            assert "as a loss" not in more and "in the reward" not in more, name
        else:
            assert all(text in penalty for text in KL[method.kl])
            assert float(penalty.split(", ")[-1]) == method.kl_coefficient, name
