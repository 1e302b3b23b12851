"""The learned process model as a guide: P(right in the end) of what was written so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import final

from clew.core.types import Completion, State
from clew.initialize.chat import render_problem
from clew.models.tokenizer import FastCodec
from clew.models.value_head import ValueReader, load_value_checkpoint
from clew.search.guides.tokens_read import TokensRead


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReward:
    """Scorer: probability, by a value model, that the response ends right, at the last token of the state.

    With `aggregate` the value after every step is asked instead and the list of them made one number (`min`, or one of
    `clew.stats.step_scores`): how whole solutions are rated by a process model.
    """

    reader: ValueReader
    codec: FastCodec
    mode: str = "think"
    """Which generation prompt the responses were given."""
    aggregate: Callable[[Sequence[float]], float] | None = None
    step_ends: tuple[str, ...] = ()
    """For `aggregate`: a step ends with a token whose text contains one of these; (), where the search ended it."""
    _read: TokensRead = field(default_factory=TokensRead, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return "process-reward"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        """Raises `InvalidValue` for a state that is longer than the value model's context."""
        contexts = [self._context(state) for state in states]
        readings = self.reader.read(contexts)
        for state, reading in zip(states, readings, strict=True):
            self._read.note(state, reading.computed)
        if self.aggregate is None:
            return [float(reading.probs[-1]) for reading in readings]
        ends = [self._ends(state, len(context)) for state, context in zip(states, contexts, strict=True)]
        return [self.aggregate(reading.probs[stops].tolist()) for reading, stops in zip(readings, ends, strict=True)]

    def score_prefixes(self, states: Sequence[State], stops: Sequence[Sequence[int]]) -> list[list[float]]:
        """Probabilities after so many tokens of each state, 0 for its prompt alone, in one reading of it."""
        contexts = [self._context(state) for state in states]
        readings = self.reader.read(contexts)
        for state, reading in zip(states, readings, strict=True):
            self._read.note(state, reading.computed)
        rows = zip(states, contexts, readings, stops, strict=True)
        return [
            [float(reading.probs[len(context) - len(state.tokens) + stop - 1]) for stop in own]
            for state, context, reading, own in rows
        ]

    def cost_tokens(self, states: Sequence[State]) -> int:
        """Tokens that were computed for `states` since last asked; before scoring, those that would be."""
        return self._read.take(states, lambda state: self.reader.unread(self._context(state)))

    def _context(self, state: State) -> tuple[int, ...]:
        return prompt_ids(self.codec, render_problem(state.problem, self.mode)) + state.tokens

    def _ends(self, state: State, length: int) -> list[int]:
        """Places in the context of the tokens that end a step of `state`; its last token is one."""
        prompt = length - len(state.tokens)
        if self.step_ends:
            pieces = [self.codec.decode((token,)) for token in state.tokens]
            stops = {at + 1 for at, piece in enumerate(pieces) if any(end in piece for end in self.step_ends)}
        else:
            stops = {span.stop for span in state.steps}
        return sorted(prompt + stop - 1 for stop in stops | {len(state.tokens)})


@lru_cache(maxsize=1 << 14)
def prompt_ids(codec: FastCodec, text: str) -> tuple[int, ...]:
    """Token ids of a rendered prompt."""
    return tuple(codec.encode(text))


def load_process_reward(path: Path, *, mode: str = "think", cache_bytes: int = 1 << 28) -> ProcessReward:
    """The scorer of the value checkpoint at `path`, which keeps what it read in a cache of `cache_bytes`."""
    model, tokenizer = load_value_checkpoint(path)
    return ProcessReward(reader=ValueReader(model, cache_bytes=cache_bytes), codec=FastCodec(tokenizer), mode=mode)
