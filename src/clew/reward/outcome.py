"""The outcome reward model: one score of a finished answer, learnt by classifying right and wrong ones.

Its checkpoint is a `...ForSequenceClassification` of transformers with one label, whatever the body. It is trained by
`clew.reward.fit.value_step` on `clew.reward.fit.final_label`: binary cross-entropy at the last token and nowhere else
(arXiv 2110.14168).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

from clew.core.types import Completion, Problem, State
from clew.models.any_backbone import classifier_of
from clew.models.plain_reader import Reads
from clew.search.guides.tokens_read import TokensRead

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LABEL = "right"


def outcome_model_of(policy: PreTrainedModel) -> PreTrainedModel:
    """A sequence classifier with a copy of the body of `policy`, which says 0.5 of everything until it is trained."""
    from transformers import AutoModelForSequenceClassification

    return classifier_of(policy, AutoModelForSequenceClassification, label=LABEL)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HeadReward:
    """Scorer: sigmoid of what a scalar head says at the last token of the state.

    Of an outcome model that is P(right); of a preference model, P(preferred to an answer of reward 0); of a process
    model, P(right in the end). An outcome or preference model knows finished states only: of others it says little.
    """

    reader: Reads
    prompt_ids: Callable[[Problem], tuple[int, ...]]
    """Token ids of the prompt, as they stood before the responses that the model learnt from."""
    name: str = "outcome-reward"
    _read: TokensRead = field(default_factory=TokensRead, init=False, repr=False, compare=False)

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        """Raises `InvalidValue` for a state that is longer than the model's context."""
        readings = self.reader.read([self._context(state) for state in states])
        for state, reading in zip(states, readings, strict=True):
            self._read.note(state, reading.computed)
        return [float(reading.probs[-1]) for reading in readings]

    def cost_tokens(self, states: Sequence[State]) -> int:
        """Tokens that were computed for `states` since last asked; before scoring, those that would be."""
        return self._read.take(states, lambda state: self.reader.unread(self._context(state)))

    def _context(self, state: State) -> tuple[int, ...]:
        return self.prompt_ids(state.problem) + state.tokens
