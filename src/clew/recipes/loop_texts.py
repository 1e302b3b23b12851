"""New problems for a file of problems: numbers of a question changed, the answer taken where solutions agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.core.types import Problem, Sampling, Verdict
from clew.tasks.generator import Agreement

if TYPE_CHECKING:
    from clew.core.protocols import Policy
    from clew.core.task import Split
    from clew.tasks import AnyTask, FileTask

NAMED = frozenset({"math", "numbers", "exact"})
"""Verifiers whose answers can be compared as text in canonical form."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Mutants:
    """What came of changing `tried` questions."""

    file: FileTask | None
    """The accepted ones as a task; None if there is none."""
    tried: int
    accepted: int
    tokens: int
    """Sampled and read to find their answers and to check the solver."""


def mutants(  # noqa: PLR0913  who solves what, by name
    policy: Policy,
    task: AnyTask,
    problems: Sequence[Problem],
    path: Path,
    *,
    agreement: Agreement,
    sampling: Sampling,
    seed: int,
) -> Mutants:
    """Change each of `problems` once and write what is accepted to `path`, one JSON line a problem.

    `policy` solves both the question as it was, whose answer the task knows, and the changed one, `agreement.solutions`
    times each. Raises `InvalidValue` for a task that is no file of questions with answers in canonical form.
    """
    from clew.data.files import write_text_atomically
    from clew.evaluate import sample_groups
    from clew.tasks import FileTask
    from clew.tasks.generator import mutated, row_of

    verifier = mutable(task)
    changed = [(problem, mutated(str(problem.metadata["question"]), seed)) for problem in problems]
    pairs = [(problem, text) for problem, text in changed if text is not None]
    if not pairs:
        return Mutants(file=None, tried=0, accepted=0, tokens=0)
    asked = [task.problem({"question": text}) for _, text in pairs]
    how: dict[str, Any] = {
        "n": agreement.solutions,
        "sampling": sampling,
        "seed": derive_seed(seed, "mutants"),
        "stage": "mutants",
    }
    before = sample_groups(policy, task, [problem for problem, _ in pairs], **how)
    after = sample_groups(policy, task, asked, **how)
    lines = []
    for (problem, text), known, new in zip(pairs, before, after, strict=True):
        right = [trajectory.verdict.right for trajectory in known.trajectories]
        answer = agreement.accepted(right, [task.extract(trajectory.text) for trajectory in new.trajectories])
        if answer is not None:
            lines.append(row_of(text, answer, verifier, problem.id))
    lines = list(dict.fromkeys(lines))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, "".join(f"{line}\n" for line in lines))
    file = FileTask(path=str(path), verifier=verifier, split="all") if lines else None
    tokens = sum(t.cost.tokens for group in (*before, *after) for t in group.trajectories)
    return Mutants(file=file, tried=len(pairs), accepted=len(lines), tokens=tokens)


def mutable(task: AnyTask) -> str:
    """The verifier of a file of problems whose questions can be changed. Raises `InvalidValue` for other tasks."""
    verifier = getattr(task, "verifier", None)
    if task.name != "file" or verifier not in NAMED:
        given = task.name if verifier is None else f"{task.name} with verifier {verifier!r}"
        accepted = f"file:PATH,verifier=NAME with one of {', '.join(sorted(NAMED))}"
        advice = "name the verifier of the file, or use --generate for a procedural task"
        raise InvalidValue("task whose questions are to be changed", given, accepted, advice)
    return str(verifier)


@final
@dataclass(frozen=True, slots=True)
class WithMutants:
    """A task and accepted mutants of it: each problem is judged by the file that has its answer."""

    task: AnyTask
    accepted: Mapping[str, FileTask]
    """By problem id, the file that knows its answer."""

    @property
    def name(self) -> str:
        return self.task.name

    def problems(self, split: Split, n: int, seed: int) -> list[Problem]:
        return self.task.problems(split, n, seed)

    def problem(self, metadata: dict[str, object]) -> Problem:
        return self.task.problem(metadata)

    def verify(self, problem: Problem, text: str) -> Verdict:
        return self._of(problem).verify(problem, text)

    def extract(self, text: str) -> str | None:
        return self.task.extract(text)

    def gold(self, problem: Problem) -> str:
        return self._of(problem).gold(problem)

    def difficulty(self, problem: Problem) -> str:
        return self._of(problem).difficulty(problem)

    def _of(self, problem: Problem) -> AnyTask:
        return self.accepted.get(problem.id, self.task)


def problems_of(file: FileTask | None) -> list[Problem]:
    """Every problem of a file that is in every split; none without a file."""
    return [] if file is None else file.problems("train", file.count_problems("train"), 0)
