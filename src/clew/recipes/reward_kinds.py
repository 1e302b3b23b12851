"""Each kind of learned reward: what it takes from judged solutions, and how it learns from that."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.recipes.reward_fit import Learner

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from clew.core.types import Group, Problem
    from clew.data.step_labels import StepLabels
    from clew.learn.batch import Example
    from clew.reward.bradley_terry import Preference
    from clew.reward.fit import Labelled
    from clew.reward.implicit import JudgedResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceSettings:
    """Settings of --kind preference."""

    pairs: int = 4
    """Most pairs of a right and a wrong solution of each problem."""
    margin: float = 0.0
    """By how much a right solution's reward ought to exceed a wrong one's."""
    centring: float = 0.01
    """Weight of the squared sum of both rewards, which keeps rewards around 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitSettings:
    """Settings of --kind implicit."""

    beta: float = 0.05
    """What the log-ratio is multiplied by: the smaller, the further the model moves from its reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerativeSettings:
    """Settings of --kind generative."""

    question: str = ""
    """Put after the solution, e.g. "Is this right?"; clew's small models need none."""
    right: str = "yes"
    """The one token that calls a solution right."""
    wrong: str = "no"
    """The one token that calls it wrong."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What every kind learns from: a policy and judged solutions, of training problems and of held-out ones."""

    model: PreTrainedModel
    """The policy's; it is copied, never trained."""
    tokenizer: Any
    prompt_ids: Callable[[Problem], tuple[int, ...]]
    mode: str
    seed: int
    train: Sequence[Group] = field(default=())
    held_out: Sequence[Group] = field(default=())


def process(source: Source, train: Sequence[StepLabels], held_out: Sequence[StepLabels]) -> Learner:
    """A value after each step, from labels of steps (Math-Shepherd, arXiv 2312.08935; PRM800K, 2305.20050)."""
    examples, others = (
        [e for labels in some if (e := labelled_steps(labels, source)) is not None] for some in (train, held_out)
    )
    return process_learner(source.model, examples, others, mode=source.mode)


def process_learner(
    policy: PreTrainedModel, examples: Sequence[Labelled], held_out: Sequence[Labelled], *, mode: str
) -> Learner:
    """A value model that starts from the weights of `policy` and says the mean label of everything."""
    from transformers import AutoModelForTokenClassification

    from clew.models.any_backbone import classifier_of

    weight = sum(sum(e.weights) for e in examples) or 1.0
    rate = sum(label * w for e in examples for label, w in zip(e.labels, e.weights, strict=True)) / weight
    model = classifier_of(policy, AutoModelForTokenClassification, label="right", base_rate=rate)
    return classifier_learner(model, "process", mode, examples, held_out)


def outcome(source: Source) -> Learner:
    """P(right) of a finished answer, by classification (arXiv 2110.14168)."""
    from clew.reward.outcome import outcome_model_of

    model = outcome_model_of(source.model)
    return classifier_learner(
        model, "outcome", source.mode, *(_ends(some, source) for some in (source.train, source.held_out))
    )


def preference(source: Source, settings: PreferenceSettings) -> Learner:
    """A score of finished answers, from pairs of a right and a wrong one (Bradley-Terry)."""
    from clew.reward.bradley_terry import mean_loss, preference_step
    from clew.reward.load import RewardCard
    from clew.reward.outcome import outcome_model_of

    model = outcome_model_of(source.model)
    train, held_out = (pairs_of(some, source, settings) for some in (source.train, source.held_out))
    return Learner(
        model=model,
        card=RewardCard(kind="preference", mode=source.mode),
        examples=train,
        update=partial(preference_step, model, centring=settings.centring),
        held_out_loss=lambda: mean_loss(model, needed(held_out), centring=settings.centring),
    )


def implicit(source: Source, settings: ImplicitSettings) -> Learner:
    """Token rewards from outcomes alone: log-ratios to the policy (PRIME, arXiv 2502.01456)."""
    import copy

    from clew.reward.implicit import implicit_loss, implicit_step
    from clew.reward.load import RewardCard

    model = copy.deepcopy(source.model)
    train, held_out = (_judged(some, source) for some in (source.train, source.held_out))
    return Learner(
        model=model,
        card=RewardCard(kind="implicit", mode=source.mode, beta=settings.beta),
        examples=train,
        update=partial(implicit_step, model, beta=settings.beta),
        held_out_loss=lambda: implicit_loss(model, needed(held_out), beta=settings.beta),
        reference=source.model,
    )


def generative(source: Source, settings: GenerativeSettings) -> Learner:
    """A judge that says yes or no after a solution (GenRM, arXiv 2408.15240)."""
    import copy

    from clew.reward.generative import judge_loss, judge_step
    from clew.reward.load import RewardCard

    model = copy.deepcopy(source.model)
    train, held_out = (_verdicts(some, source, settings) for some in (source.train, source.held_out))
    return Learner(
        model=model,
        card=RewardCard(
            kind="generative",
            mode=source.mode,
            right=settings.right,
            wrong=settings.wrong,
            question=settings.question,
        ),
        examples=train,
        update=partial(judge_step, model),
        held_out_loss=lambda: judge_loss(model, needed(held_out)),
    )


def labelled_steps(labels: StepLabels, source: Source) -> Labelled | None:
    """The labels as places in the prompt and the solution; None without one that counts.

    A solution that is known as text only is read by the tokenizer, step after step.
    """
    from clew.reward.fit import Labelled

    prompt = source.prompt_ids(labels.problem)
    if labels.tokens is not None and labels.spans is not None:
        tokens, stops = labels.tokens, [span.stop for span in labels.spans]
    else:
        pieces = [tuple(source.tokenizer.encode(step, add_special_tokens=False)) for step in labels.steps]
        tokens = tuple(token for piece in pieces for token in piece)
        stops = [sum(map(len, pieces[: at + 1])) for at in range(len(pieces))]
    counted = {
        len(prompt) + stop - 1: (label, weight)
        for stop, label, weight in zip(stops, labels.labels, labels.weights, strict=True)
        if label is not None and weight > 0.0
    }
    if not counted:
        return None
    return Labelled(
        ids=prompt + tokens,
        places=tuple(counted),
        labels=tuple(label for label, _ in counted.values()),
        weights=tuple(weight for _, weight in counted.values()),
    )


def pairs_of(groups: Sequence[Group], source: Source, settings: PreferenceSettings) -> list[Preference]:
    """Pairs of a right and a wrong solution of each problem that has both, drawn by the seed."""
    from clew.reward.bradley_terry import Preference

    pairs = []
    for group in groups:
        rng = random.Random(derive_seed(source.seed, "pairs", group.problem.id))
        prompt = source.prompt_ids(group.problem)
        texts = {t.state.tokens: t.verdict.right for t in group.scored}
        right = [prompt + tokens for tokens, good in texts.items() if good]
        wrong = [prompt + tokens for tokens, good in texts.items() if not good]
        both = list(itertools.product(right, wrong))
        pairs += [
            Preference(chosen=chosen, rejected=rejected, margin=settings.margin)
            for chosen, rejected in rng.sample(both, min(settings.pairs, len(both)))
        ]
    return pairs


def needed(held_out: Sequence[Any]) -> Sequence[Any]:
    """`held_out` if there is something in it. Raises `InvalidValue`."""
    if not held_out:
        accepted = "held-out problems with right and with wrong solutions"
        raise InvalidValue("number of held-out examples", 0, accepted, "raise --settings.held-out")
    return held_out


def classifier_learner(
    model: PreTrainedModel, kind: Any, mode: str, examples: Sequence[Labelled], held_out: Sequence[Labelled]
) -> Learner:
    """`model`, a classifier of one label, that learns the labels of `examples`."""
    from clew.recipes.process_reward import cross_entropy
    from clew.reward.fit import value_step
    from clew.reward.load import RewardCard

    return Learner(
        model=model,
        card=RewardCard(kind=kind, mode=mode),
        examples=examples,
        update=partial(value_step, model),
        held_out_loss=lambda: cross_entropy(model, needed(held_out)),
    )


def _ends(groups: Sequence[Group], source: Source) -> list[Labelled]:
    from clew.reward.fit import final_label

    return [
        final_label(source.prompt_ids(group.problem), t.state.tokens, t.reward.value, 1.0)
        for group in groups
        for t in group.scored
    ]


def _judged(groups: Sequence[Group], source: Source) -> list[JudgedResponse]:
    from clew.learn.batch import Example
    from clew.reward.implicit import JudgedResponse, reference_logprobs

    told = [(source.prompt_ids(group.problem), t) for group in groups for t in group.scored]
    examples = [Example(prompt_ids=prompt, response_ids=t.state.tokens) for prompt, t in told]
    reference = reference_logprobs(source.model, examples) if examples else []
    return [
        JudgedResponse(prompt_ids=prompt, response_ids=t.state.tokens, reference=logprobs, outcome=t.reward.value)
        for (prompt, t), logprobs in zip(told, reference, strict=True)
    ]


def _verdicts(groups: Sequence[Group], source: Source, settings: GenerativeSettings) -> list[Example]:
    from clew.models.ratings import Ratings
    from clew.reward.generative import Verification

    rater = Ratings(model=source.model, tokenizer=source.tokenizer, prompt_ids=source.prompt_ids)
    asked = Verification(
        question=rater.encode(settings.question) if settings.question else (),
        right=rater.token(settings.right),
        wrong=rater.token(settings.wrong),
    )
    return [
        asked.example(source.prompt_ids(group.problem), t.state, right=t.verdict.right)
        for group in groups
        for t in group.scored
    ]
