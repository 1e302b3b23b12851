"""Three ways to learn from what a round's search found: clone D_expert, policy gradient on D_search, pairs.

Each counts what it cost in tokens that pass forward through the policy: a token of an update counts three (forward,
and backward at twice its price), one that is only read counts one. Search is counted in the same unit.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, final

from clew.core.seeds import derive_seed
from clew.recipes.rl_settings import TreeAdvantage

if TYPE_CHECKING:
    from clew.core.task import Task
    from clew.learn.batch import Example
    from clew.recipes.learner import Learner
    from clew.recipes.loop_search import Found
    from clew.scale.plateau import Plateau

T = TypeVar("T")
LearnerName = Literal["distill", "rl", "dpo"]
UPDATE_PASSES = 3
"""What a token of an update counts, in forward passes."""
HELD_BACK = 8
"""One of so many expert solutions is kept out of cloning, where its loss is watched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """How a round learns."""

    rows: int = 32
    """Problems an update (solutions, pairs or groups of one problem each)."""
    epochs: int = 2
    """Passes over what there is."""
    cap: int = 1
    """Most expert solutions, or pairs, of a problem."""
    level: Literal["solution", "step"] = "solution"
    """Of pairs: right against wrong solutions, or siblings in the tree by their value."""
    advantage: Literal["solution", TreeAdvantage] = "solution"
    """Of policy gradient. solution: a solution's reward above the mean of its problem's. tree-parent, tree-siblings,
    tree-root: every step's value in the search's tree above that of where it was taken, of its siblings, or (TreeRL) of
    the root too; where the search backed up none that differ, values are the mean reward of the solutions below."""
    beta: float = 0.1
    """DPO: how strongly the policy is held to that of the round's start."""
    clone_weight: float = 1.0
    """DPO: weight of cloning the chosen response beside it, per token (RPO, arXiv 2404.19733); 0 for plain DPO."""
    lr_matrix: float | None = None
    """Learning rate of hidden matrices (Muon). Left out: 0.005 to clone, 0.002 for policy gradient, 0.001 for pairs."""
    lr_other: float | None = None
    """Of embeddings and norms (AdamW). Left out: a fifth of the other."""
    watch: int = 4
    """Updates of cloning between two looks at the held-out loss, where the schedule goes by it."""

    def rates(self, learner: LearnerName) -> dict[str, Any]:
        """Learning rates of `learner`, by the names that optimisers have for them."""
        usual = {"distill": 0.005, "rl": 0.002, "dpo": 0.001}[learner]
        matrix = usual if self.lr_matrix is None else self.lr_matrix
        return {"lr_matrix": matrix, "lr_other": matrix / 5 if self.lr_other is None else self.lr_other}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What a learner did with a round's data."""

    rows: int
    """Solutions or pairs it had."""
    updates: int = 0
    positions: int = 0
    """Tokens of all updates, prompts included."""
    read: int = 0
    """Tokens read beside them: under the reference, or to measure a held-out loss."""
    flattened: bool = False
    """Whether cloning stopped because the held-out loss no longer fell."""

    @property
    def tokens(self) -> int:
        """In forward passes."""
        return UPDATE_PASSES * self.positions + self.read


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pupil:
    """Who learns, and where what happens is told."""

    own: Learner
    task: Task
    settings: Learning
    seed: int
    record: Callable[..., None]
    """Called after every update with its number and the numbers to log."""
    checkpoint: Path | None = None
    """The last good one, for the message if training diverges."""


def learn(learner: LearnerName, found: Found, pupil: Pupil, *, plateau: Plateau | None = None) -> Learnt:
    """Train the pupil's policy in place on `found`; with a `plateau`, cloning stops where the held-out loss flattens.

    Where there is nothing to learn from (no right solution, no pair) nothing is updated, and `rows` says so.
    """
    from clew.recipes.loop_gradient import reinforce
    from clew.recipes.loop_pairs import prefer

    match learner:
        case "distill":
            learnt = clone_expert(found, pupil, plateau)
        case "rl":
            learnt = reinforce(found, pupil)
        case "dpo":
            learnt = prefer(found, pupil)
    pupil.own.refresh()
    return learnt


def clone_expert(found: Found, pupil: Pupil, plateau: Plateau | None = None) -> Learnt:
    """Behaviour cloning of D_expert, the shortest right solutions (roadmap, equation 7)."""
    from clew.data.expert import expert
    from clew.learn.schedule import warmup_stable_decay
    from clew.recipes.cloning import clone_step
    from clew.recipes.training_data import solution_example
    from clew.scale.plateau import Measured

    settings, own = pupil.settings, pupil.own
    rng = random.Random(derive_seed(pupil.seed, "clone"))
    every = [solution_example(one, own.prompt_ids) for one in expert(found.solutions, cap=settings.cap).rows]
    rng.shuffle(every)
    held = every[: len(every) // HELD_BACK] if plateau is not None else []
    examples = every[len(held) :]
    batches = batches_of(examples, settings.rows, settings.epochs, rng)
    optimizer = own.optimizer(**settings.rates("distill"))
    points: list[Measured] = []
    positions = read = 0
    for step, batch in enumerate(batches):
        if plateau is not None and held and step % settings.watch == 0:
            loss = held_out_loss(own, held)
            read += sum(example.length for example in held)
            points.append(Measured(step, -loss))
            pupil.record(step, held_out_loss=loss, gain_per_update=plateau.gain(points))
            if plateau.fires(points):
                return Learnt(rows=len(every), updates=step, positions=positions, read=read, flattened=True)
        # Under a trigger the rate stays: one that falls would flatten any curve.
        decay = len(batches) // 2 if plateau is None else 0
        rate = warmup_stable_decay(step, total=len(batches), decay=decay)
        told = clone_step(own, optimizer, batch, step=step, multiplier=rate, checkpoint=pupil.checkpoint)
        positions += sum(example.length for example in batch)
        pupil.record(step, **told, lr=rate)
    return Learnt(rows=len(every), updates=len(batches), positions=positions, read=read)


def held_out_loss(own: Learner, examples: Sequence[Example]) -> float:
    """Mean negative log-likelihood of the responses' tokens, in nats a token."""
    from clew.recipes.rl_learner import logprobs_under

    found = logprobs_under(own.model, examples, own.precision)
    return -sum(one.sum().item() for one in found) / sum(len(one) for one in found)


def batches_of(items: Sequence[T], rows: int, epochs: int, rng: random.Random) -> list[list[T]]:
    """`epochs` passes over `items` in random order, in batches of about `rows` that differ by one at most."""
    order = [item for _ in range(epochs) for item in rng.sample(items, len(items))]
    count = max(1, round(len(order) / rows)) if order else 0
    bounds = [len(order) * at // max(1, count) for at in range(count + 1)]
    return [order[start:stop] for start, stop in itertools.pairwise(bounds)]
