"""The process reward: what it says equals one plain forward pass, what it counts equals what was computed."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace

import pytest
import torch

from clew.core.cost import Budget
from clew.core.errors import CheckpointError, InvalidValue
from clew.core.types import Completion, FinishReason, Sampling, State
from clew.models.any_backbone import scalar_logits
from clew.models.checkpoint import load_checkpoint, save_checkpoint
from clew.models.policy import LocalPolicy
from clew.models.tokenizer import FastCodec
from clew.models.value_head import ValueReader, load_value_checkpoint, value_model_of
from clew.reward.log_ratio_q import LogRatioQ
from clew.reward.process import ProcessReward, load_process_reward
from clew.search import BestOfN, run_searches
from clew.search.guides import SelfEvaluation
from clew.stats.step_scores import minimum, product
from clew.tasks import Countdown

TASK = Countdown()
PROBLEMS = TASK.problems("train", 4, seed=0)
CLOSE = 2e-5


@pytest.fixture
def policy(policy_model, tokenizer):
    return LocalPolicy(policy_model, tokenizer)


def guide_of(value_model, tokenizer, **settings):
    cache_bytes = settings.pop("cache_bytes", 1 << 22)
    reader = ValueReader(value_model, cache_bytes=cache_bytes)
    return ProcessReward(reader=reader, codec=FastCodec(tokenizer), **settings)


def grown(rng, *, problems=PROBLEMS, depth=4, width=3, vocabulary=300):
    """States of random trees: every node, parents before children."""
    states = []
    for problem in problems:
        front = [State(problem)]
        for _ in range(depth):
            states += front
            parents = rng.sample(front, min(2, len(front)))
            front = [
                parent.extend(
                    Completion(
                        tuple(rng.randrange(6, vocabulary) for _ in range(rng.randint(1, 5))), None, FinishReason.STEP
                    )
                )
                for parent in parents
                for _ in range(width)
            ]
        states += front
    return states


def plain(value_model, policy, state, mode="think"):
    """P(right) after every token of prompt and response, by transformers alone."""
    ids = torch.tensor([policy.prompt_ids(state.problem, mode) + state.tokens])
    with torch.no_grad():
        return value_model(input_ids=ids).logits[0, :, 0].sigmoid().tolist()


def distinct_tokens(policy, states):
    """An independent count: every different prefix of prompt and response is one token to compute."""
    seen = set()
    for state in states:
        ids = policy.prompt_ids(state.problem, "think") + state.tokens
        seen |= set(itertools.accumulate((t,) for t in ids))
    return len(seen)


# The head.


def test_an_untrained_value_model_says_the_base_rate(policy_model):
    model = value_model_of(policy_model, base_rate=0.3)
    ids = torch.randint(6, 300, (2, 9))
    logits = scalar_logits(model, ids, torch.ones_like(ids, dtype=torch.bool))
    assert logits.sigmoid().tolist() == pytest.approx([0.3] * 18, abs=1e-6)
    for ours, theirs in zip(model.model.parameters(), policy_model.model.parameters(), strict=True):
        assert torch.equal(ours, theirs) and ours is not theirs


def test_the_fused_pass_equals_that_of_transformers_and_padding_changes_nothing(value_model):
    ids = torch.randint(6, 300, (3, 20))
    mask = torch.arange(20) < torch.tensor([[20], [13], [1]])
    with torch.no_grad():
        expected = value_model(input_ids=ids).logits[..., 0][mask]
    assert torch.allclose(scalar_logits(value_model, ids * mask, mask), expected, atol=CLOSE)
    assert expected.std() > 0.3


def test_transformers_loads_the_checkpoint_with_equal_logits(value_model, tokenizer, tmp_path):
    from transformers import AutoModelForTokenClassification

    save_checkpoint(value_model, tokenizer, tmp_path / "value")
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path / "value").eval()
    assert loaded.config.num_labels == 1
    assert loaded.config.id2label == {0: "right"}
    ids = torch.randint(6, 300, (2, 15))
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        theirs = loaded(input_ids=ids).logits.flatten()
    assert torch.allclose(theirs, scalar_logits(value_model, ids, everywhere), atol=CLOSE)
    ours = load_value_checkpoint(tmp_path / "value").model
    assert torch.equal(scalar_logits(ours, ids, everywhere), scalar_logits(value_model, ids, everywhere))


def test_a_policy_is_no_value_model_and_the_other_way_round(value_model, policy_model, tokenizer, tmp_path):
    save_checkpoint(value_model, tokenizer, tmp_path / "value")
    save_checkpoint(policy_model, tokenizer, tmp_path / "policy")
    with pytest.raises(CheckpointError, match="is a Qwen3ForTokenClassification"):
        load_checkpoint(tmp_path / "value")
    with pytest.raises(CheckpointError, match="is a Qwen3ForCausalLM"):
        load_value_checkpoint(tmp_path / "policy")
    assert load_process_reward(tmp_path / "value").name == "process-reward"


# The scorer.


@pytest.mark.parametrize("cache_bytes", [0, 4000, 1 << 22], ids=["no cache", "tight", "roomy"])
@pytest.mark.parametrize("mode", ["think", "direct"])
def test_scores_are_those_of_a_plain_forward_pass(cache_bytes, mode, value_model, policy, tokenizer):
    rng = random.Random(0)
    guide = guide_of(value_model, tokenizer, mode=mode, cache_bytes=cache_bytes)
    states = grown(rng)
    rng.shuffle(states)
    for start in range(0, len(states), 7):
        some = states[start : start + 7]
        scores = guide.score(some, [None] * len(some))
        assert scores == pytest.approx([plain(value_model, policy, s, mode)[-1] for s in some], abs=CLOSE)
    assert max(scores) - min(scores) > 0.05


@pytest.mark.parametrize("mode", ["think", "direct"])
def test_beginnings_of_a_response_are_rated_in_one_reading_as_they_are_alone(mode, value_model, policy, tokenizer):
    states = grown(random.Random(3))
    stops = [sorted({0, len(s.tokens) // 2, max(0, len(s.tokens) - 1), len(s.tokens)}) for s in states]
    guide = guide_of(value_model, tokenizer, mode=mode)
    together = guide.score_prefixes(states, stops)
    spent = guide.cost_tokens(states)
    assert spent <= sum(len(guide._context(state)) for state in states)
    for state, own, scores in zip(states, stops, together, strict=True):
        beginnings = [State(state.problem, state.tokens[:stop]) for stop in own]
        alone = guide_of(value_model, tokenizer, mode=mode).score(beginnings, [None] * len(own))
        assert scores == pytest.approx(alone, abs=CLOSE)


def test_with_room_every_token_of_a_tree_is_computed_once(value_model, policy, tokenizer):
    guide = guide_of(value_model, tokenizer)
    rng = random.Random(1)
    states = grown(rng)
    counted = 0
    order = states[:]
    rng.shuffle(order)
    for start in range(0, len(order), 5):
        some = order[start : start + 5]
        expected = guide.cost_tokens(some[:1])
        guide.score(some, [None] * len(some))
        if len(some) == 1:
            assert guide.cost_tokens(some) == expected
            counted += expected
        else:
            counted += guide.cost_tokens(some[:2]) + guide.cost_tokens(some[2:])
    assert counted == distinct_tokens(policy, states) == len(guide.reader.prefixes)
    guide.score(states, [None] * len(states))
    assert guide.cost_tokens(states) == 0


def test_without_a_cache_every_different_state_is_read_whole(value_model, policy, tokenizer):
    guide = guide_of(value_model, tokenizer, cache_bytes=0)
    states = grown(random.Random(2))
    guide.score([*states, *states], [None] * 2 * len(states))
    contexts = {policy.prompt_ids(s.problem, "think") + s.tokens for s in states}
    assert guide.cost_tokens(states) == sum(map(len, contexts))


def test_metered_tokens_are_those_that_went_through_the_model(value_model, policy, tokenizer):
    guide = guide_of(value_model, tokenizer)
    forward = guide.reader._forward
    counted = []
    run = forward.run
    guide.reader._forward.run = lambda tokens, *rest: counted.append(len(tokens)) or run(tokens, *rest)
    strategy = BestOfN(n=6, sampling=Sampling(max_tokens=24), guide="scorer", per_request=2)
    outcomes = run_searches(strategy, PROBLEMS, policy, task=TASK, scorer=guide, budget=Budget(tokens=10_000), seed=3)
    assert not any(outcome.error for outcome in outcomes)
    assert sum(outcome.cost.scorer_tokens for outcome in outcomes) == sum(counted) > 0


def test_problems_searched_alone_cost_and_choose_the_same(value_model, policy, tokenizer):
    strategy = BestOfN(n=4, sampling=Sampling(max_tokens=16), guide="scorer")
    together = run_searches(strategy, PROBLEMS, policy, task=TASK, scorer=guide_of(value_model, tokenizer), seed=1)
    for problem, outcome in zip(PROBLEMS, together, strict=True):
        guide = guide_of(value_model, tokenizer)
        (alone,) = run_searches(strategy, [problem], policy, task=TASK, scorer=guide, seed=1)
        # Together, the words with which every prompt begins are read for one problem only.
        assert 0 <= alone.cost.scorer_tokens - outcome.cost.scorer_tokens <= 3
        assert alone.result.chosen == outcome.result.chosen


@pytest.mark.parametrize("aggregate", [minimum, product])
def test_steps_are_aggregated(aggregate, value_model, policy, tokenizer):
    state = max(grown(random.Random(3)), key=lambda s: len(s.steps))
    assert len(state.steps) > 2
    values = plain(value_model, policy, state)
    prompt = len(values) - len(state.tokens)
    ends = [values[prompt + span.stop - 1] for span in state.steps]
    guide = guide_of(value_model, tokenizer, aggregate=aggregate)
    assert guide.score([state], [None]) == pytest.approx([aggregate(ends)], abs=CLOSE)
    # A whole solution is one step of a search, but not of thought.
    text = "try 9 - 7 = 2 left 5 3 no or 5 * 3 = 15 yes"
    tokens = policy.encode(f" {text}")
    whole = State(PROBLEMS[0], tokens[:-2]).told(tokens[-2:])
    values = plain(value_model, policy, whole)[-len(tokens) :]
    places = [at for at, token in enumerate(tokens) if "=" in policy.codec.decode((token,))]
    guide = guide_of(value_model, tokenizer, aggregate=aggregate, step_ends=("=",))
    assert len(places) == 2
    assert guide.score([whole], [None]) == pytest.approx(
        [aggregate([values[at] for at in [*places, len(tokens) - 1]])], abs=CLOSE
    )


def test_a_state_beyond_the_context_is_refused(value_model, tokenizer):
    guide = guide_of(value_model, tokenizer)
    with pytest.raises(InvalidValue, match="lower max_tokens"):
        guide.score([State(PROBLEMS[0], (7,) * 96)], [None])


# Guides that ask two policies, or the policy itself.


def test_log_ratios_of_two_policies(policy_model, tokenizer, policy):
    import copy

    trained = copy.deepcopy(policy_model)
    with torch.no_grad():
        trained.model.norm.weight.mul_(1.5)
    ours = LocalPolicy(trained, tokenizer)
    states = [s for s in grown(random.Random(4)) if s.tokens]
    guide = LogRatioQ(policy=ours, reference=policy, beta=0.5)
    scores = guide.score(states, [None] * len(states))

    def summed(model, state):
        ids = torch.tensor([policy.prompt_ids(state.problem, "think") + state.tokens])
        with torch.no_grad():
            logprobs = model(input_ids=ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
        return logprobs[-len(state.tokens) :].sum().item()

    slow = [0.5 * (summed(trained, s) - summed(policy_model, s)) for s in states]
    assert scores == pytest.approx(slow, abs=1e-3)
    assert guide.cost_tokens(states) > 0
    same = LogRatioQ(policy=policy, reference=policy)
    assert same.score(states, [None] * len(states)) == [0.0] * len(states)


def test_log_ratios_count_what_both_read():
    class Policy:
        def __init__(self, value):
            self.value = value

        def logprobs(self, states):
            each = [[self.value] * len(s.tokens) for s in states]
            return SimpleNamespace(logprobs=each, tokens_read=[len(s.tokens) for s in states])

    states = [State(PROBLEMS[0], (6, 7)), State(PROBLEMS[0], (6, 7, 8)), State(PROBLEMS[0])]
    guide = LogRatioQ(policy=Policy(-1.0), reference=Policy(-3.0), beta=0.25)
    assert guide.score(states, [None] * 3) == [1.0, 1.5, 0.0]
    assert guide.cost_tokens(states[:1]) == 4
    assert guide.cost_tokens(states[1:]) == 6
    with pytest.raises(InvalidValue, match="beta is 0"):
        LogRatioQ(policy=Policy(0.0), reference=Policy(0.0), beta=0)


def test_a_small_policy_evaluates_itself(policy, policy_model):
    states = grown(random.Random(5))
    guide = SelfEvaluation(policy=policy)
    scores = guide.score(states, [None] * len(states))
    yes, no = (policy.codec.encode_words(word)[0] for word in ("yes", "no"))
    for state, score in zip(states, scores, strict=True):
        ids = torch.tensor([policy.prompt_ids(state.problem, "think") + state.tokens])
        with torch.no_grad():
            last = policy_model(input_ids=ids).logits[0, -1]
        assert score == pytest.approx(last[[yes, no]].softmax(0)[0].item(), abs=1e-4)
    assert guide.cost_tokens(states) > 0
