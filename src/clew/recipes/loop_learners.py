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
from clew.data.expert import Solution
from clew.recipes.rl_settings import TreeAdvantage

if TYPE_CHECKING:
    from torch import Tensor

    from clew.core.task import Task
    from clew.data.pairs import Pair
    from clew.learn.batch import Example
    from clew.learn.optim import MuonAdamW
    from clew.models.policy import LocalPolicy
    from clew.recipes.loop_search import Found
    from clew.recipes.rl_credit import Lesson
    from clew.recipes.rl_learner import RLLearner
    from clew.scale.plateau import Plateau

T = TypeVar("T")
LearnerName = Literal["distill", "rl", "dpo"]
UPDATE_PASSES = 3
"""What a token of an update counts, in forward passes."""
TOKENS_PER_PASS = 2048
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

    policy: LocalPolicy
    task: Task
    settings: Learning
    mode: str
    seed: int
    record: Callable[..., None]
    """Called after every update with its number and the numbers to log."""
    checkpoint: Path | None = None
    """The last good one, for the message if training diverges."""


def learn(learner: LearnerName, found: Found, pupil: Pupil, *, plateau: Plateau | None = None) -> Learnt:
    """Train the pupil's policy in place on `found`; with a `plateau`, cloning stops where the held-out loss flattens.

    Where there is nothing to learn from (no right solution, no pair) nothing is updated, and `rows` says so.
    """
    match learner:
        case "distill":
            learnt = clone_expert(found, pupil, plateau)
        case "rl":
            learnt = reinforce(found, pupil)
        case "dpo":
            learnt = prefer(found, pupil)
    pupil.policy.refresh()
    return learnt


def clone_expert(found: Found, pupil: Pupil, plateau: Plateau | None = None) -> Learnt:
    """Behaviour cloning of D_expert, the shortest right solutions (roadmap, equation 7)."""
    from clew.data.expert import expert
    from clew.learn.clone import clone
    from clew.learn.optim import make_optimizer
    from clew.learn.schedule import warmup_stable_decay
    from clew.scale.plateau import Measured

    settings, policy = pupil.settings, pupil.policy
    rng = random.Random(derive_seed(pupil.seed, "clone"))
    every = [example_of(policy, one, pupil.mode) for one in expert(found.solutions, cap=settings.cap).rows]
    rng.shuffle(every)
    held = every[: len(every) // HELD_BACK] if plateau is not None else []
    examples = every[len(held) :]
    batches = _batches(examples, settings.rows, settings.epochs, rng)
    optimizer = make_optimizer(policy.model, **settings.rates("distill"))
    points: list[Measured] = []
    positions = read = 0
    for step, batch in enumerate(batches):
        if plateau is not None and held and step % settings.watch == 0:
            loss = held_out_loss(policy, held)
            read += sum(example.length for example in held)
            points.append(Measured(step, -loss))
            pupil.record(step, held_out_loss=loss, gain_per_update=plateau.gain(points))
            if plateau.fires(points):
                return Learnt(rows=len(every), updates=step, positions=positions, read=read, flattened=True)
        # Under a trigger the rate stays: one that falls would flatten any curve.
        decay = len(batches) // 2 if plateau is None else 0
        rate = warmup_stable_decay(step, total=len(batches), decay=decay)
        update = clone(policy.model, optimizer, batch, step=step, multiplier=rate, checkpoint=pupil.checkpoint)
        positions += sum(example.length for example in batch)
        pupil.record(step, loss=update.loss, grad_norm=update.grad_norm, lr=rate)
    return Learnt(rows=len(every), updates=len(batches), positions=positions, read=read)


def held_out_loss(policy: LocalPolicy, examples: Sequence[Example]) -> float:
    """Mean negative log-likelihood of the responses' tokens, in nats a token."""
    from clew.recipes.rl_learner import logprobs_under

    found = logprobs_under(policy.model, examples)
    return -sum(one.sum().item() for one in found) / sum(len(one) for one in found)


def reinforce(found: Found, pupil: Pupil) -> Learnt:
    """Policy gradient on D_search (roadmap, equation 4): a solution's reward above the mean of its problem's, or what a
    step is worth in the search's tree.

    The ratio of the clipped loss is to the log-probs under which the search sampled, so later updates of the round know
    how far the policy has moved. That a search did not draw its solutions independently is not corrected for.
    """
    from clew.learn.schedule import warmup_stable_decay
    from clew.recipes.rl_algorithms import method_of
    from clew.recipes.rl_learner import make_learner
    from clew.recipes.rl_lessons import Lessons, Moment
    from clew.recipes.rl_settings import PolicyGradient
    from clew.recipes.rl_update import update

    settings, policy = pupil.settings, pupil.policy
    rng = random.Random(derive_seed(pupil.seed, "reinforce"))
    of_trees = None if settings.advantage == "solution" else settings.advantage
    gradient = PolicyGradient(**settings.rates("rl"), advantage=of_trees)
    learner = make_learner(gradient, method_of(gradient), policy, pupil.task)
    if of_trees is None:
        made = [_lessons(alike, place, pupil) for place, alike in enumerate(found.by_problem)]
    else:
        made = _tree_lessons(found, learner, pupil.mode)
    groups = [lessons for lessons in made if lessons]
    batches = _batches(groups, settings.rows, settings.epochs, rng)
    positions = 0
    for step, batch in enumerate(batches):
        lessons = [lesson for group in batch for lesson in group]
        tokens = sum(lesson.example.num_learnt for lesson in lessons)
        rate = warmup_stable_decay(step, total=len(batches), decay=len(batches) // 2)
        moment = Moment(step, pupil.seed, rate, pupil.checkpoint)
        done = update(learner, Lessons(lessons=lessons, tokens=tokens, sequences=len(lessons), account={}), moment)
        positions += sum(lesson.example.length for lesson in lessons)
        pupil.record(step, lr=rate, **done.metrics)
    return Learnt(rows=sum(map(len, groups)), updates=len(batches), positions=positions)


def _lessons(alike: Sequence[Solution], group: int, pupil: Pupil) -> list[Lesson]:
    """The solutions of one problem that teach something: none, if all their rewards are equal."""
    import torch

    from clew.learn.advantages import group_centred
    from clew.recipes.rl_credit import Lesson

    values = [one.value for one in alike if one.value is not None]
    advantages = group_centred(torch.tensor([values])).tolist()[0]
    lessons = []
    for one, advantage in zip(alike, advantages, strict=True):
        if one.logprobs is not None and advantage != 0.0:
            example = example_of(pupil.policy, one, pupil.mode)
            lessons.append(
                Lesson(example=example, advantages=torch.full((example.num_learnt,), advantage), group=group)
            )
    return lessons


def _tree_lessons(found: Found, learner: RLLearner, mode: str) -> list[list[Lesson]]:
    """What the steps of each tree teach, by its own values or by how the solutions below each node were judged."""
    from clew.recipes.rl_trees import lessons_of_tree, outcome_values
    from clew.reward.tree_labels import tree_values

    judged: dict[str, dict[int, float]] = {}
    for one in (one for alike in found.by_problem for one in alike):
        if one.origin.node is not None and one.value is not None:
            judged.setdefault(one.problem.id, {})[one.origin.node] = one.value
    made = []
    for place, tree in enumerate(found.trees):
        values = tree_values(tree)
        if len({value for value in values[1:] if value is not None}) < 2:
            values = outcome_values(tree, judged.get(tree.problem.id, {}))
        lessons = lessons_of_tree(learner, tree, mode, group=place, values=values)
        made.append([lesson for lesson in lessons if lesson is not None and lesson.teaches])
    return made


def prefer(found: Found, pupil: Pupil) -> Learnt:
    """Direct preference optimisation of pairs from D_search (roadmap, equation 5), held to the round's first policy."""
    import copy

    from clew.learn.optim import make_optimizer
    from clew.learn.schedule import warmup_stable_decay
    from clew.recipes.rl_learner import logprobs_under

    settings, policy = pupil.settings, pupil.policy
    rng = random.Random(derive_seed(pupil.seed, "prefer"))
    pairs = [pair_examples(policy, pair, pupil.mode) for pair in pairs_of(found, settings, seed=pupil.seed)]
    reference = copy.deepcopy(policy.model).eval()
    told = logprobs_under(reference, [example for pair in pairs for example in pair]) if pairs else []
    held = [(told[2 * at].sum(), told[2 * at + 1].sum()) for at in range(len(pairs))]
    batches = _batches(list(zip(pairs, held, strict=True)), settings.rows, settings.epochs, rng)
    optimizer = make_optimizer(policy.model, **settings.rates("dpo"))
    positions = 0
    for step, batch in enumerate(batches):
        rate = warmup_stable_decay(step, total=len(batches), decay=len(batches) // 2)
        numbers = dpo_step(policy, optimizer, batch, settings, step=step, multiplier=rate, checkpoint=pupil.checkpoint)
        positions += sum(example.length for pair, _ in batch for example in pair)
        pupil.record(step, lr=rate, **numbers)
    read = sum(example.length for pair in pairs for example in pair)
    return Learnt(rows=len(pairs), updates=len(batches), positions=positions, read=read)


def pairs_of(found: Found, settings: Learning, *, seed: int) -> list[Pair]:
    """Preference pairs of the level that is asked for, at most `cap` of a problem."""
    from clew.data.distinct import capped
    from clew.data.pairs import pairs_of_solutions, pairs_of_tree
    from clew.data.tree_steps import best_known

    match settings.level:
        case "solution":
            return pairs_of_solutions(found.solutions, cap=settings.cap, seed=seed)
        case "step":
            pairs = [pair for tree in found.trees for pair in pairs_of_tree(tree, measure=best_known)]
            # The widest differences, which the search is surest of.
            return capped(pairs, settings.cap, problem=lambda p: p.problem.id, rank=lambda p: -p.margin).rows


def dpo_step(  # noqa: PLR0913  an update and its limits, by name
    policy: LocalPolicy,
    optimizer: MuonAdamW,
    batch: Sequence[tuple[tuple[Example, Example], tuple[Tensor, Tensor]]],
    settings: Learning,
    *,
    step: int,
    multiplier: float,
    checkpoint: Path | None = None,
    max_grad_norm: float = 1.0,
) -> dict[str, float]:
    """One update on pairs, each with the reference's log-probs of its two responses; what to log of it."""
    import torch

    from clew.learn.aggregate import token_mean
    from clew.learn.batch import pad
    from clew.learn.gradients import sum_gradients
    from clew.learn.guard import check_finite
    from clew.learn.preference import dpo, margin, summed
    from clew.models.forward import token_logprobs

    tokens = sum(chosen.num_learnt for (chosen, _), _ in batch)

    def loss_of_rows(rows: list[int]) -> tuple[Tensor, tuple[float, float]]:
        padded = pad([batch[row][0][side] for side in (0, 1) for row in rows])
        said = token_logprobs(policy.model, padded.input_ids, padded.targets, padded.target_mask).logprobs
        chosen, rejected = summed(said, padded.target_mask).split(len(rows))
        reference = [torch.stack([batch[row][1][side] for row in rows]) for side in (0, 1)]
        margins = margin(chosen, rejected, *reference)
        loss = dpo(margins, beta=settings.beta).sum() / len(batch)
        written = said[: len(rows)], padded.target_mask[: len(rows)]
        loss = loss + settings.clone_weight * token_mean(-written[0], written[1], tokens=tokens)
        return loss, (loss.item(), (margins > 0).sum().item() / len(batch))

    lengths = [2 * max(chosen.length, rejected.length) for (chosen, rejected), _ in batch]
    noted = sum_gradients(policy.model, lengths, loss_of_rows, tokens_per_pass=TOKENS_PER_PASS)
    loss, preferred = (sum(values) for values in zip(*noted, strict=True))
    grad_norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), max_grad_norm).item()
    check_finite(loss=loss, grad_norm=grad_norm, step=step, checkpoint=checkpoint)
    optimizer.step(multiplier=multiplier)
    optimizer.zero_grad()
    return {"loss": loss, "preferred": preferred, "grad_norm": grad_norm}


def example_of(policy: LocalPolicy, solution: Solution, mode: str) -> Example:
    """The exact tokens of a solution; those that were told carry no loss."""
    from clew.learn.batch import Example

    return Example(
        prompt_ids=policy.prompt_ids(solution.problem, mode),
        response_ids=solution.tokens,
        logprobs=solution.logprobs,
        learnt=solution.learnt,
    )


def pair_examples(policy: LocalPolicy, pair: Pair, mode: str) -> tuple[Example, Example]:
    """Chosen and rejected, after the prompt and what both share."""
    from clew.data.pairs import ids_of
    from clew.learn.batch import Example

    ids = ids_of(pair, policy.prompt_ids(pair.problem, mode))
    chosen, rejected = (Example(prompt_ids=ids.prompt, response_ids=side) for side in (ids.chosen, ids.rejected))
    return chosen, rejected


def _batches(items: Sequence[T], rows: int, epochs: int, rng: random.Random) -> list[list[T]]:
    """`epochs` passes over `items` in random order, in batches of about `rows` that differ by one at most."""
    order = [item for _ in range(epochs) for item in rng.sample(items, len(items))]
    count = max(1, round(len(order) / rows)) if order else 0
    bounds = [len(order) * at // max(1, count) for at in range(count + 1)]
    return [order[start:stop] for start, stop in itertools.pairwise(bounds)]
