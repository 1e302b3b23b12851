"""Tokens per second of the rollout engine: against `generate` of transformers, and against what the machine can do."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from clew.core.seeds import derive_seed
from clew.core.types import Sampling

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Qwen3ForCausalLM

    from clew.models.written import Sampled

ROWS = 256
NEW_TOKENS = 64
NO_STOP = (-1,)
"""No token has this id: every row makes all its tokens."""
SQUARES = (512, 1024, 2048)
"""Sizes of the square products among which the fastest is the machine's peak."""
TOLERANCE = 1e-4
"""In nats."""
Contexts = list[tuple[int, ...]]


def measure_rollout(*, repeats: int, seed: int) -> dict[str, Any]:
    """Both sides sample the same batch in turns; `ratio` is the median of the ratios of neighbours in time."""
    from clew.models.architecture import SmallQwen3, build_model
    from clew.models.engine import RolloutEngine
    from clew.models.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    model = build_model(SmallQwen3(), tokenizer, derive_seed(seed, "weights")).eval()
    contexts = _prompts(tokenizer, seed)
    engine = RolloutEngine(model, stop_ids=NO_STOP)

    def ours(run: int) -> list[Sampled]:
        seeds = [derive_seed(seed, "bench", run, row) for row in range(ROWS)]
        return engine.sample(contexts, seeds, Sampling(max_tokens=NEW_TOKENS))

    theirs = _generate(model, contexts, pad_id=tokenizer.pad_token_id)
    difference = max_logprob_difference(model, contexts, ours(-1))
    theirs(-1)
    clew_s, generate_s = in_turns(ours, theirs, repeats)
    clew = [ROWS * NEW_TOKENS / s for s in clew_s]
    generate = [ROWS * NEW_TOKENS / s for s in generate_s]
    ratios = [c / g for c, g in zip(clew, generate, strict=True)]
    speed = statistics.median(clew)
    return {
        "clew_tokens_per_s": speed,
        "generate_tokens_per_s": statistics.median(generate),
        "ratio": statistics.median(ratios),
        "max_logprob_difference": difference,
        "logprobs_agree": difference <= TOLERANCE,
        **_against_the_machine(model, len(contexts[0]), speed, repeats),
        "spread": {
            "clew_tokens_per_s": spread(clew),
            "generate_tokens_per_s": spread(generate),
            "ratio": spread(ratios),
        },
        "parameters": sum(p.numel() for p in model.parameters()),
        "rows": ROWS,
        "prompt_tokens": len(contexts[0]),
        "new_tokens": NEW_TOKENS,
    }


def in_turns(ours: Callable[[int], object], theirs: Callable[[int], object], repeats: int) -> tuple[list[float], ...]:
    """Seconds of each side, [repeats]; who goes first alternates, so that neither always finds the warmer machine."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for run in range(repeats):
        for side in (0, 1) if run % 2 == 0 else (1, 0):
            started = time.perf_counter()
            (ours, theirs)[side](run)
            seconds[side].append(time.perf_counter() - started)
        print(f"{run + 1}/{repeats}: clew {seconds[0][-1]:.2f} s, peer {seconds[1][-1]:.2f} s", file=sys.stderr)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "max": max(values)}


def _prompts(tokenizer: Any, seed: int) -> Contexts:
    """Different prompts of one length, so that neither side pads or shares a prefix."""
    from clew.initialize.chat import render_problem
    from clew.tasks import make_task

    problems = make_task("countdown").problems("train", ROWS, derive_seed(seed, "bench problems"))
    contexts = [tuple(tokenizer.encode(render_problem(p), add_special_tokens=False)) for p in problems]
    assert len({len(context) for context in contexts}) == 1
    return contexts


def _generate(model: Qwen3ForCausalLM, contexts: Contexts, *, pad_id: int) -> Callable[[int], Tensor]:
    import torch
    from transformers import GenerationConfig

    prompts = torch.tensor(contexts)
    mask = torch.ones_like(prompts)
    model.generation_config.eos_token_id = None
    how = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=NEW_TOKENS,
        eos_token_id=None,
        pad_token_id=pad_id,
        use_cache=True,
    )

    def generate(run: int) -> Tensor:
        torch.manual_seed(run)
        with torch.inference_mode():
            made: Tensor = model.generate(prompts, attention_mask=mask, generation_config=how)
        assert made.shape == (len(contexts), prompts.shape[1] + NEW_TOKENS), made.shape
        return made

    return generate


def max_logprob_difference(model: Qwen3ForCausalLM, contexts: Contexts, samples: Sequence[Sampled]) -> float:
    """The largest difference in nats between the engine's log-probs of `samples` and those of the plain model."""
    import torch

    assert all(len(sample.tokens) == NEW_TOKENS for sample in samples)
    ids = torch.tensor([context + sample.tokens for context, sample in zip(contexts, samples, strict=True)])
    worst = 0.0
    with torch.inference_mode():
        for rows in torch.arange(len(ids)).split(64):
            logits = model(input_ids=ids[rows, :-1], use_cache=False).logits[:, -NEW_TOKENS:]
            plain = logits.log_softmax(-1).gather(-1, ids[rows, -NEW_TOKENS:, None]).squeeze(-1)
            engine = torch.tensor([samples[row].logprobs for row in rows.tolist()])
            worst = max(worst, (plain - engine).abs().max().item())
    return worst


def _against_the_machine(model: Qwen3ForCausalLM, prompt: int, tokens_per_s: float, repeats: int) -> dict[str, float]:
    """Shares of what matrix products alone would allow: square ones, and those of this model's shapes.

    Both are lower bounds of the decode's own share: the time in `tokens_per_s` includes the reading of the prompts.
    """
    peak = peak_gflops(repeats)
    flops = flops_per_token(model, prompt + (NEW_TOKENS + 1) // 2)
    shapes_s = _best_seconds(decode_products(model, prompt), repeats)
    allowed = ROWS / shapes_s
    return {
        "flops_per_token": flops,
        "reached_gflops": tokens_per_s * flops / 1e9,
        "peak_gflops": peak,
        "share_of_peak": tokens_per_s * flops / 1e9 / peak,
        "shapes_gflops": allowed * flops / 1e9,
        "shapes_tokens_per_s": allowed,
        "share_of_shapes": tokens_per_s / allowed,
    }


def peak_gflops(repeats: int) -> float:
    """The fastest float32 product of two square matrices, in 10^9 operations a second."""
    import torch

    best = 0.0
    for n in SQUARES:
        a, b, c = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
        seconds = _best_seconds(lambda a=a, b=b, c=c: torch.mm(a, b, out=c), repeats)  # type: ignore[misc]
        best = max(best, 2 * n**3 / seconds / 1e9)
    return best


class _Shape(NamedTuple):
    """One matrix of a block: [inner, outer], applied to every row."""

    inner: int
    outer: int


def _shapes(config: Any) -> list[_Shape]:
    """The matrices of one block as the engine joins them."""
    attention = config.num_attention_heads * config.head_dim
    qkv = attention + 2 * config.num_key_value_heads * config.head_dim
    return [
        _Shape(config.hidden_size, qkv),
        _Shape(attention, config.hidden_size),
        _Shape(config.hidden_size, 2 * config.intermediate_size),
        _Shape(config.intermediate_size, config.hidden_size),
    ]


def flops_per_token(model: Qwen3ForCausalLM, context: int) -> int:
    """Operations to decode a token after `context` others: 2 a parameter that multiplies, and attention's products."""
    config = model.config
    matrices = config.num_hidden_layers * sum(inner * outer for inner, outer in _shapes(config))
    matrices += config.hidden_size * config.vocab_size
    attention = config.num_hidden_layers * 2 * config.num_attention_heads * config.head_dim * context
    return 2 * (matrices + attention)


def decode_products(model: Qwen3ForCausalLM, prompt: int) -> Callable[[], None]:
    """The matrix products of decoding one token in each row, half-way through, and nothing else."""
    import torch

    config = model.config
    layers, kv_heads, width = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
    groups, capacity, column = config.num_attention_heads // kv_heads, prompt + NEW_TOKENS, prompt + NEW_TOKENS // 2
    matrices = [torch.randn(shape) for _ in range(layers) for shape in _shapes(config)]
    matrices.append(torch.randn(config.hidden_size, config.vocab_size))
    pairs = [(torch.randn(ROWS, m.shape[0]), m) for m in matrices]
    heads = ROWS * kv_heads
    queries, weights = torch.randn(heads, groups, width), torch.randn(heads, groups, column)
    keys = [torch.randn(heads, width, capacity)[..., :column] for _ in range(layers)]
    values = [torch.randn(heads, capacity, width)[:, :column] for _ in range(layers)]

    def step() -> None:
        with torch.inference_mode():
            for x, matrix in pairs:
                torch.mm(x, matrix)
            for k, v in zip(keys, values, strict=True):
                torch.bmm(queries, k)
                torch.bmm(weights, v)

    return step


def _best_seconds(work: Callable[[], object], repeats: int) -> float:
    """The shortest time of `work`: what the machine can do when nothing disturbs it."""
    work()
    best = float("inf")
    for _ in range(4 * repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best
