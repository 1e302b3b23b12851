"""Targets of policy and value from visits, in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.core.types import Completion, FinishReason, Problem, State
from clew.data.origin import Origin
from clew.data.targets import Target, visit_shares, visit_targets
from clew.search.tree import Tree

same = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
VISITS = st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any)


@given(VISITS, st.sampled_from([1, 2, 3]))
def test_shares_are_powers_of_the_visits(visits, power):
    shares = visit_shares(visits, 1 / power)
    total = sum(Fraction(n) ** power for n in visits)
    assert shares == pytest.approx([float(Fraction(n) ** power / total) for n in visits], abs=1e-12)


@given(VISITS, st.floats(0.05, 20.0))
def test_shares_add_up_and_keep_the_order(visits, temperature):
    shares = visit_shares(visits, temperature)
    assert sum(shares) == pytest.approx(1.0)
    for (n, one), (m, other) in zip(
        zip(visits, shares, strict=True), zip(visits[1:], shares[1:], strict=True), strict=False
    ):
        assert (one > other) == (n > m) or math.isclose(one, other, abs_tol=1e-12)
    assert all((share > 0) <= (n > 0) for share, n in zip(shares, visits, strict=True))


@given(VISITS)
def test_no_temperature_is_the_most_visited(visits):
    most = [n == max(visits) for n in visits]
    assert visit_shares(visits, 0.0) == [float(one) / sum(most) for one in most]


def test_extreme_temperatures():
    assert visit_shares([10**6, 1], 0.01) == [1.0, 0.0]
    assert visit_shares([10**9, 1], 1e6) == pytest.approx([0.5, 0.5], abs=1e-4)


@pytest.mark.parametrize(
    ("visits", "temperature"), [([], 1.0), ([0, 0], 1.0), ([-1, 2], 1.0), ([1], -1.0), ([1], math.nan)]
)
def test_what_gives_no_shares(visits, temperature):
    with pytest.raises(InvalidValue, match="accepted"):
        visit_shares(visits, temperature)


STEP = st.tuples(st.integers(0, 5), st.integers(1, 3), st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=3))


@same
@given(st.lists(STEP, max_size=12), st.integers(0, 4))
def test_targets_of_every_node(new_sprout, steps, least):
    sprout = new_sprout()
    for parent, token, backups in steps:
        sprout.add(parent % len(sprout.tree), [token], backups=backups)
    tree = sprout.tree
    expected = {}
    for node in range(len(tree)):
        visits = {}
        for child in tree.children[node]:
            token = tree.states[child].tokens[-1:]
            visits[token] = visits.get(token, 0) + tree.visits[child]
        if sum(visits.values()) >= max(1, least):
            expected[node] = visits
    targets = visit_targets(tree, min_visits=least)
    assert {one.origin.node: dict(zip(one.actions, one.visits, strict=True)) for one in targets} == expected
    for one in targets:
        node = one.origin.node
        assert one.prefix == tree.states[node].tokens
        assert one.probabilities == pytest.approx([n / sum(one.visits) for n in one.visits])
        assert one.value == pytest.approx(tree.value_sum[node] / tree.visits[node])


def test_a_target_with_everything(sprout):
    top = sprout.add(0, [1], prior=0.5, backups=[0.5])
    sprout.add(top, [2], prior=0.25, backups=[1.0, 1.0, 0.0])
    sprout.add(top, [3], prior=0.75, backups=[0.0])
    sprout.add(top, [3, 4, 0], finish="stop", verdict="right", backups=[1.0])  # rolled out
    found = visit_targets(sprout.tree, temperature=0.5, text=sprout.text, origin=Origin(run="r", tree="t"))
    (one,) = [target for target in found if target.origin.node == top]
    assert (one.actions, one.texts, one.prefix_text) == (((2,), (3,), (3, 4, 0)), ("b", "c", "cd."), "a")
    assert one.visits == (3, 1, 1)
    assert one.probabilities == pytest.approx((9 / 11, 1 / 11, 1 / 11))
    assert one.value == pytest.approx(3.5 / 6)
    assert one.returned == 1.0
    assert one.origin == Origin(run="r", tree="t", node=top)


def test_roll_outs_are_no_choice_but_count_in_the_value(sprout):
    top = sprout.add(0, [1], prior=0.5)
    other = sprout.add(0, [2], prior=0.5)
    sprout.add(top, [5, 0], finish="stop", verdict="right", backups=[1.0])
    sprout.add(top, [3], prior=0.5, backups=[0.0])
    sprout.add(top, [4], prior=0.5, backups=[0.0, 1.0])
    sprout.add(other, [5, 0], finish="stop", verdict="wrong", backups=[0.0])
    root, below = visit_targets(sprout.tree)
    assert (root.actions, root.visits, root.value) == (((1,), (2,)), (4, 1), 0.4)
    assert (below.actions, below.visits, below.value) == (((3,), (4,)), (1, 2), 0.5)


def test_what_is_written_anew_or_on_another_question_is_no_choice_in_the_state():
    here, elsewhere = Problem("a", "a", ()), Problem("b", "a", ())
    tree = Tree(here)

    def add(parent, problem, before, new):
        completion = Completion(new, (-1.0,) * len(new), FinishReason.STEP)
        node = tree.add(parent, State(problem, before).extend(completion), completion)
        tree.visits[node], tree.value_sum[node], tree.prior[node] = 2, 1.0, 0.5
        return node

    top = add(0, here, (), (1, 2))
    add(top, here, (1, 2), (3,))
    add(top, here, (), (4,))
    add(top, elsewhere, (1, 2), (5,))
    add(0, elsewhere, (), (6,))
    tree.visits[0] = 10
    found = {one.origin.node: one.actions for one in visit_targets(tree)}
    assert found == {0: ((1, 2),), top: ((3,),)}


def test_no_visits_no_target(sprout):
    assert visit_targets(sprout.tree) == []
    sprout.add(0, [1], score=0.5)
    assert visit_targets(sprout.tree) == []


def test_probabilities_that_do_not_add_up_are_refused():
    with pytest.raises(InvalidValue):
        Target(problem=Problem("a", "a", ()), prefix=(), actions=((1,),), probabilities=(0.9,), visits=(1,))
