"""`clew eval`: its numbers against direct computation, its JSON, and what it refuses."""

from __future__ import annotations

import json
import random
from math import comb
from statistics import fmean

import pytest
from open_weights import saved

from clew import cli
from clew.core.protocols import Prompt
from clew.core.seeds import derive_seed
from clew.core.types import Sampling, State
from clew.data.checkpoint_files import commit_directory
from clew.evaluate import sample_groups
from clew.models.architecture import SmallQwen3, build_model
from clew.models.checkpoint import save_checkpoint
from clew.models.tokenizer import build_tokenizer
from clew.models.transformers_policy import load_transformers_policy
from clew.recipes.evaluate import EvalConfig, ks_up_to
from clew.recipes.stage import Evaluation
from clew.search import ScriptedPolicy
from clew.search.serve import sample_seed
from clew.tasks import make_task

PROBLEMS, SAMPLES = 30, 6
TASK = make_task("countdown")


def answer(prompt: Prompt, sampling: Sampling) -> str:
    """Right about a third of the time, by the sample's seed; greedily right for every other problem."""
    problem = prompt.state.problem
    rng = random.Random(prompt.seed)
    right = hash_bit(problem.id) if sampling.temperature == 0 else rng.random() < 0.35
    wrong = " + ".join(map(str, problem.metadata["numbers"])) + rng.choice([" + 1", " - 1", ""])
    return "have try no answer " + (TASK.gold(problem) if right else wrong)


def hash_bit(text: str) -> bool:
    return derive_seed(0, text) % 2 == 0


@pytest.fixture
def scripted(monkeypatch):
    from clew.recipes import stage

    policy = ScriptedPolicy(answer, logprob=lambda prompt, token: -1.0 - prompt.seed % 101 / 100)
    monkeypatch.setattr(stage, "load_policy", lambda path: policy)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    tokenizer = build_tokenizer()
    size = SmallQwen3(width=48, layers=1, heads=2, kv_heads=1, head_width=16, ffn_width=32, context=128)
    directory = tmp_path_factory.mktemp("tiny")
    save_checkpoint(build_model(size, tokenizer, 0), tokenizer, directory / "aside")
    commit_directory(directory / "aside", directory / "checkpoint")
    return directory / "checkpoint"


def evaluated(capsys, *arguments):
    status = cli.main(["eval", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_every_rate_is_that_of_direct_computation(scripted, capsys):
    arguments = ("--checkpoint", "x", "--problems", PROBLEMS, "--samples", SAMPLES, "--seed", 7, "--json")
    status, out, _ = evaluated(capsys, *arguments)
    found = json.loads(out)
    problems = TASK.problems("test", PROBLEMS, derive_seed(7, "held out"))
    sampling = Sampling(max_tokens=EvalConfig(checkpoint="x").max_tokens)
    seed = derive_seed(7, "evaluation")
    texts = [
        [answer(Prompt(root, sample_seed(seed, root, i)), sampling) for i in range(SAMPLES)]
        for root in map(State, problems)
    ]
    right = [[TASK.verify(p, t).right for t in row] for p, row in zip(problems, texts, strict=True)]
    assert status == 0
    assert 0.1 < fmean(map(fmean, right)) < 0.9
    assert found["pass_at_1"]["mean"] == pytest.approx(fmean(map(fmean, right)))
    assert set(found["pass_at_k"]) == {"1", "2", "4", "6"}
    for k, rate in found["pass_at_k"].items():
        direct = fmean(1 - comb(SAMPLES - sum(r), int(k)) / comb(SAMPLES, int(k)) for r in right)
        assert rate["mean"] == pytest.approx(direct)
        assert rate["n"] == PROBLEMS
    assert found["greedy"]["mean"] == pytest.approx(fmean(hash_bit(p.id) for p in problems))
    rows = {(r["strategy"], r["guidance"], r["n"]): r for r in found["search"]}
    for n in (1, 2, 4, 6):
        row = rows["best-of-n", "verifier", n]
        assert row["accuracy"]["mean"] == pytest.approx(fmean(any(r[:n]) for r in right))
        # The script's tokens are bytes, and one that ends.
        assert row["cost"]["tokens_sampled"] == pytest.approx(fmean(sum(len(t) + 1 for t in ts[:n]) for ts in texts))
    assert found["mean_length"] == pytest.approx(fmean(len(t) + 1 for row in texts for t in row))
    assert found["num_samples"] == PROBLEMS * SAMPLES


def test_samples_are_drawn_once_for_all_that_is_read_off_them(monkeypatch, capsys):
    from clew.recipes import stage

    policy, asked = ScriptedPolicy(answer, logprob=lambda prompt, token: -1.0), []
    sample = policy.sample

    class Counting:
        version, text = "counting", staticmethod(policy.text)

        def sample(self, prompts, sampling):
            asked.append((len(prompts), sampling.temperature))
            return sample(prompts, sampling)

    monkeypatch.setattr(stage, "load_policy", lambda path: Counting())
    evaluated(capsys, "--checkpoint", "x", "--problems", 10, "--samples", 3, "--json")
    assert sum(n for n, temperature in asked if temperature == 1) == 30
    assert sum(n for n, temperature in asked if temperature == 0) == 10


def test_json_says_what_was_measured_and_out_holds_the_same(scripted, capsys, tmp_path):
    out_file = tmp_path / "eval.json"
    status, out, err = evaluated(
        capsys, "--checkpoint", "runs/x", "--problems", 5, "--samples", 2, "--top-k", 3, "--top-p", 0.5,
        "--temperature", 0.7, "--mode", "direct", "--split", "validation", "--out", out_file, "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert status == 0
    assert found == json.loads(out_file.read_text())
    assert (found["checkpoint"], found["task"], found["split"]) == ("runs/x", "countdown", "validation")
    assert (found["problems"], found["samples"], found["seed"]) == (5, 2, 0)
    asked = {"temperature": 0.7, "top_k": 3, "top_p": 0.5, "max_tokens": 288, "mode": "direct"}
    asked |= {"step_ends": [], "statistics": False}
    assert found["sampling"] == asked
    assert {"behaviours", "transitions", "by_difficulty", "finished", "majority_at_k", "tokens", "seconds"} <= set(
        found
    )
    assert not {"json", "out", "temperature"} & set(found)
    assert "sample" in err
    assert out.count("\n") == 1


def test_table_shows_the_numbers_of_the_json(scripted, capsys):
    arguments = ("--checkpoint", "x", "--problems", 20, "--samples", 4)
    found = json.loads(evaluated(capsys, *arguments, "--json")[1])
    lines = evaluated(capsys, *arguments)[1].replace("\xa0", " ").splitlines()
    assert max(map(len, lines)) <= 80

    def shown(name):
        (line,) = (x for x in lines if x.strip().startswith(name + " "))
        return line

    best = next(r for r in found["search"] if r["guidance"] == "mean-logprob" and r["n"] == 4)
    for name, rate in [
        ("greedy", found["greedy"]),
        ("pass@1", found["pass_at_k"]["1"]),
        ("pass@4", found["pass_at_k"]["4"]),
        ("best-of-4 (mean-logprob)", best["accuracy"]),
    ]:
        assert f"{100 * rate['mean']:.1f} % ({100 * rate['low']:.1f} to {100 * rate['high']:.1f})" in shown(name)
    assert f" {4 * found['mean_length']:.0f}" in shown("pass@4")
    assert sum("pass@1," in line for line in lines) == len(found["by_difficulty"])


def test_a_random_checkpoint_is_measured(tiny, capsys):
    arguments = ("--checkpoint", tiny, "--problems", 3, "--samples", 2, "--max-tokens", 12, "--json")
    status, out, _ = evaluated(capsys, *arguments)
    found = json.loads(out)
    assert status == 0
    assert found["num_samples"] == 6
    assert found["mean_length"] <= 12
    again = json.loads(evaluated(capsys, *arguments)[1])
    timings = {"seconds", "search"}
    assert {k: v for k, v in again.items() if k not in timings} == {k: v for k, v in found.items() if k not in timings}


def test_a_model_from_elsewhere_is_measured(tmp_path, capsys):
    """By the library's own forward pass, as the learning commands measure it."""
    policy = saved(tmp_path / "llama", "llama", context=128)
    options = ("--problems", 5, "--samples", 2, "--max-tokens", 6, "--json")
    status, out, err = evaluated(capsys, "--checkpoint", policy, *options)
    assert status == 0, err
    measured = json.loads(out)
    problems = TASK.problems("test", 5, derive_seed(0, "held out"))
    groups = sample_groups(
        load_transformers_policy(policy), TASK, problems, n=2, sampling=Sampling(max_tokens=6),
        seed=derive_seed(0, "evaluation"),
    )  # fmt: skip
    assert measured["num_samples"] == 10
    assert measured["mean_length"] == fmean(len(t.completion.tokens) for g in groups for t in g.trajectories)


def test_defaults_are_those_by_which_stages_are_measured():
    config, stage = EvalConfig(checkpoint="x"), Evaluation()
    assert (config.problems, config.temperature, config.max_tokens) == (
        stage.problems,
        stage.temperature,
        stage.max_tokens,
    )


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--samples", "0"], 2, "samples is 0"),
        (["--problems", "0"], 2, "problems is 0"),
        (["--problems", "9999999"], 2, "number of problems"),
        (["--temperature", "-1"], 2, "temperature is -1.0"),
        (["--temperature", "0"], 2, "temperature 0, where all samples"),
        (["--top-p", "0"], 2, "top_p is 0.0"),
        (["--top-k", "-1"], 2, "top_k is -1"),
        (["--max-tokens", "0"], 2, "max_tokens is 0"),
        (["--task", "countdwn"], 2, "did you mean 'countdown'"),
        (["--task", "countdown:hihg=3"], 2, "did you mean 'high'"),
        (["--split", "dev"], 2, "split"),
        (["--sample", "3"], 2, "did you mean '--samples'"),
        (["--out", "."], 1, "exists"),
        (["--out", "nowhere/eval.json"], 1, "its directory does not exist"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, list) else None,
)
def test_what_is_refused_is_refused_before_the_model_is_loaded(arguments, status, says, monkeypatch, capsys):
    from clew.recipes import stage

    monkeypatch.setattr(stage, "load_policy", lambda path: pytest.fail("loaded"))
    found, out, err = evaluated(capsys, "--checkpoint", "x", *arguments)
    assert found == status
    assert says in err
    assert "accepted: " in err and "what to do: " in err
    assert out == ""


def test_missing_and_damaged_checkpoints(tiny, tmp_path, capsys):
    status, _, err = evaluated(capsys, "--checkpoint", tmp_path / "nothing", "--problems", 2)
    assert status == 1
    assert "there is no checkpoint at" in err
    weights = tiny / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    try:
        status, _, err = evaluated(capsys, "--checkpoint", tiny, "--problems", 2)
    finally:
        weights.write_bytes(whole)
    assert status == 1
    assert "is damaged" in err and "what to do: " in err


def test_too_long_an_answer_for_the_context_is_refused(tiny, capsys):
    status, _, err = evaluated(capsys, "--checkpoint", tiny, "--problems", 2, "--max-tokens", 1000)
    assert status == 2
    assert "the model's context" in err


@pytest.mark.parametrize(("samples", "ks"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8])])
def test_ks(samples, ks):
    assert ks_up_to(samples) == ks
