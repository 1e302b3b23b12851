from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talk import Digit, Rates, Talk, candidates, search, text

from clew.core.cost import Budget
from clew.core.errors import InvalidValue
from clew.core.types import Sampling
from clew.search import BestOfN, StopReason
from clew.search.best_of_n_then_revise import BestOfNThenRevise, division

ASK = "no: {reason}"


@pytest.mark.parametrize(
    ("n", "ratio", "keep", "expected"),
    [
        (16, 0.5, 4, (8, [4, 4])),
        (16, 0.5, 3, (8, [3, 3, 2])),
        (16, 0.0, 4, (16, [])),
        (16, 0.99, 4, (1, [1] * 15)),
        (1, 0.9, 4, (1, [])),
        (2, 0.5, 1, (1, [1])),
        (8, 0.75, 4, (2, [2, 2, 2])),
    ],
)
def test_how_responses_are_divided(n, ratio, keep, expected):
    assert division(n, ratio, keep) == expected


@given(st.integers(1, 200), st.floats(0, 1, exclude_max=True), st.integers(1, 50))
def test_all_responses_are_spent_in_chains_that_differ_by_one_at_most(n, ratio, keep):
    parallel, waves = division(n, ratio, keep)
    assert parallel + sum(waves) == n
    assert parallel >= 1
    assert all(0 < width <= min(keep, parallel) for width in waves)
    chains = [sum(chain < width for width in waves) for chain in range(min(keep, parallel))]
    assert max(chains) - min(chains) <= 1
    assert abs(sum(waves) - n * ratio) <= 1


def numbered(first: str):
    """First responses are the letters of `first`; a revision says the letter that follows the one it is told of."""
    letters = iter(first)
    return Talk(lambda shown, begun: next(letters) if not shown else chr(ord(shown[-2]) + 1))


def test_the_best_are_kept_and_each_is_revised_one_after_another():
    by = Rates(lambda said: {"c": 0.5, "d": 0.3, "e": 0.9, "m": 0.7, "n": 0.1, "o": 0.2}.get(said, 0.0))
    talk = numbered("acmb")
    strategy = BestOfNThenRevise(n=8, ratio=0.5, keep=2, feedback=ASK, guide="scorer")
    found = search(strategy, talk, scorer=by)
    assert candidates(found) == ["a", "c", "m", "b", "n", "d", "o", "e"]
    assert [turn.shown for turn in talk.turns[4:]] == [
        ("m", "no: it was rated 0.70"),
        ("c", "no: it was rated 0.50"),
        ("m", "no: it was rated 0.70", "n", "no: it was rated 0.10"),
        ("c", "no: it was rated 0.50", "d", "no: it was rated 0.30"),
    ]
    assert text(found) == "e"
    assert found.cost.model_calls == 8
    tree = found.result.tree
    assert [tree.depth[node] for node in range(len(tree)) if tree.completions[node]] == [1] * 4 + [3] * 2 + [5] * 2


def test_memory_is_that_of_the_chain():
    talk = numbered("ah")
    search(BestOfNThenRevise(n=8, ratio=0.75, keep=2, memory=1, feedback=ASK), talk, judge=Digit())
    assert [turn.shown[0] for turn in talk.turns[2:]] == ["a", "h", "b", "i", "c", "j"]
    assert {len(turn.shown) for turn in talk.turns[2:]} == {2}


@pytest.mark.parametrize(("first", "calls"), [("172", 4), ("462", 6), ("452", 8), ("111", 12)])
def test_with_the_verifier_it_stops_in_the_wave_that_is_right(first, calls):
    talk = numbered(first + first[-1])
    found = search(BestOfNThenRevise(n=12, ratio=0.67, keep=2, feedback=ASK), talk, judge=Digit())
    assert len(talk.turns) == len(candidates(found)) == calls
    assert text(found) == ("7" if first != "111" else "1")
    assert all(turn.shown[-1].endswith("is not it") for turn in talk.turns[4:])


def test_without_revisions_it_is_best_of_n(toy):
    by = Rates(lambda said: float(len(said) % 5))
    settings = {"n": 7, "guide": "scorer", "sampling": Sampling(max_tokens=32)}
    drawn = iter(range(99)), iter(range(99))
    ours = search(BestOfNThenRevise(ratio=0.0, **settings), Talk(lambda *_: "x" * (next(drawn[0]) * 3)), scorer=by)
    theirs = search(BestOfN(**settings), Talk(lambda *_: "x" * (next(drawn[1]) * 3)), scorer=by)
    assert (text(ours), candidates(ours)) == (text(theirs), candidates(theirs))


@pytest.mark.parametrize("calls", range(1, 12))
def test_whenever_the_budget_ends_it_answers_with_the_best_so_far(calls):
    talk = numbered("abcd")
    by = Rates(lambda said: float(ord(said)))
    found = search(
        BestOfNThenRevise(n=12, ratio=0.67, keep=2, guide="scorer"), talk, scorer=by, budget=Budget(calls=calls)
    )
    # Requests of 4 first responses, then of two revisions each.
    waves = max(0, -(-(calls - 4) // 2))
    assert found.stop is (StopReason.BUDGET if waves < 4 else StopReason.FINISHED)
    assert text(found) == chr(ord("d") + waves)


@pytest.mark.parametrize(
    "wrong", [{"n": 0}, {"keep": 0}, {"memory": 0}, {"ratio": 1.0}, {"ratio": -0.1}, {"ratio": float("nan")}]
)
def test_settings_that_are_not_accepted(wrong):
    with pytest.raises(InvalidValue):
        BestOfNThenRevise(**wrong)
