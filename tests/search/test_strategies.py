from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from clew.core.cost import Budget, Cost
from clew.core.errors import InvalidValue, UnknownName
from clew.core.protocols import Prompt
from clew.core.types import Completion, FinishReason, Sampling, State
from clew.search import (
    BestOfN,
    FirstRight,
    MajorityVote,
    MeanLogProb,
    PooledPolicy,
    ScriptedPolicy,
    make_scorer,
    make_strategy,
    run_searches,
)
from clew.search.serve import sample_seed
from clew.search.tree import Tree


def search(strategy, toy, policy=None, **settings):
    return run_searches(
        strategy, toy.problems, policy or toy.policy(), task=toy.Task(), scorer=MeanLogProb(), **settings
    )


def texts_of(toy, n, seed=0):
    policy = toy.policy()
    roots = [State(problem) for problem in toy.problems]
    return [
        [
            policy.text(root.extend(policy.sample([Prompt(root, sample_seed(seed, root, i))], Sampling())[0]))
            for i in range(n)
        ]
        for root in roots
    ]


@pytest.mark.parametrize("name", ["verifier", "mean-logprob"])
def test_best_of_one_is_plain_sampling(name, toy):
    policy = toy.policy()
    outcomes = search(make_strategy("best-of-n", 1, guidance=name), toy, policy)
    assert [[policy.text(o.result.chosen)] for o in outcomes] == texts_of(toy, 1)


def test_majority_of_one_is_plain_sampling_or_nothing(toy):
    policy = toy.policy()
    for outcome, (text,) in zip(search(MajorityVote(n=1), toy, policy), texts_of(toy, 1), strict=True):
        chosen = outcome.result.chosen
        assert chosen is None if "answer" not in text else policy.text(chosen) == text


def test_best_of_n_by_the_verifier_is_right_iff_any_sample_is(toy):
    policy, task = toy.policy(), toy.Task()
    rights = []
    for outcome, texts in zip(search(BestOfN(n=8), toy, policy), texts_of(toy, 8), strict=True):
        right = [task.verify(outcome.problem, text).right for text in texts]
        chosen = texts[right.index(True)] if any(right) else texts[0]
        assert policy.text(outcome.result.chosen) == chosen
        assert [c.score for c in outcome.result.candidates] == [float(r) for r in right]
        rights.append(any(right))
    assert True in rights
    assert False in rights


def test_best_of_n_by_log_prob_takes_the_likeliest(toy):
    for outcome in search(BestOfN(n=8, guide="scorer"), toy):
        means = [sum(c.completion.logprobs) / len(c.completion.tokens) for c in outcome.result.candidates]
        assert outcome.result.chosen == outcome.result.candidates[means.index(max(means))].state
        assert len(set(means)) > 1


def test_unscored_candidates_come_last(toy):
    policy = ScriptedPolicy(["crash answer 1", "answer 0", "answer 1"] * 9)
    for outcome in run_searches(BestOfN(n=3), toy.problems, policy, task=toy.Task()):
        assert outcome.result.candidates[0].score is None
        expected = 2 if outcome.problem.metadata["digit"] == "1" else 1
        assert outcome.result.chosen == outcome.result.candidates[expected].state


def test_majority_against_a_counter(toy):
    policy, task = toy.policy(), toy.Task()
    for outcome, texts in zip(search(MajorityVote(n=16), toy, policy), texts_of(toy, 16), strict=True):
        answers = [task.extract(text) for text in texts]
        counts = Counter(a for a in answers if a is not None)
        first = next(i for i, a in enumerate(answers) if a is not None and counts[a] == max(counts.values()))
        assert outcome.result.chosen == outcome.result.candidates[first].state
        assert outcome.cost.verifier_calls == 0
        shares = [None if a is None else counts[a] / 16 for a in answers]
        assert [c.score for c in outcome.result.candidates] == shares


def test_a_vote_without_answers_chooses_nothing(toy):
    for outcome in search(MajorityVote(n=3), toy, ScriptedPolicy(lambda prompt, sampling: "hm")):
        assert outcome.result.chosen is None
        assert len(outcome.result.candidates) == 3


def test_more_samples_never_hurt_with_an_exact_verifier(toy):
    policy = PooledPolicy(toy.policy())
    solved_before: set[str] = set()
    for n in (1, 2, 4, 8, 16, 32):
        outcomes = search(BestOfN(n=n), toy, policy)
        solved = {o.problem.id for o in outcomes if toy.Task().verify(o.problem, policy.text(o.result.chosen)).right}
        assert solved_before <= solved
        solved_before = solved
    assert len(solved_before) > 3


@pytest.mark.parametrize("n", [1, 3, 8, 32])
def test_first_right_is_best_of_n_that_stops_when_it_can(n, toy):
    policy, task = toy.policy(), toy.Task()
    stopped = 0
    for best, first in zip(search(BestOfN(n=n), toy, policy), search(FirstRight(n=n), toy, policy), strict=True):
        assert first.result.chosen == best.result.chosen
        taken = len(first.result.candidates)
        assert [c.state for c in first.result.candidates] == [c.state for c in best.result.candidates[:taken]]
        right = [task.verify(c.state.problem, policy.text(c.state)).right for c in best.result.candidates]
        # In waves of 1, 1, 2, 4, ...: it stops at the first power of two that holds a right solution.
        enough = right.index(True) + 1 if any(right) else n
        assert taken == min(n, 1 << (enough - 1).bit_length())
        assert first.cost.verifier_calls == first.cost.model_calls == taken
        stopped += taken < n
    assert stopped > 0 or n == 1


def test_first_right_within_a_budget_answers_with_what_it_has(toy):
    for outcome in search(FirstRight(n=64), toy, budget=Budget(calls=4)):
        assert outcome.cost.model_calls <= 4
        assert outcome.result.chosen is not None


def test_strategies_draw_from_one_pool_and_pay_alike(toy):
    counting = toy.Counting(toy.policy())
    pool = PooledPolicy(counting)
    bests, votes = search(BestOfN(n=8), toy, pool), search(MajorityVote(n=8), toy, pool)
    search(MajorityVote(n=4), toy, pool)
    assert counting.calls == [72]
    for best, vote in zip(bests, votes, strict=True):
        assert [c.state for c in best.result.candidates] == [c.state for c in vote.result.candidates]
        assert best.cost.tokens_sampled == vote.cost.tokens_sampled > 0
        assert best.cost.prompt_tokens_cached == vote.cost.prompt_tokens_cached > 0
    alone = search(MajorityVote(n=8), toy)
    assert [(o.result, o.cost.tokens) for o in alone] == [(o.result, o.cost.tokens) for o in votes]


def test_mean_log_prob():
    scorer = MeanLogProb()
    state = State(None)
    completion = Completion((1, 2), (-1.0, -2.0), FinishReason.STOP)
    assert scorer.score([state], [completion]) == [-1.5]
    assert scorer.cost_tokens([state]) == 0
    for missing in (None, Completion((1,), None, FinishReason.STOP)):
        with pytest.raises(InvalidValue) as error:
            scorer.score([state], [missing])
        assert "log-prob" in error.value.given
        assert "verifier" in error.value.advice


def test_a_policy_without_log_probs_works_with_guides_that_need_none(toy):
    policy = ScriptedPolicy(lambda prompt, sampling: "answer 3")
    assert len(search(BestOfN(n=2), toy, policy)) == 9
    with pytest.raises(InvalidValue, match="log-probs"):
        search(BestOfN(n=2, guide="scorer"), toy, policy)


def test_names():
    sampling = Sampling(temperature=0.7)
    assert make_strategy("best-of-n", 4, sampling=sampling) == BestOfN(n=4, sampling=sampling)
    assert make_strategy("best-of-n", 4, guidance="mean-logprob") == BestOfN(n=4, guide="scorer")
    assert make_strategy("first-right", 4, sampling=sampling) == FirstRight(n=4, sampling=sampling)
    assert make_strategy("majority-vote", 8, per_request=2) == MajorityVote(n=8, per_request=2)
    assert make_scorer(None) is None
    assert make_scorer("verifier") is None
    assert make_scorer("mean-logprob") == MeanLogProb()


@pytest.mark.parametrize(
    ("call", "nearest"),
    [
        (lambda: make_strategy("best-of-m", 4), "best-of-n"),
        (lambda: make_strategy("majority", 4), "majority-vote"),
        (lambda: make_strategy("best-of-n", 4, guidance="verify"), "verifier"),
        (lambda: make_scorer("logprob"), "mean-logprob"),
    ],
)
def test_unknown_names_name_the_nearest(call, nearest):
    with pytest.raises(UnknownName) as error:
        call()
    assert nearest in error.value.advice


@pytest.mark.parametrize(
    "call",
    [
        lambda: BestOfN(n=0),
        lambda: FirstRight(n=0),
        lambda: make_strategy("first-right", 2, guidance="mean-logprob"),
        lambda: MajorityVote(n=-1),
        lambda: BestOfN(n=2, per_request=0),
        lambda: make_strategy("majority-vote", 2, guidance="verifier"),
    ],
)
def test_settings_that_are_not_accepted(call):
    with pytest.raises(InvalidValue):
        call()


@pytest.mark.parametrize(
    "strategy",
    [BestOfN(n=7), BestOfN(n=7, guide="scorer", per_request=3), FirstRight(n=7), MajorityVote(n=7)],
    ids=repr,
)
def test_the_tree_holds_all_that_was_sampled_judged_and_read(strategy, toy):
    policy, task = toy.policy(), toy.Task()
    for outcome in search(strategy, toy, policy):
        tree, candidates = outcome.result.tree, outcome.result.candidates
        assert tree.children[0] == list(range(1, len(candidates) + 1))
        assert tree.states[1:] == [c.state for c in candidates]
        assert replace(outcome.cost, seconds=0.0, verifier_calls=0) == tree.cost()
        texts = [policy.text(state) for state in tree.states[1:]]
        judged = isinstance(strategy, FirstRight) or getattr(strategy, "guide", "") == "verifier"
        verdicts = [task.verify(outcome.problem, text) for text in texts]
        assert tree.verdicts == (dict(enumerate(verdicts, 1)) if judged else {})
        read = isinstance(strategy, MajorityVote)
        assert tree.answers == (dict(enumerate(map(task.extract, texts), 1)) if read else {})
        assert [None if score != score else score for score in tree.score[1:]] == [c.score for c in candidates]
        if isinstance(strategy, BestOfN):
            assert list(tree.made[1:]) == [1 + i // (strategy.per_request or 7) for i in range(7)]


def test_trees_are_equal_if_they_saw_the_same(toy):
    one, same = (search(BestOfN(n=4, guide="scorer"), toy)[0].result.tree for _ in range(2))
    assert one == same
    assert one != search(BestOfN(n=4), toy)[0].result.tree, "other scores"
    assert one != search(BestOfN(n=4, guide="scorer", per_request=2), toy)[0].result.tree, "other rounds"
    same.costs[1] += same.costs[2]
    assert one != same
    assert one != "a tree"


def test_a_node_costs_what_its_completion_did_unless_told_otherwise(toy):
    tree = Tree(toy.problem(0))
    completion = Completion((1, 2), None, FinishReason.STOP, prompt_tokens_read=3)
    sampled = tree.add(0, tree.states[0].extend(completion), completion)
    shared = tree.add(0, tree.states[0].extend(completion), completion, cost=Cost(tokens_sampled=5))
    told = tree.add(0, tree.states[0].told((7,)))
    own = Cost(tokens_sampled=2, prompt_tokens_read=3, model_calls=1)
    assert tree.costs == [Cost(), own, Cost(tokens_sampled=5), Cost()]
    tree.pay(sampled, completion)
    assert tree.cost([sampled, shared, told]) == tree.cost() == own + own + Cost(tokens_sampled=5)
