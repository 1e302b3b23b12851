"""What a test and a function send each other arrives equal and of built-in types, or not at all."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict, namedtuple
from enum import IntEnum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.sandbox.inside.values import MAX_DEPTH, Opaque, Unsendable, decode, encode

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False)
    | st.text() | st.binary() | st.complex_numbers(allow_nan=False)
)  # fmt: skip
HASHABLE = st.recursive(LEAVES, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=6)
VALUES = st.recursive(
    HASHABLE | st.sets(HASHABLE, max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(HASHABLE, inner, max_size=3) | st.tuples(inner),
    max_leaves=20,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["t", "s", "z", "d", "i", "b", "c", "r", "n", "o", "x"]), inner, max_size=2)
    ),
    max_leaves=15,
)


def travelled(value):
    return decode(json.loads(json.dumps(encode(value))))


def same(a, b) -> bool:
    """Equal, and of the same types all the way down."""
    if type(a) is not type(b) or a != b:
        return False
    if isinstance(a, list | tuple):
        return all(map(same, a, b))
    if isinstance(a, dict):
        return all(same(a[key], b[key]) for key in a)
    return True


@settings(max_examples=60)
@given(VALUES)
def test_plain_values_arrive_as_they_were(value):
    assert same(travelled(value), value)


@given(JSON)
def test_whatever_arrives_is_plain_or_refused(encoded):
    try:
        value = decode(encoded)
    except Unsendable:
        return
    assert type(value).__module__ in ("builtins", "clew.sandbox.inside.values")


def test_subclasses_arrive_as_what_they_hold():
    class Liar(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    class Colour(IntEnum):
        RED = 3

    pair = namedtuple("pair", "a b")
    for sent, expected in (
        (Liar(3), 3),
        (Colour.RED, 3),
        (pair(1, Liar(2)), (1, 2)),
        (OrderedDict(a=1), {"a": 1}),
        (Counter("aab"), {"a": 2, "b": 1}),
        ([Liar(1)], [1]),
        (type("T", (str,), {})("x"), "x"),
    ):
        assert same(travelled(sent), expected)


def test_an_object_equals_nothing():
    class Any:
        def __eq__(self, other):
            return True

    got = travelled(Any())
    assert isinstance(got, Opaque)
    assert got != 3
    assert got != travelled(Any())


def test_iterators_arrive_as_iterators():
    assert list(travelled(map(str, [1, 2]))) == ["1", "2"]
    assert travelled(iter([1])) != [1]
    assert travelled(range(2, 9, 3)) == range(2, 9, 3)


def test_nan_stays_not_a_number():
    assert travelled(float("nan")) != travelled(float("nan"))
    assert travelled(float("-inf")) == float("-inf")


@pytest.mark.parametrize("levels", [MAX_DEPTH + 2, 5000])
def test_too_deep_is_refused(levels):
    deep: list = []
    encoded: list = []
    for _ in range(levels):
        deep, encoded = [deep], [encoded]
    with pytest.raises(Unsendable):
        encode(deep)
    with pytest.raises(Unsendable):
        decode(encoded)


def test_too_many_are_refused():
    value: list = [0]
    for _ in range(60):
        value = [value, value]
    with pytest.raises(Unsendable):
        encode(value)
