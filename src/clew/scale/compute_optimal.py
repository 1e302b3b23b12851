"""Compute-optimal test time (arXiv 2408.03314, section 3): for each difficulty and budget the strategy that does best.

Difficulty is predicted without the answer. What was measured on a calibration set is divided into bins of equal size by
predicted difficulty; each bin and budget gets its most accurate strategy, and cross-validation says what that is worth
on problems that had no part in the choice.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple, TypeVar

from clew.core.errors import InvalidValue
from clew.stats.intervals import Rate, wilson

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Measured:
    """One search of the calibration run: a strategy on a problem under a budget."""

    problem_id: str
    difficulty: float
    """Predicted without the answer; the higher, the harder."""
    strategy: str
    """Name and settings, as `--strategy` takes them."""
    budget: int
    """The ceiling the search was held to, in tokens."""
    right: bool
    tokens: int
    """What it consumed."""


class Cell(NamedTuple):
    """A difficulty bin, from 0 for the easiest, and a budget in tokens."""

    bin: int
    budget: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Which strategy to use for which predicted difficulty and budget."""

    edges: tuple[float, ...]
    """Difficulties that part neighbouring bins, ascending; a problem on an edge belongs to the harder bin."""
    choice: Mapping[Cell, str] = field(default_factory=dict)

    def strategy(self, difficulty: float, budget: int) -> str:
        """The choice of the bin at the largest calibrated budget that `budget` covers, or else at the least."""
        return self.column(budget)[bin_of(difficulty, self.edges)]

    def column(self, budget: int) -> tuple[str, ...]:
        """The choices at that budget, one a bin, the easiest first."""
        budgets = sorted({cell.budget for cell in self.choice})
        covered = ([known for known in budgets if known <= budget] or budgets[:1])[-1]
        return tuple(self.choice[Cell(at, covered)] for at in range(len(self.edges) + 1))


class Validated(NamedTuple):
    """Accuracy at one budget on problems that had no part in the choices."""

    budget: int
    optimal: Rate
    """The plan's choice for each problem's bin."""
    fixed: Rate
    """One strategy for all problems, chosen on the same training folds: what difficulty adds to is this."""
    each: Mapping[str, Rate]
    """Every strategy alone."""


def edges_of(difficulties: Iterable[float], bins: int) -> tuple[float, ...]:
    """Quantiles that divide `difficulties` into `bins` parts of equal size, as far as ties allow.

    >>> edges_of([1, 2, 3, 4], 2)
    (3,)
    """
    if bins < 1:
        raise InvalidValue("difficulty bins", bins, "an integer of at least 1", "use 1 not to divide by difficulty")
    ordered = sorted(difficulties)
    if not ordered:
        raise InvalidValue("calibration rows", 0, "at least one measured search", "run the calibration first")
    cuts = [ordered[len(ordered) * part // bins] for part in range(1, bins)]
    return tuple(cut for cut in dict.fromkeys(cuts) if cut > ordered[0])


def bin_of(difficulty: float, edges: Sequence[float]) -> int:
    """The bin of `difficulty`: how many edges it has reached."""
    return bisect_right(edges, difficulty)


def plan(rows: Sequence[Measured], bins: int = 5) -> Plan:
    """The most accurate strategy of each bin and budget; of equals the one that consumed less, then by name."""
    edges = edges_of({row.problem_id: row.difficulty for row in rows}.values(), bins)
    cells = _grouped(rows, lambda row: Cell(bin_of(row.difficulty, edges), row.budget))
    by_budget = _grouped(rows, lambda row: row.budget)
    # A bin that a fold has emptied is served by what is best for all.
    choice = {
        Cell(at, budget): _best(cells.get(Cell(at, budget), every))
        for at in range(len(edges) + 1)
        for budget, every in by_budget.items()
    }
    return Plan(edges, choice)


def cross_validate(rows: Sequence[Measured], *, bins: int = 5, folds: int = 5, seed: int = 0) -> list[Validated]:
    """What a plan is worth at each budget: made on all folds but one, judged on that one, in turn.

    Problems are divided, not rows, so a problem never judges a plan that it helped to make. Raises `InvalidValue` where
    there are fewer problems than folds, or where a strategy was not measured on all problems of a budget.
    """
    problems = sorted({row.problem_id for row in rows}, key=lambda name: _shuffled(name, seed))
    if not 2 <= folds <= len(problems):
        raise InvalidValue("folds", folds, f"2 to the {len(problems)} problems measured", "measure more, or fold less")
    _check_complete(rows, problems)
    fold_of = {name: at % folds for at, name in enumerate(problems)}
    optimal: defaultdict[int, list[bool]] = defaultdict(list)
    fixed: defaultdict[int, list[bool]] = defaultdict(list)
    for fold in range(folds):
        seen = [row for row in rows if fold_of[row.problem_id] != fold]
        made = plan(seen, bins)
        overall = {budget: _best(every) for budget, every in _grouped(seen, lambda row: row.budget).items()}
        for row in rows:
            if fold_of[row.problem_id] == fold:
                if row.strategy == made.strategy(row.difficulty, row.budget):
                    optimal[row.budget].append(row.right)
                if row.strategy == overall[row.budget]:
                    fixed[row.budget].append(row.right)
    return [
        Validated(
            budget,
            wilson(sum(optimal[budget]), len(optimal[budget])),
            wilson(sum(fixed[budget]), len(fixed[budget])),
            {
                name: wilson(sum(row.right for row in of_one), len(of_one))
                for name, of_one in sorted(_grouped(every, lambda row: row.strategy).items())
            },
        )
        for budget, every in sorted(_grouped(rows, lambda row: row.budget).items())
    ]


def _best(rows: Sequence[Measured]) -> str:
    by_strategy = _grouped(rows, lambda row: row.strategy)
    return min(
        by_strategy,
        key=lambda name: (
            -fmean(row.right for row in by_strategy[name]),
            fmean(row.tokens for row in by_strategy[name]),
            name,
        ),
    )


def _grouped(rows: Iterable[Measured], key: Callable[[Measured], Key]) -> dict[Key, list[Measured]]:
    found: defaultdict[Key, list[Measured]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return dict(found)


def _shuffled(name: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()


def _check_complete(rows: Sequence[Measured], problems: Sequence[str]) -> None:
    for (strategy, budget), measured in _grouped(rows, lambda row: (row.strategy, row.budget)).items():
        ids = [row.problem_id for row in measured]
        if len(ids) != len(problems) or len(set(ids)) != len(ids):
            given = f"{len(set(ids))} problems, {len(ids)} rows for {strategy} at {budget} tokens"
            accepted = f"every strategy once on each of the {len(problems)} problems at every budget"
            raise InvalidValue("calibration", given, accepted, "run the calibration to its end")
