from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, entropy

from clew.core.errors import InvalidValue
from clew.core.protocols import Prompt
from clew.core.seeds import derive_seed
from clew.core.types import FinishReason, Message, Problem, Sampling, State
from clew.search import PooledPolicy, ScriptedPolicy, TabularPolicy

PROBLEM = Problem("p", "toy", (Message("user", "abc"),))
ROOT = State(PROBLEM)


def next_probs(state):
    """Depends on the last token, so that a wrong state would show."""
    return [(0.2, 0.5, 0.3), (0.6, 0.1, 0.3), (0.1, 0.2, 0.7)][state.tokens[-1] if state.tokens else 0]


TABULAR = TabularPolicy(("</s>", "a", "b"), next_probs)


def test_tabular_enumeration_is_the_whole_distribution():
    outcomes = list(TABULAR.enumerate(ROOT, Sampling(max_tokens=3)))
    assert math.fsum(p for _, p in outcomes) == pytest.approx(1.0, abs=1e-12)
    expected = {}
    for tokens in product(range(3), repeat=3):
        cut = tokens[: tokens.index(0) + 1] if 0 in tokens else tokens
        steps = [next_probs(State(PROBLEM, cut[:i]))[t] for i, t in enumerate(cut)]
        expected[cut] = math.prod(steps)
    assert {c.tokens: p for c, p in outcomes} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=3),
        Sampling(max_tokens=2, temperature=0.5),
        Sampling(max_tokens=2, temperature=2.0, top_k=2),
        Sampling(max_tokens=3, top_p=0.75),
    ],
    ids=repr,
)
def test_tabular_samples_follow_the_exact_distribution(sampling):
    exact = {c.tokens: p for c, p in TABULAR.enumerate(ROOT, sampling)}
    num = 6000
    prompts = [Prompt(ROOT, derive_seed(11, "p", "sample", i)) for i in range(num)]
    counts = Counter(c.tokens for c in TABULAR.sample(prompts, sampling))
    assert set(counts) <= set(exact)
    test = chisquare([counts[tokens] for tokens in exact], [p * num for p in exact.values()])
    assert test.pvalue > 1e-3


def test_tabular_log_probs_are_those_of_the_sampling_distribution():
    sampling = Sampling(max_tokens=4, temperature=0.5)
    (completion,) = TABULAR.sample([Prompt(ROOT, 7)], sampling)
    before = ()
    for token, logprob in zip(completion.tokens, completion.logprobs, strict=True):
        squares = [p * p for p in next_probs(State(PROBLEM, before))]
        assert logprob == pytest.approx(math.log(squares[token] / sum(squares)), abs=1e-12)
        before += (token,)


def test_tabular_top_k_and_top_p_and_greedy():
    assert TABULAR.distribution(ROOT, Sampling(top_k=2)) == pytest.approx([0.0, 0.625, 0.375])
    assert TABULAR.distribution(ROOT, Sampling(top_p=0.5)) == pytest.approx([0.0, 1.0, 0.0])
    assert TABULAR.distribution(ROOT, Sampling(top_p=0.51)) == pytest.approx([0.0, 0.625, 0.375])
    assert TABULAR.distribution(ROOT, Sampling(temperature=0.0)) == [0.0, 1.0, 0.0]


def test_tabular_statistics_are_those_of_each_tokens_distribution():
    """Golden values of the first token, (0.2, 0.5, 0.3): H = 1.02965, KL(uniform || p) = 0.07024 nats."""
    sampling = Sampling(max_tokens=4, temperature=0.5, statistics=True)
    plain = TABULAR.sample([Prompt(ROOT, seed) for seed in range(30)], replace(sampling, statistics=False))
    assert {(c.entropies, c.certainties) for c in plain} == {(None, None)}
    for one, bare in zip(TABULAR.sample([Prompt(ROOT, seed) for seed in range(30)], sampling), plain, strict=True):
        assert replace(one, entropies=None, certainties=None) == bare
        for i in range(len(one.tokens)):
            probs = np.array(TABULAR.distribution(State(PROBLEM, one.tokens[:i]), sampling))
            assert one.entropies[i] == pytest.approx(entropy(probs), abs=1e-12)
            assert one.certainties[i] == pytest.approx(entropy(np.full(3, 1 / 3), probs), abs=1e-12)
    (warm,) = TABULAR.sample([Prompt(ROOT, 0)], Sampling(max_tokens=1, statistics=True))
    assert (warm.entropies[0], warm.certainties[0]) == pytest.approx((1.02965, 0.07024), abs=1e-5)
    (cut,) = TABULAR.sample([Prompt(ROOT, 0)], Sampling(max_tokens=1, top_k=1, statistics=True))
    assert (cut.entropies, cut.certainties) == ((0.0,), (math.inf,))
    enumerated = {c.tokens: c for c, _ in TABULAR.enumerate(ROOT, sampling)}
    assert all(enumerated[c.tokens].entropies == c.entropies for c in TABULAR.sample([Prompt(ROOT, 3)], sampling))


def test_tabular_steps_end_where_they_should():
    policy = TabularPolicy(("</s>", "a.", "b", "x\n\n"), lambda state: (0.1, 0.3, 0.3, 0.3))
    ends = {}
    for completion, _ in policy.enumerate(ROOT, Sampling(max_tokens=3, step_ends=("\n", "."))):
        *inside, last = completion.tokens
        assert set(inside) <= {2}
        ends.setdefault(last, set()).add(completion.finish)
    assert ends == {0: {FinishReason.STOP}, 1: {FinishReason.STEP}, 2: {FinishReason.LENGTH}, 3: {FinishReason.STEP}}


@settings(deadline=None)
@given(
    weights=st.lists(st.sampled_from([0.0, 1e-12, 0.25, 1.0]) | st.floats(0.0, 1.0), min_size=1, max_size=6).filter(
        lambda w: max(w) > 1e-6
    ),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    top_k=st.integers(0, 7),
    top_p=st.floats(0.01, 1.0),
)
def test_tabular_distribution_sums_to_one(weights, temperature, top_k, top_p):
    total = sum(weights)
    policy = TabularPolicy(tuple("abcdef"), lambda state: [w / total for w in weights])
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    probs = policy.distribution(ROOT, sampling)
    assert math.fsum(probs) == pytest.approx(1.0, abs=1e-9)
    assert min(probs) >= 0.0
    assert probs[weights.index(max(weights))] > 0.0
    assert top_k == 0 or sum(p > 0 for p in probs) <= top_k


def test_tabular_sample_depends_on_its_seed_alone():
    prompts = [Prompt(ROOT, seed) for seed in range(20)]
    together = TABULAR.sample(prompts, Sampling(max_tokens=5))
    assert together == [TABULAR.sample([p], Sampling(max_tokens=5))[0] for p in prompts]
    assert len({c.tokens for c in together}) > 1
    assert TABULAR.text(ROOT.extend(next(c for c in together if c.tokens[:2] == (1, 2)))).startswith("a b")


def test_scripted_completion():
    policy = ScriptedPolicy(lambda prompt, sampling: "né", logprob=lambda prompt, token: -token / 10)
    one, two = policy.sample([Prompt(ROOT, 0), Prompt(ROOT, 1)], Sampling())
    assert one.tokens == (*"né".encode(), 256)
    assert one.logprobs == tuple(-t / 10 for t in one.tokens)
    assert one.finish is FinishReason.STOP
    assert policy.text(ROOT.extend(one)) == "né"
    assert (one.prompt_tokens_read, one.prompt_tokens_cached) == (3, 0)
    assert (two.prompt_tokens_read, two.prompt_tokens_cached) == (0, 3)


def test_scripted_completion_is_cut_at_max_tokens():
    (cut,) = ScriptedPolicy(["abcdef"]).sample([Prompt(ROOT, 0)], Sampling(max_tokens=6))
    assert (cut.tokens, cut.finish, cut.logprobs) == (tuple(b"abcdef"), FinishReason.LENGTH, None)
    (whole,) = ScriptedPolicy(["abcde"]).sample([Prompt(ROOT, 0)], Sampling(max_tokens=6))
    assert whole.finish is FinishReason.STOP


def test_a_script_that_runs_out():
    policy = ScriptedPolicy(["a", "b"])
    assert [policy.text(ROOT.extend(c)) for c in policy.sample([Prompt(ROOT, 0)] * 2, Sampling())] == ["a", "b"]
    with pytest.raises(InvalidValue, match="script"):
        policy.sample([Prompt(ROOT, 0)], Sampling())


def test_pool_keeps_apart_what_differs():
    asked = []

    def script(prompt, sampling):
        asked.append((prompt.seed, prompt.state.tokens, prompt.state.problem.id, sampling.temperature))
        return f"{len(asked)}"

    pool = PooledPolicy(ScriptedPolicy(script))
    other = State(Problem("q", "toy", ()))
    cases = [(ROOT, 0, 1.0), (ROOT, 1, 1.0), (State(PROBLEM, (65,)), 0, 1.0), (other, 0, 1.0), (ROOT, 0, 0.5)]
    first = [pool.sample([Prompt(s, seed)], Sampling(temperature=t))[0] for s, seed, t in cases]
    again = [pool.sample([Prompt(s, seed)], Sampling(temperature=t))[0] for s, seed, t in cases]
    assert first == again
    assert len(asked) == len(set(asked)) == 5
    assert [pool.text(ROOT.extend(c)) for c in first] == ["1", "2", "3", "4", "5"]
    assert pool.tokens_sampled == 10
    assert pool.seconds_per_token == pool.seconds / 10 > 0
    # Asked twice in one batch: drawn once.
    one, two = pool.sample([Prompt(ROOT, 9), Prompt(ROOT, 9)], Sampling())
    assert one is two
    pool.forget()
    assert pool.sample([Prompt(ROOT, 9)], Sampling())[0] is not one
