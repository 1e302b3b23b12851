"""Steps, measures and roll-outs of trees, against loops over all nodes and a search that notes what it rolls out."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clew.core.types import Outcome, Problem, Sampling, Verdict
from clew.data.tree_steps import (
    backed_up,
    best_known,
    growth,
    guide_scores,
    known_priors,
    outcomes,
    rollouts,
    steps_of,
)
from clew.search import TabularPolicy, run_searches
from clew.search.leaves import Growth
from clew.search.mcts import Mcts

same = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
NODE = st.tuples(
    st.integers(0, 100),
    st.lists(st.integers(1, 2), min_size=1, max_size=2),
    st.sampled_from(["step", "stop", "length", "told"]),
    st.sampled_from([None, "right", "wrong", "unscored"]),
    st.integers(0, 3),
)


def grown(new_sprout, nodes):
    """A tree of nodes (parent, tokens, how it ended, verdict, visits); only responses that stopped have a verdict."""
    sprout = new_sprout()
    for parent, tokens, finish, verdict, visits in nodes:
        judged = verdict if finish == "stop" else None
        value = {"right": 1.0, "wrong": 0.0, "unscored": 0.0, None: 0.5}[judged]
        sprout.add(
            parent % len(sprout.tree),
            tokens,
            finish="step" if finish == "told" else finish,
            told=finish == "told",
            verdict=judged,
            backups=[value] * visits,
        )
    return sprout.tree


@same
@given(st.lists(NODE, max_size=9))
def test_measures_are_those_of_a_loop_over_all_nodes(new_sprout, nodes):
    tree = grown(new_sprout, nodes)
    ends, backed = outcomes(tree), backed_up(tree)
    below = {node: [other for other in range(len(tree)) if node in tree.path(other)] for node in range(len(tree))}
    for node in range(len(tree)):
        values = [
            tree.verdicts[at].value
            for at in below[node]
            if at in tree.verdicts and tree.verdicts[at].outcome is not Outcome.UNSCORED
        ]
        assert ends.counts[node] == len(values)
        assert ends.value([node]) == (sum(values) / len(values) if values else None)
        counted = [
            at
            for at in below[node]
            for _ in range(own_visits(tree, at))
            if at == 0 or tree.verdicts.get(at, Verdict(Outcome.WRONG, 0.0)).outcome is not Outcome.UNSCORED
        ]
        # Visits below a response that could not be judged go with it: nothing goes on from it in a real search.
        if not any(tree.verdicts[at].outcome is Outcome.UNSCORED and tree.children[at] for at in tree.verdicts):
            assert backed.counts[node] == len(counted)


def own_visits(tree, node):
    return tree.visits[node] - sum(tree.visits[child] for child in tree.children[node])


@same
@given(st.lists(NODE, max_size=9))
def test_steps_are_the_sampled_children_with_equal_ones_together(new_sprout, nodes):
    tree = grown(new_sprout, nodes)
    for node in range(len(tree)):
        steps = steps_of(tree, node, frozenset())
        sampled = [child for child in tree.children[node] if tree.completions[child] is not None]
        assert sorted(child for step in steps for child in step.nodes) == sampled
        assert [step.nodes[0] for step in steps] == sorted(step.nodes[0] for step in steps)
        for step in steps:
            assert len({(tree.states[child].tokens, tree.states[child].finished) for child in step.nodes}) == 1
            assert step.before + step.tokens == step.state.tokens
            assert step.before == tree.states[node].tokens
        states = [(step.state.tokens, step.state.finished) for step in steps]
        assert len(set(states)) == len(states)


def test_a_measure_adds_up_over_equal_steps(sprout):
    one = sprout.add(0, [1], backups=[1.0, 0.0], score=0.25)
    two = sprout.add(0, [1], backups=[1.0], score=0.75)
    unseen = sprout.add(0, [2])
    tree = sprout.tree
    assert backed_up(tree).value([one, two]) == pytest.approx(float(Fraction(2, 3)))
    assert guide_scores(tree).value([one, two]) == 0.5
    assert backed_up(tree).value([unseen]) is None
    assert guide_scores(tree).value([unseen]) is None
    assert [step.nodes for step in steps_of(tree, 0, frozenset())] == [(one, two), (unseen,)]


def test_what_could_not_be_judged_is_in_no_value(sprout):
    sprout.add(0, [1, 0], finish="stop", verdict="right", backups=[1.0])
    sprout.add(0, [2, 0], finish="stop", verdict="unscored", backups=[0.0])
    assert backed_up(sprout.tree).value([0]) == 1.0
    assert backed_up(sprout.tree).counts[2] == 0
    assert outcomes(sprout.tree).value([0]) == 1.0


def test_best_known_falls_back(sprout):
    node = sprout.add(0, [1, 0], finish="stop", verdict="right")
    assert best_known(sprout.tree).value([node]) == 1.0
    sprout.tree.score[node] = 0.25
    assert best_known(sprout.tree).value([node]) == 0.25
    sprout.tree.backup(node, 0.5)
    assert best_known(sprout.tree).value([node]) == 0.5


def test_told_text_is_no_step_but_part_of_the_state(sprout):
    first = sprout.add(0, [1, 0], finish="stop")
    hint = sprout.add(first, [9], told=True)
    after = sprout.add(hint, [2])
    tree = sprout.tree
    assert steps_of(tree, first, frozenset()) == []
    assert growth(tree, hint) == ((1,), (9,))
    (step,) = steps_of(tree, hint, frozenset())
    assert (step.before, step.tokens, step.nodes) == ((1, 9), (2,), (after,))


def test_priors_are_known_where_they_add_up(sprout):
    one, two = sprout.add(0, [1], prior=0.75), sprout.add(0, [2], prior=0.25)
    plain = [sprout.add(one, [3]), sprout.add(one, [4])]
    alone = sprout.add(two, [5])
    priors = known_priors(sprout.tree, frozenset())
    assert [priors[node] for node in (one, two, *plain, alone)] == [0.75, 0.25, None, None, 1.0]
    assert priors[0] is None


def next_probs(state):
    if len(state.tokens) >= 6:
        return [1.0, 0.0, 0.0, 0.0]
    return [0.05, 0.25, 0.2, 0.5] if len(state.tokens) % 2 else [0.05, 0.25, 0.3, 0.4]


class Letters:
    def verify(self, problem, text):
        return Verdict(Outcome.RIGHT, 1.0) if text.count("a") % 2 else Verdict(Outcome.WRONG, 0.0)


class Length:
    name = "length"

    def score(self, states, completions):
        return [1.0 / (1 + len(state.tokens)) for state in states]

    def cost_tokens(self, states):
        return 0


@pytest.mark.parametrize("step", [Sampling(max_tokens=1), Sampling(max_tokens=8, step_ends=(";",))])
def test_roll_outs_are_those_that_the_search_made(monkeypatch, step):
    made = []
    real = Growth._roll_out

    def noted(self, nodes):
        before = len(self.tree)
        places = yield from real(self, nodes)
        made.append({place for place in places if place >= before})
        return places

    monkeypatch.setattr(Growth, "_roll_out", noted)
    policy = TabularPolicy(("end", "a", "b", "c;"), next_probs)
    strategy = Mcts(iterations=30, width=3, sampling=step, rollout=Sampling(max_tokens=16))
    found = missed = 0
    for seed in range(4):
        made.clear()
        problem = Problem(f"words:{seed}", "words", ())
        (outcome,) = run_searches(strategy, [problem], policy, task=Letters(), seed=seed)
        tree = outcome.result.tree
        known, told = set().union(*made), set(rollouts(tree))
        found += len(known)
        assert known <= told
        # What is taken for one besides is a last step that had no sibling.
        for node in told - known:
            missed += 1
            assert len([at for at in tree.children[tree.parent[node]] if at not in known]) == 1
    assert found > 40
    assert missed <= found / 10


@pytest.mark.parametrize("step", [Sampling(max_tokens=1), Sampling(max_tokens=8, step_ends=(";",))])
def test_a_search_that_does_not_roll_out_has_no_roll_outs(step):
    policy = TabularPolicy(("end", "a", "b", "c;"), next_probs)
    strategy = Mcts(iterations=30, width=3, evaluate="value", guide="scorer", sampling=step)
    (outcome,) = run_searches(strategy, [Problem("words:1", "words", ())], policy, task=Letters(), scorer=Length())
    assert len(outcome.result.tree) > 12
    assert rollouts(outcome.result.tree) == set()


def test_solutions_are_no_roll_outs(sprout):
    for token in (1, 2, 3):
        sprout.add(0, [token, 0], finish="stop", backups=[1.0])
    assert rollouts(sprout.tree) == set()
    assert len(steps_of(sprout.tree, 0, rollouts(sprout.tree))) == 3
