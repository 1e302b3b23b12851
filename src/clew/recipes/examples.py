"""Text of the corpora as training examples: token ids of a prompt and of the response that carries the loss."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clew.core.errors import InvalidValue
from clew.core.task import split_of
from clew.core.types import Problem, Trajectory
from clew.initialize.countdown_corpus import Passage, document
from clew.initialize.countdown_traces import answer_words, solution_words, thinking_words
from clew.initialize.countdown_world import reachable
from clew.initialize.vocabulary import LARGEST_NUMBER, TEXT
from clew.tasks.countdown import Countdown, Question

if TYPE_CHECKING:
    from clew.learn.batch import Example
    from clew.models.policy import LocalPolicy
    from clew.models.trainable import Trainable
    from clew.recipes.sft import Sft


def countdown_of(task: object) -> Countdown:
    """`task` itself, if there are writers of corpora for it."""
    if isinstance(task, Countdown):
        return task
    name = getattr(task, "name", task)
    advice = "use countdown here; other tasks can be searched, evaluated and learnt by rl from a checkpoint"
    raise InvalidValue("task", name, "countdown: the task that clew writes training text for", advice)


def demonstrable(problems: Sequence[Problem]) -> list[Problem]:
    """The problems that a trace can solve with the words it has."""
    return [
        p for p in problems if p.metadata["target"] in reachable(tuple(sorted(p.metadata["numbers"], reverse=True)))
    ]


def wider_problem(world: Countdown, rng: random.Random) -> Problem:
    """A training problem of a wider world than `world`: larger numbers and targets, so that few are met twice.

    A problem's split derives from the problem alone, so what is held out in `world` never comes up.
    """
    while True:
        numbers = [rng.randint(world.low, min(world.high + 3, LARGEST_NUMBER)) for _ in range(world.count)]
        target = rng.choice(sorted(reachable(tuple(sorted(numbers, reverse=True)))))
        if target and is_training(numbers, target):
            return world.problem({"numbers": numbers, "target": target})


def corpus_batch(policy: LocalPolicy, task: Countdown, rng: random.Random, *, rows: int, tokens: int) -> list[Example]:
    """`rows` documents of `tokens` tokens about the task's world; what a passage is given carries no loss."""
    # No passage has more than three words for two tokens, as `15 * 2 = 30` has.
    return [
        _cut(policy, document(rng, task.count, task.low, task.high, math.ceil(1.5 * tokens), seen=is_training), tokens)
        for _ in range(rows)
    ]


def is_training(numbers: Sequence[int], target: int) -> bool:
    """Whether the problem belongs to the training split, which derives from the problem alone."""
    return split_of(Question(tuple(sorted(numbers)), target).id) == "train"


def _cut(policy: LocalPolicy, passages: Sequence[Passage], tokens: int) -> Example:
    """The first `tokens` tokens of `passages` as one example."""
    from clew.learn.batch import Example

    ids: list[int] = []
    learnt: list[bool] = []
    for passage in passages:
        for words, flag in zip(passage, (False, True), strict=True):
            part = policy.codec.encode_words(" ".join(words))
            ids += part
            learnt += [flag] * len(part)
    start = policy.codec.tokenizer.convert_tokens_to_ids(TEXT)
    return Example(prompt_ids=(start,), response_ids=ids[:tokens], learnt=learnt[:tokens])


def demonstration_batch(
    policy: Trainable,
    world: Countdown,
    problems: Sequence[Problem],
    rng: random.Random,
    *,
    rows: int,
    settings: Sft,
) -> list[Example]:
    """`rows` written solutions: shares `direct` without retries and `at_once` without a thought, the rest thinking.

    A share `wider` of the problems is from a wider world, the rest from `problems`; their numbers are put in a new
    order each time.
    """
    examples = []
    for _ in range(rows):
        drawn = wider_problem(world, rng) if rng.random() < settings.wider else rng.choice(problems)
        numbers, target = list(drawn.metadata["numbers"]), drawn.metadata["target"]
        rng.shuffle(numbers)
        problem = world.problem({"numbers": numbers, "target": target})
        if rng.random() < settings.direct:
            examples.append(cloned(policy, problem, "direct", solution_words(numbers, target, rng)))
        elif rng.random() < settings.at_once:
            examples.append(cloned(policy, problem, "think", answer_words(numbers, target, rng)))
        else:
            examples.append(cloned(policy, problem, "think", thinking_words(numbers, target, rng, settings.style)))
    return examples


def cloned(policy: Trainable, problem: Problem, mode: str, words: Sequence[str]) -> Example:
    """An example that answers `problem` with `words`."""
    from clew.learn.batch import Example

    return Example(prompt_ids=policy.prompt_ids(problem, mode), response_ids=policy.response_ids(" ".join(words)))


def sampled(policy: Trainable, trajectory: Trajectory, mode: str, advantage: float = 1.0) -> Example:
    """An example of the exact tokens that were sampled, with their log-probabilities."""
    from clew.learn.batch import Example

    completion = trajectory.completion
    return Example(
        prompt_ids=policy.prompt_ids(trajectory.state.problem, mode),
        response_ids=completion.tokens,
        logprobs=completion.logprobs,
        advantage=advantage,
    )
