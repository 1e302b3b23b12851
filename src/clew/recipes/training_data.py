"""Training data as the examples that updates take: the exact tokens, after the prompt that the policy reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from clew.core.types import Problem
from clew.data.expert import Solution
from clew.data.pairs import Pair, PairIds, ids_of

if TYPE_CHECKING:
    from clew.learn.batch import Example
    from clew.models.policy import LocalPolicy

PromptIds = Callable[[Problem], Sequence[int]]


def prompts_of(policy: LocalPolicy, mode: str = "think") -> PromptIds:
    """The ids of a problem's prompt as `policy` reads it in `mode`."""
    return lambda problem: policy.prompt_ids(problem, mode)


def solution_example(solution: Solution, prompt_ids: PromptIds, *, advantage: float = 1.0) -> Example:
    """A whole response; text that was told carries no loss."""
    from clew.learn.batch import Example

    return Example(
        prompt_ids=tuple(prompt_ids(solution.problem)),
        response_ids=solution.tokens,
        logprobs=solution.logprobs,
        advantage=advantage,
        learnt=solution.learnt,
    )


def pair_ids(pairs: Sequence[Pair], prompt_ids: PromptIds) -> list[PairIds]:
    """Ids of prompt, chosen and rejected of each pair."""
    return [ids_of(pair, prompt_ids(pair.problem)) for pair in pairs]


def pair_examples(pairs: Sequence[Pair], prompt_ids: PromptIds) -> list[tuple[Example, Example]]:
    """Chosen and rejected of each pair as examples, whose log-probs `token_logprobs` of one batch gives."""
    from clew.learn.batch import Example

    return [
        (
            Example(prompt_ids=ids.prompt, response_ids=ids.chosen),
            Example(prompt_ids=ids.prompt, response_ids=ids.rejected),
        )
        for ids in pair_ids(pairs, prompt_ids)
    ]
