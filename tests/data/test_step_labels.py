"""Step labels on disk, exactly; rows of others with file and line; PRM800K."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.cost import Cost
from clew.core.errors import InvalidValue, UnknownName
from clew.core.types import Message, Problem, Span
from clew.data.prm800k import read_prm800k, solutions_of
from clew.data.step_labels import (
    StepLabels,
    decode_labels,
    encode_labels,
    load_labels,
    save_labels,
    save_rows,
    stepwise_rows,
)

PROBLEM = Problem("countdown:1-2=3", "countdown", (Message("user", "é 1 2"),), {"numbers": [1, 2], "target": 3})
ONE = StepLabels(
    problem=PROBLEM,
    steps=("try 1 + 2 =", " 3", " answer\u2028 1 + 2"),
    labels=(0.125, None, 1.0),
    weights=(1.0, 0.0, 0.5),
    visits=(8, 0, 1),
    tokens=(5, 6, 7, 8),
    spans=(Span(0, 2), Span(2, 3), Span(3, 4)),
    made="monte-carlo soft k=8",
    outcome="right",
    unscored=2,
    cost=Cost(tokens_sampled=7, model_calls=3, seconds=0.25),
)
HUMAN = StepLabels(problem=PROBLEM, steps=("a", "b"), labels=(1.0, 0.0))
each_kind = pytest.mark.parametrize("kind", ["jsonl", "parquet"])


def rows_of_labels():
    size = st.integers(0, 5)
    label = st.none() | st.floats(0.0, 1.0)
    return size.flatmap(
        lambda n: st.builds(
            StepLabels,
            problem=st.just(PROBLEM),
            steps=st.tuples(*[st.text(max_size=4)] * n),
            labels=st.tuples(*[label] * n),
            visits=st.tuples(*[st.integers(0, 9)] * n),
            made=st.text(max_size=3),
        )
    )


@each_kind
def test_files_give_back_what_was_saved(tmp_path, kind):
    path = tmp_path / f"labels.{kind}"
    save_labels(path, [ONE, HUMAN])
    assert load_labels(path).rows == [ONE, HUMAN]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@given(rows_of_labels())
def test_rows_give_back_what_was_encoded(labels):
    assert decode_labels(json.loads(json.dumps(encode_labels(labels)))) == labels


def test_the_first_wrong_step():
    assert ONE.first_wrong == 0 and HUMAN.first_wrong == 1
    assert StepLabels(problem=PROBLEM, steps=("a",), labels=(None,)).first_wrong is None


def test_rows_of_stepwise_supervision():
    assert stepwise_rows([ONE, HUMAN, StepLabels(problem=PROBLEM, steps=("a",), labels=(None,))]) == [
        {"prompt": "é 1 2", "completions": ["try 1 + 2 ="], "labels": [False]},
        {"prompt": "é 1 2", "completions": ["a", "b"], "labels": [True, False]},
    ]
    even = StepLabels(problem=PROBLEM, steps=("a", "b"), labels=(0.5, 0.51))
    assert [row["labels"] for row in stepwise_rows([even])] == [[False, True]]
    assert [row["labels"] for row in stepwise_rows([even], threshold=0.0)] == [[True, True]]


@pytest.mark.slow
@each_kind
def test_files_of_stepwise_supervision(tmp_path, kind):
    rows = stepwise_rows([ONE, HUMAN])
    save_rows(tmp_path / f"rows.{kind}", rows)
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        {"jsonl": "json"}.get(kind, kind), data_files=str(tmp_path / f"rows.{kind}"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert loaded.to_list() == rows


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": (1.0,)},
        {"labels": (1.5, 0.0)},
        {"labels": (float("nan"), 0.0)},
        {"weights": (1.0, -1.0)},
        {"weights": (1.0, float("inf"))},
        {"labels": (None, 0.0), "weights": (1.0, 1.0)},
        {"visits": (1,)},
        {"tokens": (1, 2)},
    ],
)
def test_labels_that_make_no_sense(changes):
    with pytest.raises(InvalidValue):
        StepLabels(**{"problem": PROBLEM, "steps": ("a", "b"), "labels": (1.0, 0.0)} | changes)


BAD_LINES = [b"{", b"[]", b"null", b"3", b'{"problem": 1}', b"\xff\xfe", b"[" * 100_000, b'{"steps": ["a"]}', b'"a"']


def test_bad_rows_are_named_by_file_and_line(tmp_path):
    good = json.dumps(encode_labels(HUMAN)).encode()
    for bad in BAD_LINES:
        path = tmp_path / "labels.jsonl"
        path.write_bytes(good + b"\n\n" + bad + b"\n" + good)
        with pytest.raises(InvalidValue, match=r"labels\.jsonl:3"):
            load_labels(path)
        read = load_labels(path, skip_bad=True)
        assert read.rows == [HUMAN, HUMAN]
        assert [one.line for one in read.bad] == [3] and read.bad[0].reason


def test_files_that_cannot_be_read(tmp_path):
    for name in ("none.jsonl", "none.parquet"):
        with pytest.raises(InvalidValue, match="check the path"):
            load_labels(tmp_path / name)
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(InvalidValue):
        load_labels(tmp_path / "text.parquet")
    with pytest.raises(UnknownName):
        save_labels(tmp_path / "labels.csv", [])


# PRM800K.


def completion(text, rating):
    return {"text": text, "rating": rating, "flagged": None}


ROW = {
    "labeler": "x",
    "question": {"problem": "2 + 2 * 3?", "ground_truth_answer": "8"},
    "label": {
        "steps": [
            {"completions": [completion("2 * 3 = 6", 1)], "human_completion": None, "chosen_completion": 0},
            {
                "completions": [completion("2 + 6 = 9", -1), completion("so", 0), completion("2 + 6 = 8", 1)],
                "human_completion": None,
                "chosen_completion": 2,
            },
            {
                "completions": [completion("eh", None)],
                "human_completion": {"text": "it is 8"},
                "chosen_completion": None,
            },
            {"completions": [completion("# Answer 9", -1)], "human_completion": None, "chosen_completion": None},
        ],
        "finish_reason": "found_error",
    },
}


def test_solutions_that_people_rated():
    main, wrong, neutral, unrated = solutions_of(ROW, neutral=None)
    assert main.steps == ("2 * 3 = 6", "2 + 6 = 8", "it is 8", "# Answer 9")
    assert main.labels == (1.0, 1.0, 1.0, 0.0) and main.weights == (1.0,) * 4
    assert main.outcome == "wrong" and main.first_wrong == 3
    assert (wrong.steps, wrong.labels, wrong.weights) == (("2 * 3 = 6", "2 + 6 = 9"), (1.0, 0.0), (0.0, 1.0))
    assert (neutral.steps[-1], neutral.labels[-1], neutral.weights) == ("so", None, (0.0, 0.0))
    assert (unrated.steps[-1], unrated.labels[-1]) == ("eh", None)
    assert solutions_of(ROW)[2].labels[-1] == 1.0
    assert solutions_of({"question": {"problem": "?"}, "label": {"steps": []}}) == []


def test_bad_ratings_are_named_by_file_and_line(tmp_path):
    path = tmp_path / "phase.jsonl"
    bads = []
    for rating, chosen in ((2, 0), ("1", 0), (True, 0), (1, 5), (1, -1), (1, "0")):
        step = {"completions": [completion("a", rating)], "human_completion": None, "chosen_completion": chosen}
        bads.append({"question": {"problem": "?"}, "label": {"steps": [step], "finish_reason": "solution"}})
    lines = [json.dumps(row) for row in (ROW, *bads, ROW)]
    path.write_text("\n".join(lines))
    with pytest.raises(InvalidValue, match=r"phase\.jsonl:2"):
        read_prm800k(path)
    read = read_prm800k(path, skip_bad=True)
    assert [one.line for one in read.bad] == [2, 3, 4, 5, 6, 7]
    assert len(read.rows) == 8
