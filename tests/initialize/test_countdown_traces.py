"""Traces are true word by word, whatever their style, and show every behaviour."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import Counter
from itertools import product

import pytest
from trace_reader import Reader, statements, world_values

from clew.core.errors import InvalidValue
from clew.initialize.behaviours import Behaviour, count
from clew.initialize.countdown_traces import TraceStyle, answer_words, solution_words, thinking_words
from clew.initialize.countdown_world import reachable
from clew.initialize.vocabulary import LARGEST_NUMBER
from clew.initialize.vocabulary import words as vocabulary_words
from clew.tasks.countdown import Countdown

VOCABULARY = frozenset(vocabulary_words())
NASTY = [
    TraceStyle(sight=a, second_sight=a, plan=b, compute_last=c, patience=patience, max_words=most)
    for a, b, c in product((0.0, 1.0), repeat=3)
    for patience, most in ((1, 0), (3, 80), (50, 60))
]
STYLES = [TraceStyle(), *NASTY]


def demonstrable(task: Countdown, n: int, seed: int = 0) -> list:
    problems = task.problems("train", n, seed)
    return [p for p in problems if p.metadata["target"] in reachable(descending(p.metadata["numbers"]))]


def descending(numbers):
    return tuple(sorted(numbers, reverse=True))


PROBLEMS = demonstrable(Countdown(), 400)


def test_there_are_hundreds_of_problems():
    assert len(PROBLEMS) > 300


def check(task, problem, words):
    numbers, target = problem.metadata["numbers"], problem.metadata["target"]
    text = " ".join(words)
    assert set(words) <= VOCABULARY
    assert all(statements(text)), text
    verdict = task.verify(problem, text)
    assert verdict.right, (text, verdict)
    if not {"yes", "no"} & set(words):
        # A direct solution: the same words, read as a trace that sees at the end that it is right.
        at = words.index("answer")
        words = [*words[:at], "yes", *words[at:]]
    Reader(words, numbers, target).read()


@pytest.mark.parametrize(
    "style", STYLES, ids=lambda s: f"{s.sight}{s.second_sight}{s.plan}{s.compute_last}-{s.patience}"
)
def test_every_word_of_a_trace_is_true_and_its_answer_right(style):
    task, rng = Countdown(), random.Random(0)
    problems = PROBLEMS if style == TraceStyle() else PROBLEMS[:120]
    for problem in problems:
        numbers, target = problem.metadata["numbers"], problem.metadata["target"]
        check(task, problem, thinking_words(numbers, target, rng, style))


def test_ties_and_problems_of_one_solution():
    task, rng = Countdown(), random.Random(0)
    for numbers, target in [([1] * 4, 4), ([9] * 4, 1), ([2] * 4, 2), ([5, 5, 5, 1], 4), ([8, 8, 3, 1], 1)]:
        problem = task.problem({"numbers": numbers, "target": target})
        for style in STYLES:
            check(task, problem, thinking_words(numbers, target, rng, style))


@pytest.mark.parametrize(("settings", "n"), [({"count": 2}, 60), ({"count": 3}, 200), ({"count": 5}, 15)], ids=str)
def test_other_counts_of_numbers(settings, n):
    task, rng = Countdown(**settings), random.Random(1)
    problems = demonstrable(task, n)
    assert len(problems) > n / 2
    for problem in problems:
        numbers, target = problem.metadata["numbers"], problem.metadata["target"]
        check(task, problem, solution_words(numbers, target, rng))
        for style in STYLES[::4]:
            check(task, problem, thinking_words(numbers, target, rng, style))


def test_answers_at_once_are_right_and_show_no_thought():
    rng = random.Random(5)
    task = Countdown()
    for problem in task.problems("train", 200, 2):
        numbers, target = problem.metadata["numbers"], problem.metadata["target"]
        if target not in reachable(tuple(sorted(numbers, reverse=True))):
            continue
        words = answer_words(numbers, target, rng)
        assert words[0] == "answer"
        assert not {"have", "try", "no", "yes", "=", "back"} & set(words)
        assert task.verify(problem, " ".join(words)).right


def test_direct_solutions_are_right_and_have_no_mistakes():
    task, rng = Countdown(), random.Random(0)
    for problem in PROBLEMS:
        numbers, target = problem.metadata["numbers"], problem.metadata["target"]
        words = solution_words(numbers, target, rng)
        check(task, problem, words)
        assert Counter(w for w in words if w.isalpha()) == {"have": 1, "try": 3, "left": 1, "answer": 1}


def traces(style, seeds=range(3)):
    read = []
    for seed in seeds:
        rng = random.Random(seed)
        for problem in PROBLEMS[:150]:
            numbers, target = problem.metadata["numbers"], problem.metadata["target"]
            words = thinking_words(numbers, target, rng, style)
            read.append((words, Reader(words, numbers, target).read()))
    return read


def test_all_six_behaviours_show_and_none_is_rare():
    texts = [" ".join(words) for words, _ in traces(TraceStyle())]
    counts = count(texts)
    assert set(counts) == set(Behaviour)
    assert min(counts.values()) > len(texts) / 20
    assert counts[Behaviour.ANALYSIS] == len(texts)


def computed_in_vain(words):
    """Last steps that were computed and missed the target."""
    return len(re.findall(r"= \d+ try \d+ \S \d+ = \d+ no", " ".join(words)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"plan": 1.0}, lambda words, t: t.plans == 1),
        ({"plan": 0.0}, lambda words, t: t.plans == 0),
        ({"sight": 1.0, "second_sight": 1.0}, lambda words, t: t.num_no == t.num_back == 0),
        ({"sight": 0.0, "second_sight": 0.0, "plan": 0.0}, lambda words, t: t.num_no > 0),
        ({"patience": 1}, lambda words, t: max(map(len, t.attempts)) <= 2),
        ({"compute_last": 0.0, "sight": 0.0, "second_sight": 0.0}, lambda words, t: computed_in_vain(words) == 0),
        (
            {"compute_last": 1.0, "sight": 0.0, "second_sight": 0.0, "max_words": 9999},
            lambda words, t: computed_in_vain(words) == t.num_no,
        ),
        ({"max_words": 0}, lambda words, t: t.num_no == 0),
    ],
    ids=str,
)
def test_a_style_does_what_its_field_says(changes, says):
    share = [says(words, trace) for words, trace in traces(TraceStyle(**changes), seeds=[0])]
    # Some problems leave no choice: no plan, or no wrong first step.
    assert sum(share) > 0.9 * len(share)


def test_past_its_length_a_trace_errs_no_more():
    for words, trace in traces(TraceStyle(sight=0.0, second_sight=0.0, max_words=80), seeds=[0]):
        assert len(words) < 80 + 100
        assert trace.num_no > 0 or len(words) < 60


def test_without_sight_a_search_is_exhaustive_and_in_order():
    """Every first step before the one that succeeds is tried, each once; each is followed by its second steps, of
    which those may be missing that come to the same as a first step tried before."""
    style = TraceStyle(sight=0.0, second_sight=0.0, plan=0.0, patience=99, max_words=9999, compute_last=0.0)
    for problem in PROBLEMS[:40]:
        numbers, target = problem.metadata["numbers"], problem.metadata["target"]
        text = " ".join(thinking_words(numbers, target, random.Random(0), style))
        ideas = text.split(" answer ")[0].removeprefix("have " + " ".join(map(str, descending(numbers)))).split("back")
        rests = [rest_after(idea.split(" try ")[1], descending(numbers)) for idea in ideas]
        every = distinct_rests(descending(numbers))
        assert rests == every[: len(rests)]
        assert [target in world_values(rest) for rest in rests] == [False] * (len(rests) - 1) + [True]
        for idea, rest in zip(ideas[:-1], rests[:-1], strict=True):
            second = [rest_after(words, rest) for words in re.split(r" (?:try|or) ", idea)[2:]]
            every = distinct_rests(rest)
            assert second == [left for left in every if left in second]
            ends = {end for earlier in rests[: rests.index(rest)] for end in map(tuple, distinct_rests(earlier))}
            assert {tuple(left) for left in every if left not in second} <= ends


def rest_after(words, numbers):
    """The numbers, descending, after the step that `words` begins with."""
    a, _, b, _, result = words.split()[:5]
    rest = list(numbers)
    rest.remove(int(a))
    rest.remove(int(b))
    return descending([*rest, int(result)])


def distinct_rests(numbers):
    """By brute force, what the steps on `numbers` leave: pairs from left to right, + - * /, each rest once."""
    rests = []
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers[i + 1 :], start=i + 1):
            others = [n for k, n in enumerate(numbers) if k not in (i, j)]
            for result in (a + b, a - b, a * b, *([a // b] if b > 1 and a % b == 0 else [])):
                rest = descending([*others, result])
                if result <= LARGEST_NUMBER and rest not in rests:
                    rests.append(rest)
    return rests


def test_equal_seeds_give_equal_traces_and_others_differ():
    def draw(seed):
        rng = random.Random(seed)
        return [thinking_words(p.metadata["numbers"], p.metadata["target"], rng, TraceStyle()) for p in PROBLEMS[:30]]

    assert draw(5) == draw(5)
    assert draw(5) != draw(6)


def test_the_corpus_does_not_depend_on_the_hash_seed():
    program = (
        "import random; from clew.initialize.countdown_traces import *; from clew.initialize.countdown_corpus import *;"
        "rng = random.Random(3);"
        "print([thinking_words([3, 5, 7, 9], 24, rng, TraceStyle()) for _ in range(20)],"
        "[solution_words([3, 5, 7, 9], 24, rng), *(document(rng, 4, 1, 9, 40) for _ in range(30))])"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize(("numbers", "target"), [([1, 1, 1, 1], 5), ([1, 2, 3, 4], 300), ([1, 5, 5, 5], 24)])
def test_a_target_out_of_the_words_reach_is_refused(numbers, target):
    """The last one is solvable, but only with a fraction on the way: (5 - 1 / 5) * 5."""
    for write in (solution_words, lambda *a: thinking_words(*a, TraceStyle())):
        with pytest.raises(InvalidValue, match="leave this problem out"):
            write(numbers, target, random.Random(0))


@pytest.mark.parametrize(
    "changes",
    [{"sight": 1.5}, {"second_sight": -0.1}, {"plan": float("nan")}, {"compute_last": 2}, {"patience": 0}],
    ids=str,
)
def test_a_style_out_of_range_is_refused(changes):
    with pytest.raises(InvalidValue, match=next(iter(changes))):
        TraceStyle(**changes)


@pytest.mark.parametrize(
    "lie",
    [
        "have 9 7 5 3 try 7 + 5 = 13 left 9 3 no back",
        "have 9 7 5 3 try 7 + 5 = 12 left 9 5 no back",
        "have 9 7 5 3 try 7 + 5 = 12 left 9 3 try 12 + 9 = 21 no",
        "have 9 7 5 3 try 7 + 5 = 12 left 9 3 try 12 * 9 = 108 yes",
        "have 9 7 5 3 plan 24 = 27 - 3 need 27 left 9 7 3 try 9 + 7 = 16 left 5 no",
        "have 9 7 5 3 try 9 - 7 = 2 left 5 3 try 5 + 2 = 7 no or 5 + 2 = 7 no",
    ],
)
def test_the_reader_of_these_tests_notices_lies(lie):
    with pytest.raises((AssertionError, IndexError, ValueError)):
        Reader(lie.split(), [3, 5, 7, 9], 24).read()
