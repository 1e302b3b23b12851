"""Answers, records and trees of searches in the types of JSON and back, exactly. `clew.data.searches` has the files.

Numbers: NaN is null, infinity its name as a string. Tokens are the ids that were sampled. A state of a tree is its
parent's state and what was added to it; only one that continues nothing (`whole`) is written out.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, fields
from typing import Any

from clew.core.cost import Cost
from clew.core.types import Completion, FinishReason, Message, Outcome, Problem, Span, State, Verdict
from clew.data.rows import encode_problem
from clew.search.record import Answer, Answers, Encoded, Samples, Scores, SearchRecord, Texts, Verdicts
from clew.search.tree import NONE, Tree

Json = Any
COLUMNS = ("prior", "visits", "value_sum", "pending", "score", "made")
"""Columns of a tree that are numbers a node and follow from nothing else."""


def encode_record(record: SearchRecord) -> Json:
    """What a search goes on from, its answers in the order they were given."""
    return {
        "problem": _encode_problem(record.problem),
        "seed": record.seed,
        "cost": asdict(record.cost),
        "answers": [_encode_answer(answer) for answer in record.answers],
    }


def decode_record(value: Json) -> SearchRecord:
    """Raises `ValueError`, `KeyError` or `TypeError` for what `encode_record` does not write."""
    answers = tuple(_decode_answer(answer) for answer in value["answers"])
    return SearchRecord(_decode_problem(value["problem"]), value["seed"], answers, Cost(**value["cost"]))


def encode_tree(tree: Tree) -> Json:
    """The tree as columns; index 0 of each is the root."""
    nodes = range(1, len(tree))
    return {
        "problem": _encode_problem(tree.problem),
        "parent": list(tree.parent),
        **{name: _encode_numbers(getattr(tree, name)) for name in COLUMNS},
        "completions": [None, *(_encode_completion(tree.completions[node]) for node in nodes)],
        "states": [_encode_root(tree), *(_encode_state(tree, node) for node in nodes)],
        "costs": [list(astuple(cost)) for cost in tree.costs],
        "verdicts": {str(node): _encode_verdict(verdict) for node, verdict in tree.verdicts.items()},
        "answers": {str(node): answer for node, answer in tree.answers.items()},
    }


def decode_tree(value: Json) -> Tree:
    """Raises `ValueError`, `KeyError`, `TypeError` or `IndexError` for what `encode_tree` does not write."""
    problem = _decode_problem(value["problem"])
    tree = Tree(problem)
    if value["states"][0] is not None:
        tree.states[0] = _decode_whole(problem, value["states"][0])
    tree.costs[0] = Cost(*value["costs"][0])
    columns = zip(value["parent"], value["states"], value["completions"], value["costs"], strict=True)
    for node, (parent, state, completion, cost) in enumerate(columns):
        if parent != NONE if node == 0 else not 0 <= parent < node:
            raise ValueError(f"node {node} has parent {parent}")
        if node:
            last = None if completion is None else _decode_completion(completion)
            tree.add(parent, _decode_state(tree, parent, state, last), last, cost=Cost(*cost))
    for name in COLUMNS:
        column: array[Any] = getattr(tree, name)
        numbers = _decode_numbers(value[name]) if column.typecode == "d" else value[name]
        if len(numbers) != len(tree):
            raise ValueError(f"{name} has {len(numbers)} numbers for {len(tree)} nodes")
        column[:] = array(column.typecode, numbers)
    tree.verdicts.update({_node(tree, key): _decode_verdict(verdict) for key, verdict in value["verdicts"].items()})
    tree.answers.update({_node(tree, key): answer for key, answer in value["answers"].items()})
    return tree


def _node(tree: Tree, key: str) -> int:
    return range(len(tree))[int(key)]


def _encode_root(tree: Tree) -> Json:
    return None if tree.states[0] == State(tree.problem) else _encode_whole(tree.states[0], tree.problem)


def _encode_state(tree: Tree, node: int) -> Json:
    state, before, last = tree.states[node], tree.states[tree.parent[node]], tree.completions[node]
    if last is not None:
        return None if state == before.extend(last) else _encode_whole(state, tree.problem)
    told = state.tokens[len(before.reopened().tokens) :]
    return {"told": list(told)} if state == before.reopened().told(told) else _encode_whole(state, tree.problem)


def _decode_state(tree: Tree, parent: int, value: Json, last: Completion | None) -> State:
    if value is not None and "told" in value:
        return tree.states[parent].reopened().told(tuple(value["told"]))
    if value is not None:
        return _decode_whole(tree.problem, value)
    if last is None:
        raise ValueError("a state without a completion says nothing")
    return tree.states[parent].extend(last)


def _encode_whole(state: State, problem: Problem) -> Json:
    other = None if state.problem == problem else _encode_problem(state.problem)
    steps = [list(span) for span in state.steps]
    return {"tokens": list(state.tokens), "steps": steps, "finished": state.finished, "problem": other}


def _decode_whole(problem: Problem, value: Json) -> State:
    own = problem if value["problem"] is None else _decode_problem(value["problem"])
    return State(own, tuple(value["tokens"]), tuple(Span(*span) for span in value["steps"]), finished=value["finished"])


def _encode_problem(problem: Problem) -> Json:
    row = encode_problem(problem)
    return {"id": row.id, "task": row.task, "prompt": json.loads(row.prompt), "metadata": json.loads(row.metadata)}


def _decode_problem(value: Json) -> Problem:
    prompt = tuple(Message(role, content) for role, content in value["prompt"])
    return Problem(value["id"], value["task"], prompt, value["metadata"])


def _encode_answer(answer: Answer) -> Json:
    match answer:
        case Samples(rows):
            return {"samples": [[_encode_completion(completion) for completion in row] for row in rows]}
        case Scores(numbers):
            return {"scores": _encode_numbers(numbers)}
        case Verdicts(verdicts):
            return {"verdicts": [_encode_verdict(verdict) for verdict in verdicts]}
        case Answers(answers):
            return {"answers": list(answers)}
        case Encoded(texts):
            return {"encoded": [[int(token) for token in tokens] for tokens in texts]}
        case Texts(written):
            return {"texts": list(written)}


def _decode_answer(value: Json) -> Answer:
    ((kind, values),) = value.items()
    match kind:
        case "samples":
            return Samples(tuple(tuple(_decode_completion(completion) for completion in row) for row in values))
        case "scores":
            return Scores(_decode_numbers(values))
        case "verdicts":
            return Verdicts(tuple(_decode_verdict(verdict) for verdict in values))
        case "answers":
            return Answers(tuple(values))
        case "encoded":
            return Encoded(tuple(tuple(tokens) for tokens in values))
        case "texts":
            return Texts(tuple(values))
        case _:
            raise ValueError(f"an answer of kind {kind!r}")


def _encode_completion(completion: Completion | None) -> Json:
    """Fields that have their default are left out."""
    if completion is None:
        return None
    given = {"tokens": [int(token) for token in completion.tokens], "finish": completion.finish.value}
    if completion.logprobs is not None:
        given["logprobs"] = _encode_numbers(completion.logprobs)
    for field in fields(Completion)[3:]:
        value = getattr(completion, field.name)
        if value != field.default:
            given[field.name] = _encode_numbers(value) if isinstance(value, tuple) else value
    return given


def _decode_completion(value: Json) -> Completion:
    given = {"logprobs": None, **value}
    for name in ("logprobs", "entropies", "certainties"):
        if given.get(name) is not None:
            given[name] = _decode_numbers(given[name])
    return Completion(**{**given, "tokens": tuple(given["tokens"]), "finish": FinishReason(given["finish"])})


def _encode_verdict(verdict: Verdict) -> Json:
    value = verdict.value
    return [verdict.outcome.value, None if value is None else _encode_number(value), verdict.answer, verdict.reason]


def _decode_verdict(value: Json) -> Verdict:
    outcome, number, answer, reason = value
    return Verdict(Outcome(outcome), None if number is None else float(number), answer, reason)


def _encode_numbers(numbers: Iterable[float]) -> list[Json]:
    return [_encode_number(number) for number in numbers]


def _encode_number(number: float) -> Json:
    if isinstance(number, int):
        return number
    if math.isfinite(number):
        return float(number)
    return None if math.isnan(number) else str(float(number))


def _decode_numbers(values: Sequence[Json]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else float(value) for value in values)
