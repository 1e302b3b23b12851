"""clew tree: the page it writes or serves, and what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from clew import cli
from clew.core.types import Message, Problem, Sampling
from clew.data.searches import save_tree
from clew.search import BestOfN, TabularPolicy, run_searches
from clew.tasks import make_task

POLICY = TabularPolicy(("<end>", "1"), lambda state: [0.5, 0.5])


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run"
    (path / "trees").mkdir(parents=True)
    for i in range(3):
        problem = Problem(f"toy:{i}", "toy", (Message("user", f"count to {i}"),), {})
        strategy = BestOfN(n=4, sampling=Sampling(max_tokens=5), guide="scorer")
        task = make_task("countdown")
        (outcome,) = run_searches(strategy, [problem], POLICY, task=task, scorer=Length())
        save_tree(path / "trees" / f"{i:04}-toy_{i}.json", outcome.result.tree)
    return path


class Length:
    name = "length"

    def score(self, states, completions):
        return [float(len(state.tokens)) for state in states]

    def cost_tokens(self, states):
        return 0


def shown(capsys, *arguments):
    status = cli.main(["tree", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_page_is_written_into_the_run(run, capsys):
    status, out, _ = shown(capsys, run, "--json")
    assert status == 0
    assert json.loads(out) == {"page": str(run / "tree.html"), "problems": 3, "nodes": 15}
    assert (run / "tree.html").read_text().count('type="text/plain"') == 3


def test_one_problem_elsewhere(run, capsys, tmp_path):
    out_file = tmp_path / "one.html"
    status, out, _ = shown(capsys, run, "--problem", "toy:2", "--out", out_file)
    assert (status, out) == (0, f"{out_file}\n")
    assert out_file.read_text().count('type="text/plain"') == 1
    assert not (run / "tree.html").exists()


def test_a_browser_is_opened_only_for_a_person(run, capsys, monkeypatch):
    import webbrowser

    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    shown(capsys, run)
    assert opened == []
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown(capsys, run, "--no-open")
    assert opened == []
    shown(capsys, run)
    assert opened == [(run / "tree.html").as_uri()]


def test_it_is_served_to_this_machine_until_ctrl_c(run):
    command = [sys.executable, "-m", "clew", "tree", str(run), "--serve", "--json"]
    serving = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        url = json.loads(serving.stdout.readline())["page"]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=30) as answer:
            page = answer.read().decode()
    finally:
        serving.send_signal(signal.SIGINT)
        _, err = serving.communicate(timeout=30)
    assert page.startswith("<!doctype html>") and page.count('type="text/plain"') == 3
    assert serving.returncode == 0
    assert "Traceback" not in err
    assert not (run / "tree.html").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["absent"], 1, "there is no run directory absent"),
        (["RUN", "--problem", "7"], 2, "a place from 0 to 2"),
        (["RUN", "--problem", "tony:1"], 2, "did you mean 'toy:1'?"),
        (["RUN", "--port", "99999"], 2, "from 0 to 65535"),
        (["RUN", "--out", "nowhere/page.html"], 1, "directory does not exist"),
        (["RUN", "--problm", "1"], 2, "did you mean '--problem'?"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, list) else None,
)
def test_what_is_refused(arguments, status, says, run, capsys):
    found, out, err = shown(capsys, *[run if a == "RUN" else a for a in arguments])
    assert (found, out) == (status, "")
    assert says in err
    assert "accepted: " in err and "what to do: " in err


def test_a_damaged_tree_is_said_to_be(run, capsys):
    file = run / "trees" / "0001-toy_1.json"
    file.write_text(file.read_text().replace("count to 1", "count to 9"))
    status, _, err = shown(capsys, run)
    assert status == 1
    assert "0001-toy_1.json is damaged" in err
