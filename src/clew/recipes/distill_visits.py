"""Distillation of a search's visits, with a value on the same body (AlphaZero, arXiv 1712.01815; AlphaGo Zero).

The policy learns where the search went from each state of its trees, the value head what the state was worth: one
body, so that one pass guides the next search. The head is saved beside the policy, which loads without it as ever.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Unpack, final

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed

if TYPE_CHECKING:
    from torch import Tensor

    from clew.data.targets import Target
    from clew.learn.batch import Example
    from clew.learn.guard import Limits
    from clew.recipes.cloning import Lesson
    from clew.recipes.expert_iteration import ExpertIteration
    from clew.recipes.learner import Learner


@dataclass(frozen=True, slots=True, kw_only=True)
class Visits:
    """Settings of --method visits."""

    data: Path | None = None
    """Run of clew search whose trees are learnt from."""
    temperature: float = 1.0
    """T of the shares N^(1/T); 0 is the most visited step alone."""
    min_visits: int = 2
    """Least visits of all steps of a state."""
    value: Literal["outcome", "backed-up"] = "outcome"
    """What a state is worth: the mean verdict of the judged solutions below it, or the mean that the search backed up.
    A state without one teaches the policy alone."""
    value_weight: float = 1.0
    """How much the value's loss counts beside the policy's; 0: no head is made."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VisitedState:
    """A state as a model reads it: its steps, their shares, and what it is worth."""

    steps: tuple[Example, ...]
    shares: tuple[float, ...]
    value: float | None

    @property
    def length(self) -> int:
        return sum(step.length for step in self.steps)


def visits(settings: ExpertIteration, own: Visits, lesson: Lesson) -> None:
    """Train `lesson.learner` in place. Raises `InvalidValue` if no state of the run has enough visits."""
    from clew.learn.schedule import warmup_stable_decay
    from clew.recipes.learner import check_run_tokens

    learner, stage = lesson.learner, lesson.stage
    if own.data is not None:
        check_run_tokens(own.data, learner, "--visits.data")
    states = visited_states(targets_of(own), own, learner)
    if own.value_weight:
        learner.add_value_head()
    rng = random.Random(derive_seed(lesson.seed, "visits"))
    optimizer = learner.optimizer(lr_matrix=settings.lr_matrix, lr_other=settings.lr_other)
    order = [one for _ in range(settings.epochs) for one in rng.sample(states, len(states))]
    steps = max(1, len(order) // settings.rows)
    for step in range(steps):
        chosen = order[step * settings.rows : (step + 1) * settings.rows]
        rate = warmup_stable_decay(step, total=steps, decay=steps // 2)
        how: Limits = {"step": step, "multiplier": rate, "checkpoint": stage.last_checkpoint}
        told = visit_step(learner, optimizer, chosen, value_weight=own.value_weight, **how)
        tokens = sum(one.num_learnt for state in chosen for one in state.steps)
        stage.record(step, increment=1 / steps, tokens=tokens, lr=rate, states=len(states), **told)
    learner.refresh()


def targets_of(own: Visits) -> list[Target]:
    """Targets of all trees of the run. Raises `InvalidValue` if there is none."""
    from clew.data.targets import visit_targets
    from clew.recipes.data_sources import Source

    if own.data is None:
        accepted = "the run directory of a search that grew trees"
        raise InvalidValue("--visits.data", None, accepted, "search first: clew search --strategy mcts --out RUN")
    found = [
        target
        for one in Source(run=own.data).trees()
        for target in visit_targets(
            one.tree, temperature=own.temperature, min_visits=own.min_visits, text=one.text, origin=one.origin
        )
    ]
    if not found:
        accepted = "a tree with a state whose steps were visited"
        raise InvalidValue(
            f"visited states in {own.data}", 0, accepted, "search with mcts, or lower --visits.min-visits"
        )
    return found


def visited_states(targets: Sequence[Target], own: Visits, learner: Learner) -> list[VisitedState]:
    """`targets` as the model reads them, without steps of share 0. Raises `InvalidValue` for values outside 0 to 1."""
    from clew.learn.batch import Example
    from clew.recipes.learner import check_fits

    found = []
    for target in targets:
        prompt = (*learner.prompt_ids(target.problem), *target.prefix)
        value = target.returned if own.value == "outcome" else target.value
        if own.value_weight and value is not None and not 0.0 <= value <= 1.0:
            accepted = "a number from 0 to 1, as the head says probabilities"
            raise InvalidValue(
                "value of a state", value, accepted, "use --visits.value outcome or --visits.value-weight 0"
            )
        taken = [(step, p) for step, p in zip(target.actions, target.probabilities, strict=True) if p > 0.0]
        steps = tuple(Example(prompt_ids=prompt, response_ids=step) for step, _ in taken)
        check_fits(steps, learner.context)
        found.append(VisitedState(steps=steps, shares=tuple(p for _, p in taken), value=value))
    return found


class _Noted(NamedTuple):
    policy: float
    value: float


def visit_step(
    learner: Learner,
    optimizer: Any,
    states: Sequence[VisitedState],
    *,
    value_weight: float,
    **limits: Unpack[Limits],
) -> dict[str, float]:
    """One update of the mean over states of both losses; what to log of it."""
    known = sum(state.value is not None for state in states) if value_weight else 0

    def loss_of(rows: list[int]) -> tuple[Tensor, _Noted]:
        policy, value = losses(learner, [states[row] for row in rows], with_value=known > 0)
        policy, value = policy / len(states), value / max(1, known)
        return policy + value_weight * value, _Noted(policy.item(), value.item())

    update = learner.update(
        optimizer,
        [state.length for state in states],
        loss_of,
        lambda noted: sum(one.policy + value_weight * one.value for one in noted),
        **limits,
    )
    policy, value = (sum(values) for values in zip(*update.noted, strict=True))
    told = {"loss": policy + value_weight * value, "policy_loss": policy, "grad_norm": update.grad_norm}
    return {**told, "value_loss": value} if known else told


def losses(learner: Learner, states: Sequence[VisitedState], *, with_value: bool) -> tuple[Tensor, Tensor]:
    """Sums over `states` of the cross-entropy to the visits and of the value's loss."""
    import torch

    from clew.learn.batch import pad
    from clew.learn.preference import summed
    from clew.learn.visits import value_loss, visit_cross_entropy

    batch = pad([step for state in states for step in state.steps])
    shares = torch.tensor([share for state in states for share in state.shares])
    if not with_value:
        cross_entropy = visit_cross_entropy(summed(learner.logprobs(batch), batch.target_mask), shares)
        return cross_entropy, torch.zeros(())
    with learner.precision():
        told = learner.trained(batch.input_ids, batch.target_mask)
    chosen = told.logits.float().log_softmax(-1).gather(-1, batch.targets[batch.target_mask][:, None])[:, 0]
    logprobs = torch.zeros(batch.targets.shape).masked_scatter(batch.target_mask, chosen)
    # The head speaks of a state where its first step begins: the first learnt place of the state's first row.
    lengths = batch.target_mask.sum(-1)
    begins = lengths.cumsum(0) - lengths
    rows = torch.tensor([len(state.steps) for state in states])
    first = begins[rows.cumsum(0) - rows]
    known = [place for place, state in enumerate(states) if state.value is not None]
    targets = torch.tensor([states[place].value for place in known], dtype=torch.float32)
    value = value_loss(told.values.float()[first[known]], targets).sum() if known else torch.zeros(())
    return visit_cross_entropy(summed(logprobs, batch.target_mask), shares), value
