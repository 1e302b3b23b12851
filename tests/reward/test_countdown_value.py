"""V* of partial Countdown solutions against a slow reading of the same text, and against what traces themselves say."""

from __future__ import annotations

import random
import re
from fractions import Fraction
from functools import cache
from types import SimpleNamespace

import pytest

from clew.core.errors import InvalidValue
from clew.core.types import Message, Problem, State
from clew.initialize.countdown_traces import TraceStyle, solution_words, thinking_words
from clew.reward.countdown_value import Attempt, ExactCountdownValue, attempts, exact_value
from clew.tasks import Countdown

TASK = Countdown()
PROBLEMS = TASK.problems("train", 60, seed=3)
NUMBERS, TARGET = [3, 5, 7, 9], 30


@cache
def slow_values(numbers):
    """Whatever exact arithmetic makes of all `numbers`, by every operation on every ordered pair."""
    if len(numbers) == 1:
        return set(numbers)
    found = set()
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            if i != j:
                rest = [v for k, v in enumerate(numbers) if k not in (i, j)]
                for result in [a + b, a - b, a * b, *([a / b] if b else [])]:
                    found |= slow_values(tuple(sorted((*rest, result))))
    return found


def slow_value(text, numbers, target):
    """By cutting the text into attempts instead of following it word by word."""
    thought = text.split(" answer")[0].split(" back")[-1]
    plan = re.search(r"plan \d+ = (\d+) . (\d+) need (\d+)", thought)
    pool = sorted(numbers)
    if plan:
        x, y, need = map(int, plan.groups())
        pool.remove(y if x == need else x)
        target = need
        ideas, thought = "", thought[plan.end() :]
    else:
        found = re.search(r"(?:try|or) (\d+) . (\d+) = (\d+)(?!\d)", thought)
        ideas, thought = (found.group(), thought[found.end() :]) if found else ("", "")
    chunk = re.split(r" or(?= \d+ . \d+ = \d)| no\b", thought)[-1]
    # A step that follows `or` lost its cue to the cut.
    for a, b, c in re.findall(r"(\d+) [-+*/] (\d+) = (\d+)(?!\d)", f"{ideas} {chunk}"):
        pool.remove(int(a))
        pool.remove(int(b))
        pool.append(int(c))
    return int(Fraction(target) in slow_values(tuple(sorted(map(Fraction, pool)))))


def traces(count):
    rng = random.Random(5)
    for problem in PROBLEMS[:count]:
        numbers, target = problem.metadata["numbers"], problem.metadata["target"]
        style = TraceStyle(sight=0.3, second_sight=0.1, plan=0.5)
        yield numbers, target, thinking_words(numbers, target, rng, style)
        yield numbers, target, solution_words(numbers, target, rng)


def test_every_prefix_of_the_corpus_has_the_value_of_the_slow_reading():
    seen = set()
    for numbers, target, words in traces(30):
        for stop in range(len(words) + 1):
            text = " ".join(words[:stop])
            value = exact_value(text, numbers, target)
            # What a prefix ends with may be half a number only where words are cut, which they are not here.
            assert value == slow_value(text, numbers, target), text
            seen.add(value)
    assert seen == {0, 1}


def test_a_trace_is_open_where_it_begins_and_where_it_succeeds():
    for numbers, target, words in traces(60):
        for stop, word in enumerate(words):
            text = " ".join(words[:stop])
            if word in ("yes", "answer") or (stop and words[stop - 1] in ("have", "back")):
                assert exact_value(text, numbers, target) == 1, text


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("", Attempt((3, 5, 7, 9), 30)),
        ("have 9 7 5 3 try 9 -", Attempt((3, 5, 7, 9), 30)),
        ("try 9 - 7 = 2 left 5 3", Attempt((3, 5, 2), 30)),
        ("try 9 - 7 = 2 left 5 3 try 5 * 3 = 15", Attempt((2, 15), 30)),
        ("try 9 - 7 = 2 left 5 3 try 5 * 3 = 15 try 15 * 2 = 30", Attempt((30,), 30)),
        ("try 9 - 7 = 2 left 5 3 try 5 * 3 = 15 no", Attempt((3, 5, 2), 30)),
        ("try 9 - 7 = 2 left 5 3 try 5 * 3 = 15 no or 5 + 2 = 7", Attempt((3, 7), 30)),
        ("try 9 - 7 = 2 left 5 3 try 5 * 3 = 15 no back", Attempt((3, 5, 7, 9), 30)),
        ("try 9 - 7 = 3", Attempt(None, 30)),
        ("try 9 - 8 = 1", Attempt(None, 30)),
        ("try 9 - 9 = 0", Attempt(None, 30)),
        ("try 9 - 7 = 3 no", Attempt(None, 30)),
        ("try 9 - 7 = 3 no back", Attempt((3, 5, 7, 9), 30)),
        ("try 9 / 0 = 0", Attempt(None, 30)),
        ("plan 30 = 25 + 5 need 25 left 9 7 3", Attempt((3, 7, 9), 25)),
        ("plan 30 = 5 * 6 need 6 left 9 7 3", Attempt((3, 7, 9), 6)),
        ("plan 30 = 25 + 6 need 25", Attempt(None, 25)),
        ("plan 30 = 26 + 4 need 26", Attempt(None, 26)),
        ("plan 31 = 26 + 5 need 26", Attempt(None, 26)),
        ("plan 30 = 25 + 5 need 25 left 9 7 3 try 9 + 7 = 16 no back try 9 + 7 = 16", Attempt((3, 5, 16), 30)),
        ("try 9 - 7 = 2 yes answer ( 5 * 3 ) * 7", Attempt((3, 5, 2), 30)),
    ],
)
def test_what_is_left_after(text, last):
    *_, found = attempts(text, NUMBERS, TARGET)
    assert found == last


def test_fractions_count_as_reachable():
    # 8 / (3 - 8 / 3) = 24 has no way through whole numbers.
    assert exact_value("", [3, 3, 8, 8], 24) == 1
    assert exact_value("try 8 * 8 = 64", [3, 3, 8, 8], 24) == 0


def test_the_scorer_judges_finished_states_and_refuses_other_tasks():
    problem = TASK.problem({"numbers": NUMBERS, "target": TARGET})
    texts = ["try 9 - 7 = 2", "try 9 + 7 = 15", "answer ( 5 * 3 ) * ( 9 - 7 )", "answer 9 + 7 + 5 + 3"]
    states = [State(problem, (at,), finished=at > 1) for at in range(4)]
    policy = SimpleNamespace(text=lambda state: texts[state.tokens[0]])
    guide = ExactCountdownValue(task=TASK, policy=policy)
    assert guide.score(states, [None] * 4) == [1.0, 0.0, 1.0, 0.0]
    assert guide.cost_tokens(states) == 0
    other = State(Problem("maze:1", "maze", (Message("user", "go"),)), (0,))
    with pytest.raises(InvalidValue, match="maze:1"):
        guide.score([other], [None])
