"""Reinforcement learning by every published name, what it measures of itself, and what it does with bad input.

The policy is a tiny random model; a stub verifier pays for how a response is written.
"""

from __future__ import annotations

import copy
import io
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from clew.core.cost import Cost
from clew.core.errors import InvalidValue
from clew.core.protocols import SearchResult
from clew.core.seeds import derive_seed
from clew.core.types import Completion, FinishReason, Group, Outcome, Reward, Sampling, State, Trajectory, Verdict
from clew.data.run import RunDirectory
from clew.evaluate import sample_groups
from clew.learn.advantages import group_centred
from clew.learn.batch import Example, pad
from clew.learn.optim import make_optimizer
from clew.learn.schedule import warmup_stable_decay
from clew.models.architecture import SmallQwen3, build_model
from clew.models.checkpoint import save_checkpoint
from clew.models.forward import token_logprobs
from clew.models.policy import LocalPolicy
from clew.models.tokenizer import build_tokenizer
from clew.recipes.examples import sampled
from clew.recipes.progress import Progress
from clew.recipes.rl import rl
from clew.recipes.rl_algorithms import ALGORITHMS, method_of
from clew.recipes.rl_credit import process_rewards
from clew.recipes.rl_diagnosis import ACCOUNT, ODD, Alarms, pass_rates, versions_behind
from clew.recipes.rl_learner import make_learner
from clew.recipes.rl_lessons import stops_of
from clew.recipes.rl_rollouts import Rollouts
from clew.recipes.rl_settings import CriticSettings, PolicyGradient, StepSettings, TreeSettings
from clew.recipes.rl_trees import tree_lessons
from clew.recipes.stage import running
from clew.search import SearchOutcome, SearchRecord, StopReason
from clew.search.tree import Tree
from clew.tasks import Arithmetic, Countdown

TASK = Countdown(count=2, high=20, target_high=60)
PROBLEMS = TASK.problems("train", 12, 0)
SIZE = SmallQwen3(width=40, layers=1, heads=2, kv_heads=1, head_width=16, ffn_width=48, context=96)
FEW = {"steps": 2, "problems": 4, "group_size": 4, "max_tokens": 12}
NO_STEPS = StepSettings(ends=("1", "2", "3"), rollouts=2)
EXACT = PolicyGradient(step_credit=StepSettings(process=Path("exact-value"), process_weight=2.0))
"""Random models write few signs of equality: digits end a step here."""


@dataclass(frozen=True)
class Judged:
    """A verifier that looks at nothing but the text."""

    of: Callable[[str], Verdict]
    name: str = "stub"

    def verify(self, problem, text):
        return self.of(text)

    def extract(self, text):
        return text


def verdict(right: bool) -> Verdict:
    return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), "answer")


EVEN = Judged(lambda text: verdict(len(text) % 2 == 0))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def start():
    return build_model(SIZE, build_tokenizer(), seed=0)


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "run", {})


@pytest.fixture
def learn(start, run):
    """Runs `rl` on a copy of the same model: the policy, the metrics and the diagnosis."""

    def learn(task=EVEN, problems=PROBLEMS, seed=0, start=start, **settings):
        policy = LocalPolicy(copy.deepcopy(start), build_tokenizer())
        with running("rl", run, Progress({"rl": 1.0}, stream=io.StringIO()), total=1.0) as stage:
            found = rl(
                PolicyGradient(**{**FEW, **settings}),
                policy=policy,
                task=task,
                problems=problems,
                seed=seed,
                stage=stage,
            )
        return policy, run.metrics("rl"), found

    return learn


def moved(policy, start):
    pairs = zip(policy.model.parameters(), start.parameters(), strict=True)
    return not all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def terse(start):
    """The model after learning to end its responses soon, so that a search finds some that are finished."""
    model, tokenizer, rng = copy.deepcopy(start), build_tokenizer(), random.Random(0)
    policy = LocalPolicy(model, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(30):
        examples = []
        for _ in range(16):
            words = tuple(rng.randrange(20, 60) for _ in range(rng.randint(1, 5)))
            prompt = policy.prompt_ids(rng.choice(PROBLEMS), "think")
            examples.append(Example(prompt_ids=prompt, response_ids=(*words, policy.codec.end_id)))
        batch = pad(examples)
        loss = -token_logprobs(model, batch.input_ids, batch.targets, batch.target_mask).logprobs.sum()
        optimizer.zero_grad()
        (loss / batch.target_mask.sum()).backward()
        optimizer.step()
    return model


def test_trees_of_a_search_are_learnt_from_step_by_step(learn, terse):
    tree = TreeSettings(strategy="mcts:iterations=8,width=2", step_tokens=2)
    for name in ("tree-parent", "tree-siblings", "tree-root"):
        policy, rows, found = learn(
            start=terse, algorithm="tree", advantage=name, tree=tree, step_credit=StepSettings(ends=())
        )
        assert moved(policy, terse)
        assert all(torch.isfinite(p).all() for p in policy.model.parameters())
        assert found.totals["samples_learnt"] > 0
        assert rows[0]["ratio_off"] < 1e-4
        assert 0.0 <= rows[0]["groups_dropped"] < 1.0


def test_a_step_of_a_tree_is_worth_what_its_value_differs_by_and_is_learnt_once(terse):
    tree = Tree(PROBLEMS[0])
    values = {}
    for parent, tokens, value in ((0, (21, 22), 0.75), (0, (23,), 0.25), (1, (24,), 1.0), (1, (25, 26), 0.5)):
        completion = Completion(tokens, tuple(-0.1 * t for t in tokens), FinishReason.STEP)
        node = tree.add(parent, tree.states[parent].extend(completion), completion)
        values[node] = value
    for node, value in {0: 0.5, **values}.items():
        tree.visits[node], tree.value_sum[node] = 1, value
    policy = LocalPolicy(terse, build_tokenizer())
    settings = PolicyGradient(algorithm="tree")
    learner = make_learner(settings, method_of(settings), policy, EVEN)
    outcome = SearchOutcome(SearchResult(None, (), tree), Cost(), StopReason.FINISHED, SearchRecord(PROBLEMS[0]))
    found = tree_lessons(learner, Rollouts(groups=[], modes=["think"], trees=[outcome]))
    learnt = {}
    for lesson in found.lessons:
        flags = lesson.example.learnt
        tokens = [t for t, flag in zip(lesson.example.response_ids, flags, strict=True) if flag]
        pairs = zip(tokens, lesson.advantages.tolist(), strict=True)
        for token, worth in pairs:
            assert token not in learnt
            learnt[token] = worth
    assert learnt == pytest.approx({21: 0.25, 22: 0.25, 23: -0.25, 24: 0.25, 25: -0.25, 26: -0.25})


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "tree"])
def test_every_name_learns(learn, start, name):
    policy, rows, found = learn(algorithm=name, step_credit=NO_STEPS)
    assert moved(policy, start)
    assert all(torch.isfinite(p).all() for p in policy.model.parameters())
    assert all(math.isfinite(row["grad_norm"]) and row["grad_norm"] > 0 for row in rows)
    assert rows[0]["ratio_off"] < 1e-4
    assert found.totals["updates"] == 2


def test_the_default_is_bit_for_bit_the_plain_loop(learn, start):
    """Sample, verify, advantage, loss, step, written out as plainly as can be."""
    policy, rows, _ = learn()
    model = copy.deepcopy(start)
    plain = LocalPolicy(model, build_tokenizer())
    rng = random.Random(derive_seed(0, "rl"))
    optimizer = make_optimizer(model, lr_matrix=0.002, lr_other=4e-4)
    for step in range(2):
        drawn = rng.sample(PROBLEMS, 4)
        groups = sample_groups(
            plain, EVEN, drawn, n=4, sampling=Sampling(max_tokens=12), seed=derive_seed(0, "rl", step), stage="rl"
        )
        rewards = torch.tensor([[t.reward.value for t in group.trajectories] for group in groups])
        advantages = group_centred(rewards).flatten().tolist()
        flat = [t for group in groups for t in group.trajectories]
        examples = [sampled(plain, t, "think", a) for t, a in zip(flat, advantages, strict=True) if a]
        order = sorted(range(len(examples)), key=lambda i: (-examples[i].length, i))
        batch = pad([examples[i] for i in order])
        now = token_logprobs(model, batch.input_ids, batch.targets, batch.target_mask).logprobs
        ratio = (now - batch.old_logprobs).exp()
        gain = torch.minimum(ratio * batch.advantages[:, None], ratio.clamp(0.8, 1.28) * batch.advantages[:, None])
        loss = torch.where(batch.target_mask, -gain, 0.0).sum() / batch.target_mask.sum()
        parameters = [p for p in model.parameters() if p.requires_grad]
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(multiplier=warmup_stable_decay(step, total=2, warmup=1, decay=0))
        optimizer.zero_grad()
        plain.refresh()
        assert rows[step]["loss"] == pytest.approx(loss.item(), abs=1e-7)
    assert not moved(policy, model)


def test_a_critic_of_its_own_learns_beside_the_policy(learn, start):
    policy, rows, _ = learn(algorithm="ppo", critic=CriticSettings(body="own"), steps=6)
    assert moved(policy, start)
    assert all(row["value_loss"] >= 0 for row in rows)
    assert rows[-1]["value_loss"] < rows[0]["value_loss"]


def test_a_bonus_for_entropy_raises_it(learn):
    settings = {"steps": 6, "lr_matrix": 0.01, "task": Judged(lambda text: verdict(False))}
    _, rows, _ = learn(entropy_bonus=1.0, **settings)
    assert rows[-1]["entropy"] > rows[0]["entropy"] + 1e-4


def test_a_penalty_keeps_the_policy_near_and_its_coefficient_follows_the_target(learn, start):
    far = {"lr_matrix": 0.02, "steps": 6}
    free, _, _ = learn(**far)
    near, rows, _ = learn(kl="k3-loss", kl_coefficient=5.0, kl_target=1e-6, **far)

    def distance(policy):
        pairs = zip(policy.model.parameters(), start.parameters(), strict=True)
        return sum((a - b).square().sum().item() for a, b in pairs)

    assert distance(near) < distance(free)
    assert rows[0]["kl_coefficient"] == 5.0
    assert rows[-1]["kl_coefficient"] > 5.0


def test_asynchronous_batches_are_of_the_version_before(learn):
    _, rows, _ = learn(asynchronous=True, steps=4, lr_matrix=0.02, lr_other=0.01)
    assert [row["behind"] for row in rows] == [0.0, 1.0, 1.0, 1.0]
    _, fresh, _ = learn(steps=4, lr_matrix=0.02, lr_other=0.01)
    assert max(row["ratio_off"] for row in fresh) < 1e-4 < min(row["sampler_kl"] + 1e-3 for row in rows[1:])
    assert versions_behind("rl+12", "rl+9") == 3.0


@pytest.mark.parametrize("kind", ["truncated", "token-masked", "sequence-truncated", "sequence-masked", "good-or-near"])
def test_corrections_change_nothing_where_sampler_and_trainer_agree(learn, kind):
    plain, _, _ = learn(steps=1)
    corrected, _, _ = learn(steps=1, correction=kind)
    for a, b in zip(plain.model.parameters(), corrected.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


def test_dynamic_sampling_replaces_what_teaches_nothing_and_counts_it(learn):
    rare = Judged(lambda text: verdict(len(text) % 7 == 0))
    _, rows, found = learn(task=rare, algorithm="dapo", group_size=2, steps=3)
    totals = found.totals
    assert totals["groups_rejected"] > 0
    assert totals["groups"] > 3 * 4
    assert totals["samples"] == 2 * totals["groups"]
    fates = ("rejected", "unscored", "masked", "without_advantage", "learnt")
    assert sum(totals[f"samples_{fate}"] for fate in fates) == totals["samples"]
    assert all(0.0 <= row["groups_dropped"] < 1.0 for row in rows)


def test_dynamic_sampling_gives_up_after_its_draws(learn, start, capsys):
    policy, rows, found = learn(task=Judged(lambda text: verdict(True)), algorithm="dapo", draws=2)
    assert not moved(policy, start)
    assert found.totals["groups"] == found.totals["groups_rejected"] == 2 * 2 * 4
    assert rows[0]["groups_dropped"] == 1.0
    assert "nothing to learn from at step 0" in capsys.readouterr().err


def test_all_rewards_equal_teaches_nothing_and_says_so(learn, start, capsys):
    policy, _, found = learn(task=Judged(lambda text: verdict(True)))
    assert not moved(policy, start)
    assert found.totals["updates_skipped"] == 2
    assert found.totals["samples_without_advantage"] == found.totals["samples"] == 32
    assert "nothing to learn from at step 0: 16 without advantage" in capsys.readouterr().err


def test_truncated_responses_can_be_left_out_and_when_all_are_nothing_is_learnt(learn, start):
    _, rows, found = learn(truncated="masked")
    assert found.totals["samples_masked"] == sum(round(16 * row["truncated"]) for row in rows) > 0
    all_cut, rows, found = learn(truncated="masked", max_tokens=1)
    assert rows[0]["truncated"] == 1.0
    assert not moved(all_cut, start)
    assert found.totals["samples_masked"] == 32


def test_rewards_that_are_no_numbers_are_unscored(learn, start, monkeypatch):
    from clew.reward import terms

    rate = terms.Verified.rate
    monkeypatch.setattr(
        terms.Verified, "rate", lambda self, group: [math.nan if i == 0 else r for i, r in enumerate(rate(self, group))]
    )
    policy, rows, found = learn()
    assert moved(policy, start)
    assert all(torch.isfinite(p).all() for p in policy.model.parameters())
    assert [row["unscored"] for row in rows] == [0.25, 0.25]
    assert found.totals["samples_unscored"] == 8


def test_a_reference_of_another_vocabulary_is_refused(learn, start, tmp_path):
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["zebra"])
    (tmp_path / "other").mkdir()
    model = copy.deepcopy(start)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    save_checkpoint(model, tokenizer, tmp_path / "other")
    with pytest.raises(InvalidValue, match="reference is"):
        learn(kl="k3-loss", reference=tmp_path / "other")


def test_prompts_too_long_are_left_out_and_counted(learn, capsys):
    message = PROBLEMS[0].prompt[-1]
    long = replace(PROBLEMS[0], id="long", prompt=(message._replace(content=message.content * 12),))
    _, _, found = learn(problems=[long, *PROBLEMS[:3]])
    assert found.totals["prompts_too_long"] == 2
    assert found.totals["groups"] == 6
    assert "left out" in capsys.readouterr().err
    with pytest.raises(InvalidValue, match="tokens of the prompts"):
        learn(problems=[long])


def test_process_rewards_enter_and_are_paid_at_step_ends(learn, start, tmp_path, monkeypatch):
    from clew.recipes import rl_learner

    class Counting:
        """Says how long the state is: every step is worth its tokens."""

        name = "counting"
        asked = 0

        def score(self, states, completions):
            Counting.asked += len(states)
            return [len(state.tokens) / 100 for state in states]

        def cost_tokens(self, states):
            return 0

    monkeypatch.setattr(rl_learner, "_scorer", lambda *_: Counting())
    equal = Judged(lambda text: verdict(False))
    for name in ("rloo", "ppo", "reinforce++"):
        policy, _, _ = learn(task=equal, algorithm=name, step_credit=NO_STEPS)
        assert moved(policy, start)
    assert Counting.asked > 0


def test_the_solvers_values_are_paid_as_a_process_reward(start):
    """7 - 4 = 3 leaves 3 and 2 to make 6; 3 - 2 = 1 leaves nothing that does."""
    problem = Countdown(count=3).problem({"numbers": [7, 4, 2], "target": 6})
    policy = LocalPolicy(start, build_tokenizer())
    learner = make_learner(EXACT, method_of(EXACT), policy, Countdown(count=3))
    text = "have 7 4 2 try 7 - 4 = 3 left 3 2 try 3 - 2 = 1 answer ( 7 - 4 ) - 2"
    tokens = policy.response_ids(text)
    state, done = State(problem, tokens, finished=True), Completion(tokens, (-0.1,) * len(tokens), FinishReason.STOP)
    response = Trajectory(state, text, verdict(False), Reward(0.0), Cost(), 0, done)
    (ends,) = stops_of(learner, [Group(problem, (response,))])
    paid = process_rewards(learner.scorer, [Group(problem, (response,))], [ends], EXACT.step_credit)
    assert [policy.decode(tokens[:end]).split()[-1] for end in ends[0][:-1]] == ["left", "answer"]
    assert paid == [[[0.0, -2.0, 0.0]]]


def test_the_solvers_values_are_those_of_countdown(start):
    with pytest.raises(InvalidValue, match="exact-value"):
        make_learner(EXACT, method_of(EXACT), LocalPolicy(start, build_tokenizer()), Arithmetic())


def test_the_noise_scale_is_measured_when_asked_for_and_changes_nothing(learn):
    plain, _, _ = learn(steps=3)
    watched, rows, _ = learn(steps=3, noise_scale=2)
    assert [("noise_variance" in row) for row in rows] == [True, False, True]
    assert not moved(plain, watched.model)


def test_what_is_paid_and_odd_is_kept(learn, run):
    _, _, found = learn(
        task=Judged(lambda text: verdict(len(text) % 2 == 0)), reward=("verifier", "overlong:longest=8,margin=4")
    )
    found.write(run)
    account, odd = (json.loads((run.path / name).read_text()) for name in (ACCOUNT, ODD))
    assert account["samples"] == 32
    assert 0 < len(odd) <= 20
    assert len({(sample["problem_id"], sample["text"]) for sample in odd}) == len(odd)
    assert [sample["oddness"] for sample in odd] == sorted((s["oddness"] for s in odd), reverse=True)
    assert {"text", "reward", "parts", "odd_by"} <= odd[0].keys()


def test_alarms_ring_once_and_only_when_what_they_watch_has_left(capsys):
    alarms = Alarms()
    steady = {"entropy": 1.0, "length": 20.0, "repetition": 0.2, "truncated": 0.1}
    for step in range(5):
        assert not any(alarms.see(step, steady).values())
    gone = {"entropy": 0.05, "length": 50.0, "repetition": 0.5, "truncated": 0.6}
    assert all(alarms.see(6, gone).values())
    assert all(alarms.see(7, gone).values())
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    assert said[0].startswith("clew: entropy alarm at step 6")
    assert not any(alarms.see(8, steady).values())


def test_pass_rates_are_unbiased_and_over_groups_with_enough_samples(start):
    policy = LocalPolicy(copy.deepcopy(start), build_tokenizer())
    groups = sample_groups(policy, EVEN, PROBLEMS[:4], n=4, sampling=Sampling(max_tokens=6), seed=1)
    rates = pass_rates(groups)
    counts = [sum(t.verdict.right for t in group.trajectories) for group in groups]
    for k in (1, 2, 4):
        expected = sum(1 - math.comb(4 - c, k) / math.comb(4, k) for c in counts) / 4
        assert rates[f"pass_at_{k}"] == pytest.approx(expected)
    assert all(t.completion.finish in FinishReason for g in groups for t in g.trajectories)
    assert pass_rates([]) == {}
