"""What searches answered: each answer judged, as a row and as a trajectory; and the rates of all rows.

This judgement is the evaluation's and in nobody's cost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from clew.core.cost import Cost
from clew.core.protocols import Policy
from clew.core.types import Completion, Outcome, Provenance, Reward, State, Trajectory, Verdict
from clew.search import SearchOutcome, StopReason
from clew.search.serve import Judge
from clew.search.tree import Tree
from clew.stats.intervals import wilson

FAILED = "failed"
Row = Mapping[str, Any]


def judge_answer(outcome: SearchOutcome, task: Judge, policy: Policy) -> Verdict | None:
    """The verdict on the chosen answer; None where nothing was chosen."""
    chosen = outcome.result.chosen
    return None if chosen is None else task.verify(outcome.problem, policy.text(chosen))


def row_of(outcome: SearchOutcome, verdict: Verdict | None) -> dict[str, Any]:
    """`problem`, `outcome`, `answer`, `reason`, `stop`, `error`, `cost` (fields of `Cost` and `tokens`), `nodes`.

    A search that ended and chose nothing answered wrong; one that failed is neither right nor wrong.
    """
    if outcome.stop is StopReason.FAILED:
        judged = {"outcome": FAILED, "answer": None, "reason": ""}
    elif verdict is None:
        judged = {"outcome": Outcome.WRONG.value, "answer": None, "reason": "nothing was chosen"}
    else:
        judged = {"outcome": verdict.outcome.value, "answer": verdict.answer, "reason": verdict.reason}
    tree = outcome.result.tree
    return {
        "problem": outcome.problem.id,
        **judged,
        "stop": outcome.stop.value,
        "error": outcome.error,
        "cost": {**asdict(outcome.cost), "tokens": outcome.cost.tokens},
        "nodes": 0 if tree is None else len(tree),
    }


def node_of(tree: Tree, state: State | None) -> int | None:
    """The node that holds this very state; None if there is none."""
    return next((node for node, held in enumerate(tree.states) if held is state), None)


def trajectory_of(
    outcome: SearchOutcome, verdict: Verdict | None, policy: Policy, *, strategy: str, stage: str
) -> Trajectory | None:
    """The chosen answer with the price of its whole search; None where none was chosen, sampled or judged.

    Step rewards are the guide's scores of the steps, if it gave one for each.
    """
    result = outcome.result
    if result.chosen is None or verdict is None or verdict.value is None:
        return None
    node = None if result.tree is None else node_of(result.tree, result.chosen)
    if node is None:
        sampled = [c.completion for c in result.candidates if c.state is result.chosen][:1]
        scores: list[float] = []
    else:
        sampled = [last for at in result.tree.path(node) if (last := result.tree.completions[at]) is not None]
        scores = result.tree.scores_on(node)
    if not sampled:
        return None
    whole = joined(sampled)
    return Trajectory(
        state=result.chosen,
        text=policy.text(result.chosen),
        verdict=verdict,
        reward=Reward(verdict.value, {"verifier": verdict.value}),
        cost=outcome.cost,
        seed=outcome.record.seed,
        # Text that was told stands between steps: then only the last is in one piece.
        completion=whole if whole.tokens == result.chosen.tokens else sampled[-1],
        step_rewards=tuple(scores) if len(scores) == len(result.chosen.steps) else (),
        provenance=Provenance(strategy, node, stage),
    )


def joined(completions: Sequence[Completion]) -> Completion:
    """Steps that follow one another as one completion."""
    logprobs = [completion.logprobs for completion in completions]
    known = [part for part in logprobs if part is not None]
    return Completion(
        tokens=tuple(token for completion in completions for token in completion.tokens),
        logprobs=tuple(number for part in known for number in part) if len(known) == len(logprobs) else None,
        finish=completions[-1].finish,
        policy_version=completions[-1].policy_version,
        prompt_tokens_read=sum(completion.prompt_tokens_read for completion in completions),
        prompt_tokens_cached=sum(completion.prompt_tokens_cached for completion in completions),
        prompt_tokens_reread=sum(completion.prompt_tokens_reread for completion in completions),
    )


def search_entry(rows: Sequence[Row], strategy: str, guidance: str | None) -> dict[str, Any]:
    """One entry of `summary.json`'s `search`: mean cost a problem, accuracy over the rows that were scored."""
    bins: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        bins[str(row["difficulty"])].append(row)
    names = [*Cost.__dataclass_fields__, "tokens"]
    return {
        "strategy": strategy,
        "guidance": guidance,
        "cost": {name: sum(row["cost"][name] for row in rows) / len(rows) for name in names},
        "accuracy": _rate(rows),
        "by_difficulty": {name: _rate(bins[name]) for name in sorted(bins)},
        "num_unscored": sum(row["outcome"] == Outcome.UNSCORED for row in rows),
        "num_failed": sum(row["outcome"] == FAILED for row in rows),
        "num_stopped_by_budget": sum(row["stop"] == StopReason.BUDGET for row in rows),
    }


def _rate(rows: Sequence[Row]) -> dict[str, float | int] | None:
    """None where no row was scored."""
    scored = [row["outcome"] == Outcome.RIGHT for row in rows if row["outcome"] in (Outcome.RIGHT, Outcome.WRONG)]
    return wilson(sum(scored), len(scored)).as_dict() if scored else None
