"""Files of problems as tasks."""

from __future__ import annotations

import json

import pytest

from clew.core.errors import ClewError, InvalidValue, UnknownName, UsageError
from clew.core.task import split_of
from clew.core.types import Outcome
from clew.tasks import FileTask, make_task

ROWS = [{"question": f"What is {n} + {n}?", "answer": 2 * n, "difficulty": "easy"} for n in range(60)]


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "a,b:c.jsonl", ROWS)


def test_problems_are_split_by_hash_and_keep_their_answers_to_themselves(path):
    task = make_task(f"file:{path},verifier=numbers")
    assert task == FileTask(path=str(path), verifier="numbers")
    counts = {split: task.count_problems(split) for split in ("train", "validation", "test")}
    assert sum(counts.values()) == 60
    for split, count in counts.items():
        problems = task.problems(split, count, 3)
        assert {split_of(p.id) for p in problems} <= {split} and len({p.id for p in problems}) == count
        assert task.problems(split, count, 3)[: count // 2] == task.problems(split, count // 2, 3)
        for p in problems:
            facts = json.loads(json.dumps(dict(p.metadata)))
            assert task.problem(facts) == p and task.gold(p) not in facts.values()
            assert task.verify(p, rf"so \boxed{{{task.gold(p)}}}").right and task.difficulty(p) == "easy"
    with pytest.raises(InvalidValue):
        task.problems("test", counts["test"] + 1, 0)


def test_every_split_has_all_problems_if_asked_for(path):
    task = make_task(f"file:{path},verifier=math,split=all")
    assert {p.id for p in task.problems("test", 60, 0)} == {p.id for p in task.problems("train", 60, 1)}


def test_messages_ids_and_verifiers_of_rows(tmp_path):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of Italy?"}]
    rows = [
        {"messages": chat, "answer": "Rome", "verifier": "exact", "id": "italy", "difficulty": 2},
        {"problem": "Pick: (A) x (B) y", "answer": "B", "verifier": "choice", "id": 7},
    ]
    task = make_task(f"file:{write(tmp_path / 'x.jsonl', rows)},split=all")
    italy = task.problem({"id": "italy"})
    assert [m.content for m in italy.prompt] == ["Be brief.", "Capital of Italy?"] and italy.id == "file:italy"
    assert task.verify(italy, "The answer is ROME.").right and task.difficulty(italy) == "2"
    assert task.verify(task.problem({"id": "7"}), "answer (b)").right
    free = task.problem({"question": "Anything else?"})
    assert task.verify(free, "answer no").outcome is Outcome.UNSCORED
    with pytest.raises(InvalidValue):
        task.gold(free)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"question": "x", "answer": 1', "not JSON"),
        ("[1]", "list instead of an object"),
        ('{"answer": 1}', "no column question"),
        ('{"question": "x"}', "column answer is missing"),
        ('{"question": "x", "answer": [1]}', "answer is list"),
        ('{"question": "x", "answer": true}', "answer is bool"),
        ('{"question": " ", "answer": 1}', "question is empty"),
        ('{"question": "x", "answer": "one"}', "not a number"),
        ('{"question": "x", "answer": 1, "verifier": "magic"}', "unknown verifier 'magic'"),
        ('{"question": [{"role": "robot", "content": "x"}], "answer": 1}', "role 'robot'"),
        ('{"question": "What is 0 + 0?", "answer": 0}', "line 1 again"),
        ("[" * 100_000, "not JSON"),
        (b'{"question": "\xff", "answer": 1}', "not JSON"),
        (r'{"question": "x", "answer": 1, "id": "a\ud800"}', "half of a character"),
        (r'{"question": "x\udfff", "answer": 1}', "half of a character"),
        ('{"question": "x", "answer": ' + "9" * 5000 + "}", "not JSON"),
        ('{"question": "x", "answer": NaN}', "not a number"),
    ],
)
def test_a_bad_row_is_an_error_with_its_line_or_is_left_out(tmp_path, capsys, line, reason):
    path = write(tmp_path / "bad.jsonl", ROWS[:2])
    with path.open("ab") as file:
        file.write(b"\n\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    with pytest.raises(UsageError, match=rf"bad\.jsonl, line 4: .*{reason}"):
        make_task(f"file:{path},verifier=numbers").problems("test", 0, 0)
    patient = make_task(f"file:{path},verifier=numbers,skip_bad=true,split=all")
    assert len(patient.problems("test", 2, 0)) == 2
    assert "1 bad rows were left out, 2 are used" in capsys.readouterr().err


def test_parquet(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(ROWS), path)
    task = make_task(f"file:{path},verifier=math,split=all")
    assert len(task.problems("test", 60, 0)) == 60
    (tmp_path / "no.parquet").write_bytes(b"not parquet")
    with pytest.raises(ClewError, match=r"no\.parquet"):
        make_task(f"file:{tmp_path / 'no.parquet'},verifier=math").problems("test", 1, 0)


def test_bad_specs(path):
    with pytest.raises(UnknownName, match="did you mean 'math'"):
        make_task(f"file:{path},verifier=maths")
    with pytest.raises(UnknownName, match="did you mean 'verifier'"):
        make_task(f"file:{path},verifyer=math")
    for settings in ("split=half", "skip_bad=yes", "split=all,split=all"):
        with pytest.raises(InvalidValue):
            make_task(f"file:{path},{settings}")
    with pytest.raises(InvalidValue, match="No such file"):
        make_task("file:nowhere.jsonl,verifier=math").problems("test", 1, 0)
    with pytest.raises(UsageError, match="no verifier is named"):
        make_task(f"file:{path}").problems("test", 1, 0)


def test_a_split_with_too_few_problems_says_how_many_there_are_and_what_to_do(tmp_path):
    path = tmp_path / "few.jsonl"
    path.write_text('{"question": "1 + 1", "answer": 2}\n')
    task = FileTask(path=str(path), verifier="numbers")
    there = task.count_problems("test")
    with pytest.raises(
        InvalidValue, match=rf"accepted: 0 to {there}, the problems of .*few\.jsonl in split 'test'"
    ) as told:
        task.problems("test", 9, 0)
    assert "split=all" in told.value.advice
    assert len(FileTask(path=str(path), verifier="numbers", split="all").problems("test", 1, 0)) == 1
