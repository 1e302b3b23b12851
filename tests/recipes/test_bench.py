"""The bench measures what it says: its counts are checked, its speeds only for making sense."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from clew import cli
from clew.models.architecture import SmallQwen3, build_model
from clew.models.engine import RolloutEngine
from clew.models.tokenizer import build_tokenizer
from clew.recipes import bench_rollout, bench_search, bench_search_tree, bench_train
from clew.recipes.bench import table

SIZE = SmallQwen3(width=48, layers=2, heads=4, kv_heads=2, head_width=12, ffn_width=64, context=128)

# Seconds on a quiet machine; a busy one is no reason to fail.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setattr(bench_rollout, "ROWS", 8)
    monkeypatch.setattr(bench_rollout, "SQUARES", (64,))
    monkeypatch.setattr(bench_train, "STEPS", 4)
    monkeypatch.setattr(bench_train, "WARM_UP", 1)
    monkeypatch.setattr(bench_search, "PROBLEMS", 3)
    monkeypatch.setattr(bench_search, "COUNTED", 1)
    monkeypatch.setattr(bench_search_tree, "NODES", 60)
    monkeypatch.setattr(bench_search_tree, "ITERATIONS", (10, 40))
    monkeypatch.setattr("clew.models.architecture.SmallQwen3", lambda: SIZE)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model():
    return build_model(SIZE, build_tokenizer(), 0).eval()


def test_rollout_answers_one_json_object(capsys, tmp_path):
    out = tmp_path / "rollout.json"
    assert cli.main(["bench", "rollout", "--json", "--repeats", "2", "--threads", "1", "--out", str(out)]) == 0
    shown, progress = capsys.readouterr()
    answered = json.loads(shown)
    assert answered == json.loads(out.read_text())
    assert {"rollout", "repeats", "threads", "seed", "machine"} == set(answered)
    measured = answered["rollout"]
    assert measured["logprobs_agree"] is True
    assert 0.0 < measured["max_logprob_difference"] <= 1e-4
    for name in ("clew_tokens_per_s", "generate_tokens_per_s", "ratio"):
        assert 0.0 < measured["spread"][name]["min"] <= measured[name] <= measured["spread"][name]["max"]
    assert measured["share_of_shapes"] == pytest.approx(measured["clew_tokens_per_s"] / measured["shapes_tokens_per_s"])
    assert 0.0 < measured["share_of_shapes"] < 1.0
    assert "2/2" in progress


def test_train_without_trl_tells_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setattr(bench_train, "trl_installed", lambda: False)
    assert cli.main(["bench", "train", "--json", "--repeats", "1", "--threads", "1"]) == 0
    measured = json.loads(capsys.readouterr().out)["train"]
    assert measured["vs_trl"] is None
    assert measured["trl_step_s"] is None
    assert "clew[bench]" in measured["note"]
    assert measured["clew_step_s"] > 0.0


def test_logprob_difference_shows_a_wrong_engine(model):
    contexts = [(2, 3, 4), (5, 6, 7)]
    engine = RolloutEngine(model, stop_ids=bench_rollout.NO_STOP)
    samples = engine.sample(contexts, [1, 2], bench_rollout.Sampling(max_tokens=bench_rollout.NEW_TOKENS))
    assert bench_rollout.max_logprob_difference(model, contexts, samples) < 1e-4
    changed = (*samples[1].logprobs[:-1], samples[1].logprobs[-1] - 0.25)
    wrong = [samples[0], samples[1]._replace(logprobs=changed)]
    assert bench_rollout.max_logprob_difference(model, contexts, wrong) == pytest.approx(0.25, abs=1e-4)


def test_flops_are_two_a_parameter_that_multiplies_and_attention(model):
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert bench_rollout.flops_per_token(model, 0) == 2 * matrices
    # Each of 10 keys and values meets 2 layers x 4 heads x 12 numbers, once for the scores and once for the mixture.
    assert bench_rollout.flops_per_token(model, 10) - 2 * matrices == 2 * 2 * 10 * 2 * 4 * 12


def test_sides_take_turns_and_who_goes_first_alternates():
    calls: list[str] = []
    ours, theirs = bench_rollout.in_turns(
        lambda run: calls.append(f"a{run}"), lambda run: calls.append(f"b{run}"), repeats=3
    )
    assert calls == ["a0", "b0", "b1", "a1", "a2", "b2"]
    assert len(ours) == len(theirs) == 3


def test_a_step_is_timed_from_update_to_update_without_the_warm_up(monkeypatch):
    monkeypatch.setattr(bench_train, "WARM_UP", 2)
    ends = [0.0, 100.0, 101.0, 103.0, 104.0]
    assert bench_train._median_step(ends) == statistics.median([1.0, 2.0, 1.0])


def test_table_tells_median_and_range():
    from rich.console import Console

    measured = {"ratio": 3.25, "agree": True, "vs": {"ratio": 2.5, "spread": {"ratio": {"min": 2.0, "max": 4.0}}}}
    console = Console(width=80)
    with console.capture() as shown:
        console.print(table("train", {**measured, "spread": {"ratio": {"min": 3.0, "max": 3.5}}, "note": "so be it"}))
    text = shown.get()
    assert "3 to 3.5" in text
    assert "2 to 4" in text
    assert "so be it" in text
    assert "agree" not in text


@pytest.mark.parametrize(
    ("more", "status", "says"),
    [
        (["roll-out"], 2, "rollout"),
        (["rollout", "--repeats", "0"], 2, "--repeats"),
        (["train", "--threads", "-1"], 2, "--threads"),
        (["train", "--out", "no/such/place.json"], 1, "directory"),
    ],
)
def test_wrong_use(more, status, says, capsys):
    assert cli.main(["bench", *more]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert "what to do" in err


def test_existing_results_are_kept(tmp_path: Path, capsys):
    out = tmp_path / "old.json"
    out.write_text("old")
    assert cli.main(["bench", "rollout", "--out", str(out)]) == 1
    assert out.read_text() == "old"


@pytest.mark.slow
def test_search_is_measured_and_its_meter_is_honest(capsys):
    assert cli.main(["bench", "search", "--json", "--repeats", "1", "--threads", "1"]) == 0
    measured = json.loads(capsys.readouterr().out)["search"]
    metered = measured["metered_equals_counted"]
    assert metered["unequal"] == {}
    assert metered["equal"] == metered["strategies"] >= 25
    assert set(measured["mcts_1000_nodes_s"]) == {"uct", "puct", "gumbel", "ab"}
    assert measured["recompute_ratio"] <= 1.0 < measured["recompute_ratio_without_cache"]
    assert measured["batching_speedup"] == min(v for k, v in measured["batching_speedups"].items() if k != "spread")


def test_a_meter_that_cheats_is_found(monkeypatch, model):
    from clew.models.policy import LocalPolicy
    from clew.search import serve
    from clew.tasks import make_task

    task = make_task("countdown")
    honest = serve.sampling_cost
    monkeypatch.setattr(serve, "sampling_cost", lambda completions, *a, **k: honest(list(completions)[1:], *a, **k))
    found = bench_search.counted(LocalPolicy(model, build_tokenizer()), task, task.problems("validation", 1, 0), seed=0)
    assert found["equal"] < found["strategies"] / 2


def test_only_search_takes_a_checkpoint(capsys):
    assert cli.main(["bench", "rollout", "--checkpoint", "runs/x"]) == 2
    assert "leave it out" in capsys.readouterr().err
