from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from types import SimpleNamespace

import pytest

from clew.core.cost import Cost
from clew.core.errors import InvalidValue
from clew.core.types import (
    Completion,
    FinishReason,
    Group,
    Message,
    Outcome,
    Problem,
    Reward,
    Sampling,
    State,
    Trajectory,
    Verdict,
)
from clew.evaluate import curve, sample_groups, summarise
from clew.evaluate.curve import Contender
from clew.evaluate.memo import MemoJudge
from clew.search import BestOfN, PooledPolicy, ScriptedPolicy, run_searches
from clew.stats.intervals import wilson

SAMPLING = Sampling(max_tokens=60)


@dataclass
class ToyTask:
    calls: list[str] = field(default_factory=list)

    def verify(self, problem, text):
        self.calls.append(text)
        if "crash" in text:
            return Verdict(Outcome.UNSCORED, None, None, "crash")
        right = self.extract(text) == problem.metadata["digit"]
        return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), self.extract(text), f"is {right}")

    def extract(self, text):
        return text.partition("answer ")[2][:1] or None

    def difficulty(self, problem):
        return "even" if int(problem.metadata["digit"]) % 2 == 0 else "odd"


PROBLEMS = [Problem(f"toy:{i}", "toy", (Message("user", f"guess {i}"),), {"digit": str(i % 10)}) for i in range(30)]


def script(prompt, sampling):
    digit = prompt.seed % 6
    return "hm" if digit == 5 else f"try {prompt.seed % 13} no back answer {digit}"


def policy():
    return ScriptedPolicy(script, logprob=lambda prompt, token: -1.0 - prompt.seed % 101 / 100)


def trajectory(problem, text, outcome, *, length=3, finish=FinishReason.STOP):
    value = {Outcome.RIGHT: 1.0, Outcome.WRONG: 0.0, Outcome.UNSCORED: None}[outcome]
    completion = Completion((1,) * length, None, finish)
    return Trajectory(
        state=State(problem).extend(completion),
        text=text,
        verdict=Verdict(outcome, value, None, outcome.value),
        reward=Reward(math.nan if value is None else value),
        cost=Cost(),
        seed=0,
        completion=completion,
    )


def group(index, marks):
    """`R` right, `W` wrong with an answer of its own, `N` wrong without answer, `U` unscored."""
    problem = PROBLEMS[index]
    made = {
        "R": lambda: trajectory(problem, "yes answer 7", Outcome.RIGHT),
        "W": lambda: trajectory(problem, "no answer 8", Outcome.WRONG, length=5),
        "N": lambda: trajectory(problem, "no", Outcome.WRONG, length=9, finish=FinishReason.LENGTH),
        "U": lambda: trajectory(problem, "crash answer 7", Outcome.UNSCORED, length=100),
    }
    return Group(problem, tuple(made[mark]() for mark in marks))


def test_sampled_groups_are_judged_priced_and_reproducible():
    groups = sample_groups(policy(), ToyTask(), PROBLEMS, n=6, sampling=SAMPLING, seed=3, stage="sft")
    assert [g.problem for g in groups] == PROBLEMS
    for g in groups:
        assert len(g.trajectories) == 6
        assert len({t.seed for t in g.trajectories}) == 6
        for t in g.trajectories:
            assert t.text == script(t, None)
            assert t.verdict.right == (str(t.seed % 6) == g.problem.metadata["digit"] and t.seed % 6 != 5)
            assert t.reward.value == t.reward.parts["verifier"] == float(t.verdict.right)
            assert t.state.tokens == t.completion.tokens
            assert t.state.finished
            assert t.provenance.stage == "sft"
            assert t.cost.tokens_sampled == len(t.completion.tokens) == len(t.text) + 1
            assert (t.cost.model_calls, t.cost.verifier_calls) == (1, 1)
        assert sum(t.cost.prompt_tokens_read for t in g.trajectories) == len(g.problem.prompt[0].content)
    again = sample_groups(policy(), ToyTask(), PROBLEMS[::-1], n=3, sampling=SAMPLING, seed=3)
    assert [[t.text for t in g.trajectories] for g in again[::-1]] == [
        [t.text for t in g.trajectories[:3]] for g in groups
    ]


def test_sampled_groups_are_what_a_search_with_this_seed_sees():
    groups = sample_groups(policy(), ToyTask(), PROBLEMS, n=4, sampling=SAMPLING, seed=9)
    outcomes = run_searches(BestOfN(n=4, sampling=SAMPLING), PROBLEMS, policy(), task=ToyTask(), seed=9)
    for g, outcome in zip(groups, outcomes, strict=True):
        assert [t.completion for t in g.trajectories] == [c.completion for c in outcome.result.candidates]


def test_batches_are_bounded_and_reported(monkeypatch):
    monkeypatch.setattr("clew.evaluate.sample.ROWS_PER_BATCH", 50)
    reports = []
    groups = sample_groups(
        policy(), ToyTask(), PROBLEMS, n=4, sampling=SAMPLING, on_batch=lambda *report: reports.append(report)
    )
    assert [(done, total) for _, done, total in reports] == [(12, 30), (24, 30), (30, 30)]
    assert sum(tokens for tokens, _, _ in reports) == sum(t.cost.tokens_sampled for g in groups for t in g.trajectories)


def test_an_unscored_sample_has_no_reward():
    (only,) = sample_groups(ScriptedPolicy(["crash"]), ToyTask(), PROBLEMS[:1], n=1, sampling=SAMPLING)
    assert math.isnan(only.trajectories[0].reward.value)
    assert only.trajectories[0].reward.parts == {}
    assert only.scored == ()


def test_equal_texts_are_judged_once_but_paid_for_each():
    task = ToyTask()
    groups = sample_groups(ScriptedPolicy(lambda p, s: "answer 1"), task, PROBLEMS, n=5, sampling=SAMPLING)
    assert len(task.calls) == 30
    assert sum(t.cost.verifier_calls for g in groups for t in g.trajectories) == 150
    assert [g.trajectories[0].verdict.right for g in groups] == [p.metadata["digit"] == "1" for p in PROBLEMS]


def test_memo_does_not_mix_problems_up():
    judge = MemoJudge(ToyTask())
    assert judge.verify(PROBLEMS[1], "answer 1").right
    assert not judge.verify(PROBLEMS[2], "answer 1").right
    assert judge.verify(PROBLEMS[1], "answer 1").right
    assert [judge.extract(text) for text in ("answer 1", "hm", "answer 1", "hm")] == ["1", None, "1", None]


def test_summary_golden():
    # Digits 0, 1, 2: two even problems and an odd one.
    groups = [group(0, "RRWN"), group(1, "WWWW"), group(2, "RURN")]
    rates = summarise(groups, ToyTask(), ks=(1, 2, 3))
    assert rates.pass_at_1.mean == pytest.approx((1 / 2 + 0 + 2 / 3) / 3)
    assert rates.pass_at_1.n == 3
    assert rates.pass_at_k[1].mean == pytest.approx(rates.pass_at_1.mean)
    assert rates.pass_at_k[2].mean == pytest.approx((5 / 6 + 0 + 1) / 3)
    assert rates.pass_at_k[3].mean == pytest.approx((1 + 0 + 1) / 3)
    # Problem 0 by threes: RRW, RRN, RRN win; RWN ties, first of R and W. RWN occurs for either R: (1+1+.5+.5)/4.
    assert rates.majority_at_k[3].mean == pytest.approx((0.75 + 0 + 1) / 3, abs=0.06)
    assert rates.majority_at_k[1].mean == pytest.approx(rates.pass_at_1.mean)
    assert {name: (r.mean, r.n) for name, r in rates.by_difficulty.items()} == {
        "even": (pytest.approx((1 / 2 + 2 / 3) / 2), 2),
        "odd": (0.0, 1),
    }
    assert rates.mean_length == pytest.approx((3 * 4 + 5 * 5 + 9 * 2) / 11)
    assert rates.finished.mean == pytest.approx((3 / 4 + 1 + 2 / 3) / 3)
    assert rates.reasons == {"wrong": 7, "right": 4, "unscored": 1}
    assert rates.behaviours == {"evaluation": 11, "completion": 9}
    assert rates.transitions == {"evaluation > completion": 9}
    assert (rates.num_samples, rates.num_unscored) == (12, 1)


def test_pass_at_k_leaves_out_problems_with_too_few_scored_samples():
    rates = summarise([group(0, "RRWN"), group(2, "RURN")], ToyTask(), ks=(4,))
    assert (rates.pass_at_k[4].mean, rates.pass_at_k[4].n) == (1.0, 1)
    with pytest.raises(InvalidValue, match="k is 5"):
        summarise([group(0, "RRWN")], ToyTask(), ks=(5,))


def test_problems_with_nothing_scored_are_not_wrong():
    rates = summarise([group(0, "RR"), group(1, "UU")], ToyTask())
    assert (rates.pass_at_1.mean, rates.pass_at_1.n, rates.num_unscored) == (1.0, 1, 2)
    for nothing in ([], [group(1, "UU")]):
        with pytest.raises(InvalidValue):
            summarise(nothing, ToyTask())


def test_one_sample_a_problem_has_a_wilson_interval():
    groups = [group(i, "R" if i % 3 else "W") for i in range(30)]
    assert summarise(groups, ToyTask()).pass_at_1 == wilson(20, 30)


def test_summary_is_json_with_intervals_everywhere():
    rates = summarise([group(0, "RRWN"), group(1, "WRUN")], ToyTask(), ks=(1, 2)).as_dict()
    assert json.loads(json.dumps(rates)) == rates
    found = [rates["pass_at_1"], rates["finished"], *rates["pass_at_k"].values(), *rates["majority_at_k"].values()]
    found += rates["by_difficulty"].values()
    assert all(list(r) == ["mean", "low", "high", "n"] and r["low"] <= r["mean"] <= r["high"] for r in found)
    assert list(rates["pass_at_k"]) == ["1", "2"]


ALL_AT_ONCE = [contender for contender in curve.CONTENDERS if contender.strategy != "first-right"]


def test_curve_equals_brute_force_on_the_same_samples():
    rows = curve.search_curve(policy(), ToyTask(), PROBLEMS, max_n=6, sampling=SAMPLING, seed=2, contenders=ALL_AT_ONCE)
    groups = sample_groups(policy(), ToyTask(), PROBLEMS, n=6, sampling=SAMPLING, seed=2)
    by_row = {(r["strategy"], r["guidance"], r["n"]): r for r in rows}
    assert len(by_row) == len(rows) == 12
    assert {n for _, _, n in by_row} == {1, 2, 4, 6}
    for n in (1, 2, 4, 6):
        first = [g.trajectories[:n] for g in groups]
        best = sum(any(t.verdict.right for t in ts) for ts in first)
        likeliest = sum(max(ts, key=lambda t: -(t.seed % 101)).verdict.right for ts in first)
        voted = sum(_majority_is_right(ts) for ts in first)
        for key, right in [("verifier", best), ("mean-logprob", likeliest)]:
            assert by_row["best-of-n", key, n]["accuracy"] == wilson(right, 30).as_dict()
        assert by_row["majority-vote", None, n]["accuracy"] == wilson(voted, 30).as_dict()
        sampled = sum(len(t.completion.tokens) for ts in first for t in ts) / 30
        read = sum(t.completion.prompt_tokens_read for ts in first for t in ts) / 30
        for (_, guidance, m), row in by_row.items():
            if m == n:
                assert row["cost"]["tokens_sampled"] == pytest.approx(sampled)
                assert row["cost"]["tokens"] == pytest.approx(sampled + read)
                assert row["cost"]["model_calls"] == n
                assert row["cost"]["verifier_calls"] == (n if guidance == "verifier" else 0)
                assert row["cost"]["seconds"] > 0.0
    accuracies = [by_row["best-of-n", "verifier", n]["accuracy"]["mean"] for n in (1, 2, 4, 6)]
    assert accuracies == sorted(accuracies)
    assert accuracies[0] < accuracies[-1]


def _majority_is_right(trajectories):
    answers = [t.verdict.answer for t in trajectories]
    counts = Counter(a for a in answers if a is not None)
    if not counts:
        return False
    first = next(i for i, a in enumerate(answers) if a is not None and counts[a] == max(counts.values()))
    return trajectories[first].verdict.right


def test_curve_samples_once_and_does_not_depend_on_batches(monkeypatch):
    asked = []

    def counted(prompt, sampling):
        asked.append(prompt.seed)
        return script(prompt, sampling)

    def run():
        scripted = ScriptedPolicy(counted, logprob=lambda prompt, token: -1.0 - prompt.seed % 101 / 100)
        rows = curve.search_curve(scripted, ToyTask(), PROBLEMS, max_n=8, sampling=SAMPLING, contenders=ALL_AT_ONCE)
        return [{**row, "cost": {k: v for k, v in row["cost"].items() if k != "seconds"}} for row in rows]

    whole = run()
    assert len(asked) == len(set(asked)) == 240
    monkeypatch.setattr("clew.evaluate.sample.ROWS_PER_BATCH", 24)
    assert run() == whole


def test_what_stops_when_it_is_right_reaches_further_for_less():
    seeds = []
    scripted = ScriptedPolicy(lambda prompt, sampling: seeds.append(prompt.seed) or script(prompt, sampling))
    only = [Contender("best-of-n", "verifier"), Contender("first-right", "verifier", reach=2)]
    rows = curve.search_curve(scripted, ToyTask(), PROBLEMS, max_n=4, sampling=SAMPLING, seed=2, contenders=only)
    by_row = {(r["strategy"], r["n"]): r for r in rows}
    assert {n for name, n in by_row if name == "first-right"} == {1, 2, 4, 8}
    for n in (1, 2, 4):
        best, first = by_row["best-of-n", n], by_row["first-right", n]
        assert first["accuracy"] == best["accuracy"]
        assert first["cost"]["tokens_sampled"] <= best["cost"]["tokens_sampled"]
    assert by_row["first-right", 4]["cost"]["model_calls"] < 4
    groups = sample_groups(policy(), ToyTask(), PROBLEMS, n=8, sampling=SAMPLING, seed=2)
    right = [[t.verdict.right for t in group.trajectories] for group in groups]
    assert by_row["first-right", 8]["accuracy"] == wilson(sum(map(any, right)), 30).as_dict()
    # Only what the first four left unsolved is sampled any further.
    assert len(seeds) == len(set(seeds)) == 30 * 4 + 4 * sum(not any(row[:4]) for row in right)


def test_curve_reuses_the_pool_of_the_evaluation():
    pool = PooledPolicy(policy())
    sample_groups(pool, ToyTask(), PROBLEMS, n=8, sampling=SAMPLING, seed=1)
    tokens = pool.tokens_sampled
    reports = []
    curve.search_curve(
        pool,
        ToyTask(),
        PROBLEMS,
        max_n=8,
        sampling=SAMPLING,
        seed=1,
        contenders=ALL_AT_ONCE,
        on_batch=lambda *r: reports.append(r),
    )
    assert pool.tokens_sampled == tokens
    assert reports == [(0, 30, 30)]


def test_curve_seconds_are_those_of_sampling(monkeypatch):
    clock = iter(range(10**6))
    # Every reading of the clock is a second later, so one call of the policy takes one second.
    monkeypatch.setattr("clew.search.policies.time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    monkeypatch.setattr("clew.search.serve.time", SimpleNamespace(perf_counter=lambda: 0.0))
    only = [Contender("majority-vote")]
    rows = curve.search_curve(policy(), ToyTask(), PROBLEMS, max_n=4, sampling=SAMPLING, contenders=only)
    last = rows[-1]["cost"]
    assert last["seconds"] == pytest.approx(1.0 / 30)
    for row in rows:
        assert row["cost"]["seconds"] / last["seconds"] == pytest.approx(
            row["cost"]["tokens_sampled"] / last["tokens_sampled"]
        )


def test_curve_leaves_unscored_answers_out():
    crashing = ScriptedPolicy(lambda p, s: "crash" if p.state.problem.id == "toy:0" else "answer 1")
    only = [Contender("best-of-n", "verifier")]
    (row,) = curve.search_curve(crashing, ToyTask(), PROBLEMS, max_n=1, sampling=SAMPLING, contenders=only)
    assert row["num_unscored"] == 1
    assert row["accuracy"] == wilson(3, 29).as_dict()


def test_curve_leaves_searches_that_failed_out():
    @dataclass
    class Failing(ToyTask):
        def verify(self, problem, text):
            if problem.id == "toy:0":
                raise RuntimeError("down")
            return super().verify(problem, text)

    ones = ScriptedPolicy(lambda prompt, sampling: "answer 1")
    only = [Contender("best-of-n", "verifier")]
    (row,) = curve.search_curve(ones, Failing(), PROBLEMS, max_n=1, sampling=SAMPLING, contenders=only)
    assert row["num_unscored"] == 1
    assert row["accuracy"] == wilson(3, 29).as_dict()


@pytest.mark.parametrize(
    "call",
    [
        lambda: sample_groups(policy(), ToyTask(), [], n=1, sampling=SAMPLING),
        lambda: sample_groups(policy(), ToyTask(), PROBLEMS, n=0, sampling=SAMPLING),
        lambda: curve.search_curve(policy(), ToyTask(), [], max_n=2, sampling=SAMPLING),
        lambda: curve.search_curve(policy(), ToyTask(), PROBLEMS, max_n=0, sampling=SAMPLING),
    ],
)
def test_nothing_to_evaluate_is_an_error(call):
    with pytest.raises(InvalidValue):
        call()


def test_majority_of_threes_by_hand():
    # The expectation used in the golden test, from every ordered triple of RRWN.
    marks = "RRWN"
    wins = []
    for triple in combinations(range(4), 3):
        votes = Counter(marks[i] for i in triple if marks[i] != "N")
        wins.append(1.0 if votes["R"] > votes["W"] else 0.5)
    assert sum(wins) / len(wins) == 0.75
