"""Training data as the examples that updates take: the exact tokens, after the prompt that the policy reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from clew.core.types import Problem
from clew.data.expert import Solution
from clew.data.pairs import Pair, PairIds, ids_of
from clew.data.search_data import Action
from clew.data.targets import Target

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


def action_example(action: Action, prompt_ids: PromptIds, *, advantage: float = 1.0) -> Example:
    """One step after its state, which carries no loss."""
    from clew.learn.batch import Example

    return Example(
        prompt_ids=(*prompt_ids(action.problem), *action.prefix),
        response_ids=action.tokens,
        logprobs=action.logprobs,
        advantage=advantage,
    )


def target_examples(target: Target, prompt_ids: PromptIds) -> list[Example]:
    """A step of probability above 0 each, with that as its advantage.

    The sum of advantage times negative log-likelihood over them is the cross-entropy from pi, AlphaZero's policy loss.
    """
    from clew.learn.batch import Example

    state = (*prompt_ids(target.problem), *target.prefix)
    return [
        Example(prompt_ids=state, response_ids=tokens, advantage=share)
        for tokens, share in zip(target.actions, target.probabilities, strict=True)
        if share > 0.0
    ]


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
