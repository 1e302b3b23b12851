"""Verifiers, measured: wrong answers accepted, right ones rejected, escapes from the sandbox, answers per second."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clew.core.seeds import derive_seed
from clew.core.types import Outcome, Problem

if TYPE_CHECKING:
    from clew.tasks import AnyTask

GOLD_PROBLEMS = 5
"""Problems of each task whose right answer is judged; two of them are also attacked."""
ATTACKED = 2
_SPECS = (
    "countdown",
    "countdown:count=5,high=20",
    "arithmetic",
    "arithmetic:operations=1,high=60",
    "maze",
    "maze:width=4,height=3",
)
_COMPOSITE = 'composite:datasets=[{"name":"gcd","weight":1,"config":{}},{"name":"leg_counting","weight":1,"config":{}}]'


@dataclass(slots=True)
class Tally:
    """Answers judged, and those of them that were not judged as they should have been."""

    tried: int = 0
    faults: list[dict[str, str]] = field(default_factory=list)
    unscored: list[dict[str, str]] = field(default_factory=list)


def measure_verify(repeats: int, seed: int) -> dict[str, Any]:
    """Everything that `clew bench verify` tells; needs the extras `gym`, `math` and `code`, and bubblewrap."""
    from clew.recipes.bench_verify_code import measure_sandbox
    from clew.recipes.bench_verify_rates import measure_rates

    rates = measure_rates(repeats, seed)
    adversarial, gold = judge_tasks(list(specs()), seed)
    code = measure_sandbox(repeats)
    humaneval = code.pop("gold_humaneval")
    gold.tried += humaneval["tried"]
    gold.faults += [{"problem": name, "reason": reason} for name, reason in humaneval["reasons"].items()]
    rates["code_per_s"] = code.pop("code_per_s")
    rates["spread"] |= code.pop("spread")
    return {
        "adversarial": {
            "tried": adversarial.tried,
            "accepted": len(adversarial.faults),
            "accepted_cases": adversarial.faults,
            "unscored": len(adversarial.unscored),
            "unscored_cases": adversarial.unscored,
        },
        "gold": {
            "tried": gold.tried,
            "rejected": len(gold.faults),
            "rejected_cases": gold.faults,
            "exceptions": exceptions(),
        },
        "sandbox": code["sandbox"],
        "rates": rates,
    }


def specs() -> Iterator[str]:
    """The tasks that are judged: the small worlds, and all of reasoning-gym."""
    from clew.tasks.reasoning_gym import task_names

    yield from _SPECS
    yield from (f"rg:{_COMPOSITE if name == 'composite' else name}" for name in task_names())


def exceptions() -> list[dict[str, str]]:
    """Right answers that are not judged, by task, with the reason."""
    from clew.tasks.reasoning_gym_exceptions import NO_GOLD, NOT_POSED

    none = [{"task": f"rg:{name}", "reason": reason} for name, reason in NO_GOLD.items()]
    return none + [{"task": f"rg:{name}", "reason": f"left out: {rule.reason}"} for name, rule in NOT_POSED.items()]


def judge_tasks(names: Sequence[str], seed: int) -> tuple[Tally, Tally]:
    """Attacks on problems of every task, and their right answers."""
    from clew.tasks import make_task

    attacked, gold = Tally(), Tally()
    for number, name in enumerate(names, 1):
        task = make_task(name)
        problems = task.problems("test", GOLD_PROBLEMS, derive_seed(seed, "bench verify", name))
        rights = right_answers(task, problems)
        for problem, right in zip(problems, rights, strict=True):
            if right is not None:
                _judge(task, problem, right, Outcome.RIGHT, gold)
        for problem, right in list(zip(problems, rights, strict=True))[:ATTACKED]:
            for answer in _attacks(task, problem, right, [r for r in rights if r is not None]):
                _judge(task, problem, answer, Outcome.WRONG, attacked)
        print(f"\rtasks {number}/{len(names)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return attacked, gold


def right_answers(task: AnyTask, problems: Sequence[Problem]) -> list[str | None]:
    """The right answer of each problem; None for a task that keeps none."""
    from clew.tasks.reasoning_gym_exceptions import NO_GOLD

    known = task.name.removeprefix("rg:") not in NO_GOLD
    return [task.gold(problem) if known else None for problem in problems]


def _attacks(task: AnyTask, problem: Problem, right: str | None, rights: Sequence[str]) -> list[str]:
    from clew.tasks.reasoning_gym_attacks import attacks

    return attacks(problem.prompt[-1].content, right, rights)


def _judge(task: AnyTask, problem: Problem, answer: str, expected: Outcome, tally: Tally) -> None:
    """Judge `answer` as a response gives it; what is not judged as `expected` is told.

    An attack that leaves its answer unscored has not been accepted; a right answer that is unscored was not.
    """
    verdict = task.verify(problem, f"Let me think. <answer>{answer}</answer>")
    tally.tried += 1
    case = {"problem": problem.id, "task": problem.task, "answer": ascii(answer[:80]), "reason": verdict.reason[:200]}
    if verdict.outcome is Outcome.UNSCORED:
        tally.unscored.append(case)
    if verdict.outcome is not expected and (verdict.right or expected is Outcome.RIGHT):
        tally.faults.append(case)
