"""Budget forcing: thinking made longer by "Wait", or cut short by an answer cue (s1, arXiv 2501.19393, section 3.1)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, final

from clew.core.errors import InvalidValue
from clew.core.protocols import Encode, Request, SearchResult
from clew.core.types import FinishReason, Problem, Sampling, Span, State
from clew.search.grow import rate_nodes, sample_children, tell
from clew.search.guidance import Guide
from clew.search.record import BudgetExhausted
from clew.search.revision import best, check_at_least, latest, outcome
from clew.search.tree import Tree


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetForcing:
    """One response that thinks for at least `min_thinking` and at most `max_thinking` tokens.

    Thinking ends with the response, or, for a policy that marks the end of its thinking, with `sampling.step_ends`
    (`("</think>",)`). An end that comes too early is taken back and `wait` is told instead. clew's own small model
    goes on after the words `" no back"`, and its answer cue is `" answer"`.
    """

    min_thinking: int = 128
    """Tokens below which the end of thinking is suppressed; told ones count."""
    max_thinking: int = 384
    """Tokens at which thinking is cut off and the answer is asked for."""
    waits: int = 2
    """How often at most an end is suppressed."""
    wait: str = "Wait"
    answer_cue: str = "\nFinal Answer:"
    """Told where thinking is cut off; begins with the end-of-thinking mark if the policy has one."""
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=384))
    answering: Sampling = field(default_factory=lambda: Sampling(max_tokens=64))
    """How what follows the thinking is sampled."""
    guide: Guide | None = None
    """Who chooses among the ends that the policy wanted and the last one; None takes the last, as in the paper."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "min_thinking", "waits")
        if self.max_thinking < max(1, self.min_thinking):
            accepted = f"an integer of at least 1 and of at least min_thinking ({self.min_thinking})"
            raise InvalidValue("max_thinking", self.max_thinking, accepted, "raise it, or lower min_thinking")

    @property
    def name(self) -> str:
        return "budget-forcing"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        tree = Tree(problem)
        attempts: list[int] = []
        with suppress(BudgetExhausted):
            yield from self._respond(tree, attempts)
        chosen = latest(tree, attempts)
        if self.guide is not None:
            with suppress(BudgetExhausted):
                yield from rate_nodes(tree, attempts, self.guide)
                chosen = best(tree, attempts[::-1])
        return outcome(tree, attempts, chosen)

    def _respond(self, tree: Tree, attempts: list[int]) -> Generator[Request, Any, None]:
        node, waits = 0, self.waits
        while (room := self.max_thinking - len(tree.states[node].tokens)) > 0:
            limited = replace(self.sampling, max_tokens=min(room, self.sampling.max_tokens))
            ((node,),) = yield from sample_children(tree, [node], 1, limited)
            last = tree.completions[node]
            if last is not None and last.finish is FinishReason.LENGTH:
                continue
            if tree.states[node].finished:
                attempts.append(node)
            if waits == 0 or len(tree.states[node].tokens) - 1 >= self.min_thinking:
                break
            waits -= 1
            node = yield from self._suppress_end(tree, node)
        else:
            (node,) = yield from tell(tree, [node], [self.answer_cue])
        if not tree.states[node].finished:
            (answers,) = yield from sample_children(tree, [node], 1, self.answering)
            attempts += answers

    def _suppress_end(self, tree: Tree, node: int) -> Generator[Request, Any, int]:
        (wait,) = yield Encode((self.wait,))
        return tree.add(node, without_end(tree.states[node]).told(tuple(wait)), made=tree.made[-1] + 1)


def without_end(state: State) -> State:
    """`state` without the token that ended its last step: a stop token, or the mark of the end of thinking."""
    *earlier, last = state.steps
    return State(state.problem, state.tokens[:-1], (*earlier, Span(last.start, last.stop - 1)), parent=state.parent)
