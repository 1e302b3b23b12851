"""Judge one answer to one problem: right, wrong or unscored."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from clew.core.errors import InvalidValue, UsageError
from clew.core.types import Verdict

EXAMPLES = """
clew verify --task math --answer '\\frac12' --text 'so it is \\boxed{0.5}'
clew verify --task file:problems.jsonl,verifier=math --problem '{"id": "7"}' --answer 42
clew verify --task countdown --problem '{"numbers": [3, 5, 7, 11], "target": 24}' --answer '(7 - 3) * (11 - 5)'
echo '(7 - 3) * (11 - 5)' | clew verify --problem '{"numbers": [3, 5, 7, 11], "target": 24}' --answer - --json
"""
_LONGEST = 1_000_000
"""Characters read from standard input: far above what any verifier accepts."""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Judge one answer: right, wrong or unscored. Exit status 0 whenever it was judged."""

    problem: str | None = None
    """The problem's facts as a JSON object."""
    answer: str | None = None
    """What to judge; - reads it from standard input. Write --answer=TEXT for one that begins with two dashes. With a
    verifier as task: the reference answer."""
    text: str | None = None
    """With a verifier as task: the response to judge; by default, or as -, it is read from standard input."""
    question: str = ""
    """With a verifier as task: the question, which tells which units may stand behind an answer."""
    task: str = "countdown"
    """The task that the problem belongs to (NAME or NAME:setting=value,...), or a verifier:
    choice, exact, math, numbers."""
    json: bool = False
    """Print one JSON object: verdict, value, reason."""


CONFIG = VerifyConfig


def main(config: VerifyConfig) -> int:
    from clew.tasks.verifiers import VERIFIERS

    verdict = _free(config) if config.task in VERIFIERS else _of_task(config)
    if config.json:
        print(json.dumps({"verdict": str(verdict.outcome), "value": verdict.value, "reason": verdict.reason}))
    else:
        print(f"{verdict.outcome}: {verdict.reason}" if verdict.reason else verdict.outcome)
    return 0


def _of_task(config: VerifyConfig) -> Verdict:
    from clew.tasks import make_task

    task = make_task(config.task)
    if config.problem is None or config.answer is None:
        given = f"--task {config.task} without --problem and --answer"
        raise UsageError(given, "a problem of the task and an answer to it", "give both; see the examples in --help")
    problem = task.problem(_facts(config.problem))
    return task.verify(problem, _read(config.answer))


def _free(config: VerifyConfig) -> Verdict:
    """The verdict on a text against a reference answer, without a task."""
    from clew.tasks.verifiers import make_verifier

    if config.answer is None or config.problem is not None:
        given = f"--task {config.task} " + ("with --problem" if config.problem is not None else "without --answer")
        raise UsageError(given, "the reference answer as --answer", "give the response as --text or standard input")
    verifier = make_verifier(config.task)
    if fault := verifier.gold_fault(config.answer):
        raise InvalidValue(
            "--answer", config.answer, f"what verifier {config.task} can judge against", f"it is {fault}"
        )
    return verifier.judge(_read("-" if config.text is None else config.text), config.answer, config.question)


def _read(text: str) -> str:
    return sys.stdin.read(_LONGEST) if text == "-" else text


def _facts(text: str) -> dict[str, Any]:
    example = """a JSON object such as '{"numbers": [3, 5, 7, 11], "target": 24}'"""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"--problem is not JSON: {error}", example, "quote it so that the shell keeps it whole"
        ) from None
    if not isinstance(facts, dict):
        raise InvalidValue("--problem", facts, example, "give an object with the facts of the problem")
    return facts
