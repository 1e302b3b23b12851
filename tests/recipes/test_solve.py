"""`clew solve`: what it understands, what it refuses, what it shows, and that its JSON tells the same."""

from __future__ import annotations

import contextlib
import io
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from clew import cli
from clew.core.errors import ClewError, UsageError
from clew.core.protocols import Prompt
from clew.core.seeds import derive_seed
from clew.core.types import Sampling, State
from clew.data.checkpoint_files import CHECKPOINTS, commit_directory
from clew.initialize.behaviours import CUES, count
from clew.models.architecture import SmallQwen3, build_model
from clew.models.checkpoint import save_checkpoint
from clew.models.tokenizer import build_tokenizer
from clew.recipes.pose import nearest_targets, pose, require_solvable, strangeness, trained_task
from clew.recipes.thinking import laid_out, write
from clew.search import ScriptedPolicy
from clew.search.serve import sample_seed
from clew.tasks import make_task
from clew.tasks.countdown_solver import reachable_integers, solvable

TASK = make_task("countdown")
RIGHT = (
    "have 9 7 5 3 try 9 + 7 = 16 left 5 3 no back try 9 + 3 = 12 left 7 5 try 7 + 5 = 12 yes answer (9 + 3) + (7 + 5)"
)
WRONG = "have 9 7 5 3 try 9 * 3 = 27 left 7 5 no or 9 - 7 = 2 yes answer 9 * 3"


def response(prompt: Prompt, sampling: Sampling) -> str:
    """Right for one sample in four, by its seed."""
    return RIGHT if random.Random(prompt.seed).random() < 0.25 else WRONG


@pytest.fixture
def scripted(monkeypatch, tmp_path):
    from clew.recipes import stage

    monkeypatch.setattr(stage, "load_policy", lambda path: ScriptedPolicy(response))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    tokenizer = build_tokenizer()
    size = SmallQwen3(width=48, layers=1, heads=2, kv_heads=1, head_width=16, ffn_width=32, context=256)
    directory = tmp_path_factory.mktemp("tiny")
    save_checkpoint(build_model(size, tokenizer, 0), tokenizer, directory / "aside")
    commit_directory(directory / "aside", directory / "checkpoint")
    return directory / "checkpoint"


def solved(capsys, *arguments):
    status = cli.main(["solve", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def seed_where(right: bool, samples: int = 1) -> int:
    """A run seed at which some (or none) of the first samples are right."""
    root = State(pose(TASK, "24 from 3 5 7 9"))
    for seed in range(1000):
        texts = [response(Prompt(root, sample_seed(seed, root, i)), Sampling()) for i in range(samples)]
        if (RIGHT in texts) is right and (samples == 1 or texts[0] == WRONG):
            return seed
    raise AssertionError


# What is understood


@pytest.mark.parametrize(
    "text",
    [
        "24 from 3 5 7 9",
        "make 24 from 3 5 7 9",
        "Make 24 from 3, 5, 7 and 9",
        "  24   FROM 3,5,7,9 ",
        "24: 3 5 7 9",
        '{"numbers": [3, 5, 7, 9], "target": 24}',
    ],
)
def test_ways_to_pose_one_problem(text):
    problem = pose(TASK, text)
    assert problem.metadata == {"numbers": [3, 5, 7, 9], "target": 24}
    assert problem == TASK.problem({"numbers": [3, 5, 7, 9], "target": 24})


def test_other_tasks_are_posed_by_their_facts_or_words():
    arithmetic = make_task("arithmetic")
    assert pose(arithmetic, "compute 3 + 5 * 7") == pose(arithmetic, '{"expression": "3 + 5 * 7"}')
    assert pose(make_task("maze"), '{"rows": ["S.#", "..G"]}').task == "maze"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("24 form 3 5 7 9", "did you mean 'from'"),
        ("24 from 3 x 7 9", "unknown word 'x'"),
        ("24 from 3 5.5 7", "unknown word '5.5'"),
        ("24 from ３ 5 7", "unknown word"),
        ("24 from 3 5 7 9 [red]", r"unknown word '\[red\]'"),
        ("24 3 5 7 9", "the problem is '24 3 5 7 9'"),
        ("from 3 5", "write for example: 24 from 3 5 7 9"),
        ("24 from", "the problem is"),
        ("24 from 3 from 5", "the problem is"),
        ("make make from 3 5", "the problem is"),
        ("24 from 3", "2 to 8 integers"),
        ("24 from 1 2 3 4 5 6 7 8 9", "2 to 8 integers"),
        ("24 from 0 5", "a countdown number is 0"),
        ("24 from 3 10000", "a countdown number is 10000"),
        ("24 from -3 5", "a countdown number is -3"),
        ("10000 from 3 5", "countdown target is 10000"),
        ("9" * 4000 + " from 3 5", "unknown word"),
        ('{"numbers": [3, 5', "not JSON"),
        ('{"numbers": [3, 5], "targt": 8}', "did you mean 'target'"),
        ("", "write for example"),
    ],
)
def test_what_is_not_understood_is_a_usage_error(text, says):
    with pytest.raises(UsageError, match=says) as error:
        pose(TASK, text)
    assert len(str(error.value)) < 400


def test_a_maze_in_words_asks_for_json():
    with pytest.raises(UsageError, match="as JSON"):
        pose(make_task("maze"), "up up left")


@given(st.text(max_size=30) | st.text(alphabet="0123456789 from,make-{}", max_size=30))
def test_no_text_is_a_crash(text):
    with contextlib.suppress(UsageError):
        assert pose(TASK, text).task == "countdown"


# What can be solved


def test_unsolvable_names_the_nearest():
    with pytest.raises(UsageError, match="5 cannot be made from 1 1 1 1") as error:
        require_solvable(TASK, pose(TASK, "5 from 1 1 1 1"))
    assert "ask for 2, 3 or 4, the nearest" in str(error.value)
    require_solvable(TASK, pose(TASK, "4 from 1 1 1 1"))
    require_solvable(TASK, pose(TASK, "24 from 1 5 5 5"))


def test_unsolvable_of_other_tasks():
    with pytest.raises(ClewError, match="path from S to G"):
        require_solvable(make_task("maze"), pose(make_task("maze"), '{"rows": ["S#", "#G"]}'))


@given(st.lists(st.integers(1, 12), min_size=2, max_size=4), st.integers(-20, 300))
def test_nearest_targets_are_the_nearest(numbers, target):
    found = nearest_targets(numbers, target)
    others = {t for t in reachable_integers(numbers) if t >= 1} - set(found)
    assert all(t in reachable_integers(numbers) for t in found)
    if others:
        assert len(found) == 3
        assert max(abs(t - target) for t in found) <= min(abs(t - target) for t in others)


def test_nearest_targets_of_many_numbers():
    numbers = [2, 4, 6, 8, 10, 12]
    found = nearest_targets(numbers, 9973)
    assert 0 < len(found) <= 3
    assert all(abs(t - 9973) < 12 for t in found)
    assert all(solvable(numbers, t) for t in found)
    assert nearest_targets([1] * 6, 9000) == []
    with pytest.raises(UsageError, match="choose another target"):
        require_solvable(TASK, pose(TASK, "9000 from 1 1 1 1 1 1"))


# What is strange


@pytest.mark.parametrize("text", ["24 from 3 5 7", "24 from 3 5 7 12", "300 from 3 5 7 9", "-1 from 3 5 7 9"])
def test_a_problem_out_of_the_training_range_gets_a_note(text):
    problem = pose(TASK, text)
    world = make_task("countdown:count=4,low=1,high=9,target_high=60")
    assert "this model was trained on 4 numbers from 1 to 9, targets 1 to 60" in strangeness(problem, TASK, world)
    assert "small models are usually trained on" in strangeness(problem, world, None)


def test_a_problem_of_the_training_range_gets_none():
    problem = pose(TASK, "24 from 3 5 7 9")
    assert strangeness(problem, TASK, None) == strangeness(problem, TASK, TASK) == ""
    assert strangeness(problem, TASK, make_task("maze")) == ""


def test_the_training_range_is_that_of_the_run(tmp_path):
    checkpoint = tmp_path / CHECKPOINTS / "rl"
    checkpoint.mkdir(parents=True)
    assert trained_task(tmp_path) is None
    for broken in ("{", "[]", '{"task": 3}', '{"task": "countdwn"}', "{}"):
        (tmp_path / "config.json").write_text(broken)
        assert trained_task(tmp_path) is None
    (tmp_path / "config.json").write_text('{"task": "countdown:high=20"}')
    assert trained_task(tmp_path) == trained_task(checkpoint) == make_task("countdown:high=20")


# What is shown


def test_ideas_stand_on_lines_of_their_own():
    assert laid_out(WRONG) == ["have 9 7 5 3", "try 9 * 3 = 27 left 7 5 no", "  or 9 - 7 = 2 yes", "answer 9 * 3"]
    assert laid_out(RIGHT)[2] == "back try 9 + 3 = 12 left 7 5 try 7 + 5 = 12 yes"
    assert laid_out("First, a.\nWait: b.") == ["First, a.", "Wait: b."]
    assert laid_out("") == []


@given(st.lists(st.sampled_from([c for group in CUES.values() for c in group] + ["1", "=", " ", "\n"])).map(" ".join))
def test_laying_out_keeps_every_word_in_order(text):
    assert " ".join(laid_out(text)).split() == text.split()


@pytest.mark.parametrize("width", [30, 50, 200])
def test_on_a_terminal_words_come_one_by_one_within_its_width(width):
    slept, shown = [], io.StringIO()
    console = Console(file=shown, force_terminal=True, color_system=None, width=width)
    write(RIGHT, console, pace=10, sleep=slept.append)
    lines = shown.getvalue().splitlines()
    assert " ".join(lines).split() == RIGHT.split()
    assert max(map(len, lines)) <= width
    assert all(line.startswith("  ") for line in lines)
    assert slept == [0.1] * len(RIGHT.split())


def test_behaviours_are_coloured_on_a_terminal_only():
    def shown(**how):
        file = io.StringIO()
        write(WRONG, Console(file=file, width=200, **how), pace=0, sleep=pytest.fail)
        return file.getvalue()

    assert "\x1b[33mor 9 - 7" in shown(force_terminal=True, color_system="standard")
    assert "\x1b" not in shown()
    assert shown().split() == WRONG.split()


def test_escape_sequences_of_a_model_do_not_reach_the_terminal():
    file = io.StringIO()
    write("try \x1b]0;owned\x07 [red]5[/red] \x9b2J", Console(file=file, width=200), pace=0)
    assert not {"\x1b", "\x07", "\x9b"} & set(file.getvalue())
    assert "[red]5[/red]" in file.getvalue()


def test_a_right_answer_is_shown_with_its_price(scripted, capsys):
    seed = seed_where(right=True)
    status, out, _ = solved(capsys, "24", "from", 3, 5, 7, 9, "--checkpoint", scripted, "--seed", seed)
    lines = [line.strip() for line in out.splitlines() if line.strip()]
    assert status == 0
    assert lines[0] == "make 24 from 3 5 7 9"
    assert " ".join(lines[1:5]) == RIGHT
    assert lines[5] == "right  3 + 5 + 7 + 9  equals 24"
    assert lines[6].startswith(f"{len(RIGHT) + 1} tokens, 0")
    assert len(lines) == 7


def test_a_wrong_answer_is_shown_with_its_reason_and_what_to_do(scripted, capsys):
    status, out, _ = solved(capsys, "24 from 3 5 7 9", "--checkpoint", scripted, "--seed", seed_where(right=False))
    assert status == 0
    assert "wrong  3 * 9  does not use 5" in out
    assert "a right answer: 3 + 5 + 7 + 9" in out
    assert "--samples 16" in out


def test_an_answer_that_was_cut_off_says_so(scripted, capsys):
    _, out, _ = solved(capsys, "24 from 3 5 7 9", "--checkpoint", scripted, "--max-tokens", 9)
    assert "(cut off at 9 tokens)" in out


def test_a_policy_that_fails_is_an_error_without_a_traceback(scripted, capsys, monkeypatch):
    from clew.recipes import stage

    monkeypatch.setattr(stage, "load_policy", lambda path: ScriptedPolicy(lambda prompt, sampling: 1 / 0))
    status, _, err = solved(capsys, "24 from 3 5 7 9", "--checkpoint", scripted)
    assert status == 1
    assert "problem 'countdown:3-5-7-9=24': the policy failed: ZeroDivisionError" in err
    assert "Traceback" not in err


# JSON


def test_json_is_what_the_samples_say(scripted, capsys):
    seed, n = seed_where(right=True, samples=6), 6
    arguments = ("24", "from", "3", "5", "7", "9", "--checkpoint", scripted, "--samples", n, "--seed", seed, "--json")
    status, out, _ = solved(capsys, *arguments)
    found = json.loads(out)
    root = State(pose(TASK, "24 from 3 5 7 9"))
    texts = [response(Prompt(root, sample_seed(seed, root, i)), Sampling()) for i in range(n)]
    assert status == 0
    assert (found["verdict"], found["value"], found["answer"]) == ("right", 1.0, "3 + 5 + 7 + 9")
    assert found["problem"] == {
        "id": "countdown:3-5-7-9=24",
        "task": "countdown",
        "numbers": [3, 5, 7, 9],
        "target": 24,
    }
    assert found["response"] == RIGHT
    assert found["behaviours"] == {str(b): times for b, times in count([RIGHT]).items()}
    assert (found["right"], found["samples"]) == (texts.count(RIGHT), n)
    assert found["tokens"] == len(RIGHT) + 1
    assert found["cost"]["tokens_sampled"] == sum(len(t) + 1 for t in texts)
    assert found["cost"]["verifier_calls"] == found["cost"]["model_calls"] == n
    assert (found["finish"], found["note"]) == ("stop", "")


def test_a_random_checkpoint_answers_and_equal_seeds_answer_equally(tiny, capsys):
    arguments = ("24", "from", 3, 5, 7, 300, "--checkpoint", tiny, "--max-tokens", 20, "--json", "--samples", 2)
    with pytest.raises(json.JSONDecodeError):
        json.loads(solved(capsys, *arguments)[1])  # 24 cannot be made with the 300
    arguments = ("305", "from", 3, 5, 3, 300, *arguments[6:])
    status, out, err = solved(capsys, *arguments)
    found, again = json.loads(out), json.loads(solved(capsys, *arguments)[1])
    assert status == 0
    assert found["verdict"] == "wrong"
    assert found["tokens"] <= 20
    assert "trained on 4 numbers from 1 to 9" in found["note"]
    assert "Traceback" not in err
    found["cost"].pop("seconds"), again["cost"].pop("seconds")
    assert found == again


# What is refused


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["5", "from", "1", "1", "1", "1"], "ask for 2, 3 or 4"),
        (["24", "frmo", "3", "5"], "did you mean 'from'"),
        (["24", "from", "3", "0"], "a countdown number is 0"),
        (["24 from 3 5 7 9", "--samples", "0"], "n is 0"),
        (["24 from 3 5 7 9", "--samples", "4", "--temperature", "0"], "all samples are the same"),
        (["24 from 3 5 7 9", "--temperature", "-1"], "temperature is -1.0"),
        (["24 from 3 5 7 9", "--max-tokens", "0"], "max_tokens is 0"),
        (["24 from 3 5 7 9", "--mode", "thnk"], "mode"),
        (["24 from 3 5 7 9", "--pace", "-1"], "pace is -1.0"),
        (["24 from 3 5 7 9", "--task", "countdwon"], "did you mean 'countdown'"),
        (["--json"], "--json without a problem"),
        (["24 from 3 5 7 9", "--checkpont", "x"], "did you mean '--checkpoint'"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, list) else None,
)
def test_what_is_refused_is_refused_before_the_model_is_loaded(arguments, says, monkeypatch, capsys):
    from clew.recipes import stage

    monkeypatch.setattr(stage, "load_policy", lambda path: pytest.fail("loaded"))
    status, out, err = solved(capsys, *arguments, "--checkpoint", "x")
    assert status == 2
    assert says in err
    assert "accepted: " in err and "what to do: " in err
    assert out == ""


@pytest.mark.parametrize("problem", [[], ["24 from 3 5 7 9"]], ids=["ask", "one"])
def test_a_missing_checkpoint(problem, tmp_path, capsys):
    status, out, err = solved(capsys, *problem, "--checkpoint", tmp_path / "none")
    assert (status, out) == (1, "")
    assert "there is no checkpoint at" in err and "what to do: " in err


# One after another


def test_lines_of_standard_input_are_solved_until_it_ends(scripted, capsys, monkeypatch):
    typed = "24 from 3 5 7 9\n\n5 from 1 1 1 1\nhello\nmake 24 from 3 5 7 9\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    status, out, err = solved(capsys, "--checkpoint", scripted)
    assert status == 0
    assert out.count("make 24 from 3 5 7 9") == 2
    assert "5 cannot be made" in err and "unknown word 'hello'" in err
    assert ">" not in out


def test_the_same_problem_again_draws_another_sample(scripted, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("24 from 3 5 7 9\n" * 12))
    _, out, _ = solved(capsys, "--checkpoint", scripted)
    assert 0 < out.count("  right  ") < 12
    root = State(pose(TASK, "24 from 3 5 7 9"))
    seeds = [0, *(derive_seed(0, "solve", again) for again in range(1, 12))]
    texts = [response(Prompt(root, sample_seed(seed, root, 0)), Sampling()) for seed in seeds]
    assert out.count("  right  ") == texts.count(RIGHT)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("end", ["", EOFError(), KeyboardInterrupt()], ids=["empty", "EOF", "Ctrl-C"])
def test_a_terminal_is_greeted_and_left_cleanly(end, scripted, capsys, monkeypatch):
    answers = iter(["24 from 3 5 7 9", end])

    def typed(prompt):
        answer = next(answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", typed)
    status, out, err = solved(capsys, "--checkpoint", scripted)
    assert status == 0
    assert "24 from 3 5 7 9. An empty line ends." in out
    assert "make 24 from 3 5 7 9" in out
    assert "Traceback" not in err and "interrupted" not in err
