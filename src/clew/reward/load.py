"""A learned reward of any kind from its checkpoint, which says in `reward.json` what kind it is.

A token classifier without that file is a process model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from clew.core.errors import CheckpointError
from clew.core.protocols import Scorer
from clew.core.types import Problem
from clew.initialize.chat import CHAT_TEMPLATE, render_problem
from clew.models.tokenizer import FastCodec
from clew.reward.process import load_process_reward, prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from clew.models.ratings import InMode, Ratings

CARD = "reward.json"
REFERENCE = "reference"
"""Directory, inside the checkpoint of an implicit reward, of the model that its log-ratios are taken to."""
Kind = Literal["process", "outcome", "preference", "implicit", "generative"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardCard:
    """What a checkpoint's weights do not say of the reward they are."""

    kind: Kind = "process"
    mode: str = "think"
    """Which generation prompt the responses were given that it learnt from."""
    beta: float = 0.05
    """implicit: what the log-ratios are multiplied by."""
    right: str = "yes"
    """generative: the word that calls a solution right."""
    wrong: str = "no"
    """generative: the word that calls it wrong."""
    question: str = ""
    """generative: put after the solution."""


def write_card(directory: Path, card: RewardCard) -> None:
    """Say in checkpoint `directory` what reward it is."""
    (directory / CARD).write_text(json.dumps(asdict(card), indent=2) + "\n", encoding="utf-8")


def read_card(directory: Path) -> RewardCard:
    """What reward the checkpoint in `directory` is. Raises `CheckpointError` for a damaged card."""
    path = directory / CARD
    if not path.is_file():
        return RewardCard()
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        card = RewardCard(**{field.name: told[field.name] for field in fields(RewardCard) if field.name in told})
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(path, str(error)) from error
    if card.kind not in get_args(Kind):
        raise _damaged(path, f"kind {card.kind!r}")
    return card


def load_reward(path: Path, *, mode: str | None = None, cache_bytes: int = 1 << 28) -> Scorer:
    """The scorer of the reward checkpoint in directory `path`, of whatever kind and backbone.

    `mode` is the generation prompt of the responses to score; None, that of those it learnt from. Raises
    `CheckpointError` if a part is missing or damaged, or it is no reward.
    """
    card = read_card(path)
    mode = mode or card.mode
    match card.kind:
        case "process":
            return _process(path, mode, cache_bytes)
        case "outcome" | "preference":
            return _head(path, mode, cache_bytes, architecture="ForSequenceClassification", name=f"{card.kind}-reward")
        case "implicit":
            from clew.reward.implicit import ImplicitReward
            from clew.reward.log_ratio_q import LogRatioQ

            policy, reference = _rater(path, mode, cache_bytes), _rater(path / REFERENCE, mode, cache_bytes)
            return ImplicitReward(ratio=LogRatioQ(policy=policy, reference=reference, beta=card.beta))
        case "generative":
            from clew.reward.generative import GenerativeReward
            from clew.search.guides.self_evaluation import SelfEvaluation

            judge = _rater(path, mode, cache_bytes)
            asked = SelfEvaluation(policy=judge, right=card.right, wrong=card.wrong, question=card.question)
            return GenerativeReward(judge=asked)


def _process(path: Path, mode: str, cache_bytes: int) -> Scorer:
    if _config(path).get("model_type") == "qwen3":
        return load_process_reward(path, mode=mode, cache_bytes=cache_bytes)
    return _head(path, mode, cache_bytes, architecture="ForTokenClassification", name="process-reward")


def _head(path: Path, mode: str, cache_bytes: int, *, architecture: str, name: str) -> Scorer:
    from clew.models.plain_reader import reader_of
    from clew.reward.outcome import HeadReward

    model, tokenizer = load_any(path, architecture)
    return HeadReward(reader=reader_of(model, cache_bytes=cache_bytes), prompt_ids=prompts(tokenizer, mode), name=name)


def _rater(path: Path, mode: str, cache_bytes: int) -> InMode | Ratings:
    from clew.models.any_backbone import plain_qwen3
    from clew.models.policy import LocalPolicy
    from clew.models.ratings import InMode, Ratings

    model, tokenizer = load_any(path, "ForCausalLM")
    if plain_qwen3(model) and _is_ours(tokenizer):
        policy: Any = LocalPolicy(model, tokenizer, name=path.name, cache_bytes=cache_bytes)  # type: ignore[arg-type]
        return InMode(policy=policy, mode=mode)
    return Ratings(model=model, tokenizer=tokenizer, prompt_ids=prompts(tokenizer, mode))


def load_any(path: Path, architecture: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model, of a class whose name ends with `architecture`, and tokenizer in directory `path`: float32, on the CPU.

    Raises `CheckpointError` if a part is missing or damaged, or the model is of another class.
    """
    import torch
    import transformers
    from transformers import AutoTokenizer

    names = [name for name in _config(path).get("architectures") or () if str(name).endswith(architecture)]
    if not names or not hasattr(transformers, names[0]):
        raise CheckpointError(
            f"checkpoint {path} is no {architecture.removeprefix('For')} model",
            f"a model of transformers whose class ends with {architecture}",
            "pass a reward model as the guide, and a policy as the policy",
        )
    try:
        model, info = getattr(transformers, names[0]).from_pretrained(
            path, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise _damaged(path, str(error)) from error
    # Left alone, transformers would fill these with random numbers.
    if info["missing_keys"]:
        raise _damaged(path, f"{min(info['missing_keys'])} is missing")
    return model.eval(), tokenizer


def prompts(tokenizer: PreTrainedTokenizerBase, mode: str) -> Callable[[Problem], tuple[int, ...]]:
    """How problems are put to a model with `tokenizer`: as clew's own, or by its chat template."""
    if _is_ours(tokenizer):
        codec = FastCodec(tokenizer)  # type: ignore[arg-type]
        return lambda problem: prompt_ids(codec, render_problem(problem, mode))

    @lru_cache(maxsize=1 << 12)
    def told(messages: tuple[Any, ...]) -> tuple[int, ...]:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    return lambda problem: told(problem.prompt)


def _is_ours(tokenizer: PreTrainedTokenizerBase) -> bool:
    return tokenizer.chat_template == CHAT_TEMPLATE


def _config(path: Path) -> Mapping[str, Any]:
    try:
        told = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path / "config.json", str(error)) from error
    return told if isinstance(told, dict) else {}


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read as a reward: {' '.join(why.split())[:200]}",
        "the run directory or checkpoint of clew reward train",
        "check the path, or train the reward again",
    )
