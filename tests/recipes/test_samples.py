"""What every learning command leaves as text for people: samples.json, and the solutions in its report."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
import torch
from small_policy import SPEC, TASK, fine_tuned

from clew import cli
from clew.core.seeds import derive_seed
from clew.core.types import Outcome, Verdict
from clew.data.store import TrajectoryStore
from clew.report.data import read_run
from clew.report.html import chosen_samples
from clew.tasks import Countdown

HELD_OUT = 12
FEW = "--settings.problems 3 --settings.max-tokens 6"
WORDS = {
    "sft": f"--settings.steps 1 --settings.rows 4 --settings.direct 1 --held-out {HELD_OUT}",
    "rl": f"{FEW} --settings.steps 1 --settings.group-size 3 --held-out {HELD_OUT}",
    "dpo": f"{FEW} --settings.samples 3 --held-out {HELD_OUT}",
    "distill": f"{FEW} --settings.samples 3 --held-out {HELD_OUT}",
    "loop": "--problems 3 --max-tokens 6 --rounds 1 --strategy best-of-n:n=3 "
    f"--measure-problems {HELD_OUT} --measure-samples 2",
}
STAGE = {"distill": "expert_iteration", "loop": "round-01"}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield fine_tuned(tmp_path_factory.mktemp("start"), steps=0)
    torch.set_num_threads(before)


def coin(self, problem, text):
    """Right by the parity of a hash: about half, whatever an untrained model writes."""
    right = hashlib.blake2b((problem.id + text).encode()).digest()[0] % 2 == 0
    return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), None, "by a coin")


@pytest.mark.parametrize("verb", WORDS)
def test_samples_are_those_the_last_stage_was_measured_by(start, tmp_path, monkeypatch, verb):
    monkeypatch.setattr(Countdown, "verify", coin)
    out, stage = tmp_path / "out", STAGE.get(verb, verb)
    assert cli.main(f"{verb} --checkpoint {start} --task {SPEC} --out {out} {WORDS[verb]}".split()) == 0

    samples = json.loads((out / "samples.json").read_text())
    held_out = TASK.problems("test", HELD_OUT, derive_seed(0, "held out"))
    assert [(s["problem_id"], s["prompt"]) for s in samples] == [(p.id, p.prompt[-1].content) for p in held_out]
    with TrajectoryStore(out / "trajectories.sqlite") as store:
        of = {group.problem.id: group.trajectories for group in store.groups(stage)}
    for sample in samples:
        (same,) = {t.completion.tokens: t for t in of[sample["problem_id"]] if t.text == sample["text"]}.values()
        assert sample["outcome"] == same.verdict.outcome.value
        assert sample["tokens"] == len(same.completion.tokens)
        assert (sample["stage"], sample["reason"]) == (stage, "by a coin")

    assert chosen_samples(read_run(out))[1] == stage
    (solutions,) = re.findall('<section id="samples">.*?</section>', (out / "report.html").read_text(), re.DOTALL)
    assert solutions.count("<article") == 10
