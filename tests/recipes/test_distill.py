"""Each method of cloning on a world whose best policy is known, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from one_token_world import PROBLEMS, Half, chance, distribution, learner, right_mask, stage

from clew.core.errors import InvalidValue
from clew.core.types import Message, Problem, Sampling
from clew.data.targets import Target
from clew.evaluate import sample_groups
from clew.learn.batch import Example
from clew.models.shared_value import with_saved_head
from clew.recipes.cloning import Lesson
from clew.recipes.distill import DistillConfig, check, learn
from clew.recipes.distill_bond import Anchored, Bond, backward_examples, bond_step
from clew.recipes.distill_star import Star, hinted
from clew.recipes.distill_teacher import Teacher, correct_step, divergence_of
from clew.recipes.distill_visits import Visits, visit_step, visited_states
from clew.recipes.distill_vstar import VERIFIER
from clew.recipes.expert_iteration import ExpertIteration
from clew.reward.load import load_reward

FAST = {"lr_matrix": 0.01, "lr_other": 0.01, "max_tokens": 1, "problems": 4, "rows": 32}


def taught(tmp_path, who, task, method, settings, **own):
    """`who` after the method; the stage is open while it learns."""
    config = DistillConfig(method=method, checkpoint=tmp_path, out=tmp_path, settings=settings, **own)
    with stage(tmp_path / method) as at:
        learn(config, Lesson(learner=who, task=task, problems=PROBLEMS, seed=0, stage=at))
        return at.run


@pytest.mark.parametrize("method", ["expert-iteration", "rest-em", "rft", "star"])
def test_cloning_what_is_right_makes_it_likely(tmp_path, method):
    who, task = learner(), Half()
    before = chance(who, task)
    settings = ExpertIteration(rounds=2, samples=48, epochs=20, **{**FAST, "rows": 8})
    taught(tmp_path, who, task, method, settings)
    assert 0.3 < before < 0.7
    assert chance(who, task) > before + 0.1


@pytest.mark.parametrize("method", ["rest-em", "rft", "star", "v-star"])
def test_nothing_to_clone_is_refused(tmp_path, method):
    settings = ExpertIteration(samples=4, **FAST)
    own = {"star": Star(rationalise=False)} if method == "star" else {}
    with pytest.raises(InvalidValue, match="solutions to clone is 0"):
        taught(tmp_path, learner(), Half(every=10**9), method, settings, **own)


def test_a_hint_stands_after_the_question_alone():
    problem = Problem("p", "t", (Message("system", "s"), Message("user", "q")))
    told = hinted(problem, " answer {answer}", "{x}")
    assert told.prompt == (Message("system", "s"), Message("user", "q answer {x}"))
    with pytest.raises(InvalidValue):
        Star(hint="answer")


def test_the_verifier_knows_right_from_wrong(tmp_path):
    who, task = learner(), Half()
    settings = ExpertIteration(rounds=1, samples=64, epochs=4, **FAST)
    run = taught(tmp_path, who, task, "v-star", settings)
    scorer = load_reward(run.checkpoint_path(VERIFIER))
    from clew.core.types import State

    rng = torch.Generator().manual_seed(5)
    drawn = torch.multinomial(distribution(who), 80, replacement=True, generator=rng).tolist()
    scores = scorer.score([State(PROBLEMS[0], (token,)) for token in drawn], [None] * 80)
    mask = right_mask(who, task)
    right = [s for s, token in zip(scores, drawn, strict=True) if mask[token]]
    wrong = [s for s, token in zip(scores, drawn, strict=True) if not mask[token]]
    auc = sum((r > w) + 0.5 * (r == w) for r in right for w in wrong) / (len(right) * len(wrong))
    assert auc > 0.7


def test_bond_moves_towards_the_distribution_of_best_of_n(tmp_path):
    """The target by its definition on the whole vocabulary; the policy begins as its own anchor."""
    who, task = learner(), Half()
    anchor, mask = distribution(who), right_mask(who, task)
    p = float(anchor[mask].sum())
    target = best_of_four(anchor, mask)
    assert float(target.sum()) == pytest.approx(1.0, abs=1e-6)

    def divergence():
        now = distribution(who)
        return float((now * (now / target).log()).sum())

    before = divergence()
    settings = ExpertIteration(rounds=1, samples=64, epochs=60, **{**FAST, "rows": 4})
    taught(tmp_path, who, task, "bond", settings, bond=Bond(n=4, anchors=64, backward=0.9))
    assert divergence() < 0.5 * before
    # It does not go past the target, as a reward without the KL would.
    assert float(distribution(who)[mask].sum()) < 0.5 * (1 + 1 - (1 - p) ** 4) + 0.05


def best_of_four(anchor, mask):
    """pi(y) ((p_< + p_=)^4 - p_<^4) / p_= of every token: right ones above the wrong ones (arXiv 2407.14622)."""
    p = float(anchor[mask].sum())
    return anchor * torch.where(mask, (1 - (1 - p) ** 4) / p, (1 - p) ** 3)


def test_the_fixed_point_of_bond_is_the_distribution_of_best_of_n():
    """Every token once, as often as the policy writes it: no sampling, so the policy must arrive at the formula."""
    who, task = learner(), Half()
    mask = right_mask(who, task)
    target = best_of_four(distribution(who)[: len(mask)], mask)
    target = target / target.sum()
    optimizer, prompt = who.optimizer(lr_matrix=0.01, lr_other=0.01), who.prompt_ids(PROBLEMS[0])

    def gaps():
        now = distribution(who)[: len(mask)]
        return now, (target / now).log()

    for step in range(60):
        now, gap = gaps()
        worth = ((gap - (now * gap).sum()) * now * len(mask)).tolist()
        every = [Example(prompt_ids=prompt, response_ids=(t,), advantage=a) for t, a in enumerate(worth)]
        bond_step(who, optimizer, every[:1], every, backward=1.0, step=step, rate=1 - step / 60)
    now, gap = gaps()
    assert float(-(now * gap).sum()) < 2e-3
    assert float(now[mask].sum()) == pytest.approx(float(target[mask].sum()), abs=0.01)


def test_what_a_sample_is_worth_to_bond_is_how_far_it_is_below_best_of_n():
    """Against the formula of each sample, its own log-probs, and rewards of draws of the anchor counted by hand."""
    who, task, anchor = learner(), Half(), learner(seed=1)
    groups = sample_groups(who.policy, task, PROBLEMS[:2], n=6, sampling=Sampling(max_tokens=1), seed=3)
    rewards = ((1.0, 0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 0.0, 0.0))
    known = [Anchored(group=g, rewards=r, best=g.trajectories[0]) for g, r in zip(groups, rewards, strict=True)]
    found = backward_examples(groups, known, 3, anchor.model, who)
    assert len(found) == 12
    for at, (group, of_anchor) in enumerate(zip(groups, rewards, strict=True)):
        ours, theirs = distribution(who, group.problem), distribution(anchor, group.problem)
        worth = []
        for one in group.trajectories:
            reward, token = float(one.verdict.right), one.completion.tokens[0]
            lower = sum(other < reward for other in of_anchor) / 6
            equal = (sum(other == reward for other in of_anchor) + 1) / 6
            factor = ((lower + equal) ** 3 - lower**3) / equal
            worth.append(math.log(factor) + float(theirs[token].log() - ours[token].log()))
        for place, example in enumerate(found[6 * at : 6 * at + 6]):
            others = [w for i, w in enumerate(worth) if i != place]
            assert example.advantage == pytest.approx(worth[place] - sum(others) / 5, abs=1e-4)


def targets():
    prompt = PROBLEMS[0]
    return [
        Target(
            problem=prompt, prefix=(), actions=((300,), (301, 302), (303,)), probabilities=(0.6, 0.3, 0.1),
            visits=(6, 3, 1), value=0.25, returned=0.25,
        ),
        Target(
            problem=prompt, prefix=(301,), actions=((302,),), probabilities=(1.0,), visits=(3,), value=0.9, returned=0.9
        ),
    ]  # fmt: skip


def test_distilled_visits_are_the_policy_and_values_the_heads(tmp_path):
    who = learner()
    own = Visits()
    states = visited_states(targets(), own, who)
    who.add_value_head()
    optimizer = who.optimizer(lr_matrix=0.01, lr_other=0.01)
    for step in range(120):
        told = visit_step(who, optimizer, states, value_weight=1.0, step=step, multiplier=1 - step / 120)
    now = distribution(who)
    assert float(now[300]) == pytest.approx(0.6, abs=0.03)
    assert float(now[301]) == pytest.approx(0.3, abs=0.03)
    assert float(now[303]) == pytest.approx(0.1, abs=0.03)
    entropy = -sum(p * math.log(p) for p in (0.6, 0.3, 0.1))
    assert told["policy_loss"] == pytest.approx(entropy / 2, abs=0.05)
    who.finish()
    with stage(tmp_path / "run") as at:
        from clew.recipes.stage import save_policy

        save_policy(who.policy, at.run, "visits", who.save_beside)
        path = at.run.checkpoint_path("visits")
    saved = with_saved_head(who.policy.model, path)
    for target, expected in zip(targets(), (0.25, 0.9), strict=True):
        ids = torch.tensor([[*who.prompt_ids(target.problem), *target.prefix]])
        with torch.no_grad():
            values = saved(ids, torch.ones_like(ids, dtype=torch.bool)).values
        assert float(values[-1].sigmoid()) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("name", ["reverse", "forward", "jensen-shannon"])
def test_on_policy_distillation_converges_to_the_teacher(name):
    """Every answer of the student is sampled by its exact distribution; its distance from the teacher vanishes."""
    who, guide = learner(), learner(seed=3)
    rng = torch.Generator().manual_seed(0)
    optimizer = who.optimizer(lr_matrix=0.01, lr_other=0.01)

    def distance():
        ours, theirs = distribution(who), distribution(guide)
        return float((ours * (ours / theirs).log()).sum())

    before = distance()
    for step in range(60):
        drawn = torch.multinomial(distribution(who), 4, replacement=True, generator=rng).tolist()
        prompt = who.prompt_ids(PROBLEMS[0])
        examples = [Example(prompt_ids=prompt, response_ids=(token,)) for token in drawn]
        told = correct_step(who, optimizer, examples, guide.model, divergence_of(name), step=step, rate=1 - step / 60)
    assert distance() < 0.05 * before
    assert told["loss"] < 0.1 * before


def test_a_teacher_of_other_tokens_is_read_as_text(tmp_path):
    who = learner()
    with pytest.raises(InvalidValue, match=r"--teacher\.checkpoint"):
        taught(tmp_path, who, Half(), "teacher", ExpertIteration(**FAST), teacher=Teacher())


@pytest.mark.parametrize(
    "changes",
    [{"method": "star", "bond": Bond(n=2)}, {"method": "rft", "settings": ExpertIteration(rounds=2)}],
    ids=["another method's settings", "rounds without rounds"],
)
def test_settings_that_a_method_does_not_use_are_refused(tmp_path, changes):
    with pytest.raises(InvalidValue):
        check(DistillConfig(checkpoint=tmp_path, out=tmp_path, **changes))


def test_visits_without_a_run_are_refused(tmp_path):
    with pytest.raises(InvalidValue, match=r"--visits\.data"):
        taught(tmp_path, learner(), Half(), "visits", ExpertIteration(**FAST))
