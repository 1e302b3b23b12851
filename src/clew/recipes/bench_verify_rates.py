"""Answers judged per second by two processes at once: thoughts of Countdown, and mathematical answers in LaTeX."""

from __future__ import annotations

import multiprocessing
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from typing import Any, NamedTuple

PROCESSES = 2
COUNTDOWN_PROBLEMS = 500
SAMPLES = 8
"""Responses to a problem, as a group of reinforcement learning has them; half of them are made wrong."""
MATH_ANSWERS = 200
_REASONING = "We set up the equation, collect the terms on one side and simplify step by step. " * 5


class Part(NamedTuple):
    """What one process has to judge, and how many of its answers are right."""

    judge: Callable[[int], bool]
    answers: int
    right: int


def measure_rates(repeats: int, seed: int) -> dict[str, Any]:
    """Medians of `repeats` rounds, each with new texts; a round is the sum of the processes' rates."""
    context = multiprocessing.get_context("spawn")
    rates: dict[str, list[float]] = {"countdown_per_s": [], "math_per_s": []}
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as processes:
        for run in range(-1, repeats):
            for name, work in (("countdown_per_s", countdown_rate), ("math_per_s", math_rate)):
                seeds = [seed + PROCESSES * (run + 1) + lane for lane in range(PROCESSES)]
                total = sum(processes.map(work, seeds, repeat(run < 0, PROCESSES)))
                if run >= 0:  # The first round only warms up.
                    rates[name].append(total)
    spread = {name: {"min": min(values), "max": max(values)} for name, values in rates.items()}
    return {**{name: statistics.median(values) for name, values in rates.items()}, "spread": spread}


def countdown_rate(seed: int, short: bool = False) -> float:
    """Responses judged per second; each text is judged once."""
    return _timed(countdown_part(seed, 20 if short else COUNTDOWN_PROBLEMS))


def math_rate(seed: int, short: bool = False) -> float:
    """The same of mathematical answers."""
    return _timed(math_part(seed, 10 if short else MATH_ANSWERS))


def _timed(part: Part) -> float:
    started = time.perf_counter()
    right = sum(map(part.judge, range(part.answers)))
    seconds = time.perf_counter() - started
    if right != part.right:
        raise AssertionError(f"{right} of {part.answers} answers were judged right, not {part.right}")
    return part.answers / seconds


def countdown_part(seed: int, problems: int) -> Part:
    """Chains of thought that end right; in half of them the answer is replaced by an expression with another value."""
    from clew.initialize.countdown_traces import TraceStyle, thinking_words
    from clew.tasks import make_task

    task, rng = make_task("countdown"), random.Random(seed)
    texts, right = [], 0
    for problem in task.problems("train", problems, seed):
        numbers, target = problem.metadata["numbers"], problem.metadata["target"]
        for sample in range(SAMPLES):
            text = " ".join(thinking_words(list(numbers), target, rng, TraceStyle()))
            if sample % 2:
                thought = text.rpartition("answer")[0]
                text = f"{thought}answer {_combined(numbers, rng)} + 0"
            else:
                right += 1
            texts.append((problem, text))
    return Part(lambda number: task.verify(*texts[number]).right, len(texts), right)


def _combined(numbers: list[int], rng: random.Random) -> str:
    """All numbers in some order, with some operations between them; a zero that is not given makes it wrong."""
    shuffled = rng.sample(numbers, len(numbers))
    return str(shuffled[0]) + "".join(f" {rng.choice('+-*/')} {number}" for number in shuffled[1:])


def math_part(seed: int, answers: int) -> Part:
    """Answers of ten kinds in equal shares: half are the reference, mostly written otherwise, half are wrong."""
    from clew.tasks.verifiers import VERIFIERS

    rng, verifier = random.Random(seed), VERIFIERS["math"]
    cases = [math_case(number // 2 % len(_KINDS), rng) for number in range(answers)]
    texts = [
        (f"{_REASONING}So the answer is $\\boxed{{{c.wrong if i % 2 else c.right}}}$.", c) for i, c in enumerate(cases)
    ]

    def judge(number: int) -> bool:
        text, case = texts[number]
        return verifier.judge(text, case.gold, "").right

    return Part(judge, answers, (answers + 1) // 2)


class MathCase(NamedTuple):
    """A reference, the same otherwise written, and an answer that is near it and wrong."""

    gold: str
    right: str
    wrong: str


def math_case(kind: int, rng: random.Random) -> MathCase:
    """A case of one kind with new numbers."""
    return _KINDS[kind](rng.randint(2, 97), rng.randint(101, 499), rng.randint(503, 997))


_KINDS: tuple[Callable[[int, int, int], MathCase], ...] = (
    lambda a, b, c: MathCase(f"{b * c}", f"{b * c}", f"{b * c + 1}"),
    lambda a, b, c: MathCase(rf"\frac{{{a}}}{{{c}}}", f"{a}/{c}", f"{a + 1}/{c}"),
    lambda a, b, c: MathCase(f"{a}.25", rf"\frac{{{4 * a + 1}}}{{4}}", rf"\frac{{{4 * a + 3}}}{{4}}"),
    lambda a, b, c: MathCase(rf"{a}\sqrt{{{c}}}", rf"\sqrt{{{a * a * c}}}", rf"\sqrt{{{a * a * c + 1}}}"),
    lambda a, b, c: MathCase(f"x^2+{a + b}x+{a * b}", f"(x+{a})(x+{b})", f"(x+{a})(x-{b})"),
    lambda a, b, c: MathCase(f"[{a}, {c})", rf"\left[{a}, {c}\right)", rf"\left({a}, {c}\right)"),
    lambda a, b, c: MathCase(f"({a}, {b}, {c})", rf"\left({a}, {b}, {c}\right)", f"({a}, {c}, {b})"),
    lambda a, b, c: MathCase(rf"\{{{a}, {a + 1}\}}", rf"\{{{a + 1}, {a}\}}", rf"\{{{a}, {a + 1}, {a + 2}\}}"),
    lambda a, b, c: MathCase(rf"{a}\pi", rf"\frac{{{2 * a}\pi}}{{2}}", rf"\frac{{{a}\pi}}{{2}}"),
    lambda a, b, c: MathCase(f"{c}x - {b}", f"-{b} + {c}x", f"{b} - {c}x"),
)
