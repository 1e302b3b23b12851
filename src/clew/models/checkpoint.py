"""Checkpoints: Hugging Face directories, which transformers, vLLM and converters load as they are.

Whole-or-absent writing and checksums are the run store's business (`clew.data`); recipes join the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clew.core.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM, Qwen3PreTrainedModel

_ACCEPTED = "a Hugging Face directory of a Qwen3 with config.json, *.safetensors and tokenizer.json"
_REMAKE = "check the path, copy the checkpoint again, or make it again by running its recipe"
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "model_type": ("qwen3",),
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "use_sliding_window": (False,),
    "rope_type": ("default",),
}
"""Settings that the rollout engine and the training forward pass take for granted."""


class Loaded(NamedTuple):
    """A model (float32, on the CPU, in eval mode) and its tokenizer."""

    model: Qwen3ForCausalLM
    tokenizer: PreTrainedTokenizerFast


class Parts(NamedTuple):
    """A Qwen3 with a head of any kind (float32, on the CPU, in eval mode) and its tokenizer."""

    model: Qwen3PreTrainedModel
    tokenizer: PreTrainedTokenizerFast


def save_checkpoint(model: Qwen3PreTrainedModel, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write weights (safetensors), both configurations, the tokenizer and its chat template to `directory`."""
    from safetensors import SafetensorError

    try:
        with no_progress_bars():
            model.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
    except SafetensorError as error:
        # The library wraps what the operating system said (most often: no space left) in a class of its own.
        raise CheckpointError(
            f"the weights could not be written to {directory}: {error}",
            "a directory on a disk with enough free space",
            "make space or choose another directory",
        ) from error


def load_checkpoint(path: Path) -> Loaded:
    """The policy in directory `path`; raises `CheckpointError` if a part is missing or damaged, or it is no policy."""
    return Loaded(*load_parts(path, "Qwen3ForCausalLM"))


def load_parts(path: Path, architecture: str) -> Parts:
    """The model, which must be of class `architecture`, and tokenizer in directory `path`."""
    from transformers import AutoTokenizer

    if not path.is_dir():
        raise _error(f"there is no checkpoint directory at {path}")
    _require_supported(path, architecture)
    if not (path / "tokenizer.json").is_file():
        raise _error(f"checkpoint {path} has no tokenizer.json")
    model = _load_model(path, architecture)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # what the tokenizers library raises for a damaged file is of no narrower class
        raise _error(f"the tokenizer of checkpoint {path} is damaged: {one_line(error)}") from error
    if len(tokenizer) > model.config.vocab_size:
        raise _error(
            f"checkpoint {path} is inconsistent: its tokenizer has {len(tokenizer)} tokens, "
            f"its model {model.config.vocab_size}"
        )
    return Parts(model, tokenizer)


def _require_supported(path: Path, architecture: str) -> None:
    """Refuse what the engine would silently compute wrongly."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _error(f"checkpoint {path} has no config.json") from None
    except ValueError:
        raise _error(f"config.json of checkpoint {path} is damaged") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise _error(f"config.json of checkpoint {path} names no model_type")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    found = {**config, "rope_type": rope.get("rope_type", rope.get("type", "default"))}
    for name, accepted in _SUPPORTED.items():
        value = found.get(name, accepted[0])
        if value not in accepted:
            raise CheckpointError(
                f"checkpoint {path} has {name} {value!r}",
                f"{name} {accepted[0]!r}: the rollout engine supports plain Qwen3 models only",
                "choose a Qwen3 checkpoint, or train one with clew",
            )
    if architecture not in (made := found.get("architectures") or [architecture]):
        # Tied weights would load without a complaint, and what is no policy would write nonsense.
        raise CheckpointError(
            f"checkpoint {path} is a {', '.join(map(str, made))}",
            f"a {architecture}",
            "pass a policy as the policy, and a reward model as the guide",
        )


def _load_model(path: Path, architecture: str) -> Qwen3PreTrainedModel:
    import torch
    import transformers
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        with no_progress_bars():
            model, info = getattr(transformers, architecture).from_pretrained(
                path,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (SafetensorError, StrictDataclassError, OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        # Truncated or garbled files, missing shards, a configuration that contradicts itself.
        raise _error(f"the weights of checkpoint {path} are damaged or missing: {one_line(error)}") from error
    # Left alone, transformers would fill these with random numbers.
    if wrong := sorted(info["missing_keys"]) + [key for key, *_ in info["mismatched_keys"]]:
        raise _error(f"checkpoint {path} lacks weights of the shape that config.json asks for, among them {wrong[0]}")
    return model.eval()


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing over clew's own display, and from reports that become errors here."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def one_line(error: BaseException) -> str:
    """The message of `error` in one line, or its class if it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _error(given: str) -> CheckpointError:
    return CheckpointError(given, _ACCEPTED, _REMAKE)
