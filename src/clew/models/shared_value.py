"""A policy and a value head on one body: one forward pass says what comes next and what it is worth (PPO).

Saved, it is the policy's own Hugging Face checkpoint, which `transformers` loads as ever, and `value_head.safetensors`
beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, final

import torch
from torch import Tensor, nn

from clew.core.errors import CheckpointError
from clew.models.any_backbone import body_states

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HEAD_FILE = "value_head.safetensors"


class LogitsAndValues(NamedTuple):
    """Logits of the next token [tokens, vocab] and values [tokens] after the same tokens."""

    logits: Tensor
    values: Tensor


@final
class PolicyWithValue(nn.Module):
    """`policy` and a linear head on its last hidden states, which says 0 until it is trained."""

    def __init__(self, policy: PreTrainedModel) -> None:
        super().__init__()
        self.policy = policy
        # Named like the head of a classifier, so that no optimiser takes it for a hidden matrix.
        self.score = nn.Linear(policy.config.hidden_size, 1)
        with torch.no_grad():
            self.score.weight.zero_()
            self.score.bias.zero_()

    def forward(self, input_ids: Tensor, mask: Tensor) -> LogitsAndValues:
        """After each token of right-padded `input_ids` [batch, time] marked in `mask` [batch, time]."""
        hidden = body_states(self.policy, input_ids, mask)
        return LogitsAndValues(self.policy.get_output_embeddings()(hidden), self.score(hidden)[:, 0])


def save_value_head(model: PolicyWithValue, directory: Path) -> None:
    """Write the head beside the policy's checkpoint, which `save_checkpoint` writes to the same directory."""
    from safetensors.torch import save_file

    save_file(
        {name: tensor.detach().contiguous() for name, tensor in model.score.state_dict().items()}, directory / HEAD_FILE
    )


def with_saved_head(policy: PreTrainedModel, directory: Path) -> PolicyWithValue:
    """`policy`, loaded from `directory`, with the head beside it. Raises `CheckpointError` without one that fits."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    model = PolicyWithValue(policy)
    try:
        model.score.load_state_dict(load_file(directory / HEAD_FILE))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"checkpoint {directory} has no value head that fits: {' '.join(str(error).split())[:200]}",
            f"a policy with {HEAD_FILE} beside it, of the same width",
            "make a new head with PolicyWithValue(policy), or train one",
        ) from error
    return model
