"""A reward from demonstrations alone: how much likelier than the policy the expert is to have written a text.

An expert who maximises E[r] - KL(expert || policy) writes in proportion to policy * exp(r), so for each problem
r = log expert/policy up to a constant: the inverse of KL-regularised reinforcement learning. A classifier that tells
demonstrations from the policy's own solutions of the same problems (the discriminator of GAIL, arXiv 1606.03476, and
AIRL, arXiv 1710.11248) has that log-ratio as its logit when its cross-entropy is least. Taken after every prefix the
logit is a soft value; its increments are rewards of steps that add up to r, a potential-based shaping of it.

No verdict is used. If the expert writes as the policy does when it is right, then r = log P(right | text), up to that
constant. Where he has habits of his own they are rewarded, too: that is what demonstrations cannot tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np

from clew.core.types import Completion, State
from clew.initialize.chat import render_problem
from clew.models.tokenizer import FastCodec
from clew.models.value_head import ValueReader, load_value_checkpoint
from clew.reward.fit import Labelled, outcome_labels
from clew.reward.process import prompt_ids
from clew.search.guides.tokens_read import TokensRead

Ids = tuple[int, ...]
LARGEST = 1.0 - 1e-6
"""Probabilities are kept from 1 and 0 by as much, so that their logits are finite."""


def contrast(
    prompts: Sequence[Ids], shown: Sequence[Ids], own: Sequence[Ids], *, end_weight: float = 1.0
) -> list[Labelled]:
    """Examples for the classifier: every prefix of what was `shown` labelled 1, of the policy's `own` labelled 0.

    The three go together problem by problem, so that no problem says by itself who answered it.
    """
    pairs = zip(prompts, shown, own, strict=True)
    return [
        outcome_labels(prompt, response, label, end_weight=end_weight)
        for prompt, demonstration, sample in pairs
        for response, label in ((demonstration, 1.0), (sample, 0.0))
    ]


def log_ratios(probs: Sequence[float]) -> list[float]:
    """log expert/policy, nats, where the classifier says the expert wrote it with these probabilities.

    >>> log_ratios([0.5])
    [0.0]
    """
    clipped = np.array(probs, dtype=np.float64).clip(1.0 - LARGEST, LARGEST)
    return (np.log(clipped) - np.log1p(-clipped)).tolist()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DemonstratedReward:
    """Scorer: log expert/policy of what was written so far, nats: the soft value of a state, the reward of a solution.

    Only differences between texts on one problem mean anything.
    """

    reader: ValueReader
    codec: FastCodec
    mode: str = "think"
    """Which generation prompt the responses were given."""
    _read: TokensRead = field(default_factory=TokensRead, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return "demonstrated"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        """Raises `InvalidValue` for a state that is longer than the model's context."""
        readings = self.reader.read([self._context(state) for state in states])
        for state, reading in zip(states, readings, strict=True):
            self._read.note(state, reading.computed)
        return log_ratios([float(reading.probs[-1]) for reading in readings])

    def cost_tokens(self, states: Sequence[State]) -> int:
        """Tokens that were computed for `states` since last asked; before scoring, those that would be."""
        return self._read.take(states, lambda state: self.reader.unread(self._context(state)))

    def _context(self, state: State) -> Ids:
        return prompt_ids(self.codec, render_problem(state.problem, self.mode)) + state.tokens


def load_demonstrated_reward(path: Path, *, mode: str = "think", cache_bytes: int = 1 << 28) -> DemonstratedReward:
    """The scorer of the checkpoint that `clew.recipes.inverse_rl` wrote at `path`."""
    model, tokenizer = load_value_checkpoint(path)
    reader = ValueReader(model, cache_bytes=cache_bytes)
    return DemonstratedReward(reader=reader, codec=FastCodec(tokenizer), mode=mode)
