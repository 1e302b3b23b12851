"""Judge one answer to one problem: right, wrong or unscored."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from clew.core.errors import InvalidValue, UsageError

EXAMPLES = """
clew verify --task countdown --problem '{"numbers": [3, 5, 7, 11], "target": 24}' --answer '(7 - 3) * (11 - 5)'
echo '(7 - 3) * (11 - 5)' | clew verify --problem '{"numbers": [3, 5, 7, 11], "target": 24}' --answer - --json
"""
_LONGEST = 1_000_000
"""Characters read from standard input: far above what any verifier accepts."""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Judge one answer: right, wrong or unscored. Exit status 0 whenever it was judged."""

    problem: str
    """The problem's facts as a JSON object."""
    answer: str
    """What to judge; - reads it from standard input. Write --answer=TEXT for one that begins with two dashes."""
    task: str = "countdown"
    """The task that the problem belongs to: NAME or NAME:setting=value,..."""
    json: bool = False
    """Print one JSON object: verdict, value, reason."""


CONFIG = VerifyConfig


def main(config: VerifyConfig) -> int:
    from clew.tasks import make_task

    task = make_task(config.task)
    problem = task.problem(_facts(config.problem))
    text = sys.stdin.read(_LONGEST) if config.answer == "-" else config.answer
    verdict = task.verify(problem, text)
    if config.json:
        print(json.dumps({"verdict": str(verdict.outcome), "value": verdict.value, "reason": verdict.reason}))
    else:
        print(f"{verdict.outcome}: {verdict.reason}" if verdict.reason else verdict.outcome)
    return 0


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
