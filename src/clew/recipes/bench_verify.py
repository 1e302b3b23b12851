"""Verifiers, measured: wrong answers accepted, right ones rejected, escapes from the sandbox, answers per second."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
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


ROWS = (
    {"question": "What is 7*8?", "answer": 56, "verifier": "math"},
    {"question": "Expand (x+1)^2.", "answer": "x^2+2x+1", "verifier": "math"},
    {"question": "Name the capital of Italy.", "answer": "Rome", "verifier": "exact"},
    {"question": "What is one half?", "answer": "0.5", "verifier": "numbers"},
    {"question": "Capital of France? (A) Rome (B) Paris", "answer": "B", "verifier": "choice"},
)
"""A file of problems, one for each verifier that a file may ask for, beside those that run programs."""


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
    with TemporaryDirectory() as directory:
        rows = Path(directory) / "rows.jsonl"
        rows.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
        adversarial, gold = judge_tasks([*specs(), f"file:{rows},split=all"], seed)
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
                _judge(task, problem, _response(right), Outcome.RIGHT, gold)
        # All rows of a file: each has a verifier of its own.
        attackable = problems if name.startswith("file:") else problems[:ATTACKED]
        for problem, right in zip(attackable, rights, strict=False):
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
    """Whole responses, none of which may be judged right."""
    from clew.tasks.adversarial import adversarial_answers
    from clew.tasks.reasoning_gym_attacks import attacks

    if not task.name.startswith("rg:"):
        return adversarial_answers(task, problem)
    return [_response(answer) for answer in attacks(problem.prompt[-1].content, right, rights)]


def _response(answer: str) -> str:
    return f"Let me think. <answer>{answer}</answer>"


def _judge(task: AnyTask, problem: Problem, text: str, expected: Outcome, tally: Tally) -> None:
    """Judge a response; what is not judged as `expected` is told.

    An attack that is left unscored has not been accepted; a right answer that is unscored has been rejected.
    """
    verdict = task.verify(problem, text)
    tally.tried += 1
    case = {"problem": problem.id, "task": problem.task, "text": ascii(text[:80]), "reason": verdict.reason[:200]}
    if verdict.outcome is Outcome.UNSCORED:
        tally.unscored.append(case)
    if verdict.outcome is not expected and (verdict.right or expected is Outcome.RIGHT):
        tally.faults.append(case)
