"""Any causal language model of Hugging Face transformers as a `Policy`: slower than clew's own engine, and general.

It decodes in batches with the library's own cache; a context that several samples share is read once, every sample
draws from its own random stream, and rows that have ended leave the batch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clew.core.errors import CheckpointError, InvalidValue
from clew.core.protocols import Prompt
from clew.core.types import Completion, FinishReason, Problem, Sampling, State
from clew.models.checkpoint import no_progress_bars, one_line
from clew.models.sampling import draw, uniforms

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class TransformersPolicy:
    """Writes with `model` and the chat template of `tokenizer`."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str = "transformers",
        max_rows: int = 64,
    ) -> None:
        self.model, self.tokenizer, self.max_rows = model.eval(), tokenizer, max_rows
        self._name, self._updates = name, 0
        ends = model.generation_config.eos_token_id
        self._ends = frozenset([ends] if isinstance(ends, int) else ends or ()) | {tokenizer.eos_token_id}
        self._prompt_ids = lru_cache(maxsize=1 << 12)(self._render)
        self._piece = lru_cache(maxsize=None)(lambda token: str(tokenizer.decode([token])))

    @property
    def version(self) -> str:
        return f"{self._name}+{self._updates}"

    @property
    def context(self) -> int:
        return int(getattr(self.model.config, "max_position_embeddings", None) or sys.maxsize)

    @property
    def end_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    def refresh(self) -> None:
        """Name a new version: the model was trained."""
        self._updates += 1

    def remember(self, cache_bytes: int) -> None:
        """Nothing is kept between calls, whatever `cache_bytes`."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Raises `InvalidValue` if a prompt and `max_tokens` do not fit the model's context."""
        contexts = [self.prompt_ids(prompt.state.problem, sampling.mode) + prompt.state.tokens for prompt in prompts]
        self._check_fits(contexts, sampling)
        completions: list[Completion] = []
        for start in range(0, len(prompts), self.max_rows):
            rows = slice(start, start + self.max_rows)
            completions += self._sample_batch(contexts[rows], [p.seed for p in prompts[rows]], sampling)
        return completions

    def text(self, state: State) -> str:
        return self.decode(state.tokens)

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def response_ids(self, text: str) -> tuple[int, ...]:
        return (*self.encode(text), self.end_id)

    def decode(self, tokens: tuple[int, ...]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def prompt_ids(self, problem: Problem, mode: str = "think") -> tuple[int, ...]:
        """Token ids of the prompt, generation prompt included; `mode` is for templates that know it."""
        return self._prompt_ids(problem.prompt, mode)

    def _render(self, messages: tuple[Any, ...], mode: str) -> tuple[int, ...]:
        from jinja2 import TemplateError

        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, mode=mode)
        except TemplateError as error:
            raise self._template_error(turns, one_line(error)) from error
        ids = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        if not ids:
            raise self._template_error(turns, "it writes nothing")
        return ids

    def _template_error(self, turns: list[dict[str, str]], why: str) -> CheckpointError:
        roles = " and ".join(dict.fromkeys(turn["role"] for turn in turns))
        return CheckpointError(
            f"the chat template of {self._name} makes no prompt of messages by {roles}: {why}",
            "a template that takes the messages of the task",
            "choose another model, or change its chat_template.jinja",
        )

    def _check_fits(self, contexts: Sequence[tuple[int, ...]], sampling: Sampling) -> None:
        longest = max(map(len, contexts), default=0) + sampling.max_tokens
        if longest > self.context:
            accepted = f"at most {self.context} tokens, the model's context"
            raise InvalidValue("prompt and max_tokens together", longest, accepted, "lower max_tokens")

    @torch.inference_mode()
    def _sample_batch(
        self, contexts: Sequence[tuple[int, ...]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Completion]:
        distinct = {context: at for at, context in enumerate(dict.fromkeys(contexts))}
        owner = torch.tensor([distinct[context] for context in contexts])
        logits, cache, mask = self._read(list(distinct))
        cache.batch_select_indices(owner)
        logits, mask = logits[owner], mask[owner]
        noise = torch.from_numpy(uniforms(seeds, sampling.max_tokens))
        written = [_Written(self._ends, sampling, self._piece) for _ in contexts]
        alive = torch.arange(len(contexts))
        for step in range(sampling.max_tokens):
            drawn = draw(logits, noise[alive, step], sampling)
            measured = _statistics(logits) if sampling.statistics else None
            for at, row in enumerate(alive.tolist()):
                written[row].add(drawn, measured, at)
            going = torch.tensor([written[row].finish is None for row in alive.tolist()])
            if not going.any() or step + 1 == sampling.max_tokens:
                break
            if not going.all():
                kept = going.nonzero().squeeze(1)
                cache.batch_select_indices(kept)
                alive, mask = alive[kept], mask[kept]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self._forward(drawn.tokens[going][:, None], mask, cache)
        first: set[tuple[int, ...]] = set()
        completions = []
        for context, row in zip(contexts, written, strict=True):
            completions.append(row.completion(self.version, len(context), shared=context in first))
            first.add(context)
        return completions

    def _read(self, contexts: list[tuple[int, ...]]) -> tuple[Tensor, Any, Tensor]:
        """Logits after each context [contexts, vocab], the cache and the attention mask; contexts are left-padded."""
        from transformers import DynamicCache

        width = max(map(len, contexts))
        ids = torch.tensor([(0,) * (width - len(context)) + context for context in contexts])
        mask = torch.tensor([[0] * (width - len(context)) + [1] * len(context) for context in contexts])
        cache = DynamicCache(config=self.model.config)
        return self._forward(ids, mask, cache), cache, mask

    def _forward(self, ids: Tensor, mask: Tensor, cache: Any) -> Tensor:
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = out.logits[:, -1].float()
        return logits


class _Written:
    """What one row has written."""

    def __init__(self, ends: frozenset[int], sampling: Sampling, piece: Any) -> None:
        self.ends, self.sampling, self.piece = ends, sampling, piece
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.entropies: list[float] = []
        self.certainties: list[float] = []
        self.finish: FinishReason | None = None

    def add(self, drawn: Any, measured: tuple[Tensor, Tensor] | None, at: int) -> None:
        token = int(drawn.tokens[at])
        self.tokens.append(token)
        self.logprobs.append(float(drawn.logprobs[at]))
        if measured is not None:
            self.entropies.append(float(measured[0][at]))
            self.certainties.append(float(measured[1][at]))
        if token in self.ends:
            self.finish = FinishReason.STOP
        elif any(end in self.piece(token) for end in self.sampling.step_ends):
            self.finish = FinishReason.STEP

    def completion(self, version: str, context: int, *, shared: bool) -> Completion:
        return Completion(
            tokens=tuple(self.tokens),
            logprobs=tuple(self.logprobs),
            finish=self.finish or FinishReason.LENGTH,
            policy_version=version,
            prompt_tokens_read=0 if shared else context,
            prompt_tokens_cached=context if shared else 0,
            entropies=tuple(self.entropies) if self.sampling.statistics else None,
            certainties=tuple(self.certainties) if self.sampling.statistics else None,
        )


def _statistics(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy and self-certainty KL(uniform || p) of softmax(logits) [batch, vocab], both [batch] in nats."""
    logprobs = logits.log_softmax(dim=-1)
    vocab = logits.shape[-1]
    return -(logprobs.exp() * logprobs).sum(-1), -logprobs.mean(-1) - torch.tensor(float(vocab)).log()


def load_transformers_policy(path: Path) -> TransformersPolicy:
    """The model in a Hugging Face directory, or in one GGUF file, float32 on the CPU.

    Raises `CheckpointError` for one that cannot be read, lacks weights or has some that are no numbers, or has no chat
    template.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = _loaded(AutoTokenizer, path)
    # With sizes ignored, a weight of another shape is told by its name.
    told = {"dtype": torch.float32, "ignore_mismatched_sizes": True, "output_loading_info": True}
    model, info = _loaded(AutoModelForCausalLM, path, **told)
    # Left alone, transformers fills these with random numbers.
    if wrong := sorted(info["missing_keys"]) + [key for key, *_ in info["mismatched_keys"]]:
        raise _error(f"{path} lacks weights of the shape that its configuration asks for, among them {wrong[0]}")
    if not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
        raise _error(f"{path} has weights that are not finite numbers")
    # Weights of a GGUF file are full numbers once they are loaded; transformers would refuse to train or save them.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    if not tokenizer.chat_template:
        advice = "choose an instruction-tuned model, or put its template beside the tokenizer as chat_template.jinja"
        raise CheckpointError(f"the tokenizer of {path} has no chat template", "a model that has one", advice)
    return TransformersPolicy(model, tokenizer, name=path.stem)


def _loaded(kind: Any, path: Path, **told: Any) -> Any:
    where: dict[str, Any] = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    try:
        with no_progress_bars():
            return kind.from_pretrained(path.parent if where else path, local_files_only=True, **where, **told)
    except Exception as error:  # what the libraries raise for damaged files is of no narrower class
        advice = "; GGUF files need: python -m pip install 'clew[gguf]'" if where else ""
        raise _error(f"no model could be loaded from {path}: {one_line(error)}", advice) from error


def _error(given: str, advice: str = "") -> CheckpointError:
    accepted = "a Hugging Face directory of a causal language model with its tokenizer, or a GGUF file"
    return CheckpointError(given, accepted, f"check the path, or copy the model again{advice}")
