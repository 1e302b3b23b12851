"""The whole loop in small, through the command line: what it leaves behind, and that stopping it changes nothing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from clew import cli
from clew.data.run import RunDirectory
from clew.data.store import TrajectoryStore

STAGES = ["pretrain", "sft", "expert_iteration", "rl"]
SETTINGS = {
    "task": "countdown:count=2,high=9,target_high=30",
    "threads": 1,
    "seed": 3,
    "size": {"width": 48, "layers": 1, "heads": 2, "kv-heads": 1, "head-width": 24, "ffn-width": 64, "context": 128},
    "pretrain": {"steps": 6, "rows": 8, "tokens": 31},
    "sft": {"steps": 80, "rows": 24, "wider": 0.0},
    "expert": {"problems": 32, "samples": 4, "rows": 4, "max-tokens": 40},
    "rl": {"steps": 4, "problems": 8, "group-size": 8, "max-tokens": 40},
    "evaluate": {"problems": 11, "samples": 2, "search-samples": 4, "max-tokens": 40},
}
TIMES = ("seconds", "total_seconds", "seconds_learning", "peak_rss_mib")

# Seconds on a quiet machine; a busy one is no reason to fail.
pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.timeout(400)]


def arguments(out: Path, *more: str) -> list[str]:
    given = ["speedrun", "--out", str(out)]
    for name, value in SETTINGS.items():
        pairs = value.items() if isinstance(value, dict) else [("", value)]
        for key, setting in pairs:
            given += [f"--{name}.{key}" if key else f"--{name}", str(setting)]
    return [*given, *more]


class Done(NamedTuple):
    """What a command answered."""

    status: int
    out: str
    err: str


def clew(*given: str) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(given)
    return Done(status, out.getvalue(), err.getvalue())


def assert_three_parts(message: str) -> None:
    assert "Traceback" not in message
    assert "\n  accepted: " in message
    assert "\n  what to do: " in message


def untimed(value: Any) -> Any:
    """`value` without the fields that tell time or memory."""
    if isinstance(value, dict):
        return {key: untimed(inner) for key, inner in value.items() if key not in TIMES}
    return [untimed(inner) for inner in value] if isinstance(value, list) else value


def outcome_of(run: Path) -> dict[str, Any]:
    """Everything a run decided: weights byte by byte, metrics, rates, samples, trajectories."""
    with TrajectoryStore(run / "trajectories.sqlite") as store:
        stored = {
            stage: [(t.text, t.completion, t.verdict, t.seed) for g in store.groups(stage) for t in g.trajectories]
            for stage in STAGES
        }
    return {
        "weights": {s: (run / "checkpoints" / s / "model.safetensors").read_bytes() for s in STAGES},
        "summary": untimed(json.loads((run / "summary.json").read_text())),
        "metrics": [untimed(row) for row in RunDirectory(run).metrics()],
        "samples": json.loads((run / "samples.json").read_text()),
        "stored": stored,
    }


def assert_nothing_half_written(run: Path) -> None:
    assert not [path for path in run.rglob(".*") if path.name.endswith((".tmp", ".old"))]
    for checkpoint in (run / "checkpoints").iterdir():
        assert (checkpoint / "checksums.json").exists()


@pytest.fixture(scope="module", autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Straight(NamedTuple):
    """A run that nothing stopped."""

    run: Path
    done: Done
    outcome: dict[str, Any]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Straight:
    run = tmp_path_factory.mktemp("speedrun") / "straight"
    done = clew(*arguments(run, "--json"))
    assert done.status == 0, done.err
    return Straight(run, done, outcome_of(run))


def test_speedrun_leaves_what_the_design_promises(straight):
    run = straight.run
    summary = json.loads((run / "summary.json").read_text())
    assert json.loads(straight.done.out) == summary
    assert {"total_seconds", "peak_rss_mib", "device", "seed", "stages", "search"} <= set(summary)
    assert [stage["name"] for stage in summary["stages"]] == STAGES
    for stage in summary["stages"]:
        assert {"name", "seconds", "tokens", "pass_at_1", "mean_length"} <= set(stage)
        assert set(stage["pass_at_1"]) >= {"mean", "low", "high", "n"}
        assert stage["pass_at_1"]["low"] <= stage["pass_at_1"]["mean"] <= stage["pass_at_1"]["high"]
        assert stage["tokens"] > 0
    last = summary["stages"][-1]
    assert last["pass_at_1"] == last["pass_at_k"]["1"], "the last stage is told by the many samples of the search"
    for row in summary["search"]:
        assert {"strategy", "guidance", "cost", "accuracy"} <= set(row)
    assert {(row["strategy"], row["n"]) for row in summary["search"]} >= {("best-of-n", 4), ("majority-vote", 4)}
    assert {row["stage"] for row in RunDirectory(run).metrics()} == set(STAGES)
    assert len(RunDirectory(run).metrics("sft")) == SETTINGS["sft"]["steps"]
    report = (run / "report.html").read_text(encoding="utf-8")
    assert report.startswith("<!")
    assert report.rstrip().endswith("</html>")
    samples = json.loads((run / "samples.json").read_text())
    assert len(samples) == SETTINGS["evaluate"]["problems"]
    assert all({"problem_id", "prompt", "text", "outcome", "stage"} <= set(sample) for sample in samples)
    assert_nothing_half_written(run)


def test_every_stage_of_the_small_run_really_learns(straight):
    """Else the comparisons below would compare nothing."""
    weights = straight.outcome["weights"]
    assert len(set(weights.values())) == len(STAGES)
    assert any("grad_norm" in row for row in RunDirectory(straight.run).metrics("rl"))


def test_checkpoints_load_in_transformers(straight):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from clew.recipes.stage import load_policy

    prompt = [{"role": "user", "content": "make 8 from 3 5"}]
    for stage in STAGES:
        path = straight.run / "checkpoints" / stage
        model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
        ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        ours = load_policy(path)
        assert tuple(ids["input_ids"][0].tolist()) == ours.encode("<|user|> make 8 from 3 5<|think|>")
        with torch.no_grad():
            assert torch.equal(model.eval()(**ids).logits, ours.model(**ids).logits)
    assert load_policy(straight.run).model.config.hidden_size == 48


def test_same_seed_same_run_and_another_seed_another(straight, tmp_path):
    assert clew(*arguments(tmp_path / "again")).status == 0
    assert outcome_of(tmp_path / "again") == straight.outcome
    assert clew(*arguments(tmp_path / "other", "--seed", "4", "--sft.steps", "1", "--rl.steps", "0")).status == 0
    assert outcome_of(tmp_path / "other")["weights"]["pretrain"] != straight.outcome["weights"]["pretrain"]


@pytest.mark.parametrize(("stage", "step"), [pytest.param("sft", 5, marks=pytest.mark.slow), ("rl", 2)])
def test_interrupted_run_is_whole_and_resumes_to_the_same_end(straight, tmp_path, monkeypatch, stage, step):
    run = tmp_path / "run"
    log = RunDirectory.log

    def interrupted(self: RunDirectory, name: str, **metrics: Any) -> None:
        log(self, name, **metrics)
        if (name, metrics["step"]) == (stage, step):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunDirectory, "log", interrupted)
        stopped = clew(*arguments(run))
    assert stopped.status == 130
    assert "--resume" in stopped.err
    assert "Traceback" not in stopped.err
    assert_nothing_half_written(run)
    finished = STAGES[: STAGES.index(stage)]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == sorted(finished)
    assert not (run / "summary.json").exists()
    resumed = clew(*arguments(run, "--resume"))
    assert resumed.status == 0, resumed.err
    assert resumed.err.count("already done") == len(finished)
    assert outcome_of(run) == straight.outcome


def killed_by_signal(run: Path, method: str, condition: str) -> None:
    """Run the speedrun in a process that kills itself once `method` of its run directory has done `condition`."""
    code = f"""
import os, signal, sys
from clew.cli import main
from clew.data.run import RunDirectory
original = RunDirectory.{method}
def patched(self, stage, *values, **metrics):
    answer = original(self, stage, *values, **metrics)
    if {condition}:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
RunDirectory.{method} = patched
sys.exit(main({arguments(run, *(["--resume"] if run.exists() else []))!r}))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_run_killed_twice_resumes_to_the_same_end(straight, tmp_path):
    run = tmp_path / "run"
    killed_by_signal(run, "mark_done", "stage == 'sft'")
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["pretrain", "sft"]
    killed_by_signal(run, "log", "stage == 'rl' and metrics['step'] == 1")
    assert len(RunDirectory(run).metrics("rl")) == 2
    assert clew(*arguments(run, "--resume")).status == 0
    assert outcome_of(run) == straight.outcome
    assert_nothing_half_written(run)


def test_checkpoint_that_was_saved_but_not_marked_is_made_again(straight, tmp_path, monkeypatch):
    run = tmp_path / "run"
    mark = RunDirectory.mark_done

    def interrupted(self: RunDirectory, name: str, result: Any) -> None:
        if name == "expert_iteration":
            raise KeyboardInterrupt
        mark(self, name, result)

    with monkeypatch.context() as patched:
        patched.setattr(RunDirectory, "mark_done", interrupted)
        assert clew(*arguments(run)).status == 130
    assert (run / "checkpoints" / "expert_iteration").exists()
    assert clew(*arguments(run, "--resume")).status == 0
    assert outcome_of(run) == straight.outcome


def test_interrupt_while_a_checkpoint_is_written_leaves_none(tmp_path, monkeypatch):
    run = tmp_path / "run"

    def interrupted(model: Any, tokenizer: Any, directory: Path) -> None:
        (directory / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("clew.models.checkpoint.save_checkpoint", interrupted)
    assert clew(*arguments(run)).status == 130
    assert list((run / "checkpoints").iterdir()) == []
    assert list((run / "stages").iterdir()) == []


def test_divergence_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    from clew.learn.aggregate import token_mean
    from clew.recipes.stage import load_policy

    run, calls = tmp_path / "run", []

    def diverging(loss: Any, mask: Any, **how: Any) -> Any:
        if (run / "checkpoints" / "pretrain").exists():
            calls.append(1)
        return token_mean(loss, mask, **how) * (float("nan") if len(calls) > 2 else 1)

    monkeypatch.setattr("clew.learn.aggregate.token_mean", diverging)
    done = clew(*arguments(run))
    assert done.status == 1
    assert_three_parts(done.err)
    assert str(run / "checkpoints" / "pretrain") in done.err
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["pretrain"]
    logged = RunDirectory(run).metrics("sft")
    assert 1 <= len(logged) <= 2
    assert all(isinstance(row["loss"], float) for row in logged)
    load_policy(run)


def test_finished_run_resumes_without_work_and_keeps_its_times(straight):
    before = json.loads((straight.run / "summary.json").read_text())
    done = clew(*arguments(straight.run, "--resume", "--json"))
    assert done.status == 0, done.err
    assert done.err.count("already done") == len(STAGES) + 1
    assert outcome_of(straight.run) == straight.outcome
    stages = sum(stage["seconds"] for stage in before["stages"])
    assert json.loads(done.out)["total_seconds"] >= stages


def test_existing_run_is_not_overwritten(straight):
    before = (straight.run / "summary.json").read_bytes()
    done = clew(*arguments(straight.run))
    assert done.status == 1
    assert_three_parts(done.err)
    assert "--resume" in done.err
    assert "--overwrite" in done.err
    assert (straight.run / "summary.json").read_bytes() == before


def test_resume_with_other_settings_names_them(straight):
    done = clew(*arguments(straight.run, "--resume", "--rl.steps", "5"))
    assert done.status == 1
    assert_three_parts(done.err)
    assert "rl.steps: 4 -> 5" in done.err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--threads", "0"], "threads is 0"),
        (["--rl.group-size", "0"], "PolicyGradient group_size is 0"),
        (["--expert.rows", "-1"], "ExpertIteration rows is -1"),
        (["--sft.lr-other", "nan"], "Sft lr_other is nan"),
        (["--rl.stepz", "3"], "--rl.steps"),
        (["--task", "maze"], "countdown"),
        (["--task", "countdown:count=9"], "count"),
        (["--evaluate.problems", "5000"], "5000"),
    ],
)
def test_what_can_be_refused_is_refused_before_anything_is_written(tmp_path, more, says):
    done = clew(*arguments(tmp_path / "run", *more))
    assert done.status == 2
    assert_three_parts(done.err)
    assert says in done.err
    assert not (tmp_path / "run").exists()
