"""What every learning command does with bad input, by the command line: docs/reference/bad-input-learning.md.

The policy is the tiny model of `small_policy` before any training, so every response is cut off at its most tokens.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from open_weights import saved
from safetensors.torch import load_file, save_file
from small_policy import SIZE, SPEC

from clew import cli
from clew.core.task import split_of
from clew.core.types import Outcome, Verdict
from clew.data.run import RunDirectory
from clew.models.architecture import build_model
from clew.models.checkpoint import save_checkpoint
from clew.models.tokenizer import build_tokenizer
from clew.recipes import cloning, stage
from clew.recipes.rl_algorithms import COMPARING
from clew.report import html
from clew.tasks import Countdown

PAGE = Path(__file__).parents[2] / "docs/reference/bad-input-learning.md"
PLAIN = {
    "rl": "--settings.problems 3 --settings.max-tokens 6 --settings.steps 2 --settings.group-size 3",
    "dpo": "--settings.problems 3 --settings.max-tokens 6 --settings.samples 3",
    "distill": "--settings.problems 3 --settings.max-tokens 6 --settings.samples 3",
    "loop": "--problems 3 --max-tokens 6 --rounds 1 --strategy best-of-n:n=3 --measure-problems 2 --measure-samples 1",
    "sft": "--settings.steps 2 --settings.rows 4 --settings.direct 1",
    "reward train": "--settings.problems 6 --settings.max-tokens 6 --settings.samples 2 --settings.held-out 2 "
    "--settings.measured 2 --settings.measured-samples 2",
}
TOO_FAST = "--settings.lr-matrix 1e38 --settings.lr-other 1e38"
UNUSED_BY_EQUAL = ("clew", "grpo", "dr-grpo", "dapo", "rloo", "reinforce++", "reinforce++-baseline", "gspo", "cispo")
ELSEWHERE = ("reinforce", "ppo", "prime")


def coin(problem, text):
    """Right by the parity of a hash: about half."""
    right = hashlib.blake2b((problem.id + text).encode()).digest()[0] % 2 == 0
    return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), text[:9])


def no_number(problem, text):
    """The coin, whose value is no number for about half of the answers."""
    found = coin(problem, text)
    return replace(found, value=math.nan) if hashlib.blake2b(text.encode()).digest()[1] % 2 else found


VERIFIERS = {
    "coin": coin,
    "right": lambda problem, text: Verdict(Outcome.RIGHT, 1.0, "a"),
    "wrong": lambda problem, text: Verdict(Outcome.WRONG, 0.0, "a"),
    "partly": lambda problem, text: Verdict(Outcome.WRONG, 0.1, "a"),
    "no number": no_number,
    "never a number": lambda problem, text: Verdict(Outcome.RIGHT, math.nan, "a"),
    "its own": Countdown.verify,
}


class Told(NamedTuple):
    """What a command did."""

    status: int
    err: str
    rows: list[dict[str, Any]]
    weights: dict[str, bytes]
    """Of each checkpoint it wrote."""
    out: Path


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def a_run(path, tokenizer, size):
    run = RunDirectory.create(path, {})
    model = build_model(SIZE, build_tokenizer(), 0)
    if size > model.config.vocab_size:
        model.resize_token_embeddings(size, mean_resizing=False)
    with run.writing_checkpoint("sft") as directory:
        save_checkpoint(model, tokenizer, directory)
    run.mark_done("sft", {})
    return run.path


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The run that every command starts from."""
    return a_run(tmp_path_factory.mktemp("start") / "run", build_tokenizer(), 0)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run whose tokens are others."""
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["zebra"])
    return a_run(tmp_path_factory.mktemp("other") / "run", tokenizer, len(tokenizer))


@pytest.fixture(scope="module")
def long_questions(tmp_path_factory):
    """A file of problems that no context of these models has room for."""
    path = tmp_path_factory.mktemp("long") / "long.jsonl"
    path.write_text("".join(json.dumps({"question": f"{at} 1" + " + 1" * 200, "answer": at}) + "\n" for at in range(9)))
    return f"file:{path},verifier=exact,split=all"


@pytest.fixture(scope="module")
def held_out_alone(tmp_path_factory):
    """A file of problems whose hashes put none of them into the training problems."""
    path = tmp_path_factory.mktemp("few") / "few.jsonl"
    rows = [{"id": f"q{at}", "question": f"{at} + 1", "answer": at + 1} for at in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if split_of(f"file:{row['id']}") == "test"))
    return f"file:{path},verifier=exact"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A model that clew did not make, as a Hugging Face directory."""
    return saved(tmp_path_factory.mktemp("elsewhere") / "llama", "llama", context=128)


@pytest.fixture
def told(start, tmp_path, monkeypatch, capsys):
    """Runs a command by its words, with a verifier; what it did. The result is measured on two problems."""
    monkeypatch.setattr(stage, "Evaluation", functools.partial(stage.Evaluation, problems=2, samples=1, max_tokens=4))
    monkeypatch.setattr(html, "write_report", lambda path: path / "report.html")

    def run(verb, words="", verify="coin", out="out"):
        monkeypatch.setattr(Countdown, "verify", lambda self, problem, text: VERIFIERS[verify](problem, text))
        if verify == "its own":
            monkeypatch.setattr(Countdown, "verify", VERIFIERS[verify])
        path = tmp_path / out
        given = f"{verb} --checkpoint {start} --task {SPEC} --out {path} {PLAIN[verb]} {words}".split()
        status = cli.main(_last_wins(given))
        lines = (path / "metrics.jsonl").read_text().splitlines() if (path / "metrics.jsonl").exists() else []
        found = (path / "checkpoints").glob("[!.]*/model.safetensors")
        return Told(
            status,
            capsys.readouterr().err,
            [json.loads(line) for line in lines],
            {file.parent.name: file.read_bytes() for file in found},
            path,
        )

    return run


def _last_wins(words):
    """Of an option that is given twice the last: command lines refuse the first."""
    kept: dict[str, list[str]] = {}
    plain, at = [], 0
    while at < len(words):
        if not words[at].startswith("--"):
            plain.append(words[at])
            at += 1
            continue
        stop = next((i for i in range(at + 1, len(words)) if words[i].startswith("--")), len(words))
        kept[words[at]] = words[at:stop]
        at = stop
    return [*plain, *(word for option in kept.values() for word in option)]


class Case(NamedTuple):
    """One row of the page, or a part of one."""

    bad: str
    verb: str
    words: str
    verify: str
    status: int
    says: str
    learns: bool | None
    """Whether the weights that are written are others than those of the start; None: nothing is written."""


def case(bad, verb, words="", verify="coin", *, status=0, says="", learns=None):
    return Case(bad, verb, words, verify, status, says, learns)


ONE, EQUAL, CUT, EMPTY = "a group of one", "all rewards equal", "all samples truncated", "an empty D_expert"
NAN, FAST, LONG = "rewards that are NaN", "a learning rate that diverges", "a prompt longer than the context"
VOCABULARY = "a reference model of another vocabulary"
ONE_SAMPLE = "--settings.samples 1"
NO_ROOM = "--settings.max-tokens 125"
NONE = "a task without training problems"

CASES = [
    *(
        case(ONE, "rl", f"--settings.group-size 1 --algorithm {name}", status=2, says="at least 2 samples a problem")
        for name in ("clew", "grpo", "rloo")
    ),
    *(case(ONE, "rl", f"--settings.group-size 1 --algorithm {name}", learns=True) for name in ("reinforce", "ppo")),
    case(ONE, "dpo", ONE_SAMPLE, status=2, says="pairs of round 1 is 0"),
    *(
        case(ONE, "distill", f"{ONE_SAMPLE} --settings.problems 9 --method {name}", learns=True)
        for name in ("expert-iteration", "star", "rft")
    ),
    case(
        ONE,
        "distill",
        f"{ONE_SAMPLE} --method v-star --settings.rounds 1 --settings.problems 9",
        says="there is no verifier",
        learns=True,
    ),
    case(ONE, "distill", f"{ONE_SAMPLE} --method bond", status=2, says="samples is 1"),
    case(ONE, "loop", "--strategy best-of-n:n=1 --problems 9", learns=True),
    *(
        case(ONE, "loop", f"--strategy best-of-n:n=1 --learner {name}", says="so nothing was learnt", learns=False)
        for name in ("rl", "dpo")
    ),
    case(ONE, "reward train", f"{ONE_SAMPLE} --kind preference", status=2, says="number of examples is 0"),
    *(
        case(EQUAL, "rl", f"--algorithm {name}", value, says="nothing to learn from at step 0", learns=False)
        for name, value in zip(UNUSED_BY_EQUAL, ["right", "wrong", "partly"] * 3, strict=True)
    ),
    *(case(EQUAL, "rl", f"--algorithm {name}", "partly", learns=True) for name in ELSEWHERE),
    case(EQUAL, "dpo", "", "right", status=2, says="pairs of round 1 is 0"),
    case(EQUAL, "distill", "--method rft", "right", learns=True),
    case(EQUAL, "distill", "--method v-star --settings.rounds 1", "right", says="there is no verifier", learns=True),
    case(EQUAL, "distill", "--method bond", "partly", status=2, says="problems whose rewards differ is 0"),
    case(EQUAL, "loop", "", "right", learns=True),
    *(
        case(EQUAL, "loop", f"--learner {name}", "right", says="so nothing was learnt", learns=False)
        for name in ("rl", "dpo")
    ),
    case(EQUAL, "reward train", "--kind preference", "right", status=2, says="number of examples is 0"),
    *(
        case(EQUAL, "reward train", f"--kind {kind}", "wrong", says="nothing tells right from wrong", learns=True)
        for kind in ("process", "outcome")
    ),
    case(CUT, "rl", "", says="truncated alarm at step 0", learns=True),
    case(CUT, "rl", "--settings.truncated masked", says="nothing to learn from at step 0: 9 masked", learns=False),
    case(CUT, "rl", "", "its own", says="nothing to learn from at step 0", learns=False),
    case(CUT, "dpo", "", "its own", status=2, says="pairs of round 1 is 0"),
    case(CUT, "distill", "--method rft", "its own", status=2, says="solutions to clone is 0"),
    case(CUT, "loop", "", "its own", says="no right solution was found, so nothing was learnt", learns=False),
    case(CUT, "reward train", "--kind outcome", "its own", says="nothing tells right from wrong", learns=True),
    case(EMPTY, "distill", "--settings.rounds 2", "wrong", says="round 2 has no right solution", learns=False),
    *(
        case(EMPTY, "distill", f"--method {name}", "wrong", status=2, says="solutions to clone is 0")
        for name in ("rest-em", "rft", "star", "v-star")
    ),
    case(EMPTY, "distill", "--method teacher --teacher.checkpoint START", "wrong", status=2, says="clone is 0"),
    case(EMPTY, "loop", "--learner distill", "wrong", says="no right solution was found", learns=False),
    case(NAN, "rl", "", "no number", learns=True),
    case(NAN, "dpo", "--settings.samples 8", "no number", learns=True),
    case(NAN, "distill", "--settings.samples 8 --method rest-em", "no number", learns=True),
    case(NAN, "distill", "--settings.samples 8 --method bond", "no number", learns=True),
    *(
        case(
            NAN,
            "loop",
            f"--problems 6 --strategy majority-vote:n=8 --measure-samples 4 --learner {name}",
            "no number",
            learns=True,
        )
        for name in ("distill", "rl", "dpo")
    ),
    case(NAN, "reward train", "--settings.samples 8 --kind outcome", "no number", learns=True),
    case(NAN, "rl", "", "never a number", status=2, says="nothing to learn from at step 0: 9 unscored", learns=False),
    case(NAN, "dpo", "", "never a number", status=2, says="pairs of round 1 is 0"),
    case(NAN, "distill", "--method rft", "never a number", status=2, says="solutions to clone is 0"),
    case(NAN, "loop", "", "never a number", status=2, says="problems with a scored sample is 0"),
    case(NAN, "reward train", "--kind process", "never a number", status=2, says="number of"),
    case(VOCABULARY, "rl", "--settings.kl k3-loss --settings.reference OTHER", status=2, says="reference is"),
    case(VOCABULARY, "rl", "--settings.step-credit.process OTHER", status=2, says="is 'a model of"),
    case(VOCABULARY, "dpo", "--reference OTHER", status=2, says="--reference is"),
    case(
        VOCABULARY,
        "distill",
        "--method teacher --teacher.on-policy --teacher.checkpoint OTHER",
        status=2,
        says="--teacher.checkpoint is",
    ),
    case(VOCABULARY, "distill", "--method teacher --teacher.checkpoint OTHER", learns=True),
    case(
        VOCABULARY,
        "loop",
        "--strategy weighted-best-of-n:n=3 --guidance learned-reward --guide OTHER",
        status=2,
        says="--guide is",
    ),
    *(
        case(FAST, "rl", f"{TOO_FAST} --settings.steps {steps}", status=1, says="lower the learning rate")
        for steps in (1, 3)
    ),
    case(FAST, "dpo", f"{TOO_FAST} --settings.rows 1", status=1, says="lower the learning rate"),
    *(
        case(FAST, "distill", f"{TOO_FAST} --settings.rows 1 --method {name}", status=1, says="lower the learning rate")
        for name in ("expert-iteration", "bond", "v-star")
    ),
    *(
        case(FAST, "loop", f"{TOO_FAST} --settings.rows 1 --learner {name}", status=1, says="lower the learning rate")
        for name in ("distill", "rl", "dpo")
    ),
    *(
        case(FAST, "sft", f"{TOO_FAST} --settings.steps {steps}", status=1, says="lower the learning rate")
        for steps in (1, 2)
    ),
    *(
        case(FAST, "reward train", f"{TOO_FAST} --settings.rows {rows}", status=1, says="lower the learning rate")
        for rows in (1, 64)
    ),
    case(LONG, "rl", NO_ROOM, status=2, says="tokens of the prompts is"),
    case(LONG, "dpo", NO_ROOM, status=2, says="tokens of the prompts is"),
    case(LONG, "distill", NO_ROOM, status=2, says="tokens of the prompts is"),
    case(LONG, "loop", "--max-tokens 125", says="answers have at most 1", learns=True),
    case(LONG, "loop", "--task LONGFILE", status=2, says="fewer than 128, the model's context"),
    case(LONG, "reward train", NO_ROOM, status=2, says="tokens of the prompts is"),
    *(
        case(NONE, verb, "--task TESTFILE", status=2, says="training problems of file is 0")
        for verb in ("rl", "dpo", "distill", "loop", "reward train")
    ),
]


@pytest.mark.parametrize("given", CASES, ids=lambda c: f"{c.bad}: {c.verb} {c.words} {c.verify}"[:120])
def test_bad_input_does_what_is_documented(told, start, other, long_questions, held_out_alone, given):
    words = given.words.replace("START", str(start)).replace("OTHER", str(other))
    words = words.replace("LONGFILE", long_questions).replace("TESTFILE", held_out_alone)
    found = told(given.verb, words, given.verify)
    assert found.status == given.status, found.err
    assert given.says in found.err
    assert "Traceback" not in found.err
    before = (start / "checkpoints/sft/model.safetensors").read_bytes()
    if given.learns is None:
        assert not found.weights
        assert given.bad != NONE or not found.out.exists()
    else:
        assert any(weights != before for weights in found.weights.values()) == given.learns
    if given.verb == "rl" and given.bad == EQUAL and not given.learns:
        assert all(row["groups_dropped"] == 1.0 for row in found.rows)
    if given.bad == NAN and given.verb == "rl":
        shares = [row["unscored"] for row in found.rows]
        assert all(0.0 < share < 1.0 for share in shares) if given.status == 0 else shares == [1.0, 1.0]


def test_the_page_has_a_row_for_every_input_and_command():
    rows = re.findall(r"^\| ([^|]+) \| `clew ([^|`]+)` \| ([^|]+) \| ([012, or]+) \|$", PAGE.read_text(), re.MULTILINE)
    documented: dict[tuple[str, str], set[int]] = {}
    for bad, verb, _, statuses in rows:
        documented.setdefault((bad, verb), set()).update(map(int, re.findall(r"\d", statuses)))
    tested: dict[tuple[str, str], set[int]] = {}
    for given in CASES:
        tested.setdefault((given.bad, given.verb), set()).add(given.status)
    assert {key: documented.get(key) for key in tested} == tested
    assert set(COMPARING) >= {"centred", "normalised", "leave-one-out"}


def test_some_prompts_that_are_too_long_are_left_out_and_counted(told, monkeypatch):
    """Each command goes on with the others."""
    problems = Countdown.problems

    def some_long(self, split, n, seed):
        found = problems(self, split, n, seed)
        if split == "test":
            return found
        message = found[0].prompt[-1]
        every = (message._replace(content=message.content + " 1" * 200),)
        return [replace(p, prompt=every) if at % 2 else p for at, p in enumerate(found)]

    monkeypatch.setattr(Countdown, "problems", some_long)
    for verb, words in (("rl", "--settings.problems 8"), ("dpo", ""), ("distill", ""), ("reward train", "")):
        found = told(verb, words, out=verb.replace(" ", "-"))
        assert found.status == 0, found.err
        assert "prompts too long to be answered" in found.err
    looped = told("loop", "--problems 8", out="loop")
    assert looped.status == 0, looped.err
    assert re.search(r"clew: [1-7] of 8 problems left out: prompts too long to be answered", looped.err)
    account = json.loads((found.out.parent / "rl" / "rl_account.json").read_text())
    assert account["prompts_too_long"] > 0
    assert account["groups"] + account["prompts_too_long"] == 16


@pytest.mark.parametrize("method", ["rest-em", "star", "teacher"])
def test_a_later_round_without_solutions_keeps_what_was_learnt(told, start, monkeypatch, method):
    kept, calls = cloning.right_solutions, []

    def once(groups, cap):
        calls.append(1)
        return kept(groups, cap) if len(calls) == 1 else []

    monkeypatch.setattr(cloning, "right_solutions", once)
    words = f"--method {method} --settings.rounds 3 "
    words += {"star": "--star.no-rationalise", "teacher": f"--teacher.checkpoint {start}"}.get(method, "")
    found = told("distill", words)
    assert found.status == 0
    assert "round 2 has no right solution, so learning ends here" in found.err
    assert len(calls) == 2
    assert any(found.weights.values())
    assert found.weights[method.replace("-", "_")] != (start / "checkpoints/sft/model.safetensors").read_bytes()


def test_what_was_written_in_other_tokens_is_refused(told, other):
    """Ids of one vocabulary mean something else in another: what a run holds is not read as if they did not."""
    searched = told("distill", "--method rft", out="searched")
    shutil.rmtree(searched.out / "checkpoints")
    (searched.out / "config.json").write_text(json.dumps({"checkpoint": str(other)}))
    for verb, words, name in (
        ("dpo", "--data", "--data"),
        ("distill", "--method visits --visits.data", "--visits.data"),
    ):
        found = told(verb, f"{words} {searched.out}", out=verb)
        assert found.status == 2
        assert f"{name} is 'a model of" in found.err
        assert not found.weights


def cut(directory):
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-500])


def rewritten(change):
    """Spoils the weights of a directory."""

    def spoil(directory):
        file = directory / "model.safetensors"
        save_file(change({name: w.clone() for name, w in load_file(file).items()}), file, metadata={"format": "pt"})

    return spoil


def written(name, text):
    return lambda directory: (directory / name).write_text(text)


def configured(**changes):
    def spoil(directory):
        file = directory / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


def without(pattern):
    def spoil(directory):
        for file in directory.glob(pattern):
            file.unlink()

    return spoil


def no_template(directory):
    without("chat_template*")(directory)
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "chat_template"}))


BROKEN = {
    "weights that were cut off": (cut, "no model could be loaded"),
    "no weights": (without("model*"), "no model could be loaded"),
    "a layer that is not there": (
        rewritten(lambda weights: {name: w for name, w in weights.items() if ".layers.1." not in name}),
        "lacks weights",
    ),
    "weights of another shape": (configured(hidden_size=64), "lacks weights"),
    "weights that are no numbers": (
        rewritten(lambda weights: {name: w * math.nan for name, w in weights.items()}),
        "not finite numbers",
    ),
    "a class that nobody knows": (configured(model_type="zebra"), "no model could be loaded"),
    "a model that is no decoder": (configured(model_type="t5"), "no model could be loaded"),
    "a configuration of nonsense": (configured(num_attention_heads="x"), "no model could be loaded"),
    "half a configuration": (written("config.json", "{"), "config.json"),
    "no tokenizer": (without("tokenizer*"), "no model could be loaded"),
    "half a tokenizer": (written("tokenizer.json", '{"version": "1.0"'), "no model could be loaded"),
    "no chat template": (no_template, "no chat template"),
    "an empty chat template": (written("chat_template.jinja", ""), "no chat template"),
    "a chat template that writes nothing": (written("chat_template.jinja", "{# #}"), "it writes nothing"),
    "a chat template that is no template": (written("chat_template.jinja", "{{ messages"), "makes no prompt"),
    "a chat template without system messages": (
        written("chat_template.jinja", "{{ raise_exception('System role not supported') }}"),
        "messages by system and user: System role not supported",
    ),
}


def refused(found, says, status=1):
    """Three parts, and nothing left behind."""
    assert found.status == status, found.err
    lines = found.err.strip().splitlines()
    assert lines[-3].startswith("clew: ")
    assert says in lines[-3]
    assert lines[-2].startswith("  accepted: ")
    assert lines[-1].startswith("  what to do: ")
    assert not found.out.exists()
    return lines[-1]


@pytest.mark.parametrize("bad", BROKEN)
def test_a_broken_model_from_elsewhere_is_refused(told, elsewhere, tmp_path, bad):
    spoil, says = BROKEN[bad]
    spoil(shutil.copytree(elsewhere, tmp_path / "model"))
    refused(told("loop", f"--checkpoint {tmp_path / 'model'}"), says)


@pytest.mark.parametrize("bytes_of", [b"", b"hello" * 99, b"GGUF" + b"\0" * 99], ids=["empty", "text", "cut off"])
def test_a_broken_gguf_file_is_refused(told, tmp_path, bytes_of):
    pytest.importorskip("gguf")
    (tmp_path / "model.gguf").write_bytes(bytes_of)
    refused(told("loop", f"--checkpoint {tmp_path / 'model.gguf'}"), "no model could be loaded")


def test_a_gguf_file_without_the_package_names_the_command(told, tmp_path, monkeypatch):
    from transformers import AutoTokenizer

    def absent(*args, **kwargs):
        raise ImportError("Please install gguf")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", absent)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "pip install 'clew[gguf]'" in refused(
        told("loop", f"--checkpoint {tmp_path / 'model.gguf'}"), "install gguf"
    )


@pytest.mark.parametrize("verb", ["rl", "dpo", "distill", "sft", "loop"])
def test_no_command_leaves_anything_behind_for_a_model_that_it_cannot_read(told, elsewhere, tmp_path, verb):
    cut(shutil.copytree(elsewhere, tmp_path / "model"))
    refused(told(verb, f"--checkpoint {tmp_path / 'model'}"), "no model could be loaded")


def test_a_context_without_room_for_an_answer_is_refused(told, tmp_path):
    small = saved(tmp_path / "model", "llama", context=10)
    refused(told("loop", f"--checkpoint {small}"), "tokens of a prompt", status=2)
