"""Partial rollouts: who wrote which token, that nothing is lost or learnt twice, and that stale tokens are no bias."""

from __future__ import annotations

import copy
import io
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.core.types import Completion, FinishReason, Outcome, Problem, Sampling, State, Verdict
from clew.data.run import RunDirectory
from clew.data.store import TrajectoryStore
from clew.evaluate import sample_groups
from clew.learn.advantages import leave_one_out
from clew.learn.batch import Example
from clew.models.architecture import SmallQwen3, build_model
from clew.models.policy import LocalPolicy
from clew.models.tokenizer import build_tokenizer
from clew.recipes.progress import Progress
from clew.recipes.rl import rl
from clew.recipes.rl_algorithms import Method, method_of
from clew.recipes.rl_learner import logprobs_under
from clew.recipes.rl_losses import Counts, averaged, correction, losses
from clew.recipes.rl_partial import Pool, Waiting, age_metrics, joined
from clew.recipes.rl_rollouts import Rollouts, Sampler
from clew.recipes.rl_settings import PolicyGradient
from clew.recipes.stage import running
from clew.reward.terms import VERIFIED
from clew.search.serve import sample_seed
from clew.tasks import Countdown

TASK = Countdown(count=2, high=20, target_high=60)
PROBLEMS = TASK.problems("train", 12, 0)
SIZE = SmallQwen3(width=40, layers=1, heads=2, kv_heads=1, head_width=16, ffn_width=48, context=96)
FEW = {"steps": 3, "problems": 4, "group_size": 4, "max_tokens": 12}
FATES = ("learnt", "without_advantage", "unscored", "masked", "rejected", "dropped", "waiting")


@dataclass(frozen=True)
class Even:
    """A verifier that looks at the length of the text alone; what is divisible by 7 it cannot judge if it is odd."""

    name: str = "stub"
    unscored: bool = False

    def verify(self, problem, text):
        if self.unscored and len(text) % 7 == 0:
            return Verdict(Outcome.UNSCORED, None)
        right = len(text) % 2 == 0
        return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), "answer")

    def extract(self, text):
        return text


@dataclass
class Diary:
    """Writes tokens that say how long the response is to be, who wrote them and where they stand."""

    lengths: dict[str, list[int]]
    updates: int = 0
    asked: list[tuple[int, int]] = field(default_factory=list)
    begun: Counter[str] = field(default_factory=Counter)
    context: int = 100

    @property
    def version(self):
        return f"diary+{self.updates}"

    def sample(self, prompts, sampling):
        return [self.write(prompt.state, sampling.max_tokens) for prompt in prompts]

    def write(self, state, most):
        name, start = state.problem.id, len(state.tokens)
        if not start:
            length = self.lengths[name][self.begun[name] % len(self.lengths[name])]
            self.begun[name] += 1
        else:
            length = state.tokens[0] // 10_000
        stop = min(length, start + most)
        places = range(start, stop)
        return Completion(
            tokens=tuple(10_000 * length + 100 * self.updates + place for place in places),
            logprobs=tuple(-self.updates - place / 100 for place in places),
            finish=FinishReason.STOP if stop == length else FinishReason.LENGTH,
            policy_version=self.version,
            prompt_tokens_read=3 + start,
        )

    def text(self, state):
        return "x" * len(state.tokens)

    def prompt_ids(self, asked, mode):
        return (1, 2, 3)


def problem(name):
    return Problem(name, "stub", ())


def pool_of(policy, **changed):
    given = PolicyGradient(**{"problems": 1, "max_tokens": 10, "partial": 3, **changed})
    return Pool(settings=given, policy=policy, task=Even(), stage="rl")


def test_every_token_keeps_the_version_that_wrote_it_and_its_logprob(monkeypatch):
    # Every call of the policy takes one second.
    monkeypatch.setattr("clew.recipes.rl_partial.time.perf_counter", itertools.count().__next__)
    diary = Diary({"a": [2, 7, 30]})
    pool = pool_of(diary, group_size=3)
    found = []
    for update in range(4):
        diary.updates = update
        assert found == []
        found, modes = pool.sample([("direct", [problem("a")])] if update == 0 else [], seed=1, go_on=True)
    assert (pool.sampled, modes) == (2 + 7 + 10, ["direct"])
    (group,) = found
    short, longer, cut = (t.completion for t in group.trajectories)
    assert short.tokens == (20_000, 20_001)
    assert (short.policy_version, short.pieces) == ("diary+0", ())
    assert longer.tokens == (70_000, 70_001, 70_002, 70_103, 70_104, 70_105, 70_206)
    assert longer.logprobs == pytest.approx((0.0, -0.01, -0.02, -1.03, -1.04, -1.05, -2.06))
    assert (longer.policy_version, longer.pieces) == ("diary+2", (("diary+0", 3), ("diary+1", 3), ("diary+2", 1)))
    assert longer.prompt_tokens_read == (3 + 0) + (3 + 3) + (3 + 6)
    assert [c.finish for c in (short, longer, cut)] == [FinishReason.STOP, FinishReason.STOP, FinishReason.LENGTH]
    assert cut.pieces == (("diary+0", 3), ("diary+1", 3), ("diary+2", 3), ("diary+3", 1))
    seconds = [2 / 8, 3 / 8 + 3 / 6 + 1 / 4, 3 / 8 + 3 / 6 + 3 / 4 + 1]
    assert [t.cost.seconds for t in group.trajectories] == pytest.approx(seconds)
    assert [t.seed for t in group.trajectories] == [sample_seed(1, State(problem("a")), i) for i in range(3)]
    for trajectory in group.trajectories:
        assert trajectory.provenance.stage == "rl"
        assert trajectory.state.tokens == trajectory.completion.tokens
        assert trajectory.text == "x" * len(trajectory.state.tokens)
        assert trajectory.state.finished == (trajectory.completion.finish is FinishReason.STOP)
        assert trajectory.cost.tokens_sampled == len(trajectory.state.tokens)


def test_pieces_of_one_version_are_one_run():
    piece = Completion((5,), (-0.5,), FinishReason.LENGTH, policy_version="a+1")
    last = replace(piece, policy_version="a+2", logprobs=None)
    assert joined([piece]) is piece
    assert joined([piece, piece]).pieces == ()
    assert joined([piece, piece, last]).pieces == (("a+1", 2), ("a+2", 1))
    assert joined([piece, piece]).logprobs == (-0.5, -0.5)
    assert joined([piece, last]).logprobs is None


def test_a_response_is_the_sum_of_its_pieces():
    first = Completion(
        (5, 6), (-0.5, -0.25), FinishReason.LENGTH, "a+1", prompt_tokens_read=3, prompt_tokens_cached=1,
        prompt_tokens_reread=2, entropies=(0.1, 0.2), certainties=(0.3, 0.4),
    )  # fmt: skip
    last = Completion(
        (7,), (-1.0,), FinishReason.STOP, "a+2", prompt_tokens_read=10, prompt_tokens_cached=20,
        prompt_tokens_reread=30, entropies=(0.5,), certainties=(0.6,),
    )  # fmt: skip
    assert joined([first, last]) == Completion(
        (5, 6, 7), (-0.5, -0.25, -1.0), FinishReason.STOP, "a+2", prompt_tokens_read=13, prompt_tokens_cached=21,
        prompt_tokens_reread=32, entropies=(0.1, 0.2, 0.5), certainties=(0.3, 0.4, 0.6),
        pieces=(("a+1", 2), ("a+2", 1)),
    )  # fmt: skip


def test_ages_are_told_token_by_token():
    """By hand: two tokens of version 0; three, three and one of versions 0 to 2; three each of those, and a fourth."""
    diary = Diary({"a": [2, 7, 30]})
    pool = pool_of(diary, group_size=3)
    for update in range(4):
        diary.updates = update
        groups, _ = pool.sample([("direct", [problem("a")])] if update == 0 else [], seed=1, go_on=True)
    waiting = Waiting(groups=5, samples=9, unfinished=2, tokens=7, groups_dropped=1, samples_dropped=4)
    told = age_metrics("diary+4", Rollouts(groups=groups, modes=["direct"], version="diary+3", waiting=waiting))
    assert told == {
        "tokens_waiting": 7.0,
        "unfinished": 2.0,
        "dropped_old": 4.0,
        "behind_mean": pytest.approx((4 * 8 + 3 * 6 + 2 * 4 + 1) / 19),
        "behind_most": 4.0,
        "tokens_carried": 18.0,
        "mixed": pytest.approx(2 / 3),
    }
    nothing = Rollouts(groups=[], modes=[], version="diary+3", waiting=waiting)
    assert age_metrics("diary+4", nothing).keys() == {"tokens_waiting", "unfinished", "dropped_old"}
    assert age_metrics("diary+4", replace(nothing, waiting=None)) == {}


def test_what_waits_is_counted_with_what_has_ended_in_its_groups_and_equal_texts_are_judged_once():
    asked = []

    class Counting(Even):
        def verify(self, problem, text):
            asked.append(text)
            return super().verify(problem, text)

    diary = Diary({"a": [1, 9], "b": [2, 2]})
    pool = replace(pool_of(diary, group_size=2), task=Counting())
    found, modes = pool.sample([("think", [problem("a")]), ("direct", [problem("b")])], 0, go_on=True)
    assert ([group.problem.id for group in found], modes) == (["b"], ["direct"])
    assert asked == ["xx"]
    assert pool.waiting() == Waiting(groups=1, samples=2, unfinished=1, tokens=1 + 3)


@settings(max_examples=60, deadline=None)
@given(
    updates=st.lists(
        st.lists(st.lists(st.integers(1, 14), min_size=3, max_size=3), max_size=3), min_size=1, max_size=7
    ),
    partial=st.integers(1, 12),
    most=st.integers(1, 12),
    most_behind=st.none() | st.integers(1, 4),
    asynchronous=st.booleans(),
)
@example(updates=[[[1, 1, 1]]], partial=1, most=1, most_behind=1, asynchronous=False)
@example(updates=[[[14, 14, 14]]] + [[]] * 6, partial=2, most=12, most_behind=2, asynchronous=False)
def test_no_response_is_lost_or_given_out_twice_and_tokens_add_up(updates, partial, most, most_behind, asynchronous):
    diary = Diary({f"{u}.{p}": row for u, rows in enumerate(updates) for p, row in enumerate(rows)})
    how = {"max_tokens": most, "partial": partial, "most_behind": most_behind, "asynchronous": asynchronous}
    pool = pool_of(diary, group_size=3, **how)
    ended, dropped, tokens = {}, {}, Counter()
    for update, rows in enumerate(updates):
        diary.updates, before = update, pool.sampled
        names = [f"{update}.{p}" for p in range(len(rows))]
        found, modes = pool.sample([("think", [problem(name) for name in names])] if names else [], 0, go_on=True)
        waiting = pool.waiting()
        assert len(modes) == len(found)
        for group in found:
            assert group.problem.id not in ended
            ended[group.problem.id] = update
            lengths = [len(t.completion.tokens) for t in group.trajectories]
            assert lengths == [min(length, most) for length in diary.lengths[group.problem.id]]
            for t in group.trajectories:
                assert (
                    max(count for _, count in t.completion.pieces or ((), (0, len(t.completion.tokens)))[1:]) <= partial
                )
            tokens["ended"] += sum(lengths)
        tokens["dropped"] += waiting.tokens_dropped
        assert pool.sampled == tokens["ended"] + tokens["dropped"] + waiting.tokens
        assert pool.sampled - before <= partial * (waiting.samples + 3 * len(found))
        gone = set(diary.begun) - set(ended) - set(dropped) - {group.problem.id for group in pool.begun}
        assert waiting.groups_dropped == len(gone) == waiting.samples_dropped / 3
        dropped |= dict.fromkeys(gone, update)
        assert waiting.samples == 3 * (len(diary.begun) - len(ended) - len(dropped))
    for name, row in diary.lengths.items():
        begun = int(name.split(".")[0])
        # By hand: the last piece of the longest, unless the group is too old by then.
        last = begun + -(-min(max(row), most) // partial) - 1
        too_old = None if most_behind is None else begun + max(0, most_behind - asynchronous) + 1
        if too_old is not None and last >= too_old:
            assert (name in dropped) == (too_old < len(updates))
            assert dropped.get(name, too_old) == too_old
            assert name not in ended
        else:
            assert ended.get(name) == (last if last < len(updates) else None)


def test_groups_of_later_draws_do_not_make_earlier_ones_go_on():
    diary = Diary({"a": [5], "b": [2], "c": [4]})
    pool = pool_of(diary, group_size=1)
    assert pool.sample([("think", [problem("a")])], 0, go_on=True)[0] == []
    found, _ = pool.sample([("think", [problem("b"), problem("c")])], 0, go_on=False)
    assert [group.problem.id for group in found] == ["b"]
    assert [group.num_tokens for group in pool.begun] == [3, 3]
    found, _ = pool.sample([], 0, go_on=True)
    assert [group.problem.id for group in found] == ["a", "c"]


@pytest.mark.parametrize(("longs", "equals"), [(9, 0), (0, 9), (3, 6), (6, 3)])
def test_dynamic_sampling_replaces_what_was_rejected_and_not_what_is_still_written(longs, equals):
    names = [f"long {i}" for i in range(longs)] + [f"equal {i}" for i in range(equals)]
    diary = Diary({name: [9, 2] if name.startswith("long") else [2, 2] for name in names})
    how = PolicyGradient(algorithm="dapo", problems=4, group_size=2, max_tokens=10, partial=3)
    sampler = Sampler(
        settings=how,
        method=method_of(how),
        policy=diary,
        task=Even(),
        problems=list(map(problem, names)),
        terms=VERIFIED,
        rng=random.Random(1),
        seed=0,
        stage="rl",
    )
    first = sampler.batch(0)
    assert (first.groups, len(first.rejected) > 0) == ([], equals > 0)
    assert all(group.problem.id.startswith("equal") for group in first.rejected)
    pieces = [len(response.pieces) for group in sampler.pool.begun for response in group.responses]
    assert pieces == [1, 1] * first.waiting.groups
    begun = len(first.rejected) + first.waiting.groups
    # Four at first, and one for each that was rejected but for those of the last round.
    assert 4 <= begun <= 4 + len(first.rejected)
    assert first.waiting.groups <= 4
    assert equals or begun == first.waiting.groups == 4
    assert longs or begun == len(first.rejected) == 4 * 4
    for update in (1, 2):
        diary.updates = update
        later = sampler.batch(update)
    assert all(group.problem.id.startswith("long") for group in later.groups)
    assert (len(later.groups) > 0) == (longs > 0)


# The true gradient in a world of two tokens: the first is written by one policy, the second by the next, and learnt
# from by a third.

WORDS, LENGTH = 3, 2
SEQUENCES = list(itertools.product(range(WORDS), repeat=LENGTH))
PAYS = torch.linspace(-1.0, 2.0, len(SEQUENCES), dtype=torch.float64).sin()
WIDE = 1e9


def tabular(seed):
    """Logits [1 + WORDS contexts, WORDS]: of the first token, and of the second after each."""
    return torch.randn(1 + WORDS, WORDS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sequence_logprobs(logits):
    """[sequences, LENGTH]"""
    table = logits.log_softmax(-1)
    return torch.stack([torch.stack([table[0, a], table[1 + a, b]]) for a, b in SEQUENCES])


@dataclass
class Enumerating:
    """Sample i writes sequence i: a group has every response once."""

    policies: list[torch.Tensor]
    updates: int = 0

    @property
    def version(self):
        return f"tabular+{self.updates}"

    def sample(self, prompts, sampling):
        table, found = sequence_logprobs(self.policies[self.updates]), []
        for i, prompt in enumerate(prompts):
            at = slice(len(prompt.state.tokens), len(prompt.state.tokens) + sampling.max_tokens)
            tokens, logprobs = SEQUENCES[i][at], tuple(table[i, at].tolist())
            found.append(Completion(tokens, logprobs, FinishReason.LENGTH, policy_version=self.version))
        return found

    def text(self, state):
        return str(state.tokens)


def expected_gradient(samplers, now, method, how):
    """Of the loss that `method` has of pairs of responses that were written piece by piece, over all pairs."""
    policy = Enumerating(samplers)
    pool = pool_of(policy, group_size=len(SEQUENCES), max_tokens=LENGTH, partial=1)
    pool.sample([("think", [problem("a")])], 0, go_on=True)
    policy.updates = 1
    ((group,), _) = pool.sample([], 0, go_on=True)
    sampler = torch.tensor([t.completion.logprobs for t in group.trajectories], dtype=torch.float64)
    assert [t.completion.tokens for t in group.trajectories] == SEQUENCES
    chances, mask = sampler.sum(-1).exp(), torch.ones(2, LENGTH, dtype=torch.bool)
    assert chances.sum().item() == pytest.approx(1.0)
    theta = now.clone().requires_grad_()
    ours = sequence_logprobs(theta)
    expected = torch.zeros((), dtype=torch.float64)
    for i, j in itertools.product(range(len(SEQUENCES)), repeat=2):
        rows = [i, j]
        advantages = leave_one_out(PAYS[rows]).unsqueeze(-1).expand(2, LENGTH)
        old = ours[rows].detach()
        weights = correction(method, how, old, sampler[rows], advantages)
        old = sampler[rows] if method.correction == "none" else old
        loss = losses(method, ours[rows], old, advantages, mask) * weights
        expected = expected + chances[i] * chances[j] * averaged(method, how, loss, mask, Counts(4, 2, 4))
    (gradient,) = torch.autograd.grad(expected, theta)
    theta = now.clone().requires_grad_()
    (true,) = torch.autograd.grad((sequence_logprobs(theta).sum(-1).exp() * PAYS).sum(), theta)
    return gradient, -true / LENGTH


WIDE_OPEN = Method(advantage="leave-one-out", aggregation="constant", clip_low=WIDE, clip_high=WIDE)


def test_with_exact_ratios_responses_of_many_versions_have_the_true_gradient():
    how = PolicyGradient(max_tokens=LENGTH, correction_high=WIDE)
    sequences = replace(WIDE_OPEN, correction="sequence-truncated")
    found, true = expected_gradient([tabular(0), tabular(1)], tabular(2), sequences, how)
    torch.testing.assert_close(found, true, atol=1e-10, rtol=0)
    assert true.abs().max() > 0.01
    # One policy for both pieces is the case without partial rollouts.
    found, true = expected_gradient([tabular(2), tabular(2)], tabular(2), replace(sequences, loss="reinforce"), how)
    torch.testing.assert_close(found, true, atol=1e-10, rtol=0)


def test_without_weights_or_with_those_of_single_tokens_they_have_not():
    how = PolicyGradient(max_tokens=LENGTH, correction_high=WIDE)
    for method in (
        replace(WIDE_OPEN, loss="reinforce"),
        replace(WIDE_OPEN, correction="truncated"),
        replace(WIDE_OPEN, correction="none"),
    ):
        found, true = expected_gradient([tabular(0), tabular(1)], tabular(2), method, how)
        assert (found - true).abs().max() > 0.01


# Whole runs of a tiny model.


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def start():
    """Random weights, with a loud end: some responses end soon, others never."""
    model, tokenizer = build_model(SIZE, build_tokenizer(), seed=0), build_tokenizer()
    with torch.no_grad():
        model.lm_head.weight[LocalPolicy(model, tokenizer).codec.end_id] *= 25.0
    return model


@pytest.fixture
def learn(start, tmp_path):
    """Runs `rl` on a copy of the same model: policy, metrics, diagnosis and the run."""
    count = itertools.count()

    def learn(task=None, policy=None, **changed):
        run = RunDirectory.create(tmp_path / f"run{next(count)}", {})
        policy = policy or LocalPolicy(copy.deepcopy(start), build_tokenizer())
        with running("rl", run, Progress({"rl": 1.0}, stream=io.StringIO()), total=1.0) as stage:
            found = rl(
                PolicyGradient(**{**FEW, **changed}),
                policy=policy,
                task=task or Even(),
                problems=PROBLEMS,
                seed=0,
                stage=stage,
            )
        return policy, run.metrics("rl"), found, run

    return learn


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


@pytest.mark.parametrize(
    "how", [{}, {"direct": 0.5, "algorithm": "grpo"}, {"algorithm": "dapo", "group_size": 2}, {"asynchronous": True}]
)
def test_pieces_as_long_as_a_response_change_nothing_at_all(learn, how):
    whole, rows, account, run = learn(**how)
    pieces, their_rows, their_account, their_run = learn(partial=FEW["max_tokens"], **how)
    assert same(whole, pieces)
    for row, theirs in zip(rows, their_rows, strict=True):
        kept = row.keys() - {"seconds", "time"}
        assert {name: theirs[name] for name in kept} == {name: row[name] for name in kept}
        assert (theirs["behind_mean"], theirs["mixed"], theirs["tokens_waiting"]) == (theirs["behind_most"], 0.0, 0.0)
    assert {name: their_account.totals[name] for name in account.totals} == account.totals
    stores = []
    for directory in (run, their_run):
        with TrajectoryStore(directory.store_path) as store:
            stores.append(
                [[(t.completion, t.text, t.seed) for t in group.trajectories] for group in store.groups("rl")]
            )
    assert stores[0] == stores[1]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"truncated": "masked", "direct": 0.5},
        {"algorithm": "dapo", "group_size": 2},
        {"most_behind": 1},
        {"asynchronous": True, "most_behind": 2},
        {"algorithm": "reinforce", "group_size": 1},
    ],
)
def test_every_sampled_token_is_accounted_for(learn, how):
    _, rows, found, _ = learn(task=Even(unscored=True), partial=5, steps=5, **how)
    totals = found.totals
    assert totals["tokens_sampled"] == rows[-1]["tokens"] > 0
    assert sum(totals[f"tokens_{fate}"] for fate in FATES) == totals["tokens_sampled"]
    assert sum(totals[f"samples_{fate}"] for fate in FATES) == totals["samples"]
    assert totals["samples"] == how.get("group_size", 4) * totals["groups"]
    assert totals["groups"] >= 5 * 4
    assert totals["tokens_waiting"] == rows[-1]["tokens_waiting"] > 0
    assert how or min(totals[f"samples_{fate}"] for fate in ("learnt", "unscored", "waiting")) > 0
    oldest = how.get("most_behind", 2 + how.get("asynchronous", False))
    assert max(row.get("behind_most", 0.0) for row in rows) <= oldest
    assert (totals["samples_dropped"] > 0) == ("most_behind" in how)


def test_stale_tokens_have_their_ages_told_and_what_is_left_at_the_end(learn, capsys):
    _, rows, _, _ = learn(partial=5, steps=5)
    assert all(row["unfinished"] > 0 < row["tokens_waiting"] for row in rows)
    ended = [row for row in rows if "behind_most" in row]
    assert max(row["behind_most"] for row in ended) == 2.0
    for row in ended:
        assert 0.0 <= row["behind_mean"] <= row["behind_most"]
        assert (row["behind_most"] > 0.0) == (row["tokens_carried"] > 0.0)
        assert row["mixed"] <= float(row["tokens_carried"] > 0.0)
    assert max(row["mixed"] for row in ended) > 0.0
    said = capsys.readouterr().err
    assert "left in the pool of partial responses at the end, not learnt from" in said


class Remembering(LocalPolicy):
    """Keeps the weights of every version."""

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self.models = {self.version: copy.deepcopy(self.model)}

    def refresh(self):
        super().refresh()
        self.models[self.version] = copy.deepcopy(self.model)


def test_the_logprobs_of_a_run_are_those_of_the_versions_that_its_store_names(learn, start):
    policy = Remembering(copy.deepcopy(start), build_tokenizer())
    _, _, _, run = learn(policy=policy, partial=5, steps=5, lr_matrix=0.05, lr_other=0.02)
    with TrajectoryStore(run.store_path) as store:
        completions = [(g.problem, t.completion) for g in store.groups("rl") for t in g.trajectories]
    mixed = [(asked, c) for asked, c in completions if len(c.pieces) > 1]
    assert len(mixed) > 3
    for asked, completion in mixed:
        assert completion.policy_version == completion.pieces[-1][0]
        assert sum(count for _, count in completion.pieces) == len(completion.tokens)
        example = Example(prompt_ids=policy.prompt_ids(asked, "think"), response_ids=completion.tokens)
        at, moved = 0, 0.0
        for version, count in completion.pieces:
            own, latest = (logprobs_under(policy.models[v], [example])[0] for v in (version, policy.version))
            said = torch.tensor(completion.logprobs[at : at + count])
            torch.testing.assert_close(said, own[at : at + count], atol=1e-4, rtol=0)
            moved = max(moved, (said - latest[at : at + count]).abs().max().item())
            at += count
        assert moved > 0.01


def test_a_policy_that_stands_still_writes_in_pieces_what_it_writes_at_once(start):
    policy = LocalPolicy(copy.deepcopy(start), build_tokenizer())
    whole = sample_groups(policy, Even(), PROBLEMS[:6], n=4, sampling=Sampling(max_tokens=30), seed=5)
    pool = pool_of(policy, group_size=4, max_tokens=30, partial=7)
    found = pool.sample([("think", PROBLEMS[:6])], 5, go_on=True)[0]
    while pool.begun:
        policy.refresh()
        found += pool.sample([], 5, go_on=True)[0]
    in_pieces = {group.problem.id: group for group in found}
    for group in whole:
        pieces = in_pieces[group.problem.id]
        for ours, theirs in zip(group.trajectories, pieces.trajectories, strict=True):
            assert ours.completion.tokens == theirs.completion.tokens
            assert ours.completion.logprobs == pytest.approx(theirs.completion.logprobs, abs=1e-4)
            assert ours.completion.finish is theirs.completion.finish
            assert ours.seed == theirs.seed


def test_an_old_group_is_dropped_before_more_is_sampled_of_it(start):
    diary = Diary({"a": [30, 1]})
    pool = pool_of(diary, group_size=2, max_tokens=30, most_behind=2)
    for update in range(4):
        diary.updates = update
        pool.sample([("think", [problem("a")])] if update == 0 else [], 0, go_on=True)
    waiting = pool.waiting()
    assert (waiting.groups_dropped, waiting.samples_dropped, waiting.tokens_dropped) == (1, 2, 3 * 3 + 1)
    assert pool.sampled == 10
    assert pool.waiting().groups_dropped == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"partial": 0}, "partial is 0"),
        ({"partial": -3}, "partial is -3"),
        ({"partial": 8, "most_behind": 0}, "most_behind is 0"),
        ({"most_behind": 2}, "most_behind is 2"),
        ({"partial": 8, "algorithm": "tree"}, "partial is 8"),
        ({"partial": 8, "algorithm": "remax"}, "partial is 8"),
        ({"partial": 8, "algorithm": "vineppo"}, "partial is 8"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_three_parts(changes, told):
    with pytest.raises(InvalidValue, match=told) as raised:
        method_of(PolicyGradient(**changes))
    assert raised.value.accepted
    assert "leave it out" in raised.value.advice


def test_pieces_are_corrected_unless_told_otherwise_and_whole_responses_are_not():
    assert method_of(PolicyGradient(partial=100)).correction == "truncated"
    assert method_of(PolicyGradient(partial=100, correction="sequence-masked")).correction == "sequence-masked"
    assert method_of(PolicyGradient(partial=100, correction="none")).correction == "none"
    assert method_of(PolicyGradient(partial=240)).correction == "none"
