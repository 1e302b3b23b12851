"""A policy of seconds: a tiny model, fine-tuned on few problems of two numbers, and not always right on others."""

from __future__ import annotations

from clew.data.run import RunDirectory
from clew.models.architecture import SmallQwen3, build_model
from clew.models.policy import LocalPolicy
from clew.models.tokenizer import build_tokenizer
from clew.recipes.progress import Progress
from clew.recipes.sft import Sft, sft
from clew.recipes.stage import running, save_policy
from clew.tasks import Countdown

TASK = Countdown(count=2, high=20, target_high=60)
SPEC = "countdown:count=2,high=20,target_high=60"
SIZE = SmallQwen3(width=48, layers=2, heads=2, kv_heads=1, head_width=24, ffn_width=96, context=128)


def fine_tuned(directory, *, steps, keep=lambda policy: ()):
    """The run directory of the policy; its store has the groups that `keep` makes with it."""
    run = RunDirectory.create(directory / "run", {})
    policy = LocalPolicy(build_model(SIZE, build_tokenizer(), seed=0), build_tokenizer())
    problems = TASK.problems("train", 120, seed=0)
    with running("sft", run, Progress({"sft": 1.0}), total=steps) as stage:
        sft(Sft(steps=steps, rows=32, wider=0.0), policy=policy, task=TASK, problems=problems, seed=0, stage=stage)
        groups = list(keep(policy))
        if groups:
            stage.keep(groups)
        save_policy(policy, run, "sft")
    run.mark_done("sft", {})
    return run.path
