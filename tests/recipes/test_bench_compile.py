"""Both sides compute the same, ratios are of neighbours in time, and what compiles counts for neither side."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from clew.core.errors import InvalidValue
from clew.models import chunked_logprobs
from clew.recipes import bench_compile
from clew.recipes.bench_compile import Turns, check_compiler, measure_compile, summary, take_turns, whole
from clew.recipes.bench_compile_parts import Part, Shapes

TINY = Shapes(
    width=48,
    ffn_width=64,
    heads=4,
    kv_heads=2,
    vocabulary=300,
    layers=2,
    rows=(2, 3),
    length=(5, 9),
    chunk=(5, 9),
)


def _part(calls):
    """Sides that note who was called with which batch; the gradient is one number each."""

    def side(name):
        def passes(states):
            calls.append((name, float(states[0, 0])))
            return [torch.ones(2)]

        return passes

    return Part(
        eager=side("eager"), compiled=side("compiled"), batch=lambda number: (torch.full((3, 1), float(number)),)
    )


def test_each_side_takes_every_batch_and_who_goes_first_alternates(monkeypatch):
    monkeypatch.setattr(bench_compile, "BATCHES", 2)
    calls: list[tuple[str, float]] = []
    turns = take_turns(_part(calls), repeats=2)
    pairs = [calls[at : at + 2] for at in range(0, len(calls), 2)]
    assert [{name for name, _ in pair} for pair in pairs] == [{"eager", "compiled"}] * 6
    assert [first[1] for first, _ in pairs] == [second[1] for _, second in pairs] == [0, 1, 2, 3, 4, 5]
    assert [first[0] for first, _ in pairs] == ["eager", "compiled"] * 3
    assert [len(repeat) for repeat in turns.eager] == [len(repeat) for repeat in turns.compiled] == [2, 2]


def test_the_ratio_is_of_neighbours_in_time():
    # The machine slows down tenfold half-way: ratios of unlike batches would be 20, 0.2 or 3.5.
    told = summary(Turns(eager=[[2.0, 2.0], [20.0, 30.0]], compiled=[[1.0, 1.0], [10.0, 10.0]]))
    assert told["ratio"] == 2.0
    assert told["batches_ratio"] == {"min": 2.0, "max": 3.0}
    assert told["spread"]["ratio"] == {"min": 2.0, "max": 2.5}
    assert told["eager_token_ms"] == 11_000.0


def test_a_pass_that_compiles_counts_for_neither_side(monkeypatch):
    monkeypatch.setattr(bench_compile, "BATCHES", 2)
    clock = [0.0]
    monkeypatch.setattr(bench_compile, "_cpu_s", lambda: clock[0])
    from torch._dynamo.utils import counters

    def passes(seconds, compiles):
        def run(states):
            slow = compiles and float(states[0, 0]) in (0, 3)
            counters["stats"]["unique_graphs"] += int(slow)
            clock[0] += 50.0 if slow else seconds
            return [torch.ones(2) * (1.0 if not compiles else 1.5)]

        return run

    part = Part(
        eager=passes(6.0, False), compiled=passes(3.0, True), batch=lambda number: (torch.full((3, 1), float(number)),)
    )
    turns = take_turns(part, repeats=1)
    assert turns.eager == [[2.0, 2.0]]
    assert turns.compiled == [[1.0, 1.0]]
    assert turns.graphs == 2
    assert turns.compile_s == 2 * (50.0 - 6.0)
    assert turns.apart == pytest.approx(0.5)


def test_the_whole_pass_is_layers_and_head():
    one = {"layer": {"fp32": {"eager_token_ms": 2.0, "compiled_token_ms": 1.0}}}
    one["head"] = {"fp32": {"eager_token_ms": 5.0, "compiled_token_ms": 2.0}}
    told = whole(one, "fp32", layers=10)
    assert told == {"ratio_layers_compiled": 25 / 15, "ratio_head_compiled": 25 / 22, "share_of_head": 0.2}


def test_without_a_compiler_it_is_said_what_to_install():
    from torch._inductor import config, cpp_builder

    cpp_builder.cpp_compiler_search.cache_clear()
    with config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(InvalidValue, match="g\\+\\+") as raised:
        check_compiler()
    cpp_builder.cpp_compiler_search.cache_clear()
    assert "what to do" in str(raised.value)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("default")
def test_gradients_of_both_sides_agree_and_nothing_is_left(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_compile, "BATCHES", 2)
    monkeypatch.setattr(bench_compile.tempfile, "tempdir", str(tmp_path))
    before = (chunked_logprobs.read_part, chunked_logprobs.slope_part, os.environ.get("TORCHINDUCTOR_CACHE_DIR"))
    told = measure_compile(repeats=1, seed=0, shapes=TINY)
    assert told["layer"]["fp32"]["gradient_apart"] < 1e-5
    assert told["head"]["fp32"]["gradient_apart"] < 1e-5
    assert told["layer"]["bf16"]["gradient_apart"] < 0.05
    assert [told[part][p]["compilations"] for part in ("layer", "head") for p in ("fp32", "bf16")] == [1, 1, 2, 2]
    after = (chunked_logprobs.read_part, chunked_logprobs.slope_part, os.environ.get("TORCHINDUCTOR_CACHE_DIR"))
    assert after == before
    assert list(Path(tmp_path).iterdir()) == []
