"""The command line: its surface is a golden file, its start imports nothing heavy, its errors have three parts.

After a change of options on purpose: `CLEW_UPDATE_GOLDEN=1 python -m pytest tests/test_cli.py`, and read the diff.
"""

from __future__ import annotations

import dataclasses
import errno
import importlib
import io
import json
import os
import re
import subprocess
import sys
import types
from itertools import pairwise
from pathlib import Path

import pytest

from clew import __version__, cli
from clew.core.errors import ClewError, UnknownName, UsageError

GOLDEN = Path(__file__).parent / "golden" / "cli.txt"
HEAVY = {"torch", "numpy", "scipy", "transformers", "tokenizers", "tyro", "rich", "matplotlib", "jinja2"}
PROBLEM = '{"numbers": [3, 5, 7, 11], "target": 24}'
RIGHT = "(7 - 3) * (11 - 5)"
MAX_FIELDS = 27
OPTION = re.compile(r"\W*--[a-z][\w.-]*( [A-Z]+\b| \{\S+)?")
"""An option and its kind of value: INT, PATH, {a,b}, {None}|PATH."""

pytestmark = pytest.mark.filterwarnings("error")


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clew", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, env=os.environ)


def surface() -> str:
    parts = [cli.overview()] + [f"$ clew {name} --help\n{cli.help_of(name)}" for name in cli.VERBS]
    return "\n\n".join(parts) + "\n"


def assert_three_parts(message: str) -> None:
    assert "Traceback" not in message
    lines = message.strip().splitlines()
    assert lines[0].startswith("clew: ")
    assert any(line.startswith("  accepted: ") for line in lines)
    assert lines[-1].startswith("  what to do: ")


def test_surface_is_the_golden_file(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    shown = surface()
    if os.environ.get("CLEW_UPDATE_GOLDEN"):
        GOLDEN.write_text(shown, encoding="utf-8")
    assert shown == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", cli.VERBS)
def test_recipe_keeps_the_contract(name):
    module = importlib.import_module(cli.VERBS[name].module)
    assert callable(module.main)
    assert f"clew {name}" in module.EXAMPLES
    fields = dataclasses.fields(module.CONFIG)
    assert len(fields) <= MAX_FIELDS
    assert module.CONFIG.__dataclass_params__.frozen
    assert all(field.kw_only for field in fields)
    assert module.CONFIG.__doc__
    assert not module.CONFIG.__doc__.startswith(f"{module.CONFIG.__name__}(")


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_option_is_explained(name, monkeypatch):
    # Narrow enough for one column of options.
    monkeypatch.setenv("COLUMNS", "100")
    lines = cli.help_of(name).splitlines()
    for line, after in pairwise(lines):
        if (option := OPTION.match(line)) and "--config" not in line:
            # A wide option has its explanation on the next line.
            explanation = (line[option.end() :].strip() or after).strip()
            assert explanation, line
            assert not explanation.startswith(("(", "-")), line


@pytest.mark.parametrize("statement", ["import clew", "from clew.cli import main; main(['--help'])"])
def test_start_imports_nothing_heavy(statement):
    code = f"import sys; {statement}; print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("name", cli.VERBS)
def test_help_of_a_verb_imports_no_torch(name):
    code = f"import sys; from clew.cli import help_of; help_of({name!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_overview_names_every_verb(arguments, capsys):
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.VERBS)


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"clew {__version__}\n"


@pytest.mark.parametrize("arguments", [["verify", "--help"], ["help", "verify"], ["verify", "--problem", "x", "-h"]])
def test_help_of_a_verb_has_its_options_and_examples(arguments, capsys):
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "--problem" in out
    assert out.rstrip().endswith("--answer - --json")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["verfy"], "did you mean 'verify'?"),
        (["help", "docter"], "did you mean 'doctor'?"),
        (["--versoin"], "did you mean '--version'?"),
        (["verify", "--problem", PROBLEM, "--answer", "1", "--tsak", "maze"], "did you mean '--task'?"),
        (["verify", "--problm", PROBLEM, "--answer", "1"], "did you mean '--problem'?"),
        (["verify", "--problem", PROBLEM, "--answer=1", "--jsom"], "did you mean '--json'?"),
        (["verify", "--problem", PROBLEM], "--answer"),
        (["verify", "--problem", PROBLEM, "--answer"], "--answer"),
        (["verify", "--problem", "{", "--answer", "1"], "--problem is not JSON"),
        (["verify", "--problem", "[" * 100_000, "--answer", "1"], "--problem is not JSON"),
        (["verify", "--problem", "[3]", "--answer", "1"], "a JSON object"),
        (["verify", "--problem", "{}", "--answer", "1"], "numbers"),
        (["verify", "--task", "contdown", "--problem", PROBLEM, "--answer", "1"], "did you mean 'countdown'?"),
        (["verify", "--problem", PROBLEM, "--answer", "1", "stray"], "'stray'"),
        (["report"], "The run directory"),
        (["verify", "--config"], "a TOML file"),
        (["verify", "--config", "no/such.toml"], "no/such.toml"),
    ],
)
def test_wrong_use_is_status_2_with_three_parts(arguments, named, capsys):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert_three_parts(err)
    assert named in err


def test_whole_process_shows_no_traceback():
    done = run("verify", "--problem", "{", "--answer", "1", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert_three_parts(done.stderr)


@pytest.mark.parametrize(
    ("answer", "verdict", "value"),
    [(RIGHT, "right", 1.0), ("3 + 5 + 7 + 11", "wrong", 0.0), ("-3 + 5", "wrong", 0.0), ("2 ** 3", "wrong", 0.0)],
)
def test_verify_json_is_one_object(answer, verdict, value, capsys):
    assert cli.main(["verify", "--problem", PROBLEM, "--answer", answer, "--json"]) == 0
    answered = json.loads(capsys.readouterr().out)
    assert set(answered) == {"verdict", "value", "reason"}
    assert (answered["verdict"], answered["value"]) == (verdict, value)


def test_verify_reads_standard_input():
    done = run("verify", "--problem", PROBLEM, "--answer", "-", "--json", stdin=RIGHT + "\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["verdict"] == "right"


def test_settings_from_a_file_yield_to_the_command_line(tmp_path):
    file = tmp_path / "options.toml"
    file.write_text('task = "maze"\nanswer = "from the file"\njson = true\n')
    config = cli.parse("verify", ["--config", str(file), "--problem", "{}", "--task", "arithmetic"])
    assert (config.task, config.answer, config.json) == ("arithmetic", "from the file", True)


def test_of_very_many_options_only_the_nearest_are_told(capsys):
    assert cli.main(["rl", "--settings.stepz", "2"]) == 2
    err = capsys.readouterr().err
    assert_three_parts(err)
    assert "did you mean '--settings.steps'?" in err
    assert max(map(len, err.splitlines())) < 300
    assert str(UnknownName("letter", "y", "xyz"[::2])).count("x, z") == 1


def test_unknown_key_of_a_file_names_the_nearest(tmp_path, capsys):
    file = tmp_path / "options.toml"
    file.write_text("[deep]\nanwser = 1\n")
    assert cli.main(["verify", f"--config={file}", "--problem", "{}"]) == 2
    err = capsys.readouterr().err
    assert_three_parts(err)
    assert "deep.anwser" in err


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeConfig:
    """A recipe that raises."""

    out: Path = Path("runs/x")
    """Where."""
    resume: bool = False
    """Go on."""


@pytest.fixture
def raising(monkeypatch):
    """Make the verb `doctor` raise what it is given."""

    def arrange(error: BaseException) -> None:
        def recipe(config: FakeConfig) -> int:
            raise error

        fake = types.ModuleType("fake_recipe")
        fake.CONFIG, fake.EXAMPLES, fake.main = FakeConfig, "clew doctor", recipe
        monkeypatch.setitem(sys.modules, "fake_recipe", fake)
        monkeypatch.setitem(cli.VERBS, "doctor", cli.Verb("fake_recipe", "look", "raises"))

    return arrange


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (ClewError("it broke", "whole ones", "mend it"), 1, "it broke"),
        (UsageError("it was wrong", "right ones", "mend it"), 2, "it was wrong"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 1, "the disk is full while writing /data/x"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 1, "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), 1, "no permission for /data/x"),
    ],
)
def test_errors_of_a_recipe(error, status, says, raising, capsys):
    raising(error)
    assert cli.main(["doctor"]) == status
    err = capsys.readouterr().err
    assert_three_parts(err)
    assert says in err


def test_a_bug_keeps_its_trace(raising):
    raising(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli.main(["doctor"])


def test_interrupt_says_what_is_kept_and_how_to_go_on(raising, capsys):
    raising(KeyboardInterrupt())
    assert cli.main(["doctor"]) == 130
    err = capsys.readouterr().err
    assert "--resume" in err
    assert "kept" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["sft", "--out", "x"], "the same command again with --overwrite"),
        (["sft", "--overwrite"], "the same command again\n"),
        (["doctor"], "the same command again\n"),
        (["speedrun"], "--resume"),
    ],
    ids=" ".join,
)
def test_after_an_interrupt_the_advice_is_a_command_that_works(arguments, advice, capsys):
    assert cli._interrupted(arguments) == 130
    assert advice in capsys.readouterr().err


def test_reader_that_goes_away_is_met_with_silence():
    code = "import os; from clew.cli import main; import sys; os.close(0); sys.exit(main(['--help']))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 141


def test_doctor_json(capsys):
    from clew.recipes import doctor

    assert cli.main(["doctor", "--json"]) == 0
    answered = json.loads(capsys.readouterr().out)
    assert answered["ok"] is True
    assert {"python", "torch", "memory", "disk", "temporary files"} <= {c["name"] for c in answered["checks"]}
    assert doctor.check_python((3, 10, 14)).status == "fail"
    assert doctor.check_package("no_such_package_at_all").status == "fail"
    assert doctor.check_threads(1, None).status == "warn"
    assert doctor.check_threads(2, "64").status == "warn"
    assert doctor.check_threads(2, "2").status == "ok"
    assert doctor.check_memory(0.5).status == "warn"
    assert doctor.check_memory(64.0).status == "ok"


def test_doctor_status_is_1_when_something_fails(monkeypatch, capsys):
    from clew.recipes import doctor

    monkeypatch.setattr(doctor, "examine", lambda out: [doctor.Check("python", "fail", "2.7", "install a newer one")])
    assert cli.main(["doctor"]) == 1
    assert "install a newer one" in capsys.readouterr().out


def test_closed_stdout_object_does_not_hide_the_status(monkeypatch):
    broken = io.StringIO()
    monkeypatch.setattr(broken, "write", lambda text: (_ for _ in ()).throw(BrokenPipeError()))
    monkeypatch.setattr(sys, "stdout", broken)
    assert cli.main(["--version"]) == 141
