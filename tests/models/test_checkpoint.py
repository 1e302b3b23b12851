"""What is saved is a Hugging Face checkpoint; what is missing or damaged is said, in three parts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from clew.core.errors import CheckpointError
from clew.models.checkpoint import load_checkpoint, save_checkpoint

IDS = torch.tensor([[5, 300, 12, 7, 42], [2, 2, 90, 8, 1]])


@pytest.fixture(scope="module")
def saved(model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved") / "checkpoint"
    save_checkpoint(model, tokenizer, directory)
    return directory


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    result: torch.Tensor = model(input_ids=IDS).logits
    return result


def test_transformers_loads_it_and_computes_the_same(saved: Path, model: Any, tokenizer: Any) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(saved)
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    assert torch.equal(logits(theirs), logits(model))
    assert theirs.generation_config.eos_token_id == tokenizer.eos_token_id
    words = AutoTokenizer.from_pretrained(saved)
    assert words.get_vocab() == tokenizer.get_vocab()
    assert words.chat_template == tokenizer.chat_template


def test_what_is_loaded_is_what_was_saved(saved: Path, model: Any, tokenizer: Any) -> None:
    loaded = load_checkpoint(saved)
    assert not loaded.model.training
    for name, parameter in loaded.model.named_parameters():
        assert parameter.dtype is torch.float32
        assert parameter.device.type == "cpu"
        assert torch.equal(parameter, dict(model.named_parameters())[name])
    text = "<|user|> make 24 from 3 5 7 9<|think|> try é"
    assert loaded.tokenizer.encode(text) == tokenizer.encode(text)


def test_saving_what_was_loaded_gives_the_same_files(saved: Path, tmp_path: Path) -> None:
    save_checkpoint(*load_checkpoint(saved), tmp_path / "again")
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_the_layout_has_weights_configurations_tokenizer_and_template(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_lower_precision_is_loaded_as_float32(make_model: Callable[..., Any], tokenizer: Any, tmp_path: Path) -> None:
    model = make_model().to(torch.bfloat16)
    save_checkpoint(model, tokenizer, tmp_path)
    loaded = load_checkpoint(tmp_path).model
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.model.norm.weight, model.model.norm.weight.float())


def refusal(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    given, accepted, todo = str(caught.value).split("\n")
    assert str(path) in given
    assert accepted.startswith("  accepted: ")
    assert todo.startswith("  what to do: ")
    return caught.value


def test_a_missing_directory_or_a_file_in_its_place(tmp_path: Path) -> None:
    assert "there is no checkpoint directory" in refusal(tmp_path / "nowhere").given
    (tmp_path / "file").write_text("x")
    refusal(tmp_path / "file")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert name in refusal(copy).given


@pytest.mark.parametrize("size", [0, 4, 8, 100, 20_000, -1])
def test_truncated_weights(copy: Path, size: int) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    assert "weights" in refusal(copy).given


@pytest.mark.parametrize("start", [0, 8, 40])
def test_a_garbled_header_of_the_weights(copy: Path, start: int) -> None:
    weights = copy / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:start] + b"\xff" * 30 + content[start + 30 :])
    refusal(copy)


def test_weights_that_lack_a_matrix_are_not_filled_with_random_numbers(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight" in refusal(copy).given


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model_type", "llama", "model_type 'llama'"),
        ("attention_bias", True, "attention_bias True"),
        ("use_sliding_window", True, "use_sliding_window True"),
        ("rope_parameters", {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}, "rope_type 'yarn'"),
        ("hidden_act", "gelu", "hidden_act 'gelu'"),
    ],
)
def test_a_model_that_the_engine_would_compute_wrongly(copy: Path, key: str, value: object, said: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {key: value}))
    error = refusal(copy)
    assert said in error.given
    assert "Qwen3" in error.accepted


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_hidden_layers", 3), ("num_hidden_layers", "x"), ("hidden_size", None), ("vocab_size", 700), ("head_dim", 4)],
)
def test_a_configuration_that_contradicts_the_weights(copy: Path, key: str, value: object) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {key: value}))
    refusal(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "\x00\xff"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_damaged_json(copy: Path, name: str, content: str) -> None:
    (copy / name).write_text(content)
    refusal(copy)


def test_a_tokenizer_with_more_tokens_than_the_model(
    make_model: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    save_checkpoint(make_model(vocabulary=300), tokenizer, tmp_path)
    assert f"{len(tokenizer)} tokens, its model 300" in refusal(tmp_path).given


def test_loading_and_saving_write_nothing_to_the_terminal(
    copy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(*load_checkpoint(copy), tmp_path / "again")
    assert capfd.readouterr() == ("", "")
