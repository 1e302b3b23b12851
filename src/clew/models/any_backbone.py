"""What learned rewards need of a decoder: scalar heads and log-probabilities, whatever transformers calls its class.

A plain Qwen3 goes through clew's own forward pass, which is several times faster for small models; every other model
through its library. Rows are right-padded, so that causal attention needs no mask.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from clew.core.errors import InvalidValue
from clew.models.chunked_logprobs import ChunkedLogProbs, chunked_logprobs, worth_chunking
from clew.models.forward import hidden_states, token_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Qwen3ForCausalLM

TOLERANCE = 1e-3
"""Of logits that are computed in two ways."""


def plain_qwen3(model: PreTrainedModel) -> bool:
    """Whether clew's own forward pass computes what the body of `model` computes."""
    from transformers import Qwen3PreTrainedModel

    config = model.config
    return (
        isinstance(model, Qwen3PreTrainedModel)
        and config.hidden_act == "silu"
        and not config.attention_bias
        and not config.use_sliding_window
        and config.rope_parameters.get("rope_type", "default") == "default"
        and model.dtype == torch.float32
        and model.device.type == "cpu"
        # It reads the weights themselves: adapters, recomputation and autocast would pass it by.
        and not getattr(model, "_hf_peft_config_loaded", False)
        and not any(layer.gradient_checkpointing for layer in model.base_model.layers)
        and not torch.is_autocast_enabled("cpu")
    )


def classifier_of(policy: PreTrainedModel, auto_class: Any, *, label: str, base_rate: float = 0.5) -> PreTrainedModel:
    """A model of `auto_class` (sequence or token classification) with one label and a copy of the body of `policy`.

    Its head says `base_rate` of everything until it is trained; one without a bias says a half. Raises `InvalidValue`
    for a class of model whose classifier is no single linear map after the last layer.
    """
    config = copy.deepcopy(policy.config)
    config.num_labels = 1
    config.id2label, config.label2id = {0: label}, {label: 0}
    config.classifier_dropout = 0.0
    config.tie_word_embeddings = False
    # transformers reads a sequence's score at its last token that is no padding: an end must not look like padding.
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if config.pad_token_id in ends:
        config.pad_token_id = None
    with torch.random.fork_rng(devices=[]):
        model = cast("PreTrainedModel", auto_class.from_config(config))
    head = getattr(model, "score", None)
    if not isinstance(head, torch.nn.Linear):
        accepted = "a decoder whose classifier in transformers is one linear layer named score"
        raise InvalidValue("class of the model", type(policy).__name__, accepted, "choose a Qwen, Llama or Mistral")
    model.base_model.load_state_dict(policy.base_model.state_dict())
    with torch.no_grad():
        head.weight.zero_()
        if head.bias is not None:
            head.bias.fill_(torch.logit(torch.tensor(base_rate), eps=1e-3).item())
    return model.to(policy.dtype).eval()


def body_states(model: PreTrainedModel, input_ids: Tensor, mask: Tensor) -> Tensor:
    """Final hidden states [tokens, width] of the tokens of `input_ids` [batch, time] marked in `mask`, for a head."""
    if plain_qwen3(model):
        return hidden_states(cast("Qwen3ForCausalLM", model), input_ids)[mask] * model.base_model.norm.weight
    return model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state[mask]


def scalar_logits(model: PreTrainedModel, input_ids: Tensor, mask: Tensor) -> Tensor:
    """What the one-label head of `model` says after each token of `input_ids` [batch, time] marked in `mask`."""
    if plain_qwen3(model):
        # The norm's weight is folded into the head: one multiplication of the states less.
        hidden = hidden_states(cast("Qwen3ForCausalLM", model), input_ids)[mask]
        logits = hidden @ (model.score.weight[0] * model.base_model.norm.weight)
        return logits if model.score.bias is None else logits + model.score.bias
    return model.score(body_states(model, input_ids, mask))[:, 0].float()


def target_logprobs(model: PreTrainedModel, input_ids: Tensor, targets: Tensor, target_mask: Tensor) -> Tensor:
    """Log-probabilities of the `targets` [batch, time] that follow `input_ids`, 0 outside `target_mask`."""
    if plain_qwen3(model):
        return token_logprobs(cast("Qwen3ForCausalLM", model), input_ids, targets, target_mask).logprobs
    hidden, wanted = body_states(model, input_ids, target_mask), targets[target_mask]
    if worth_chunking(len(hidden), model.config.get_text_config().vocab_size):
        chosen = logprobs_of_states(model, hidden, wanted).logprobs
    else:
        logits = model.get_output_embeddings()(hidden).float()
        chosen = logits.log_softmax(dim=-1).gather(1, wanted[:, None])[:, 0]
    return torch.zeros(targets.shape, dtype=chosen.dtype).masked_scatter(target_mask, chosen)


def logprobs_of_states(model: PreTrainedModel, hidden: Tensor, targets: Tensor) -> ChunkedLogProbs:
    """Log-probabilities of `targets` [tokens] after hidden states [tokens, width], and the entropies of what they are
    drawn from; both carry gradients. The logits of all of them are never there at once."""
    head: Any = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        # An adapter says more than its weight does.
        logprobs = head(hidden).float().log_softmax(dim=-1)
        chosen = logprobs.gather(1, targets[:, None])[:, 0]
        return ChunkedLogProbs(chosen, -torch.linalg.vecdot(logprobs.exp(), logprobs))
    weight = head.weight
    if head.bias is not None:
        hidden = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1)
        weight = torch.cat([weight, head.bias[:, None]], dim=1)
    kind = hidden.device.type
    if not torch.is_autocast_enabled(kind):
        return chunked_logprobs(hidden, weight, targets)
    # Autocast does not reach a backward pass of one's own, so the factors are given in its type.
    low = torch.get_autocast_dtype(kind)
    with torch.autocast(kind, enabled=False):
        return chunked_logprobs(hidden.to(low), weight.to(low), targets)


def check_head(model: PreTrainedModel) -> None:
    """Raise `InvalidValue` unless the logits of `model` are what its head says of its last hidden states."""
    ids = torch.arange(1, 4)[None]
    with torch.no_grad():
        states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        head = model.get_output_embeddings()
        apart = math.inf if head is None else float((head(states) - model(input_ids=ids).logits).abs().max())
    if not apart < TOLERANCE or getattr(model.config, "final_logit_softcapping", None):
        accepted = "a causal language model whose logits are one linear map of its last hidden states"
        raise InvalidValue("class of the model", type(model).__name__, accepted, "choose a Qwen, Llama or GPT-NeoX")
