"""Preference pairs: two ways to go on from the same state, one better than the other.

From solutions (`pairs_of_groups`, `pairs_of_solutions`): right against wrong ones of a problem. From a tree
(`pairs_of_tree`): siblings by their value (MCTS-DPO, arXiv 2405.00451), which share everything before the step. The
loss of a pair is that of `clew.learn.preference` on `prompt + prefix`, `chosen`, `rejected`; tokens are those sampled.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, final

from clew.core.errors import InvalidValue
from clew.core.types import Group, Problem, State
from clew.data.distinct import by_chance
from clew.data.expert import Solution, solutions_of_groups
from clew.data.origin import Origin
from clew.data.tree_steps import Measure, MeasureOf, Step, backed_up, rollouts, steps_of
from clew.search.tree import Tree


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A state and two continuations of it."""

    problem: Problem
    prefix: tuple[int, ...] = ()
    """The response so far, which both go on from; it carries no loss."""
    chosen: tuple[int, ...]
    """The better continuation: a step, or all of a solution with its stop token."""
    rejected: tuple[int, ...]
    """The worse one."""
    chosen_value: float
    rejected_value: float
    prefix_text: str = ""
    chosen_text: str = ""
    rejected_text: str = ""
    chosen_visits: int = 0
    """Visits of the search behind the value; 0 for solutions, which were judged."""
    rejected_visits: int = 0
    chosen_origin: Origin = field(default_factory=Origin)
    rejected_origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        if not self.chosen_value > self.rejected_value:
            given = f"{self.chosen_value} against {self.rejected_value}"
            raise InvalidValue(
                "value of the chosen against the rejected", given, "a higher one", "swap or drop the pair"
            )
        if self.chosen == self.rejected:
            accepted = "two different continuations"
            raise InvalidValue("rejected", "the same tokens as chosen", accepted, "drop the pair")

    @property
    def margin(self) -> float:
        """How much better the chosen is: above 0."""
        return self.chosen_value - self.rejected_value


class PairIds(NamedTuple):
    """Token ids of a pair as a model reads them; each response follows the prompt."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def ids_of(pair: Pair, prompt_ids: Sequence[int]) -> PairIds:
    """The ids of `pair` after `prompt_ids`, those of its problem (`LocalPolicy.prompt_ids(pair.problem, mode)`)."""
    return PairIds((*prompt_ids, *pair.prefix), pair.chosen, pair.rejected)


def pair_key(pair: Pair) -> tuple[object, ...]:
    """What makes two pairs the same: problem, state and both continuations."""
    return (pair.problem.id, pair.problem.prompt, pair.prefix, pair.chosen, pair.rejected)


Prefers = Callable[[Solution, Solution], bool]
"""Whether the first solution is better than the second, whatever their rewards."""


def right_over_wrong(better: Solution, worse: Solution) -> bool:
    """Whether the environment said so; a solution that could not be judged is in no pair."""
    return better.right and worse.wrong


def rewarded_over(better: Solution, worse: Solution) -> bool:
    """Whether both have a reward: the margin says the rest. For tasks without a verifier."""
    return better.value is not None and worse.value is not None


def pairs_of_groups(
    groups: Iterable[Group],
    *,
    prefers: Prefers = right_over_wrong,
    margin: float = 0.0,
    cap: int | None = None,
    seed: int = 0,
    run: str = "",
) -> list[Pair]:
    """Pairs of whole solutions of each problem of `groups`; settings as of `pairs_of_solutions`."""
    return pairs_of_solutions(solutions_of_groups(groups, run=run), prefers=prefers, margin=margin, cap=cap, seed=seed)


def pairs_of_solutions(
    solutions: Iterable[Solution],
    *,
    prefers: Prefers = right_over_wrong,
    margin: float = 0.0,
    cap: int | None = None,
    seed: int = 0,
) -> list[Pair]:
    """Pairs of solutions of the same prompt of which the first is preferred, with the higher reward by `margin`.

    Solutions of the same tokens count once. With a `cap`, so many pairs a problem: those whose solutions are in the
    fewest pairs so far, of these those of the widest margin, of these a choice that derives from `seed`.
    """
    _check(margin, cap)
    of: defaultdict[object, dict[tuple[int, ...], Solution]] = defaultdict(dict)
    for one in solutions:
        # One without a reward is in no pair, and must not stand in for its twin that has one.
        if one.value is not None:
            of[one.problem.id, one.problem.prompt].setdefault(one.tokens, one)
    found = []
    for alike in of.values():
        every = list(alike.values())
        candidates = [_of_solutions(a, b) for a in every for b in every if prefers(a, b) and _wider(a, b, margin)]
        found += candidates if cap is None else _spread(candidates, cap, seed)
    return found


def _wider(better: Solution, worse: Solution, margin: float) -> bool:
    if better.value is None or worse.value is None:
        return False
    return better.value > worse.value and better.value - worse.value >= margin


def _of_solutions(better: Solution, worse: Solution) -> Pair:
    assert better.value is not None
    assert worse.value is not None
    return Pair(
        problem=better.problem,
        chosen=better.tokens,
        rejected=worse.tokens,
        chosen_value=better.value,
        rejected_value=worse.value,
        chosen_text=better.text,
        rejected_text=worse.text,
        chosen_origin=better.origin,
        rejected_origin=worse.origin,
    )


def _spread(candidates: Sequence[Pair], cap: int, seed: int) -> list[Pair]:
    """`cap` of the candidates, no solution in many pairs while another is in few."""
    used: Counter[tuple[int, ...]] = Counter()
    left = sorted(candidates, key=lambda pair: (-pair.margin, _chance(pair, seed)))
    chosen: list[Pair] = []
    while left and len(chosen) < cap:
        best = min(left, key=lambda pair: (used[pair.chosen] + used[pair.rejected], -pair.margin))
        left.remove(best)
        used.update((best.chosen, best.rejected))
        chosen.append(best)
    return chosen


def _chance(pair: Pair, seed: int) -> int:
    return by_chance(seed, pair.problem.id, str(pair.prefix), str(pair.chosen), str(pair.rejected))


def pairs_of_tree(  # noqa: PLR0913  one tree, the rest by name
    tree: Tree,
    *,
    measure: MeasureOf = backed_up,
    margin: float = 0.0,
    min_visits: int = 1,
    every: bool = False,
    text: Callable[[State], str] = lambda state: "",
    origin: Origin | None = None,
) -> list[Pair]:
    """Pairs of siblings of `tree` that differ in value by `margin` or more, each visited at least `min_visits` times.

    Of each node the best step against the worst, of equals the first made; with `every`, all that differ so. Values
    and visits are those of `measure`. Steps of the same tokens are one; told text and roll-outs are in no pair. No pair
    for a node with one step, or whose steps are all worth the same.
    """
    _check(margin, None)
    worth, rolled_out = measure(tree), rollouts(tree)
    found: list[Pair] = []
    for node in range(len(tree)):
        rated = [step for step in steps_of(tree, node, rolled_out) if worth.count(step.nodes) >= max(1, min_visits)]
        for better, worse in _compared(rated, worth, every=every):
            if worth_of(worth, better) - worth_of(worth, worse) >= margin and _same_state(better, worse):
                # Text of the node itself: the parent that a state remembers may have been opened again.
                shared = text(tree.states[node]) if better.before else ""
                pair = _of_steps(better, worse, worth, (shared, text(better.state), text(worse.state)))
                found.append(_placed(pair, origin or Origin(), better.nodes[0], worse.nodes[0]))
    return found


def worth_of(worth: Measure, step: Step) -> float:
    """Mean of what was counted at the step."""
    value = worth.value(step.nodes)
    assert value is not None
    return value


def _compared(steps: Sequence[Step], worth: Measure, *, every: bool) -> list[tuple[Step, Step]]:
    """Pairs of which the first is worth more than the second."""
    if not steps:
        return []
    values = [worth_of(worth, step) for step in steps]
    if every:
        places = [(a, b) for a in range(len(steps)) for b in range(len(steps))]
    else:
        places = [(values.index(max(values)), values.index(min(values)))]
    return [(steps[a], steps[b]) for a, b in places if values[a] > values[b]]


def _same_state(one: Step, other: Step) -> bool:
    return one.before == other.before and one.state.problem == other.state.problem


def _of_steps(better: Step, worse: Step, worth: Measure, texts: tuple[str, str, str]) -> Pair:
    shared, chosen, rejected = texts
    return Pair(
        problem=better.state.problem,
        prefix=better.before,
        chosen=better.tokens,
        rejected=worse.tokens,
        chosen_value=worth_of(worth, better),
        rejected_value=worth_of(worth, worse),
        prefix_text=shared,
        chosen_text=chosen.removeprefix(shared),
        rejected_text=rejected.removeprefix(shared),
        chosen_visits=worth.count(better.nodes),
        rejected_visits=worth.count(worse.nodes),
    )


def _placed(pair: Pair, origin: Origin, chosen: int, rejected: int) -> Pair:
    return replace(pair, chosen_origin=replace(origin, node=chosen), rejected_origin=replace(origin, node=rejected))


def _check(margin: float, cap: int | None) -> None:
    if not margin >= 0.0:
        raise InvalidValue("margin", margin, "a number of at least 0", "use 0 for every difference")
    if cap is not None and cap < 1:
        raise InvalidValue("cap", cap, "an integer of at least 1, or none for all pairs", "raise it")
