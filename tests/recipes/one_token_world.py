"""A world that can be enumerated: an answer is one token, and half of the words are right.

The policy is a small Qwen3, so everything between sampling and saving is real, and its chance of being right is a sum
over the vocabulary.
"""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clew.core.types import Message, Outcome, Problem, Verdict
from clew.data.run import RunDirectory
from clew.models.architecture import SmallQwen3, build_model
from clew.models.policy import LocalPolicy
from clew.models.tokenizer import build_tokenizer
from clew.models.tuning import Tuning
from clew.recipes.learner import Learner
from clew.recipes.progress import Progress
from clew.recipes.stage import Stage, running

SIZE = SmallQwen3(width=40, layers=1, heads=2, kv_heads=1, head_width=20, ffn_width=48, context=64)
PROBLEMS = [Problem(f"half:{at}", "half", (Message("user", text),)) for at, text in enumerate(("1", "2", "3", "4"))]
RIGHT = "right"


@dataclass(frozen=True)
class Half:
    """Right is every answer whose bytes add up to a multiple of `every`: about one in so many."""

    every: int = 2
    name: str = "half"

    def verify(self, problem: Problem, text: str) -> Verdict:
        right = bool(text) and sum(text.encode()) % self.every == 0
        return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), text)

    def extract(self, text: str) -> str | None:
        return text

    def gold(self, problem: Problem) -> str:
        return RIGHT


def policy(seed: int = 0) -> LocalPolicy:
    tokenizer = build_tokenizer()
    return LocalPolicy(build_model(SIZE, tokenizer, seed), tokenizer)


def learner(tuning: Tuning | None = None, seed: int = 0) -> Learner:
    return Learner(policy(seed), tuning)


def distribution(who: Any, problem: Problem = PROBLEMS[0]) -> torch.Tensor:
    """Exact probabilities [vocabulary] of the one token."""
    ids = torch.tensor([who.prompt_ids(problem)])
    with torch.no_grad():
        logits = who.policy.model(input_ids=ids).logits
    return logits[0, -1].double().softmax(-1)


def right_mask(who: Any, task: Half) -> torch.Tensor:
    """Which tokens [vocabulary] are right answers."""
    decode = who.policy.codec.decode
    return torch.tensor([task.verify(PROBLEMS[0], decode((token,))).right for token in range(len(who.tokenizer))])


def chance(who: Any, task: Half) -> float:
    """Mean probability of being right over the problems."""
    mask = right_mask(who, task)
    return sum(float(distribution(who, problem)[: len(mask)][mask].sum()) for problem in PROBLEMS) / len(PROBLEMS)


def stage(directory: Path, name: str = "distill") -> AbstractContextManager[Stage]:
    run = RunDirectory.create(directory, {})
    return running(name, run, Progress({name: 1.0}, stream=io.StringIO()), total=1.0)
