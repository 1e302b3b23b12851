"""What `torch.compile` brings to learning on SmolLM2-135M's shape on a CPU; eager and compiled take turns.

Two parts of a training pass go forward and backward: one decoder layer, and one chunk of the log-softmax head. Lengths
change from batch to batch, as samples' do. Seconds are CPU seconds, those of the C++ compiler included.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, final
from unittest.mock import patch

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.recipes.bench_compile_parts import Part, Precision, Shapes, decoder_layer, head_chunk
from clew.recipes.bench_rollout import spread

if TYPE_CHECKING:
    from torch import Tensor

BATCHES = 8
"""Counted in a repeat; each side takes each of them."""
WARM_UP = 2
"""Batches before those that count: the first compiles."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


class Pass(NamedTuple):
    """One pass forward and backward."""

    seconds: float
    graphs: int
    """That were compiled on the way."""
    gradients: Sequence[Tensor]


@final
@dataclass(slots=True, kw_only=True)
class Turns:
    """What the turns of both sides took."""

    eager: list[list[float]] = field(default_factory=list)
    compiled: list[list[float]] = field(default_factory=list)
    """Seconds a token, by repeat; a pass that compiles counts for neither side."""
    compile_s: float = 0.0
    graphs: int = 0
    apart: float = 0.0


def measure_compile(*, repeats: int, seed: int, shapes: Shapes | None = None) -> dict[str, Any]:
    """By part and precision: the ratio of eager to compiled time, what compiling takes, how far gradients are apart.

    Raises `InvalidValue` without a C++ compiler.
    """
    shapes = shapes or Shapes()
    found: dict[str, Any] = {}
    with cold_cache():
        check_compiler()
        for name, build in (("layer", decoder_layer), ("head", head_chunk)):
            found[name] = {}
            for precision in PRECISIONS:
                part = build(shapes, precision, derive_seed(seed, name))
                found[name][precision] = told = summary(take_turns(part, repeats=repeats))
                print(f"{name} {precision}: ratio {told['ratio']:.3f}, {told['compile_s']:.0f} s", file=sys.stderr)
    found["training_pass"] = {p: whole(found, p, layers=shapes.layers) for p in PRECISIONS}
    return {**found, "batches": BATCHES}


def check_compiler() -> None:
    """Raise `InvalidValue` unless there is a C++ compiler that `torch.compile` can use."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        accepted = "g++ or clang++ on the path, or named by the variable CXX"
        raise InvalidValue("C++ compiler", None, accepted, "install one, as with: apt install g++") from None


@contextmanager
def cold_cache() -> Iterator[None]:
    """Within, nothing is compiled yet, and what is compiled goes in the end."""
    with tempfile.TemporaryDirectory() as empty, patch.dict(os.environ, {"TORCHINDUCTOR_CACHE_DIR": empty}):
        # Only here: the library makes a directory of its own for its cache when it is loaded.
        import torch
        from torch._inductor import config

        torch.compiler.reset()
        # In this process, so that what compiling takes can be told.
        with config.patch(compile_threads=1):
            try:
                yield
            finally:
                torch.compiler.reset()


def take_turns(part: Part, *, repeats: int) -> Turns:
    """Warm up, then `repeats` times `BATCHES` batches; who goes first alternates."""
    turns = Turns()
    for number in range(WARM_UP):
        _both(part, number, turns)
    number = WARM_UP
    for _ in range(repeats):
        pairs: list[tuple[float, float]] = []
        while len(pairs) < BATCHES:
            pair = _both(part, number, turns)
            number += 1
            pairs += [] if pair is None else [pair]
        turns.eager.append([eager for eager, _ in pairs])
        turns.compiled.append([compiled for _, compiled in pairs])
    return turns


def summary(turns: Turns) -> dict[str, Any]:
    """Medians over all batches; `spread` is that of the medians of the repeats, `batches_ratio` of single batches."""
    ratios = [
        [e / c for e, c in zip(eager, compiled, strict=True)]
        for eager, compiled in zip(turns.eager, turns.compiled, strict=True)
    ]
    by_name = {
        "eager_token_ms": _thousand(turns.eager),
        "compiled_token_ms": _thousand(turns.compiled),
        "ratio": ratios,
    }
    return {
        **{name: statistics.median(chain.from_iterable(repeats)) for name, repeats in by_name.items()},
        "compile_s": turns.compile_s,
        "compilations": turns.graphs,
        "gradient_apart": turns.apart,
        "batches_ratio": spread([*chain.from_iterable(ratios)]),
        "spread": {name: spread([*map(statistics.median, repeats)]) for name, repeats in by_name.items()},
    }


def whole(found: Mapping[str, Any], precision: str, *, layers: int) -> dict[str, float]:
    """Computed, not measured: all layers and the head for as many tokens, if nothing else took time."""
    layer, head = found["layer"][precision], found["head"][precision]
    eager, compiled = ([part[f"{side}_token_ms"] for part in (layer, head)] for side in ("eager", "compiled"))
    before = layers * eager[0] + eager[1]
    return {
        "ratio_layers_compiled": before / (layers * compiled[0] + eager[1]),
        "ratio_head_compiled": before / (layers * eager[0] + compiled[1]),
        "share_of_head": eager[1] / before,
    }


def _both(part: Part, number: int, turns: Turns) -> tuple[float, float] | None:
    """Seconds a token of both sides on one batch, or none if something was compiled on the way."""
    arguments = part.batch(number)
    tokens = arguments[0].shape[:-1].numel()
    order = (False, True) if number % 2 == 0 else (True, False)
    taken = {side: _pass(part.compiled if side else part.eager, arguments) for side in order}
    eager, compiled = taken[False], taken[True]
    turns.apart = max(turns.apart, *map(_apart, eager.gradients, compiled.gradients))
    if compiled.graphs:
        turns.graphs += compiled.graphs
        turns.compile_s += compiled.seconds - eager.seconds
        return None
    return eager.seconds / tokens, compiled.seconds / tokens


def _pass(passes: Callable[..., Sequence[Tensor]], arguments: tuple[Tensor, ...]) -> Pass:
    from torch._dynamo.utils import counters

    graphs, started = counters["stats"]["unique_graphs"], _cpu_s()
    gradients = passes(*arguments)
    return Pass(_cpu_s() - started, counters["stats"]["unique_graphs"] - graphs, gradients)


def _apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / ours.norm().clamp_min(1e-12))


def _thousand(repeats: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[1e3 * one for one in values] for values in repeats]


def _cpu_s() -> float:
    """Of this process and of those that it waited for, such as the C++ compiler."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
