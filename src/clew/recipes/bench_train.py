"""Seconds of one step of reinforcement learning: `clew rl` as it is, against GRPOTrainer of TRL on the same weights.

Both take 8 problems x 8 samples of 32 new tokens, all float32 on the CPU, one update a step, no KL penalty. The
reward is the share of digits in the text, so that random weights get different rewards. A step runs from the end of
one update to the end of the next; start-up and each side's first steps are not counted.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from clew.core.seeds import derive_seed
from clew.core.types import Group, Outcome, Problem, Verdict
from clew.recipes.bench_rollout import NO_STOP, flops_per_token, peak_gflops, spread
from clew.recipes.rl import rl
from clew.recipes.rl_settings import PolicyGradient

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

    from clew.core.task import Task
    from clew.recipes.stage import Stage

PROBLEMS, SAMPLES, NEW_TOKENS = 8, 8, 32
STEPS, WARM_UP = 12, 3
"""Steps of one measurement, and those of them that are not counted."""
WITHOUT_TRL = "TRL is not installed, so there is nothing to compare with: pip install -c constraints.txt 'clew[bench]'"
OPTIMISERS = "clew: Muon (hidden matrices) and fused AdamW (the rest); TRL: its default, fused AdamW, which does less"


def measure_train(*, repeats: int, seed: int) -> dict[str, Any]:
    """Median seconds a step of both sides; `ratio` is the median of the ratios of neighbours in time."""
    from clew.models.architecture import SmallQwen3, build_model
    from clew.models.tokenizer import build_tokenizer
    from clew.tasks import make_task

    tokenizer = build_tokenizer()
    model = build_model(SmallQwen3(), tokenizer, derive_seed(seed, "weights")).eval()
    problems = make_task("countdown").problems("train", PROBLEMS * STEPS, derive_seed(seed, "bench problems"))
    peer = trl_installed()
    ours: list[float] = []
    theirs: list[float] = []
    for run in range(repeats):
        for side in (0, 1) if run % 2 == 0 else (1, 0):
            if side == 0:
                ours.append(clew_step_s(copy.deepcopy(model), tokenizer, problems, seed=derive_seed(seed, "run", run)))
            elif peer:
                theirs.append(trl_step_s(copy.deepcopy(model), tokenizer, problems, seed=run))
        shown = f", TRL {theirs[-1]:.3f} s" if theirs else ""
        print(f"{run + 1}/{repeats}: a step of clew {ours[-1]:.3f} s{shown}", file=sys.stderr)
    return {
        "clew_step_s": statistics.median(ours),
        "trl_step_s": statistics.median(theirs) if theirs else None,
        "vs_trl": _compared(ours, theirs) if theirs else None,
        **_against_the_machine(model, len(_prompt_ids(tokenizer, problems[0])), ours, theirs, repeats),
        "note": OPTIMISERS if theirs else WITHOUT_TRL,
        "spread": {"clew_step_s": spread(ours), **({"trl_step_s": spread(theirs)} if theirs else {})},
        "parameters": sum(p.numel() for p in model.parameters()),
        "samples": PROBLEMS * SAMPLES,
        "new_tokens": NEW_TOKENS,
        "steps": STEPS - WARM_UP,
    }


def trl_installed() -> bool:
    return importlib.util.find_spec("trl") is not None


def _compared(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    ratios = [t / c for c, t in zip(ours, theirs, strict=True)]
    versions = {name: importlib.metadata.version(name) for name in ("trl", "accelerate", "datasets")}
    return {"ratio": statistics.median(ratios), "spread": {"ratio": spread(ratios)}, "versions": versions}


def _against_the_machine(
    model: Qwen3ForCausalLM, prompt: int, ours: Sequence[float], theirs: Sequence[float], repeats: int
) -> dict[str, float | None]:
    """The share of the machine's peak that a step reaches, and the ratio to TRL that a step at the peak would have."""
    gflops = flops_per_step(model, prompt) / 1e9
    peak = peak_gflops(repeats)
    return {
        "gflops_per_step": gflops,
        "peak_gflops": peak,
        "share_of_peak": gflops / statistics.median(ours) / peak,
        "ratio_at_peak": statistics.median(theirs) * peak / gflops if theirs else None,
    }


def flops_per_step(model: Qwen3ForCausalLM, prompt: int) -> int:
    """Matrix products of sampling each token once and of one pass forward and, at twice its price, backward.

    A prompt is read once for its samples, also in training; logits are of the new tokens alone. Muon's products are
    left out. Samples that draw the same tokens share some of this work, so a step may do less.
    """
    config = model.config
    samples, context = PROBLEMS * SAMPLES, prompt + NEW_TOKENS // 2
    logits = 2 * config.hidden_size * config.vocab_size
    body = flops_per_token(model, context) - logits
    sampling = (samples * NEW_TOKENS) * (body + logits) + PROBLEMS * prompt * body
    forward = (PROBLEMS * prompt + samples * (NEW_TOKENS - 1)) * body + samples * NEW_TOKENS * logits
    return sampling + 3 * forward


def _prompt_ids(tokenizer: PreTrainedTokenizerFast, problem: Problem) -> list[int]:
    from clew.initialize.chat import render_problem

    return list(tokenizer.encode(render_problem(problem), add_special_tokens=False))


def share_of_digits(text: str) -> float:
    """
    >>> share_of_digits("a1 2")
    0.5
    """
    return sum(character.isdecimal() for character in text) / max(1, len(text))


@dataclass(frozen=True, slots=True)
class _Digits:
    """The part of a task that sampling asks: rewards the share of digits."""

    name: str = "digits"

    def verify(self, problem: Problem, text: str) -> Verdict:
        return Verdict(Outcome.WRONG, share_of_digits(text))

    def extract(self, text: str) -> str | None:
        return text


@dataclass(slots=True)
class _Clock:
    """Stands where the recipe has its stage: notes when each update ended and what it did, writes nothing."""

    name: str = "rl"
    ends: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    last_checkpoint: None = None

    def record(self, step: int, *, grad_norm: float = 0.0, **metrics: object) -> None:
        self.ends.append(time.perf_counter())
        self.grad_norms.append(grad_norm)

    def keep(self, groups: Sequence[Group]) -> None:
        """Keep nothing: storing is not part of a step."""


def clew_step_s(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], *, seed: int
) -> float:
    """Median seconds of a step of the recipe `rl` itself, its logged KL and entropy included."""
    from clew.models.engine import RolloutEngine
    from clew.models.policy import LocalPolicy

    policy = LocalPolicy(model, tokenizer)
    policy.engine = RolloutEngine(model, stop_ids=NO_STOP)
    clock = _Clock()
    settings = PolicyGradient(steps=STEPS, problems=PROBLEMS, group_size=SAMPLES, max_tokens=NEW_TOKENS)
    rl(
        settings,
        policy=policy,
        task=cast("Task", _Digits()),
        problems=problems,
        seed=seed,
        stage=cast("Stage", clock),
    )
    assert min(clock.grad_norms) > 0.0, "a step without an update is not a step"
    return _median_step(clock.ends)


def trl_step_s(model: Any, tokenizer: Any, problems: Sequence[Problem], *, seed: int) -> float:
    """Median seconds of a step of GRPOTrainer at its best here: nothing logged, saved, recomputed or cast."""
    from clew.initialize.chat import render_problem

    return _median_step(trl_ends(model, tokenizer, [render_problem(problem) for problem in problems], {"seed": seed}))


def trl_ends(model: Any, tokenizer: Any, prompts: Sequence[str], settings: Mapping[str, Any]) -> list[float]:
    """When each step of GRPOTrainer ended; `settings` are those that differ from `_trl_settings`."""
    from datasets import Dataset  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from transformers import TrainerCallback
    from trl import (  # type: ignore[import-not-found, import-untyped, attr-defined, unused-ignore]
        GRPOConfig,
        GRPOTrainer,
    )

    ends: list[float] = []

    class Ends(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ends.append(time.perf_counter())

    def reward(completions: list[str], **columns: Any) -> list[float]:
        return [share_of_digits(text) for text in completions]

    model.generation_config.eos_token_id = None
    # Whatever it prints belongs on standard error; it needs a directory even if it is to save nothing.
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as scratch:
        trainer = GRPOTrainer(
            model=model.train(),
            reward_funcs=reward,
            args=GRPOConfig(output_dir=scratch, **{**_trl_settings(), **settings}),
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
            processing_class=copy.deepcopy(tokenizer),
            callbacks=[Ends()],
        )
        trainer.train()
    return ends


def _trl_settings() -> dict[str, Any]:
    return {
        "use_cpu": True,
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": False,
        "max_steps": STEPS,
        "per_device_train_batch_size": PROBLEMS * SAMPLES,
        "num_generations": SAMPLES,
        "gradient_accumulation_steps": 1,
        "steps_per_generation": 1,
        "num_iterations": 1,
        "max_completion_length": NEW_TOKENS,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        # Every sample has all its tokens, as on the other side.
        "generation_kwargs": {"eos_token_id": None},
        "beta": 0.0,
        "scale_rewards": "none",
        "learning_rate": 4e-4,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _median_step(ends: Sequence[float]) -> float:
    steps = [later - earlier for earlier, later in pairwise(ends)]
    return statistics.median(steps[WARM_UP - 1 :])
