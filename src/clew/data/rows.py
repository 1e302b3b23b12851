"""A trajectory as one row of a table and back, exactly. The layout of the table is `clew.data.store`'s business."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

from clew.core.cost import Cost
from clew.core.errors import InvalidValue
from clew.core.types import (
    Completion,
    FinishReason,
    Message,
    Outcome,
    Problem,
    Provenance,
    Reward,
    Span,
    State,
    Trajectory,
    Verdict,
)


class TrajectoryRow(NamedTuple):
    """Columns of the table `trajectories`, in their order. Blobs are little-endian arrays."""

    tokens: bytes
    steps: bytes
    finished: bool
    completion_tokens: bytes | None
    """None when equal to `tokens`, as they are for every trajectory of one step."""
    logprobs: bytes | None
    finish: str
    policy_version: str
    prompt_tokens_read: int
    prompt_tokens_cached: int
    prompt_tokens_reread: int
    entropies: bytes | None
    certainties: bytes | None
    text: str
    outcome: str
    value: float | None
    answer: str | None
    reason: str
    reward: float
    reward_parts: str
    step_rewards: bytes
    cost_tokens_sampled: int
    cost_prompt_tokens_read: int
    cost_prompt_tokens_cached: int
    cost_prompt_tokens_reread: int
    cost_scorer_tokens: int
    cost_verifier_calls: int
    cost_model_calls: int
    cost_seconds: float
    seed: int
    strategy: str
    node: int | None
    provenance_stage: str
    pieces: str | None
    """None where one version of the policy wrote all of it."""


class ProblemRow(NamedTuple):
    """Columns of the table `problems`."""

    id: str
    task: str
    prompt: str
    metadata: str


def encode_problem(problem: Problem) -> ProblemRow:
    """Raises `InvalidValue` if JSON would not give the metadata back as it was, e.g. a tuple as a list."""
    metadata = dict(problem.metadata)
    text = json.dumps(metadata)
    if json.loads(text) != metadata:
        raise InvalidValue(
            "metadata", metadata, "text, numbers, lists and objects with text keys", "use lists for tuples"
        )
    return ProblemRow(problem.id, problem.task, json.dumps(problem.prompt), text)


def decode_problem(row: ProblemRow) -> Problem:
    prompt = tuple(Message(role, content) for role, content in json.loads(row.prompt))
    return Problem(row.id, row.task, prompt, json.loads(row.metadata))


def encode_trajectory(trajectory: Trajectory) -> TrajectoryRow:
    """Everything but the chain of parent states, whose step spans are kept."""
    state, completion, cost = trajectory.state, trajectory.completion, trajectory.cost
    for name, number in (("reward", trajectory.reward.value), ("verdict value", trajectory.verdict.value)):
        if number is not None and math.isnan(number):
            raise InvalidValue(name, number, "a number that can be compared", "give no value where there is none")
    return TrajectoryRow(
        tokens=pack_ints(state.tokens),
        steps=pack_ints([edge for span in state.steps for edge in span]),
        finished=state.finished,
        completion_tokens=None if completion.tokens == state.tokens else pack_ints(completion.tokens),
        logprobs=None if completion.logprobs is None else pack_floats(completion.logprobs),
        finish=completion.finish.value,
        policy_version=completion.policy_version,
        prompt_tokens_read=completion.prompt_tokens_read,
        prompt_tokens_cached=completion.prompt_tokens_cached,
        prompt_tokens_reread=completion.prompt_tokens_reread,
        entropies=None if completion.entropies is None else pack_floats(completion.entropies),
        certainties=None if completion.certainties is None else pack_floats(completion.certainties),
        text=trajectory.text,
        outcome=trajectory.verdict.outcome.value,
        value=trajectory.verdict.value,
        answer=trajectory.verdict.answer,
        reason=trajectory.verdict.reason,
        reward=trajectory.reward.value,
        reward_parts=json.dumps(dict(trajectory.reward.parts)),
        step_rewards=pack_floats(trajectory.step_rewards),
        cost_tokens_sampled=cost.tokens_sampled,
        cost_prompt_tokens_read=cost.prompt_tokens_read,
        cost_prompt_tokens_cached=cost.prompt_tokens_cached,
        cost_prompt_tokens_reread=cost.prompt_tokens_reread,
        cost_scorer_tokens=cost.scorer_tokens,
        cost_verifier_calls=cost.verifier_calls,
        cost_model_calls=cost.model_calls,
        cost_seconds=cost.seconds,
        seed=trajectory.seed,
        strategy=trajectory.provenance.strategy,
        node=trajectory.provenance.node,
        provenance_stage=trajectory.provenance.stage,
        pieces=json.dumps(completion.pieces) if completion.pieces else None,
    )


def decode_trajectory(problem: Problem, row: TrajectoryRow) -> Trajectory:
    """The trajectory that `encode_trajectory` was given; its state has no parent."""
    tokens, edges = unpack_ints(row.tokens), unpack_ints(row.steps)
    spans = tuple(Span(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True))
    return Trajectory(
        state=State(problem, tokens, spans, finished=bool(row.finished)),
        text=row.text,
        verdict=Verdict(Outcome(row.outcome), row.value, row.answer, row.reason),
        reward=Reward(row.reward, json.loads(row.reward_parts)),
        cost=Cost(
            tokens_sampled=row.cost_tokens_sampled,
            prompt_tokens_read=row.cost_prompt_tokens_read,
            prompt_tokens_cached=row.cost_prompt_tokens_cached,
            prompt_tokens_reread=row.cost_prompt_tokens_reread,
            scorer_tokens=row.cost_scorer_tokens,
            verifier_calls=row.cost_verifier_calls,
            model_calls=row.cost_model_calls,
            seconds=row.cost_seconds,
        ),
        seed=row.seed,
        completion=Completion(
            tokens=tokens if row.completion_tokens is None else unpack_ints(row.completion_tokens),
            logprobs=None if row.logprobs is None else unpack_floats(row.logprobs),
            finish=FinishReason(row.finish),
            policy_version=row.policy_version,
            prompt_tokens_read=row.prompt_tokens_read,
            prompt_tokens_cached=row.prompt_tokens_cached,
            prompt_tokens_reread=row.prompt_tokens_reread,
            entropies=None if row.entropies is None else unpack_floats(row.entropies),
            certainties=None if row.certainties is None else unpack_floats(row.certainties),
            pieces=() if row.pieces is None else tuple((version, count) for version, count in json.loads(row.pieces)),
        ),
        step_rewards=unpack_floats(row.step_rewards),
        provenance=Provenance(row.strategy, row.node, row.provenance_stage),
    )


def pack_ints(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def unpack_ints(blob: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(blob) // 4}i", blob)


def pack_floats(values: Sequence[float]) -> bytes:
    """One letter for the width, then the numbers: float32 where that is exact, as a model's are, else float64."""
    try:
        packed = struct.pack(f"<{len(values)}f", *values)
    except OverflowError:
        return b"d" + struct.pack(f"<{len(values)}d", *values)
    exact = struct.unpack(f"<{len(values)}f", packed) == tuple(values)
    return b"f" + packed if exact else b"d" + struct.pack(f"<{len(values)}d", *values)


def unpack_floats(blob: bytes) -> tuple[float, ...]:
    kind, size = blob[:1].decode(), {b"f": 4, b"d": 8}[blob[:1]]
    return struct.unpack(f"<{(len(blob) - 1) // size}{kind}", blob[1:])
