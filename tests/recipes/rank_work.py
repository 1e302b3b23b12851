"""What one process and two are to learn alike. As a rank, with a directory, this file leaves there what it learnt."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from pathlib import Path

from safetensors.torch import save_file
from small_policy import TASK

from clew.core.types import Outcome, Verdict
from clew.data.run import RunDirectory
from clew.learn.batch import Example, pad
from clew.learn.gradients import sum_gradients
from clew.learn.ranks import here
from clew.models.forward import token_logprobs
from clew.recipes.progress import Progress
from clew.recipes.rl import rl
from clew.recipes.rl_settings import CriticSettings, ImplicitSettings, PolicyGradient, StepSettings, TreeSettings
from clew.recipes.stage import load_policy, running
from clew.scale.launch import as_rank, standing

FEW = {"steps": 3, "problems": 4, "group_size": 4, "max_tokens": 24, "lr_matrix": 5e-4, "lr_other": 2e-5}
"""Muon and AdamW make as much of what is only rounding in a gradient as of the rest: at high rates it would show."""
CASES = {
    "grpo": {"algorithm": "grpo"},
    "reinforce++": {"algorithm": "reinforce++"},
    "ppo": {"algorithm": "ppo", "critic": CriticSettings(body="own")},
    "dapo": {"algorithm": "dapo", "draws": 3},
    "three groups": {"problems": 3},
    "one group": {"problems": 1},
    "partial": {"partial": 12},
    "remax": {"algorithm": "remax"},
    # Its first rewards are differences of log-probs; they are to be larger than their rounding, which is whitened too.
    "prime": {"algorithm": "prime", "implicit": ImplicitSettings(lr_scale=20.0)},
    "vineppo": {"algorithm": "vineppo", "step_credit": StepSettings(rollouts=2), "steps": 2},
    "tree": {
        "algorithm": "tree",
        "tree": TreeSettings(strategy="mcts:iterations=8,width=2", step_tokens=3),
        "steps": 1,
    },
    "reinforce": {"algorithm": "reinforce", "noise_scale": 1, "asynchronous": True},
}


class Forgetful:
    """The task's verifier, which cannot judge some of the texts."""

    name = TASK.name

    def verify(self, problem, text):
        return Verdict(Outcome.UNSCORED, None, None) if len(text) % 11 == 0 else TASK.verify(problem, text)

    def extract(self, text):
        return TASK.extract(text)


def learnt(name, checkpoint):
    """The weights after a few updates, and the metrics."""
    policy = load_policy(checkpoint)
    with tempfile.TemporaryDirectory() as directory:
        run = RunDirectory.create(Path(directory) / "run", {})
        with running("rl", run, Progress({"rl": 1.0}, stream=io.StringIO()), total=1.0) as stage:
            settings = PolicyGradient(**{**FEW, **CASES[name]})
            rl(settings, policy=policy, task=Forgetful(), problems=TASK.problems("train", 12, 0), seed=0, stage=stage)
        rows = run.metrics("rl")
    return {key: value.clone().contiguous() for key, value in policy.model.state_dict().items()}, rows


def one_gradient(checkpoint, rows):
    """The summed gradient of `rows` right answers, which may be fewer than there are ranks."""
    policy = load_policy(checkpoint)
    examples = [
        Example(prompt_ids=policy.prompt_ids(problem, "direct"), response_ids=range(5, 8 + at))
        for at, problem in enumerate(TASK.problems("train", rows, 0))
    ]

    def loss_of(chosen):
        batch = pad([examples[row] for row in chosen])
        part = -token_logprobs(policy.model, batch.input_ids, batch.targets, batch.target_mask).logprobs.sum()
        return part, (part.item(), batch.targets[batch.target_mask])

    lengths = [example.length for example in examples]
    noted = sum_gradients(policy.model, lengths, loss_of, tokens_per_pass=64)
    gradients = {name: p.grad for name, p in policy.model.named_parameters()}
    return gradients, sum(loss for loss, _ in noted), sum(len(targets) for _, targets in noted)


def work(checkpoint, out, names):
    """What a rank does with the run at `checkpoint`; each leaves its own files in `out`."""
    rank = here().rank
    for name in names:
        weights, rows = learnt(name, checkpoint)
        save_file(weights, out / f"{name} {rank}.safetensors")
        (out / f"{name} {rank}.json").write_text(json.dumps(rows))
    for rows in (1, 7):
        gradients, loss, tokens = one_gradient(checkpoint, rows)
        save_file(gradients, out / f"{rows} rows {rank}.safetensors")
        (out / f"{rows} rows {rank}.json").write_text(json.dumps([loss, tokens]))
    return 0


if __name__ == "__main__":
    place = standing(os.environ)
    assert place is not None
    checkpoint, out, *names = sys.argv[1:]
    sys.exit(as_rank(place[0], lambda: work(Path(checkpoint), Path(out), names)))
