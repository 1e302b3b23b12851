"""The loop: costs that add up, a resumed run that ends as one that was not stopped, a switch where the rule says.

The world is a small model with random weights and a verifier that likes half of what it writes.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from open_weights import policy_of, saved
from transformers import AutoModelForCausalLM

from clew import tasks
from clew.core.errors import InvalidValue
from clew.core.types import Completion, FinishReason, Outcome, Sampling, Verdict
from clew.data.run import RunDirectory
from clew.data.searches import load_tree
from clew.learn.batch import Example
from clew.models.architecture import SmallQwen3, build_model
from clew.models.policy import LocalPolicy
from clew.models.tokenizer import build_tokenizer
from clew.models.tuning import Tuning
from clew.recipes import loop_learners, preference_learning
from clew.recipes.loop import loop
from clew.recipes.loop_learners import Learning
from clew.recipes.loop_settings import LoopConfig, expected_seconds
from clew.recipes.loop_texts import WithMutants, mutants, problems_of
from clew.recipes.progress import Progress
from clew.recipes.stage import save_policy
from clew.scale.plateau import Plateau
from clew.tasks import Countdown
from clew.tasks.generator import Agreement

SIZE = SmallQwen3(width=40, layers=1, heads=2, kv_heads=1, head_width=8, ffn_width=16, context=128)
TIMES = ("seconds", "total_seconds", "peak_rss_mib")


@dataclass(frozen=True)
class Coin:
    """Countdown's problems; an answer is right by the parity of its text's hash, or never."""

    name: str = "countdown"
    never: bool = False

    def problems(self, split, n, seed):
        return Countdown(count=3).problems(split, n, seed)

    def verify(self, problem, text):
        right = not self.never and hashlib.blake2b((problem.id + text).encode()).digest()[0] % 2 == 0
        return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), text[:9], "")

    def extract(self, text):
        return text[:9]

    def difficulty(self, problem):
        return "all"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    run = RunDirectory.create(tmp_path_factory.mktemp("start") / "run", {})
    tokenizer = build_tokenizer()
    save_policy(LocalPolicy(build_model(SIZE, tokenizer, 0), tokenizer), run, "sft")
    return run.path / "checkpoints" / "sft"


@pytest.fixture
def coin(monkeypatch):
    monkeypatch.setattr(tasks, "make_task", lambda spec: Coin(never="never" in spec))


def config_of(checkpoint, out, **changes: Any) -> LoopConfig:
    small: dict[str, Any] = {
        "rounds": 2,
        "problems": 6,
        "strategy": "best-of-n:n=4",
        "measure_problems": 4,
        "measure_samples": 2,
    }
    small["settings"] = Learning(rows=3, epochs=1, lr_matrix=0.01)
    return LoopConfig(checkpoint=checkpoint, out=out, max_tokens=6, **{**small, **changes})


def run_loop(config: LoopConfig, stream: io.StringIO | None = None) -> dict[str, Any]:
    return loop(config, Progress(expected_seconds(config), stream=stream or io.StringIO()))


def weights(run, name):
    return (run / "checkpoints" / name / "model.safetensors").read_bytes()


def timeless(value):
    if isinstance(value, dict):
        return {key: timeless(child) for key, child in value.items() if key not in TIMES}
    return [timeless(child) for child in value] if isinstance(value, list) else value


def test_a_resumed_loop_ends_as_one_that_was_never_stopped(checkpoint, tmp_path, coin, monkeypatch):
    whole = run_loop(config_of(checkpoint, tmp_path / "whole", learner="rl"))
    learn, calls = loop_learners.learn, []

    def stopped(*arguments, **named):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return learn(*arguments, **named)

    monkeypatch.setattr(loop_learners, "learn", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_loop(config_of(checkpoint, tmp_path / "parts", learner="rl"))
    assert not (tmp_path / "parts" / "checkpoints" / "round-02").exists()
    resumed = run_loop(config_of(checkpoint, tmp_path / "parts", learner="rl", resume=True))
    assert len(calls) == 3
    assert timeless(resumed) == timeless(whole)
    for name in ("round-01", "round-02"):
        assert weights(tmp_path / "parts", name) == weights(tmp_path / "whole", name)
    assert weights(tmp_path / "whole", "round-01") != weights(tmp_path / "whole", "round-02")


def test_searches_are_stages_of_the_run_whose_time_is_shown(checkpoint, tmp_path, coin, capsys):
    stream = io.StringIO()
    run_loop(config_of(checkpoint, tmp_path / "run"), stream)
    began = [line.split("  ")[0] for line in stream.getvalue().splitlines() if line.endswith("begins")]
    assert began == ["1/5 start", "2/5 round-01 search", "3/5 round-01", "4/5 round-02 search", "5/5 round-02"]
    assert "search" not in capsys.readouterr().err
    again = io.StringIO()
    run_loop(config_of(checkpoint, tmp_path / "run", resume=True), again)
    assert again.getvalue().count("already done") == 5


@pytest.mark.parametrize("learner", ["distill", "rl", "dpo"])
def test_costs_are_those_of_the_search_and_of_the_updates(checkpoint, tmp_path, coin, learner):
    out = tmp_path / "run"
    summary = run_loop(config_of(checkpoint, out, learner=learner))
    total = 0
    for number, row in enumerate(summary["rounds"], start=1):
        name = f"round-{number:02}"
        lines = [json.loads(line) for line in (out / "searches" / name / "metrics.jsonl").read_text().splitlines()]
        assert row["search"]["tokens"] == sum(line["tokens"] for line in lines)
        assert row["d_search"] == 6 * 4
        assert row["updates"] > 0
        assert row["learning"]["tokens"] > 0
        assert row["learning"]["tokens"] % 3 == 0 or learner == "dpo"
        total += row["search"]["tokens"] + row["learning"]["tokens"]
        assert row["compute"] == total
        assert set(row["pass_at_1"]) == {"mean", "low", "high", "n"}
    assert (out / "loop.svg").read_text().startswith("<svg")
    assert "Pass rate against the compute" in (out / "report.html").read_text()


def test_nothing_found_teaches_nothing_and_says_so(checkpoint, tmp_path, coin, capsys):
    out = tmp_path / "run"
    summary = run_loop(config_of(checkpoint, out, task="never", rounds=1))
    assert summary["rounds"][0]["updates"] == 0
    assert weights(out, "round-01") == (checkpoint / "model.safetensors").read_bytes()
    assert "no right solution was found, so nothing was learnt" in capsys.readouterr().err


@pytest.mark.parametrize(("threshold", "second"), [(1e9, "rl"), (-1e9, "distill")])
def test_cloning_gives_way_where_pass_at_1_has_flattened(checkpoint, tmp_path, coin, threshold, second):
    plateau = Plateau(threshold=threshold)
    summary = run_loop(config_of(checkpoint, tmp_path / "run", learner="rl", schedule=True, plateau=plateau))
    assert [row["learner"] for row in summary["rounds"]] == ["distill", second]
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert next(line["flattened"] for line in logged if "flattened" in line) == (second == "rl")


def test_cloning_gives_way_within_a_round_where_the_held_out_loss_has_flattened(checkpoint, tmp_path, coin):
    settings = Learning(rows=2, epochs=2, cap=4, lr_matrix=0.01, watch=1)
    plateau = Plateau(threshold=1e9, of="held-out-loss")
    how = {"plateau": plateau, "settings": settings, "problems": 8}
    config = config_of(checkpoint, tmp_path / "run", learner="rl", schedule=True, rounds=1)
    summary = run_loop(LoopConfig(**{**vars(config), **how}))
    assert summary["rounds"][0]["learner"] == "distill then rl"


def test_the_first_loss_of_preferences_is_log_two_beside_cloning(checkpoint, tmp_path, coin, monkeypatch):
    """Before the first update the policy is its own reference; the chosen are cloned per token, pair by pair (RPO)."""
    told: list[tuple[float, float]] = []
    step = preference_learning.preference_step

    def watched(learner, optimizer, pairs, **named):
        with torch.no_grad():
            cloned = [nats_a_token(learner.model, pair.chosen) for pair in pairs]
        told.append((step(learner, optimizer, pairs, **named)["loss"], sum(cloned) / len(cloned)))
        return {}

    monkeypatch.setattr(preference_learning, "preference_step", watched)
    settings = Learning(rows=3, epochs=1, lr_matrix=0.01, clone_weight=0.7)
    run_loop(config_of(checkpoint, tmp_path / "run", learner="dpo", rounds=1, settings=settings))
    loss, clone = told[0]
    assert loss == pytest.approx(math.log(2.0) + 0.7 * clone, abs=1e-5)


def nats_a_token(model, example):
    """The mean negative log-likelihood of a response, by the library."""
    ids = torch.tensor([[*example.prompt_ids, *example.response_ids]])
    logprobs = model(input_ids=ids).logits[0, len(example.prompt_ids) - 1 : -1].log_softmax(-1)
    return -logprobs.gather(1, torch.tensor(example.response_ids)[:, None]).mean().item()


def test_samples_are_a_tree_of_one_step_each_so_its_advantages_are_those_of_solutions(checkpoint, tmp_path, coin):
    """V(leaf) - V(root) is the reward above the mean of its problem's: to the bit the same policy."""
    learning = {"rows": 3, "epochs": 2, "lr_matrix": 0.01}
    for name in ("solution", "tree-parent"):
        settings = Learning(**learning, advantage=name)
        run_loop(config_of(checkpoint, tmp_path / name, learner="rl", rounds=1, settings=settings))
    assert weights(tmp_path / "solution", "round-01") == weights(tmp_path / "tree-parent", "round-01")
    assert weights(tmp_path / "solution", "round-01") != (checkpoint / "model.safetensors").read_bytes()


def test_a_step_of_a_tree_without_values_is_worth_the_mean_below_it():
    from clew.core.types import Problem
    from clew.recipes.rl_trees import outcome_values
    from clew.search.tree import Tree

    tree = Tree(Problem("p", "countdown", ()))
    for parent, tokens in ((0, (1,)), (0, (2,)), (1, (3,)), (1, (4,)), (0, (5,))):
        done = Completion(tokens, (-0.1,), FinishReason.STEP)
        tree.add(parent, tree.states[parent].extend(done), done)
    # Node 5 was never judged; the reward of an inner node is not one of a response.
    assert outcome_values(tree, {3: 1.0, 4: 0.0, 2: 0.0, 1: 9.0}) == [pytest.approx(1 / 3), 0.5, 0.0, 1.0, 0.0, None]


def test_steps_of_a_search_with_values_are_learnt_from(checkpoint, tmp_path, coin):
    settings = Learning(rows=3, epochs=1, lr_matrix=0.01, advantage="tree-siblings")
    grown = {"strategy": "mcts:iterations=6,width=2", "learner": "rl", "rounds": 1, "settings": settings}
    (row,) = run_loop(config_of(checkpoint, tmp_path / "run", **grown))["rounds"]
    assert row["updates"] > 0 and row["rows"] > 0
    assert weights(tmp_path / "run", "round-01") != (checkpoint / "model.safetensors").read_bytes()


@pytest.mark.parametrize("learner", ["distill", "rl", "dpo"])
@pytest.mark.parametrize("lora", [0, 2])
def test_a_model_of_another_family_goes_round(tmp_path, coin, learner, lora):
    """Each round searches with what the one before has learnt, and its checkpoint is a plain model that can go on."""
    start = saved(tmp_path / "llama", "llama", context=160, ends=3.0)
    settings = Learning(rows=3, epochs=1, lr_matrix=0.01, lr_other=0.01)
    out, tuning = tmp_path / "run", Tuning(lora=lora, optimizer="adamw")
    summary = run_loop(config_of(start, out, learner=learner, settings=settings, tuning=tuning))
    assert all(row["updates"] > 0 and row["d_search"] == 6 * 4 for row in summary["rounds"])
    loaded = [AutoModelForCausalLM.from_pretrained(path) for path in (start, *sorted((out / "checkpoints").iterdir()))]
    assert [type(model).__name__ for model in loaded] == ["LlamaForCausalLM"] * 3
    head = [model.model.layers[0].self_attn.q_proj.weight for model in loaded]
    assert not torch.equal(head[0], head[1]) and not torch.equal(head[1], head[2])
    rows = [json.loads(line) for line in (out / "searches" / "round-02" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    tree = load_tree(next((out / "searches" / "round-02" / "trees").glob("*.json")))
    first, asked = tree.completions[1], policy_of("llama").prompt_ids(tree.problem)
    with torch.no_grad():
        nats = nats_a_token(loaded[1].eval(), Example(prompt_ids=asked, response_ids=first.tokens))
    assert nats == pytest.approx(-sum(first.logprobs) / len(first.logprobs), abs=1e-4)


def test_a_prompt_that_no_answer_fits_behind_is_refused_before_anything_is_written(tmp_path, coin):
    start = saved(tmp_path / "llama", "llama", context=8)
    with pytest.raises(InvalidValue, match="tokens of a prompt"):
        run_loop(config_of(start, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": True},
        {"rounds": 0},
        {"generate": "count=3"},
        {"mutate": 4},
        {"mutate": -1},
        {"strategy": "best-of-n:n=0"},
        {"settings": Learning(advantage="tree-parent")},
    ],
)
def test_what_no_loop_can_work_with_is_refused_before_anything_is_written(checkpoint, tmp_path, changes):
    with pytest.raises(InvalidValue):
        run_loop(config_of(checkpoint, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_a_generator_poses_every_setting_and_the_run_says_how_often(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(Countdown, "verify", lambda self, problem, text: Coin().verify(problem, text))
    config = config_of(checkpoint, tmp_path / "run", task="countdown:count=2,high=9", generate="high=6|9", problems=12)
    summary = run_loop(config)
    for row in summary["rounds"]:
        assert set(row["arms"]) == {"countdown:count=2,high=6", "countdown:count=2,high=9"}
        assert sum(row["arms"].values()) == 12
        assert row["signal"] > 0.0


class Solver:
    """Solves sums of two numbers, or says what it is told to say."""

    version = "solver"

    def __init__(self, says=None):
        self.says = says

    def sample(self, prompts, sampling):
        return [Completion((at,), None, FinishReason.STOP) for at, _ in enumerate(prompts)]

    def text(self, state):
        question = state.problem.metadata["question"]
        return f"answer {self.says or sum(int(n) for n in re.findall('[0-9]+', question))}"

    def encode(self, text):
        return ()


@pytest.mark.parametrize(("says", "accepted"), [(None, 2), ("5", 0)])
def test_a_changed_question_gets_the_answer_of_solvers_that_know_the_old_one(tmp_path, says, accepted):
    path = tmp_path / "sums.jsonl"
    rows = [{"question": f"{a} plus {b}?", "answer": str(a + b), "verifier": "exact"} for a, b in ((12, 30), (7, 8))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = tasks.make_task(f"file:{path},verifier=exact,split=all")
    found = mutants(
        Solver(says),
        task,
        task.problems("train", 2, 0),
        tmp_path / "new.jsonl",
        agreement=Agreement(solutions=2),
        sampling=Sampling(max_tokens=4),
        seed=0,
    )
    assert (found.tried, found.accepted) == (2, accepted)
    for problem in problems_of(found.file):
        numbers = [int(n) for n in re.findall("[0-9]+", problem.metadata["question"])]
        judge = WithMutants(task, {problem.id: found.file})
        assert judge.verify(problem, f"answer {sum(numbers)}").right
        assert not judge.verify(problem, f"answer {sum(numbers) + 1}").right
        assert task.verify(problem, f"answer {sum(numbers)}").outcome is Outcome.UNSCORED


def test_changed_questions_of_a_round_are_searched_judged_and_counted(checkpoint, tmp_path, monkeypatch):
    path = tmp_path / "sums.jsonl"
    rows = [{"question": f"{a} + {b}", "answer": str(a + b), "verifier": "exact"} for a in (3, 4, 5) for b in (6, 7)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    verify = tasks.FileTask.verify

    def known(self, problem, text):
        """The old questions are answered right; the new ones are judged by the file that was written."""
        return Verdict(Outcome.RIGHT, 1.0, "", "") if self.path == str(path) else verify(self, problem, text)

    monkeypatch.setattr(tasks.FileTask, "verify", known)
    monkeypatch.setattr(tasks.FileTask, "extract", lambda self, text: "8")
    task = f"file:{path},verifier=exact,split=all"
    config = config_of(checkpoint, tmp_path / "run", task=task, rounds=1, mutate=2, agreement=Agreement(solutions=2))
    (row,) = run_loop(config)["rounds"]
    new = [json.loads(line) for line in (tmp_path / "run" / "mutants" / "round-01.jsonl").read_text().splitlines()]
    asked = {problem["question"] for problem in rows}
    assert len(new) == 2 and not asked & {problem["question"] for problem in new}
    made = row["mutants"]
    assert (made["tried"], made["accepted"], row["problems"], row["right"], row["d_search"]) == (2, 2, 8, 24, 32)
    # Two solutions of each old and each new question, of a token at least.
    assert made["tokens"] >= 8 and made["seconds"] > 0.0
    assert row["compute"] == made["tokens"] + row["search"]["tokens"] + row["learning"]["tokens"]
