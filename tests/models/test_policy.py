"""A local checkpoint in the role of a policy, and the check that it samples from the model that is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from clew.core.errors import EngineMismatch, InvalidValue
from clew.core.protocols import Prompt
from clew.core.types import Completion, FinishReason, Message, Problem, Sampling, State
from clew.models import self_check
from clew.models.architecture import SmallQwen3, build_model
from clew.models.policy import LocalPolicy
from clew.models.self_check import check_engine
from clew.models.written import Sampled

PROBLEMS = [
    Problem(id=f"countdown:{n}", task="countdown", prompt=(Message("user", f"make {n} from {words}"),))
    for n, words in ((24, "3 5 7 9"), (8, "1 2"), (99, "9 9 9 9 9"))
]


@pytest.fixture
def policy(model: Any, tokenizer: Any) -> LocalPolicy:
    return LocalPolicy(model, tokenizer, name="tiny")


def test_a_completion_carries_what_the_engine_sampled(policy: LocalPolicy) -> None:
    prompts = [Prompt(State(p), seed) for p in PROBLEMS[:2] for seed in (1, 2)]
    sampling = Sampling(max_tokens=6, mode="direct")
    contexts = [policy.prompt_ids(p.state.problem, "direct") for p in prompts]
    sampled = policy.engine.sample(contexts, [1, 2, 1, 2], sampling)
    completions = policy.sample(prompts, sampling)
    first, second = len(contexts[0]), len(contexts[2])
    counts = [(first, 0), (0, first), (second, 0), (0, second)]
    assert completions == [
        Completion(s.tokens, s.logprobs, FinishReason.LENGTH, "tiny+0", read, cached)
        for s, (read, cached) in zip(sampled, counts, strict=True)
    ]


def test_a_state_is_continued_from_its_exact_tokens(policy: LocalPolicy) -> None:
    sampling = Sampling(max_tokens=5)
    whole = policy.sample([Prompt(State(PROBLEMS[0]), 7)], sampling)[0]
    state = State(PROBLEMS[0]).extend(whole)
    continued = policy.sample([Prompt(state, 9)], sampling)[0]
    context = policy.prompt_ids(PROBLEMS[0], "think") + whole.tokens
    assert continued.tokens == policy.engine.sample([context], [9], sampling)[0].tokens
    assert continued.prompt_tokens_read == len(context)


def test_the_end_token_finishes_a_completion(make_model: Callable[..., Any], tokenizer: Any) -> None:
    model = make_model(
        SmallQwen3(width=16, layers=1, heads=1, kv_heads=1, head_width=16, ffn_width=16, context=64), tied=False
    )
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.model.norm.weight.zero_()
    policy = LocalPolicy(model, tokenizer)
    # All logits are equal: greedy takes token 0, a draw any token, sooner or later the end.
    completions = policy.sample([Prompt(State(PROBLEMS[0]), s) for s in range(200)], Sampling(max_tokens=40))
    ended = [c for c in completions if c.finish is FinishReason.STOP]
    assert 0 < len(ended) < 200
    assert all(c.tokens[-1] == tokenizer.eos_token_id for c in ended)
    assert all(tokenizer.eos_token_id not in c.tokens for c in completions if c.finish is FinishReason.LENGTH)


def test_the_prompt_is_the_rendered_problem(policy: LocalPolicy, tokenizer: Any) -> None:
    assert tokenizer.decode(policy.prompt_ids(PROBLEMS[1], "direct")) == "<|user|> make 8 from 1 2<|direct|>"
    assert tokenizer.decode(policy.prompt_ids(PROBLEMS[1], "think")) == "<|user|> make 8 from 1 2<|think|>"


def test_text_is_the_response_without_its_end(policy: LocalPolicy, tokenizer: Any) -> None:
    tokens = tuple(tokenizer.encode(" answer 3 * ( 5 + 7 )<|end|>"))
    assert policy.text(State(PROBLEMS[0], tokens)) == "answer 3 * ( 5 + 7 )"
    assert policy.text(State(PROBLEMS[0])) == ""


def test_refresh_names_a_new_version(policy: LocalPolicy) -> None:
    policy.refresh()
    policy.refresh()
    assert policy.version == "tiny+2"


@pytest.mark.parametrize(
    "sampling",
    [Sampling(max_tokens=12), Sampling(max_tokens=12, temperature=0.5), Sampling(max_tokens=12, temperature=0.0)],
)
def test_a_right_engine_passes_the_check(policy: LocalPolicy, model: Any, sampling: Sampling) -> None:
    assert 0.0 <= check_engine(policy, model, PROBLEMS, sampling=sampling, seed=0) < 2e-5


def test_filters_are_left_off_in_the_check(policy: LocalPolicy, model: Any) -> None:
    sampling = Sampling(max_tokens=12, top_k=3, top_p=0.5)
    assert check_engine(policy, model, PROBLEMS, sampling=sampling, seed=0) < 2e-5


def test_an_engine_with_old_weights_fails_the_check(make_model: Callable[..., Any], tokenizer: Any) -> None:
    model = make_model()
    policy = LocalPolicy(model, tokenizer)
    with torch.no_grad():
        model.model.layers[1].self_attn.k_norm.weight.mul_(1.05)
    with pytest.raises(EngineMismatch, match=r"differ by at most 0\.0001") as caught:
        check_engine(policy, model, PROBLEMS, sampling=Sampling(max_tokens=12), seed=0)
    assert "refresh()" in caught.value.advice
    policy.refresh()
    check_engine(policy, model, PROBLEMS, sampling=Sampling(max_tokens=12), seed=0)


def test_weights_that_are_not_finite_fail_the_check(make_model: Callable[..., Any], tokenizer: Any) -> None:
    model = make_model()
    policy = LocalPolicy(model, tokenizer)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[3, 3] = torch.nan
    with pytest.raises(EngineMismatch, match="by inf"):
        check_engine(policy, model, PROBLEMS, sampling=Sampling(max_tokens=4), seed=0)


def test_a_training_forward_that_differs_from_the_plain_model_fails_the_check(
    policy: LocalPolicy, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = self_check.token_logprobs

    def wrong(*args: Any, **kwargs: Any) -> Any:
        result = right(*args, **kwargs)
        return result._replace(logprobs=result.logprobs * 1.001)

    monkeypatch.setattr(self_check, "token_logprobs", wrong)
    with pytest.raises(EngineMismatch):
        check_engine(policy, model, PROBLEMS, sampling=Sampling(max_tokens=4), seed=0)


def test_an_error_that_engine_and_training_share_fails_the_check(
    policy: LocalPolicy, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both fold norm weights and rotary tables with the same functions; the plain model does not."""
    ids = torch.tensor([[2, 9, 4]])
    logits = model(input_ids=ids).logits
    batch = self_check._Padded(ids, torch.tensor([[9, 4, 7]]), torch.tensor([[False, True, True]]))
    expected = torch.stack([(logits[0, t] / 0.5).log_softmax(0)[token] for t, token in ((1, 4), (2, 7))])
    plain = self_check._plain_logprobs
    torch.testing.assert_close(plain(model, batch, 0.5), expected)
    monkeypatch.setattr(self_check, "_plain_logprobs", lambda *args: plain(*args) - 2e-4)
    with pytest.raises(EngineMismatch):
        check_engine(policy, model, PROBLEMS, sampling=Sampling(max_tokens=4), seed=0)


def test_an_empty_check_is_an_error(policy: LocalPolicy, model: Any) -> None:
    with pytest.raises(InvalidValue, match="what to do"):
        check_engine(policy, model, [], sampling=Sampling(), seed=0)


def test_a_built_model_derives_from_its_seed_alone(tokenizer: Any) -> None:
    before = torch.get_rng_state()
    size = SmallQwen3(width=48, layers=1, heads=2, kv_heads=1, head_width=16, ffn_width=16)
    first, again, other = (build_model(size, tokenizer, seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    for (_, a), (_, b) in zip(first.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)
    assert first.lm_head.weight is first.model.embed_tokens.weight
    assert sum(p.numel() for p in build_model(SmallQwen3(), tokenizer, 0).parameters()) < 1_000_000


class Fixed:
    """An engine that answers with the same tokens whatever it is asked."""

    def __init__(self, tokens: tuple[int, ...], *, stopped: bool) -> None:
        self.sampled = Sampled(tokens, (-1.0,) * len(tokens), stopped, 3, 4, 2)
        self.step_ends: Any = None

    def sample(self, contexts: Any, seeds: Any, sampling: Sampling, step_ends: Any) -> list[Sampled]:
        self.step_ends = step_ends
        return [self.sampled for _ in contexts]


def test_step_ends_are_the_tokens_whose_text_contains_them(policy: LocalPolicy, tokenizer: Any) -> None:
    """In `try 9 - 7 = 16`, `= 16` is one token, and so is `- 7`."""
    words = tokenizer.encode(" try 9 - 7 = 16 no")
    assert tokenizer.convert_ids_to_tokens(words) == ["Ġtry", "Ġ9", "Ġ-Ġ7", "Ġ=Ġ16", "Ġno"]
    for ends, expected in (
        (("=",), [0, 0, 0, 1, 0]),
        (("= 1", "no"), [0, 0, 0, 1, 1]),
        (("7", "9"), [0, 1, 1, 0, 0]),
        (("7 =",), [0, 0, 0, 0, 0]),
        ((" ",), [1, 1, 1, 1, 1]),
        (("end", "|"), [0, 0, 0, 0, 0]),
    ):
        policy.engine = engine = Fixed((words[0],), stopped=False)  # type: ignore[assignment]
        policy.sample([Prompt(State(PROBLEMS[0]), 0)], Sampling(step_ends=ends))
        assert engine.step_ends[words].tolist() == expected
        assert not engine.step_ends[tokenizer.eos_token_id]
        assert engine.step_ends.shape == (1051,)


@pytest.mark.parametrize(
    ("text", "stopped", "finish"),
    [
        (" try 9 = 16", True, FinishReason.STEP),
        (" try 9 = 16<|end|>", True, FinishReason.STOP),
        (" try 9", False, FinishReason.LENGTH),
    ],
)
def test_why_a_completion_ended(
    policy: LocalPolicy, tokenizer: Any, text: str, stopped: bool, finish: FinishReason
) -> None:
    policy.engine = Fixed(tuple(tokenizer.encode(text)), stopped=stopped)  # type: ignore[assignment]
    (completion,) = policy.sample([Prompt(State(PROBLEMS[0]), 0)], Sampling(step_ends=("=",)))
    assert completion.finish is finish
    assert (completion.prompt_tokens_read, completion.prompt_tokens_cached) == (3, 4)
    assert completion.prompt_tokens_reread == 2


def test_a_step_is_the_beginning_of_the_whole_response(policy: LocalPolicy) -> None:
    prompts = [Prompt(State(p), seed) for p in PROBLEMS for seed in range(30)]
    whole = policy.sample(prompts, Sampling(max_tokens=12))
    steps = policy.sample(prompts, Sampling(max_tokens=12, step_ends=("= 1",)))
    ends = policy._step_ends(("= 1",))
    assert {step.finish for step in steps} >= {FinishReason.STEP, FinishReason.LENGTH}
    for step, response in zip(steps, whole, strict=True):
        assert step.tokens == response.tokens[: len(step.tokens)]
        first = next((at for at, token in enumerate(response.tokens) if ends[token]), None)
        assert (step.finish is FinishReason.STEP) == (first is not None)
        assert len(step.tokens) == (len(response.tokens) if first is None else first + 1)


def test_token_texts_are_read_once(policy: LocalPolicy) -> None:
    assert policy._step_ends(("=", "no")) is policy._step_ends(("=", "no"))


@torch.no_grad()
def plain_logits(model: Any, tokens: tuple[int, ...]) -> Any:
    return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].double()


@pytest.mark.parametrize("shaped", [{}, {"temperature": 0.5, "top_k": 3}, {"temperature": 0.0}, {"top_p": 0.5}])
def test_statistics_are_of_the_models_own_distribution(policy: LocalPolicy, model: Any, shaped: Any) -> None:
    prompts = [Prompt(State(p), seed) for p in PROBLEMS for seed in range(2)]
    plain = policy.sample(prompts, Sampling(max_tokens=5, **shaped))
    completions = policy.sample(prompts, Sampling(max_tokens=5, statistics=True, **shaped))
    assert [c.tokens for c in completions] == [c.tokens for c in plain]
    assert [c.logprobs for c in completions] == [c.logprobs for c in plain]
    assert all(c.entropies is None and c.certainties is None for c in plain)
    for prompt, completion in zip(prompts, completions, strict=True):
        context = policy.prompt_ids(prompt.state.problem, "think")
        logprobs = plain_logits(model, context + completion.tokens)[len(context) - 1 : -1].log_softmax(dim=-1)
        entropies = -(logprobs.exp() * logprobs).sum(dim=-1)
        certainties = -(logprobs + math.log(logprobs.shape[1])).mean(dim=-1)
        assert completion.entropies == pytest.approx(entropies.tolist(), abs=1e-4)
        assert completion.certainties == pytest.approx(certainties.tolist(), abs=1e-4)
        assert len(completion.entropies) == len(completion.tokens)


def states_of(policy: LocalPolicy, tokenizer: Any) -> list[State]:
    texts = (" try 9 - 7 = 16 no or", " try", "", " answer 3", " try 9 - 7 = 16 no or")
    return [State(PROBLEMS[i % 2], tuple(tokenizer.encode(text))) for i, text in enumerate(texts)]


@pytest.mark.parametrize("cache_bytes", [0, 1 << 22])
def test_next_logprobs_of_words(model: Any, tokenizer: Any, cache_bytes: int) -> None:
    policy = LocalPolicy(model, tokenizer, cache_bytes=cache_bytes)
    states, words = states_of(policy, tokenizer), ["answer", "- 7", "5", "<|end|>"]
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("Ġanswer", "Ġ-Ġ7", "Ġ5", "<|end|>")]
    contexts = [policy.prompt_ids(s.problem, "direct") + s.tokens for s in states]
    for again in (False, True):
        found = policy.next_logprobs(states, words, mode="direct")
        for context, row in zip(contexts, found.logprobs, strict=True):
            assert row == pytest.approx(plain_logits(model, context)[-1].log_softmax(0)[ids].tolist(), abs=1e-4)
        distinct = {c[: i + 1] for c in contexts for i in range(len(c))}
        uncached = sum(map(len, set(contexts)))
        assert sum(found.tokens_read) == ((0 if again else len(distinct)) if cache_bytes else uncached)


def test_a_word_that_is_not_one_token_is_an_error(policy: LocalPolicy) -> None:
    with pytest.raises(InvalidValue, match=r"'try 9'\n  accepted: a single token"):
        policy.next_logprobs([State(PROBLEMS[0])], ["try 9"])
    assert policy.next_logprobs([], ["try"]) == ([], [])


@pytest.mark.parametrize("cache_bytes", [0, 1 << 22])
def test_logprobs_of_responses(model: Any, tokenizer: Any, cache_bytes: int) -> None:
    policy = LocalPolicy(model, tokenizer, cache_bytes=cache_bytes)
    states = states_of(policy, tokenizer)
    for _ in range(2):
        found = policy.logprobs(states)
        for state, row in zip(states, found.logprobs, strict=True):
            prompt = policy.prompt_ids(state.problem, "think")
            logprobs = plain_logits(model, prompt + state.tokens).log_softmax(dim=-1)
            expected = [float(logprobs[len(prompt) - 1 + i, token]) for i, token in enumerate(state.tokens)]
            assert row == pytest.approx(expected, abs=1e-4)
    assert any(found.tokens_read) == (cache_bytes == 0)
    assert policy.logprobs([]) == ([], [])


def test_logprobs_of_what_was_sampled_cost_nothing(model: Any, tokenizer: Any) -> None:
    policy = LocalPolicy(model, tokenizer, cache_bytes=1 << 22)
    prompts = [Prompt(State(p), seed) for p in PROBLEMS for seed in range(3)]
    completions = policy.sample(prompts, Sampling(max_tokens=7))
    states = [prompt.state.extend(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    found = policy.logprobs(states)
    assert found.tokens_read == [0] * len(states)
    for row, completion in zip(found.logprobs, completions, strict=True):
        assert row == pytest.approx(completion.logprobs, abs=1e-5)
    assert policy.next_logprobs(states, ["no"]).tokens_read == [1] * len(states)
