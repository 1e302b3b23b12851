"""Pose one problem and watch the model think: what it tries, checks and corrects, the verdict, and what it cost."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from clew.core.errors import ClewError, InvalidValue, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from clew.core.cost import Cost
    from clew.core.types import FinishReason, Problem, Sampling, Verdict
    from clew.models.policy import LocalPolicy
    from clew.search import Strategy
    from clew.tasks import AnyTask

EXAMPLES = """
clew solve 24 from 3 5 7 9 --checkpoint runs/first
clew solve 24 from 3 5 7 9 --checkpoint runs/first --samples 16
clew solve 24 from 3 5 7 9 --checkpoint runs/first --mode direct --json
clew solve --checkpoint runs/first                  asks for one problem after another
"""
GREETING = "Type a problem, for example {example}. An empty line ends."


@dataclass(frozen=True, kw_only=True)
class SolveConfig:
    """Pose one problem and watch the model think. Exit status 0 whenever its answer was judged."""

    problem: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[PROBLEM ...]")] = ()
    """The problem, e.g. 24 from 3 5 7 9, or its facts as JSON. Without one, problems are asked for."""
    checkpoint: Path
    """Run directory or checkpoint of the model."""
    task: str = "countdown"
    """The task that the problem belongs to."""
    mode: Literal["think", "direct"] = "think"
    """Whether the model may try, check and retry, or answers with one derivation."""
    samples: int = 1
    """Answers sampled; the verifier picks a right one if there is any."""
    temperature: float = 1.0
    """Sampling temperature; 0 is greedy."""
    max_tokens: int = 288
    """Most tokens of an answer."""
    seed: int = 0
    """Every random draw derives from it."""
    pace: float = 30.0
    """Words shown a second on a terminal (the model is faster); 0 shows all at once."""
    json: bool = False
    """Print one JSON object: problem, verdict, value, reason, answer, response, behaviours, cost, ..."""


CONFIG = SolveConfig


@dataclass(frozen=True, slots=True)
class Solved:
    """One problem, the response that was chosen, and its price with all others sampled for it."""

    problem: Problem
    response: str
    verdict: Verdict
    finish: FinishReason
    tokens: int
    """Of the chosen response."""
    num_right: int
    num_samples: int
    cost: Cost
    note: str
    """How the problem differs from what the model was trained on; empty if it does not."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        from clew.initialize.behaviours import count

        return {
            "problem": {"id": self.problem.id, "task": self.problem.task, **self.problem.metadata},
            "verdict": str(self.verdict.outcome),
            "value": self.verdict.value,
            "reason": self.verdict.reason,
            "answer": self.verdict.answer,
            "response": self.response,
            "finish": str(self.finish),
            "tokens": self.tokens,
            "behaviours": {behaviour.value: times for behaviour, times in count([self.response]).items()},
            "right": self.num_right,
            "samples": self.num_samples,
            "cost": asdict(self.cost),
            "note": self.note,
        }


def main(config: SolveConfig) -> int:
    from clew.data.checkpoint_files import resolve_checkpoint
    from clew.recipes.pose import pose, require_solvable
    from clew.report.colour import legend
    from clew.tasks import make_task

    # Whatever can be refused is refused before the seconds it takes to load a model.
    task, strategy = make_task(config.task), strategy_of(config)
    if config.json and not config.problem:
        advice = "give the problem on the command line: clew solve 24 from 3 5 7 9 --json"
        raise UsageError("--json without a problem", "one problem, for one JSON object", advice)
    if not config.problem:
        resolve_checkpoint(config.checkpoint)
        return ask_and_solve(config, task, strategy)
    problem = pose(task, " ".join(config.problem))
    require_solvable(task, problem)
    solved = solve(_load(config.checkpoint), problem, task, strategy, config)
    if config.json:
        print(json.dumps(solved.as_dict()))
        return 0
    console = _console()
    if console.is_terminal:
        console.print(legend())
    show(solved, console, pace=config.pace, sampling=strategy.sampling)
    return 0


def strategy_of(config: SolveConfig) -> Strategy:
    """Best-of-n with the verifier; n = 1 is plain sampling."""
    from clew.core.types import Sampling
    from clew.search import make_strategy

    if not config.pace >= 0:
        raise InvalidValue("pace", config.pace, "words a second, at least 0", "use 0 to show all at once")
    if config.temperature == 0 and config.samples > 1:
        accepted = "1 at temperature 0, where all samples are the same"
        raise InvalidValue("samples", config.samples, accepted, "raise --temperature, or leave --samples out")
    sampling = Sampling(temperature=config.temperature, max_tokens=config.max_tokens, mode=config.mode)
    return make_strategy("best-of-n", config.samples, guidance="verifier", sampling=sampling)


def solve(
    policy: LocalPolicy, problem: Problem, task: AnyTask, strategy: Strategy, config: SolveConfig, *, again: int = 0
) -> Solved:
    """Search `problem`; `again` counts how often it was posed before, and draws other samples each time."""
    from clew.core.seeds import derive_seed
    from clew.recipes.pose import strangeness, trained_task
    from clew.search import run_searches

    seed = derive_seed(config.seed, "solve", again) if again else config.seed
    (outcome,) = run_searches(strategy, [problem], policy, task=task, seed=seed)
    outcome.raise_if_failed()
    candidates = outcome.result.candidates
    chosen = next(c for c in candidates if c.state is outcome.result.chosen)
    response = policy.text(chosen.state)
    return Solved(
        problem=problem,
        response=response,
        verdict=task.verify(problem, response),
        finish=chosen.completion.finish,
        tokens=len(chosen.completion.tokens),
        num_right=sum(c.score == 1.0 for c in candidates),
        num_samples=len(candidates),
        cost=outcome.cost,
        note=strangeness(problem, task, trained_task(config.checkpoint)),
    )


def ask_and_solve(config: SolveConfig, task: AnyTask, strategy: Strategy) -> int:
    """Solve what is typed, line after line, until an empty line, the end of input or Ctrl-C; errors do not end it."""
    from clew.recipes.pose import EXAMPLES as OF_TASK
    from clew.recipes.pose import pose, require_solvable
    from clew.report.colour import legend

    console = _console()
    posed: Counter[str] = Counter()
    with contextlib.suppress(KeyboardInterrupt):
        policy = _load(config.checkpoint)
        if sys.stdin.isatty():
            console.print(GREETING.format(example=OF_TASK[task.name]), soft_wrap=True)
            console.print(legend())
        for text in _lines():
            try:
                problem = pose(task, text)
                require_solvable(task, problem)
                solved = solve(policy, problem, task, strategy, config, again=posed[problem.id])
            except ClewError as error:
                print(f"clew: {error}", file=sys.stderr, flush=True)
                continue
            posed[problem.id] += 1
            show(solved, console, pace=config.pace, sampling=strategy.sampling)
        return 0
    print()
    return 0


def show(solved: Solved, console: Console, *, pace: float, sampling: Sampling) -> None:
    """Print the thinking, then the verdict, what it cost and, where it failed, what to do."""
    from rich.padding import Padding
    from rich.text import Text

    from clew.recipes.thinking import INDENT, write

    def say(text: str, style: str = "") -> None:
        console.print(Padding(Text(text, style), (0, 0, 0, len(INDENT)), expand=False))

    say(solved.problem.prompt[-1].content, "bold")
    if solved.note:
        say(f"note: {solved.note}", "yellow")
    write(solved.response or "(nothing)", console, pace=pace)
    console.print()
    console.print(Text(INDENT) + _verdict(solved, sampling), soft_wrap=True)
    say(_price(solved), "dim")
    for line in _advice(solved):
        say(line, "dim")
    console.print()


def _verdict(solved: Solved, sampling: Sampling) -> Text:
    from rich.text import Text

    from clew.core.types import FinishReason

    right = solved.verdict.right
    text = Text(str(solved.verdict.outcome), "bold green" if right else "bold red")
    if solved.verdict.answer:
        text.append(f"  {solved.verdict.answer}", "bold")
    text.append(f"  {solved.verdict.reason}", "")
    if solved.finish is FinishReason.LENGTH:
        text.append(f" (cut off at {sampling.max_tokens} tokens)")
    return text


def _price(solved: Solved) -> str:
    """`62 tokens, 0.05 s`, or for several samples also how many of them were right."""
    seconds = solved.cost.seconds
    price = f"{solved.cost.tokens_sampled} tokens, " + (f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s")
    if solved.num_samples == 1:
        return price
    return f"{solved.tokens} tokens; {solved.num_right} of {solved.num_samples} samples right, {price} in all"


def _advice(solved: Solved) -> Iterator[str]:
    if solved.verdict.right:
        return
    from clew.tasks import TASK_NAMES, make_task

    # Tasks whose name alone does not make them again (files of problems) keep their answers.
    if solved.problem.task in TASK_NAMES:
        yield f"a right answer: {make_task(solved.problem.task).gold(solved.problem)}"
    if solved.num_samples == 1:
        yield "more tries: --samples 16"


def _load(checkpoint: Path) -> LocalPolicy:
    """The model; a line that vanishes says so while it loads, which takes longer than thinking."""
    from rich.console import Console

    from clew.recipes.stage import load_policy

    with Console(stderr=True).status(f"loading {checkpoint}"):
        return load_policy(checkpoint)


def _lines() -> Iterator[str]:
    """Lines of standard input up to an empty one; with a prompt and line editing on a terminal."""
    if not sys.stdin.isatty():
        yield from (line for line in sys.stdin if line.strip())
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  gives `input` history and editing
    with contextlib.suppress(EOFError):
        while text := input("> ").strip():
            yield text
        return
    print()


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)
