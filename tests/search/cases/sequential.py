from __future__ import annotations

from worlds import SOLUTIONS

from cases import Case
from clew.search.best_of_n_then_revise import BestOfNThenRevise
from clew.search.budget_forcing import BudgetForcing
from clew.search.mctsr import MCTSr
from clew.search.reflexion import Reflexion
from clew.search.revise import Revise
from clew.search.revision import Critique
from clew.search.self_refine import SelfRefine

CRITIQUE = Critique(sampling=SOLUTIONS)

CASES = [
    Case(
        name="self-refine, the last",
        make=lambda n: SelfRefine(rounds=n - 1, sampling=SOLUTIONS, critique=CRITIQUE),
        guide="none",
        improves=False,
    ),
    Case(
        name="self-refine, the best",
        make=lambda n: SelfRefine(rounds=n - 1, sampling=SOLUTIONS, critique=CRITIQUE, choose="best", memory=2),
        guide="scorer",
        plain=SOLUTIONS,
    ),
    Case(
        name="revise",
        make=lambda n: Revise(rounds=n - 1, sampling=SOLUTIONS),
        guide="verifier",
        plain=SOLUTIONS,
    ),
    Case(
        name="reflexion",
        make=lambda n: Reflexion(trials=n, sampling=SOLUTIONS, reflection=SOLUTIONS),
        guide="verifier",
        plain=SOLUTIONS,
    ),
    Case(
        name="reflexion by a scorer",
        make=lambda n: Reflexion(trials=n, sampling=SOLUTIONS, reflection=SOLUTIONS, guide="scorer"),
        guide="scorer",
        plain=SOLUTIONS,
    ),
    Case(
        name="budget forcing",
        make=lambda n: BudgetForcing(min_thinking=40, max_thinking=80, waits=n - 1, sampling=SOLUTIONS),
        guide="none",
        improves=False,
    ),
    Case(
        name="budget forcing by a scorer",
        make=lambda n: BudgetForcing(
            min_thinking=40, max_thinking=80, waits=n - 1, sampling=SOLUTIONS, answering=SOLUTIONS, guide="scorer"
        ),
        guide="scorer",
        plain=SOLUTIONS,
    ),
    Case(
        name="budget forcing that cuts thinking short",
        make=lambda n: BudgetForcing(
            min_thinking=4, max_thinking=4, waits=n, sampling=SOLUTIONS, answering=SOLUTIONS, guide="verifier"
        ),
        guide="verifier",
        improves=False,
    ),
    Case(
        name="best-of-n then revise",
        make=lambda n: BestOfNThenRevise(n=n, keep=2, sampling=SOLUTIONS),
        guide="verifier",
        plain=SOLUTIONS,
    ),
    Case(
        name="best-of-n then revise, by a scorer",
        make=lambda n: BestOfNThenRevise(n=n, ratio=0.7, keep=3, memory=1, sampling=SOLUTIONS, guide="scorer"),
        guide="scorer",
        plain=SOLUTIONS,
    ),
    Case(
        name="mctsr",
        make=lambda n: MCTSr(rollouts=n - 1, sampling=SOLUTIONS, critique=CRITIQUE),
        guide="scorer",
        plain=SOLUTIONS,
    ),
    Case(
        name="mctsr by the verifier, asked again, until right",
        make=lambda n: MCTSr(
            rollouts=n - 1, sampling=SOLUTIONS, critique=CRITIQUE, guide="verifier", ask_again=True, enough=1.0
        ),
        guide="verifier",
        plain=SOLUTIONS,
    ),
]
