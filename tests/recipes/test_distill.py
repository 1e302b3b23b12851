"""Each method of cloning on a world whose best policy is known, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import accumulate

import pytest
import torch
from one_token_world import PROBLEMS, Half, chance, distribution, learner, right_mask, stage

from clew.core.errors import InvalidValue, TrainingDiverged
from clew.core.types import Message, Problem, Sampling
from clew.data.searches import save_tree
from clew.data.targets import Target, visit_targets
from clew.evaluate import sample_groups
from clew.learn.batch import Example
from clew.learn.optim import MuonAdamW
from clew.models.shared_value import PolicyWithValue, with_saved_head
from clew.recipes.cloning import Lesson
from clew.recipes.distill import DistillConfig, check, learn
from clew.recipes.distill_bond import Anchored, Bond, backward_examples, bond_step
from clew.recipes.distill_star import Star, hinted
from clew.recipes.distill_teacher import Teacher, correct_step, divergence_of
from clew.recipes.distill_visits import Visits, losses, visit_step, visited_states
from clew.recipes.distill_vstar import VERIFIER
from clew.recipes.expert_iteration import ExpertIteration
from clew.report.tree_data import TreeNotes, save_notes, step_texts
from clew.reward.load import load_reward
from clew.search import TabularPolicy, run_searches
from clew.search.mcts import Mcts

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


def some_states(who, own):
    """Three states: of one nothing is known, and of its two steps the search took one."""
    unknown = Target(
        problem=PROBLEMS[1], prefix=(300, 302), actions=((301, 303), (304, 300, 301)), probabilities=(0.0, 1.0),
        visits=(0, 4), value=0.5,
    )  # fmt: skip
    first, last = targets()
    longer = replace(first, actions=((301, 302), (300,), (303,)), probabilities=(0.3, 0.6, 0.1))
    return visited_states([longer, unknown, replace(last, value=0.4)], own, who)


def visits_by_hand(who, states):
    """Sums over `states` of both losses: every step and every value read alone, by the library's own pass."""
    policy = value = torch.zeros(())
    for state in states:
        for step, share in zip(state.steps, state.shares, strict=True):
            ids = [*step.prompt_ids, *step.response_ids]
            logprobs = who.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            places = range(len(step.prompt_ids), len(ids))
            policy = policy - share * sum(logprobs[at - 1, ids[at]] for at in places)
        if state.value is not None:
            ids = torch.tensor([state.steps[0].prompt_ids])
            hidden = who.model.model(input_ids=ids).last_hidden_state[0, -1]
            chance = (who.trained.score.weight[0] @ hidden + who.trained.score.bias[0]).sigmoid()
            value = value - state.value * chance.log() - (1 - state.value) * (1 - chance).log()
    return policy, value


def with_random_head(who):
    who.add_value_head()
    with torch.no_grad():
        who.trained.score.weight.copy_(torch.randn(1, 40, generator=torch.Generator().manual_seed(0)))
        who.trained.score.bias.fill_(0.3)
    return who


def test_a_visited_state_as_the_model_reads_it():
    who = learner()
    states = some_states(who, Visits())
    prompt = who.prompt_ids(PROBLEMS[0])
    assert states[0].shares == (0.3, 0.6, 0.1)
    assert [step.response_ids for step in states[0].steps] == [(301, 302), (300,), (303,)]
    assert {step.prompt_ids for step in states[0].steps} == {prompt}
    assert states[0].length == 3 * len(prompt) + 1
    assert (states[1].shares, states[1].steps[0].response_ids) == ((1.0,), (304, 300, 301))
    assert states[1].steps[0].prompt_ids == (*who.prompt_ids(PROBLEMS[1]), 300, 302)
    assert [state.value for state in states] == [0.25, None, 0.9]
    assert [state.value for state in some_states(who, Visits(value="backed-up"))] == [0.25, 0.5, 0.4]


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_a_state_worth_more_than_one_has_no_probability(value):
    target = replace(targets()[0], value=value)
    with pytest.raises(InvalidValue, match="value of a state"):
        visited_states([target], Visits(value="backed-up"), learner())
    assert len(visited_states([target], Visits(), learner())) == 1
    assert len(visited_states([target], Visits(value="backed-up", value_weight=0.0), learner())) == 1


def test_the_losses_of_visited_states_are_those_of_a_slow_loop():
    who = with_random_head(learner())
    states = some_states(who, Visits())
    policy, value = visits_by_hand(who, states)
    told = losses(who, states, with_value=True)
    assert [one.item() for one in told] == pytest.approx([policy.item(), value.item()], rel=1e-4)
    told = losses(who, states, with_value=False)
    assert [one.item() for one in told] == pytest.approx([policy.item(), 0.0], rel=1e-4)
    assert losses(who, states[1:2], with_value=True)[1].item() == 0.0


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_an_update_of_visits_goes_down_both_means(weight, monkeypatch):
    """The policy's loss is a mean over all states, the value's over those that are worth something known."""
    monkeypatch.setattr("clew.recipes.learner.TOKENS_PER_PASS", 1)
    who, twin = with_random_head(learner()), with_random_head(learner())
    states = some_states(who, Visits())
    policy, value = visits_by_hand(twin, states)
    loss = policy / 3 + weight * value / 2
    gradients = torch.autograd.grad(loss, list(twin.trained.parameters()), materialize_grads=True)
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt().item()
    optimizer = MuonAdamW(torch.optim.SGD(who.trained.parameters(), lr=0.4))
    told = visit_step(who, optimizer, states, value_weight=weight, step=0, multiplier=0.5)
    assert told["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert told["policy_loss"] == pytest.approx(policy.item() / 3, rel=1e-4)
    assert told["grad_norm"] == pytest.approx(norm, rel=1e-3)
    if weight:
        assert told["value_loss"] == pytest.approx(value.item() / 2, rel=1e-4)
    else:
        assert "value_loss" not in told
    rate = 0.4 * 0.5 * min(1.0, 1.0 / norm)
    for ours, theirs, gradient in zip(who.trained.parameters(), twin.trained.parameters(), gradients, strict=True):
        assert torch.allclose(theirs - ours, rate * gradient, atol=2e-6 + 1e-3 * rate * gradient.abs().max().item())


def test_an_update_of_visits_that_diverges_names_the_loss(monkeypatch):
    who = with_random_head(learner())
    with torch.no_grad():
        who.trained.score.bias.fill_(math.nan)
    with pytest.raises(TrainingDiverged, match="step 3: loss nan"):
        visit_step(
            who, who.optimizer(lr_matrix=0.1, lr_other=0.1), some_states(who, Visits()), value_weight=0.5, step=3
        )


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_every_state_of_a_run_of_search_is_learnt_from_once_an_epoch(tmp_path, monkeypatch, weight):
    words = TabularPolicy(("end", "a", "b", "c;"), lambda state: [0.2, 0.3, 0.2, 0.3])
    strategy = Mcts(iterations=60, width=3, max_depth=4, sampling=Sampling(max_tokens=6, step_ends=(";",)))
    (found,) = run_searches(strategy, PROBLEMS[:1], words, task=Half(), seed=0)
    tree = found.result.tree
    for room in ("trees", "notes"):
        (tmp_path / room).mkdir()
    save_tree(tmp_path / "trees" / "0000.json", tree)
    save_notes(tmp_path / "notes" / "0000.json", TreeNotes(texts=step_texts(tree, words.text), strategy="mcts-uct"))
    who, seen = learner(), []
    monkeypatch.setattr(
        "clew.recipes.distill_visits.visit_step",
        lambda *given, **named: (seen.append((given[2], named)), visit_step(*given, **named))[1],
    )
    own = Visits(data=tmp_path, temperature=0.5, min_visits=3, value_weight=weight)
    run = taught(tmp_path, who, Half(), "visits", ExpertIteration(rows=2, epochs=3, lr_matrix=0.01), visits=own)
    expected = visited_states(visit_targets(tree, temperature=0.5, min_visits=3), own, learner())
    assert len(expected) > 4
    # What does not fill a last update is left out.
    steps = 3 * len(expected) // 2
    rates = [min(1.0, (steps - step) / (steps // 2)) for step in range(steps)]
    assert [named["multiplier"] for _, named in seen] == pytest.approx(rates)
    assert {named["value_weight"] for _, named in seen} == {weight}
    learnt = [state for states, _ in seen for state in states]
    assert {len(states) for states, _ in seen} == {2}
    for epoch in range(3):
        part = learnt[epoch * len(expected) : (epoch + 1) * len(expected)]
        assert len(set(part)) == len(part)
        assert set(part) <= set(expected)
    rows = run.metrics("distill")
    tokens = [sum(step.num_learnt for state in states for step in state.steps) for states, _ in seen]
    assert [row["tokens"] for row in rows] == list(accumulate(tokens))
    assert {row["states"] for row in rows} == {len(expected)}
    assert isinstance(who.trained, PolicyWithValue) == (weight > 0)


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
