"""Pre-training text is true, in the vocabulary, and the same for the same seed."""

from __future__ import annotations

import random
import re
from collections import Counter
from fractions import Fraction

import pytest
from trace_reader import OPERATIONS, Reader, all_values, statements, world_values

from clew.core.errors import InvalidValue
from clew.initialize.countdown_corpus import derivation, document, facts, hint, judgements, small_problem
from clew.initialize.vocabulary import LARGEST_NUMBER
from clew.initialize.vocabulary import words as vocabulary_words
from clew.tasks.countdown import Countdown

VOCABULARY = frozenset(vocabulary_words())
RANGES = [(4, 1, 9), (2, 1, 1), (6, 1, 20), (3, 2, 2), (4, LARGEST_NUMBER, LARGEST_NUMBER), (5, 1, LARGEST_NUMBER)]
HINT = re.compile(r"make (\d+) from ([\d ]+?)(?: have ([\d ]+))? try (\d+) ([-+*/]) (\d+)")
JUDGEMENT = re.compile(r"make (\d+) from (\d+) (\d+)(?: try (\d+) ([-+*/]) (\d+) = (\d+))? (yes|no)")


def words_of(passages):
    return [word for passage in passages for part in passage for word in part]


def write(kind, rng, numbers=4, low=1, high=9, seen=lambda numbers, target: True):
    return words_of([kind(rng, numbers, low, high, seen)])


@pytest.mark.parametrize(("numbers", "low", "high"), RANGES)
def test_every_statement_of_a_document_is_true(numbers, low, high):
    rng = random.Random(0)
    for _ in range(150):
        words = words_of(document(rng, numbers, low, high, 60))
        assert len(words) >= 60
        assert set(words) <= VOCABULARY
        text = " ".join(words)
        assert text.endswith(" ;")
        found = list(statements(text))
        assert all(found), text
        assert found or {"no", "make"} & set(words)


def test_facts_are_single_statements_and_reach_all_operators():
    rng, operators = random.Random(0), set()
    for _ in range(300):
        text = " ".join(write(facts, rng))
        assert list(statements(text)) == [True]
        operators.add(text.split()[1])
    assert operators == set(OPERATIONS)


def test_judgements_are_true_both_ways():
    rng, said = random.Random(0), Counter()
    for _ in range(2000):
        text = " ".join(write(judgements, rng))
        match = JUDGEMENT.fullmatch(text)
        assert match, text
        want, a, b, x, op, y, result, verdict = match.groups()
        assert 0 <= int(want) <= LARGEST_NUMBER
        reached = all_values([int(a), int(b)])
        assert (verdict == "yes") == (int(want) in reached), text
        if result:
            assert sorted([x, y]) == sorted([a, b])
            assert OPERATIONS[op](Fraction(x), Fraction(y)) == int(result)
            assert verdict == "no" or result == want
        else:
            assert verdict == "no"
        said[verdict, bool(result)] += 1
    assert min(said.values()) > 200
    assert len(said) == 3


@pytest.mark.parametrize(("numbers", "low", "high"), RANGES)
def test_small_problems_are_solved_truthfully(numbers, low, high):
    rng = random.Random(0)
    for _ in range(60 if numbers < 5 else 15):
        words = write(small_problem, rng, numbers, low, high)
        at = words.index("have")
        assert (words[0], words[2]) == ("make", "from")
        target, given = int(words[1]), [int(w) for w in words[3:at]]
        assert 2 <= len(given) <= max(2, numbers - 1)
        answer = Reader(words[at:], given, target).read().answer
        assert sorted(int(w) for w in answer.split() if w.isdigit()) == sorted(given)
        assert eval(answer) == target


def test_derivations_are_complete_and_their_answers_right():
    rng, task = random.Random(0), Countdown()
    for _ in range(300):
        words = write(derivation, rng)
        numbers = [int(w) for w in words[1:5]]
        at = words.index("answer")
        value = int(words[at - 1]) if words[at - 1].isdigit() else None
        assert value is not None
        # Read as a trace of which the target is what came out.
        Reader([*words[:at], "yes", *words[at:]], numbers, value).read()
        assert task.verify(task.problem({"numbers": numbers, "target": value}), " ".join(words)).right


def test_equal_seeds_give_equal_documents_and_others_differ():
    def draw(seed):
        rng = random.Random(seed)
        return [document(rng, 4, 1, 9, 63) for _ in range(20)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_all_kinds_of_text_occur():
    rng = random.Random(0)
    firsts = {w if not w.isdigit() else "number" for w in (words_of(document(rng, 4, 1, 9, 10))[0] for _ in range(60))}
    assert firsts == {"number", "have", "make"}


@pytest.mark.parametrize(("numbers", "low", "high"), RANGES)
def test_hints_lead_towards_the_target(numbers, low, high):
    rng, sizes = random.Random(0), Counter()
    for _ in range(120):
        text = " ".join(write(hint, rng, numbers, low, high))
        match = HINT.fullmatch(text)
        assert match, text
        target, given, have, a, op, b = match.groups()
        state = sorted(map(int, given.split()))
        assert have is None or sorted(map(int, have.split())) == state
        rest = list(state)
        rest.remove(int(a))
        rest.remove(int(b))
        result = OPERATIONS[op](Fraction(a), Fraction(b))
        assert result == int(result)
        # Brute force takes seconds on more than four numbers.
        assert len(rest) > 3 or int(target) in world_values([*rest, int(result)])
        sizes[len(state)] += 1
    assert set(sizes) == set(range(min(3, numbers), numbers + 1))


def test_passages_part_what_is_given_from_what_follows():
    rng = random.Random(0)
    for _ in range(200):
        for given, learnt in document(rng, 4, 1, 9, 30):
            # Nothing is computed, chosen or judged in what is given.
            assert not {"try", "yes", "no", "answer", ";"} & set(given)
            assert learnt[-1] == ";"
            assert len(learnt) > 1


def test_nothing_is_told_of_problems_that_training_may_not_see():
    rng, asked = random.Random(0), Counter()

    def seen(numbers, target):
        allowed = (sum(numbers) + target) % 2 == 0
        asked[allowed] += 1
        return allowed

    for kind in (hint, derivation):
        for _ in range(150):
            words = write(kind, rng, seen=seen)
            at = words.index("have") if "have" in words else None
            if at is None:
                continue
            numbers = [int(w) for w in words[at + 1 : at + 5]]
            target = int(words[1]) if kind is hint else int(words[words.index("answer") - 1])
            assert (sum(numbers) + target) % 2 == 0
    assert min(asked.values()) > 50


@pytest.mark.parametrize(("low", "high"), [(1, LARGEST_NUMBER + 1), (0, 9), (9, 1)])
def test_numbers_without_a_word_are_refused(low, high):
    with pytest.raises(InvalidValue, match="one token each"):
        document(random.Random(0), 4, low, high, 10)
