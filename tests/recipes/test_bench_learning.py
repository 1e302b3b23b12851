"""The benches of learning: intervals over seeds, variances of gradients, learners whose gradient can be looked at."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clew.core.errors import InvalidValue
from clew.core.types import Outcome, Sampling, Verdict
from clew.evaluate import sample_groups
from clew.models.architecture import SmallQwen3, build_model
from clew.models.policy import LocalPolicy
from clew.models.tokenizer import build_tokenizer
from clew.recipes import bench
from clew.recipes.bench_learners import METHODS, batches_of, gradient_variance, make, relative_variance
from clew.recipes.bench_loop import Meter, copied
from clew.recipes.bench_seeds import over_seeds, told
from clew.tasks import Countdown

SIZE = SmallQwen3(width=40, layers=1, heads=2, kv_heads=1, head_width=8, ffn_width=16, context=128)


class Coin:
    """Right by the parity of a hash."""

    name = "coin"

    def verify(self, problem, text):
        right = hashlib.blake2b((problem.id + text).encode()).digest()[0] % 2 == 0
        return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), text[:9])

    def extract(self, text):
        return text[:9]


@pytest.fixture(scope="module")
def policy():
    tokenizer = build_tokenizer()
    return LocalPolicy(build_model(SIZE, tokenizer, 0), tokenizer)


@pytest.fixture(scope="module")
def groups(policy):
    problems = Countdown(count=3).problems("train", 6, 0)
    return sample_groups(policy, Coin(), problems, n=4, sampling=Sampling(max_tokens=6), seed=0)


def test_the_interval_over_seeds_is_students():
    found = over_seeds([0.4, 0.5, 0.45])
    half = 4.302652729749464 * np.std([0.4, 0.5, 0.45], ddof=1) / math.sqrt(3)
    assert (found["low"], found["mean"], found["high"]) == pytest.approx((0.45 - half, 0.45, 0.45 + half))
    assert told([{"seed": 0, "a": 1.0, "b": None, "c": "x", "d": math.inf}])["a"]["mean"] == 1.0
    assert list(told([{"seed": 0, "a": 1.0, "b": None, "c": "x", "d": math.inf}])) == ["a"]


def test_the_variance_is_that_of_the_batches():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=300)
    gradients = signal + 0.5 * rng.normal(size=(40, 300))
    ratio, norm = relative_variance(torch.tensor(gradients))
    variance = sum(np.var(gradients[:, i], ddof=1) for i in range(300))
    squared = sum(np.mean(gradients[:, i]) ** 2 for i in range(300)) - variance / 40
    assert (ratio, norm) == pytest.approx((variance / squared, math.sqrt(squared)))
    assert ratio == pytest.approx(300 * 0.25 / float(signal @ signal), rel=0.1)
    assert relative_variance(torch.tensor([[1.0], [-1.0]])) == (math.inf, 0.0)


def test_batches_hold_every_problem_once_an_epoch(monkeypatch, groups):
    monkeypatch.setattr("clew.recipes.bench_learners.BATCH", 3)
    batches = batches_of(groups, 2, 0)
    assert [len(batch) for batch in batches] == [3, 3, 3, 3]
    assert {group.problem.id for batch in batches[:2] for group in batch} == {group.problem.id for group in groups}


def test_the_meter_counts_what_was_sampled_read_and_learnt():
    meter = Meter(problems=2, samples=4, prompt=10.0)
    meter.record(0, tokens=80, groups_dropped=0.5, loss=1.0)
    assert meter.compute == 80 + 2 * 10 + 3 * (40 + 4 * 9)


@pytest.mark.parametrize("name", METHODS)
def test_a_learner_learns_and_its_gradient_can_be_looked_at(name, policy, groups):
    learner = copied(policy)
    before = [p.clone() for p in learner.model.parameters()]
    made = make(name, learner, Coin(), seed=0)
    made.step(groups, 0)
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True))
    learner.model.load_state_dict(policy.model.state_dict())
    variance, norm = gradient_variance(made, learner, [groups[:3], groups[3:]])
    assert all(torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True))
    assert variance > 0.0
    assert norm >= 0.0


def test_the_peak_of_a_block_is_seen():
    """In a process of its own: to collect and trim the memory of one that has run a thousand tests takes long."""
    block = "with PeakMemory() as memory:\n    held = b'x' * (40 << 20)\n    del held\nprint(memory.mib)"
    code = f"from clew.recipes.bench_seeds import PeakMemory\n{block}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    seen = done.stdout.strip()
    assert seen == "None" or 39 < float(seen) < 50


@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("loop", {}),
        ("process-rl", {"checkpoint": Path("x")}),
        ("learners", {"checkpoint": Path("x"), "guided": Path("y")}),
    ],
)
def test_what_is_missing_or_too_much_is_told(what, options):
    with pytest.raises(InvalidValue):
        bench.main(bench.BenchConfig(what=what, **options))


def test_arms_are_compared_by_seed_at_every_budget(monkeypatch):
    """With the same difference in each seed the interval has no width, however far apart the seeds are."""
    from clew.recipes import bench_process_rl, stage

    def row(start, task, process, seed, steps):
        outcome = 0.1 * seed + steps / 1000
        return {"seed": seed, "outcome": outcome, "learned": outcome + 0.02, "exact": outcome + (0.1, -0.1, 0.0)[seed]}

    monkeypatch.setattr(stage, "load_policy", lambda path: None)
    monkeypatch.setattr(bench_process_rl, "one_seed", row)
    told = bench_process_rl.measure_process_rl(checkpoint=Path("x"), process=Path("y"), seed=0, budgets=(20, 60))
    for steps in (20, 60):
        budget = told[f"batches_{steps}"]
        assert budget["outcome"]["mean"] == pytest.approx(0.1 + steps / 1000)
        low, high = (budget["learned_minus_outcome"][name] for name in ("low", "high"))
        assert (low, high) == pytest.approx((0.02, 0.02)) and budget["learned_is_better"]
        assert budget["exact_minus_outcome"]["mean"] == pytest.approx(0.0) and not budget["exact_is_better"]
