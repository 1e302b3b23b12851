"""Answers the requests of many searches at once: merged into few large batches, each share metered."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

from clew.core.cost import Cost
from clew.core.errors import InvalidValue
from clew.core.protocols import Decode, Encode, Extract, Policy, Prompt, Request, Sample, Score, Scorer, Verify
from clew.core.seeds import derive_seed
from clew.core.types import Completion, Problem, Sampling, State, Verdict
from clew.search.record import Answer, Answers, Encoded, Samples, Scores, Texts, Verdicts


class Judge(Protocol):
    """The part of a task that a search may ask."""

    def verify(self, problem: Problem, text: str) -> Verdict: ...

    def extract(self, text: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Roles:
    """Who answers the requests of a search."""

    policy: Policy
    task: Judge
    scorer: Scorer | None = None


class Asked(NamedTuple):
    """One search's pending request and the seed of its search."""

    request: Request
    seed: int


class Served(NamedTuple):
    answer: Answer
    cost: Cost


def sample_seed(seed: int, state: State, index: int) -> int:
    """The random stream of sample `index` of `state`: the same whichever strategy asks for it."""
    return derive_seed(seed, state.problem.id, "sample", index, *state.tokens)


def sampling_cost(completions: Iterable[Completion], seconds: float = 0.0, *, verifier_calls: int = 0) -> Cost:
    """What sampling `completions`, and judging them if they were judged, consumed."""
    sampled = read = cached = reread = calls = 0
    for completion in completions:
        sampled += len(completion.tokens)
        read += completion.prompt_tokens_read
        cached += completion.prompt_tokens_cached
        reread += completion.prompt_tokens_reread
        calls += 1
    return Cost(
        tokens_sampled=sampled,
        prompt_tokens_read=read,
        prompt_tokens_cached=cached,
        prompt_tokens_reread=reread,
        verifier_calls=verifier_calls,
        model_calls=calls,
        seconds=seconds,
    )


def serve(roles: Roles, asked: Sequence[Asked]) -> list[Served]:
    """Answer every request, in order; all samples of equal `Sampling` are one call of the policy, all scores one
    of the scorer. Raises `InvalidValue` for a `Score` request without a scorer."""
    served: list[Served | None] = [None] * len(asked)
    samples: dict[Sampling, list[int]] = {}
    scores: list[int] = []
    for place, (request, _) in enumerate(asked):
        match request:
            case Sample(sampling=sampling):
                samples.setdefault(sampling, []).append(place)
            case Score():
                scores.append(place)
            case Verify(states=states):
                served[place] = _verify(roles, states)
            case Extract(states=states):
                served[place] = _extract(roles, states)
            case Encode(texts=texts):
                served[place] = Served(Encoded(tuple(roles.policy.encode(text) for text in texts)), Cost())
            case Decode(states=states):
                served[place] = Served(Texts(tuple(roles.policy.text(state) for state in states)), Cost())
    for sampling, places in samples.items():
        _put(served, places, _sample(roles.policy, sampling, [asked[place] for place in places]))
    _put(served, scores, _score(roles.scorer, [asked[place].request for place in scores]))
    return [answer for answer in served if answer is not None]


def _put(served: list[Served | None], places: Sequence[int], answers: Sequence[Served]) -> None:
    for place, answer in zip(places, answers, strict=True):
        served[place] = answer


def _prompts(request: Sample, seed: int) -> Iterator[Prompt]:
    # A state that occurs twice in one request goes on with its own indices instead of repeating its samples.
    occurrences: Counter[tuple[int, ...]] = Counter()
    firsts = request.first_index
    for place, state in enumerate(request.states):
        start = firsts if isinstance(firsts, int) else firsts[place]
        first = start + occurrences[state.tokens] * request.n
        occurrences[state.tokens] += 1
        for index in range(first, first + request.n):
            yield Prompt(state, sample_seed(seed, state, index))


def _sample(policy: Policy, sampling: Sampling, asked: Sequence[Asked]) -> list[Served]:
    requests = [request for request, _ in asked if isinstance(request, Sample)]
    prompts = [prompt for request, (_, seed) in zip(requests, asked, strict=True) for prompt in _prompts(request, seed)]
    start = time.perf_counter()
    completions = policy.sample(prompts, sampling) if prompts else []
    seconds = time.perf_counter() - start
    assert len(completions) == len(prompts), "a policy answers every prompt once"
    rest = iter(completions)
    answers = [Samples(tuple(tuple(islice(rest, request.n)) for _ in request.states)) for request in requests]
    costs = [sampling_cost(c for row in answer.values for c in row) for answer in answers]
    shares = _shares(seconds, [cost.tokens for cost in costs])
    return [
        Served(answer, cost + Cost(seconds=share)) for answer, cost, share in zip(answers, costs, shares, strict=True)
    ]


def _score(scorer: Scorer | None, asked: Sequence[Request]) -> list[Served]:
    requests = [request for request in asked if isinstance(request, Score)]
    if not requests:
        return []
    if scorer is None:
        accepted = "a scorer, because this strategy is guided by scores"
        raise InvalidValue("scorer", None, accepted, "pass scorer=..., or guide the strategy by the verifier")
    states = [state for request in requests for state in request.states]
    start = time.perf_counter()
    values = scorer.score(states, [c for request in requests for c in request.completions]) if states else []
    seconds = time.perf_counter() - start
    assert len(values) == len(states), "a scorer rates every state once"
    rest = iter(values)
    tokens = [scorer.cost_tokens(request.states) if request.states else 0 for request in requests]
    shares = _shares(seconds, tokens if any(tokens) else [len(request.states) for request in requests])
    return [
        Served(Scores(tuple(islice(rest, len(request.states)))), Cost(scorer_tokens=read, seconds=share))
        for request, read, share in zip(requests, tokens, shares, strict=True)
    ]


def _verify(roles: Roles, states: Sequence[State]) -> Served:
    start = time.perf_counter()
    verdicts = Verdicts(tuple(roles.task.verify(s.problem, roles.policy.text(s)) for s in states))
    return Served(verdicts, Cost(verifier_calls=len(states), seconds=time.perf_counter() - start))


def _extract(roles: Roles, states: Sequence[State]) -> Served:
    start = time.perf_counter()
    answers = Answers(tuple(roles.task.extract(roles.policy.text(s)) for s in states))
    return Served(answers, Cost(seconds=time.perf_counter() - start))


def _shares(seconds: float, weights: Sequence[int]) -> list[float]:
    """`seconds` in proportion to `weights`; in equal parts if there is nothing to go by."""
    total = sum(weights)
    return [seconds * weight / total if total else seconds / len(weights) for weight in weights]
