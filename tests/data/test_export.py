"""Rows for other trainers: their columns, both forms, and files that give back what was saved."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clew.core.errors import InvalidValue, UnknownName
from clew.core.types import Message, Outcome, Problem, Span
from clew.data.expert import Solution
from clew.data.export import (
    action_rows,
    as_text,
    conversation,
    dpo_rows,
    kto_rows,
    load_rows,
    plain,
    save_rows,
    sft_rows,
    step_rows,
    target_rows,
)
from clew.data.origin import Origin
from clew.data.pairs import Pair
from clew.data.search_data import Action
from clew.data.step_labels import StepLabels
from clew.data.targets import Target

PROBLEM = Problem("toy:1", "toy", (Message("system", "be brief"), Message("user", "1 + 1 =")))
ORIGIN = Origin(run="runs/a", stage="search", strategy="mcts", tree="0000-toy", node=4)
FROM = {"run": "runs/a", "stage": "search", "strategy": "mcts", "tree": "0000-toy", "node": 4, "sample": None}
FROM |= {"problem": "toy:1", "task": "toy"}
PROMPT = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "1 + 1 ="}]
NASTY = "é\u2028 <|end|> \x00 \ud83d\ude00"
each_kind = pytest.mark.parametrize("kind", ["jsonl", "parquet"])


def solution(outcome, text="2", **others):
    return Solution(problem=PROBLEM, tokens=(5, 0), text=text, outcome=outcome, value=1.0, origin=ORIGIN, **others)


PAIR = Pair(
    problem=PROBLEM,
    prefix=(7,),
    chosen=(5, 0),
    rejected=(6,),
    chosen_value=0.75,
    rejected_value=0.25,
    prefix_text="It is",
    chosen_text=" 2",
    rejected_text=" 3",
    chosen_visits=8,
    rejected_visits=4,
    chosen_origin=ORIGIN,
    rejected_origin=Origin(run="runs/a", stage="search", strategy="mcts", tree="0000-toy", node=5),
)
ACTION = Action(problem=PROBLEM, prefix=(7,), tokens=(5,), prefix_text="It is", text=" 2", value=0.5, origin=ORIGIN)
TARGET = Target(
    problem=PROBLEM,
    prefix=(7,),
    actions=((5,), (6, 6)),
    probabilities=(0.75, 0.25),
    visits=(3, 1),
    prefix_text="It is",
    texts=(" 2", " 3"),
    origin=ORIGIN,
)


def test_solutions_as_prompt_and_completion():
    (row,) = sft_rows([solution(Outcome.RIGHT, logprobs=(-0.5, -0.25), learnt=(False, True))])
    assert row["prompt"] == PROMPT
    assert row["completion"] == [{"role": "assistant", "content": "2"}]
    assert (row["completion_tokens"], row["completion_logprobs"]) == ([5, 0], [-0.5, -0.25])
    assert (row["completion_sampled"], row["outcome"], row["value"]) == ([False, True], "right", 1.0)
    assert {name: row[name] for name in FROM} == FROM


def test_labels_are_of_what_was_judged():
    every = [solution(Outcome.RIGHT), solution(Outcome.UNSCORED), solution(None), solution(Outcome.WRONG)]
    assert [row["label"] for row in kto_rows(every)] == [True, False]


def test_pairs_in_both_forms():
    (talk,), (text,) = dpo_rows([PAIR]), dpo_rows([PAIR], as_text())
    assert (talk["prompt"], talk["chosen"]) == (PROMPT, [{"role": "assistant", "content": "It is 2"}])
    assert talk["rejected"] == [{"role": "assistant", "content": "It is 3"}]
    assert text["prompt"] == "be brief\n1 + 1 =\nIt is"
    assert (text["chosen"], text["rejected"]) == (" 2", " 3")
    for row in (talk, text):
        assert (row["prefix_tokens"], row["chosen_tokens"], row["rejected_tokens"]) == ([7], [5, 0], [6])
        assert (row["margin"], row["chosen_visits"], row["rejected_visits"]) == (0.5, 8, 4)
        assert {name: row[name] for name in FROM} == FROM
        assert row["rejected_node"] == 5


def test_prompts_as_a_template_renders_them():
    (row,) = action_rows([ACTION], as_text(lambda problem: f"<user>{problem.prompt[-1].content}<think>"))
    assert (row["prompt"], row["completion"]) == ("<user>1 + 1 =<think>It is", " 2")
    assert (row["prefix_tokens"], row["completion_tokens"], row["value"]) == ([7], [5], 0.5)


def test_targets_in_both_forms():
    (talk,), (text,) = target_rows([TARGET], conversation), target_rows([TARGET], as_text())
    assert [one[0]["content"] for one in talk["completions"]] == ["It is 2", "It is 3"]
    assert (text["prompt"], text["completions"]) == ("be brief\n1 + 1 =\nIt is", [" 2", " 3"])
    assert (text["probabilities"], text["visits"]) == ([0.75, 0.25], [3, 1])
    assert text["completions_tokens"] == [[5], [6, 6]]


def test_steps_up_to_the_first_without_a_label():
    labels = StepLabels(
        problem=PROBLEM,
        steps=("a", "b", "c", "d"),
        labels=(0.75, 0.5, None, 1.0),
        tokens=(1, 2, 3, 4, 5),
        spans=(Span(0, 2), Span(2, 3), Span(3, 4), Span(4, 5)),
    )
    nothing = StepLabels(problem=PROBLEM, steps=("a",), labels=(None,))
    (row,) = step_rows([(labels, ORIGIN), (nothing, ORIGIN)])
    assert (row["prompt"], row["completions"], row["labels"]) == (plain(PROBLEM), ["a", "b"], [True, False])
    assert (row["values"], row["completions_tokens"]) == ([0.75, 0.5], [[1, 2], [3]])
    (other,) = step_rows([(labels, ORIGIN)], threshold=0.4)
    assert other["labels"] == [True, True]


@each_kind
def test_files_give_back_what_was_saved(tmp_path, kind):
    text = NASTY.encode("utf-16", "surrogatepass").decode("utf-16")
    path = tmp_path / f"rows.{kind}"
    for rows in (
        sft_rows([solution(Outcome.RIGHT, text), solution(None, "", logprobs=(-0.5, -0.25))]),
        dpo_rows([PAIR]),
        dpo_rows([PAIR], as_text()),
        action_rows([ACTION], as_text()),
        target_rows([TARGET], as_text()),
    ):
        save_rows(path, rows)
        assert load_rows(path) == rows
    assert list(tmp_path.iterdir()) == [path]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.text(max_size=5), min_size=1, max_size=3), st.floats() | st.none())
@example(["a"], math.inf)
@example(["a"], -math.inf)
@example(["a"], math.nan)
def test_any_text_and_any_number_can_be_saved(tmp_path, texts, value):
    rows = [{"prompt": text, "value": value, "values": [value, 0.5]} for text in texts]
    finite = None if value is None or not math.isfinite(value) else value
    expected = [{"prompt": text, "value": finite, "values": [finite, 0.5]} for text in texts]
    for path in (tmp_path / "rows.jsonl", tmp_path / "rows.parquet"):
        save_rows(path, rows)
        assert load_rows(path) == expected


@each_kind
def test_half_a_character_is_written_as_a_question_mark(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    save_rows(path, [{"prompt": [{"role": "user", "content": "a\ud800b"}]}])
    assert load_rows(path) == [{"prompt": [{"role": "user", "content": "a?b"}]}]


def test_messages_are_objects_in_parquet_too(tmp_path):
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    save_rows(path, dpo_rows([PAIR]))
    schema = pyarrow.parquet.read_schema(path)
    assert str(schema.field("prompt").type) == "list<element: struct<role: string, content: string>>"
    assert str(schema.field("chosen_tokens").type) == "list<element: int64>"


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UnknownName, match=r"\.jsonl, \.parquet"):
        save_rows(tmp_path / "rows.csv", [])
    for name, content in (("a.jsonl", "{"), ("a.parquet", "x")):
        (tmp_path / name).write_text(content)
        with pytest.raises(InvalidValue, match="accepted"):
            load_rows(tmp_path / name)
    with pytest.raises(InvalidValue, match="accepted"):
        load_rows(tmp_path / "none.jsonl")


def test_json_lines_are_one_object_a_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    save_rows(path, sft_rows([solution(Outcome.RIGHT, "a\nb\u2028c"), solution(Outcome.WRONG)]))
    lines = path.read_bytes().split(b"\n")
    assert [json.loads(line)["completion"][0]["content"] for line in lines[:2]] == ["a\nb\u2028c", "2"]
    assert lines[2:] == [b""]
