"""Answers the requests of many searches at once: merged into few large batches, each share metered.

The policy, the scorer and the task are code of others: whatever they raise, or answer that is no answer, becomes a
`Failed` of the search that asked. When a merged batch raises, every search in it is asked for again alone, so that only
the guilty fails.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import NamedTuple, Protocol

from clew.core.cost import Cost
from clew.core.errors import InvalidValue
from clew.core.protocols import Decode, Encode, Extract, Policy, Prompt, Request, Sample, Score, Scorer, Verify
from clew.core.seeds import derive_seed, derive_seeds
from clew.core.types import Completion, Problem, Sampling, State, Verdict
from clew.search.failure import BadAnswer
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


class Failed(NamedTuple):
    """A request that was not answered, why, and what it consumed all the same."""

    error: Exception
    cost: Cost


def sample_seed(seed: int, state: State, index: int) -> int:
    """The random stream of sample `index` of `state`: the same whichever strategy asks for it."""
    return derive_seed(seed, state.problem.id, "sample", index, *state.tokens)


def sample_seeds(seed: int, state: State, indices: Iterable[int]) -> list[int]:
    """`sample_seed` of each of `indices`; what is the same for all of them is written out once."""
    return derive_seeds((seed, state.problem.id, "sample"), indices, state.tokens)


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


def serve(roles: Roles, asked: Sequence[Asked]) -> list[Served | Failed]:
    """Answer every request, in order; all samples of equal `Sampling` are one call of the policy, all scores one
    of the scorer."""
    served: list[Served | Failed | None] = [None] * len(asked)
    samples: dict[Sampling, list[int]] = {}
    scores: list[int] = []
    for place, one in enumerate(asked):
        request = one.request
        if isinstance(request, Sample):
            samples.setdefault(request.sampling, []).append(place)
        elif isinstance(request, Score):
            scores.append(place)
        else:
            (served[place],) = _isolated(partial(_serve_alone, roles), [one])
    for sampling, places in samples.items():
        draw = partial(_sample, roles.policy, sampling)
        _put(served, places, _isolated(draw, [asked[place] for place in places]))
    if scores:
        _put(served, scores, _isolated(partial(_score, roles.scorer), [asked[place] for place in scores]))
    return [answer for answer in served if answer is not None]


def _isolated(
    ask: Callable[[Sequence[Asked]], Sequence[Served | Failed]], asked: Sequence[Asked]
) -> Sequence[Served | Failed]:
    """What `ask` answers; where it raises, each of `asked` is asked for alone and only those that raise again fail."""
    start = time.perf_counter()
    try:
        return ask(asked)
    except Exception as error:  # noqa: BLE001  the boundary to code of others: nothing it raises may end the run
        lost = Cost(seconds=(time.perf_counter() - start) / len(asked))
        if len(asked) == 1:
            return [Failed(error, lost)]
    alone = [answer for one in asked for answer in _isolated(ask, [one])]
    return [answer._replace(cost=answer.cost + lost) for answer in alone]


def _serve_alone(roles: Roles, asked: Sequence[Asked]) -> list[Served | Failed]:
    ((request, _),) = asked
    match request:
        case Verify(states=states):
            return [_verify(roles, states)]
        case Extract(states=states):
            return [_extract(roles, states)]
        case Encode(texts=texts):
            return [Served(Encoded(tuple(tuple(roles.policy.encode(text)) for text in texts)), Cost())]
        case Decode(states=states):
            return [Served(Texts(tuple(roles.policy.text(state) for state in states)), Cost())]
        case _:
            raise TypeError(f"{type(request).__name__} is answered together with others of its kind")


def _put(served: list[Served | Failed | None], places: Sequence[int], answers: Sequence[Served | Failed]) -> None:
    for place, answer in zip(places, answers, strict=True):
        served[place] = answer


def _prompts(request: Sample, seed: int) -> Iterator[Prompt]:
    # A state that occurs twice in one request goes on with its own indices instead of repeating its samples.
    occurrences: dict[tuple[int, ...], int] = {}
    firsts = request.first_index
    for place, state in enumerate(request.states):
        earlier = occurrences.get(state.tokens, 0)
        occurrences[state.tokens] = earlier + 1
        first = (firsts if isinstance(firsts, int) else firsts[place]) + earlier * request.n
        for sample in sample_seeds(seed, state, range(first, first + request.n)):
            yield Prompt(state, sample)


def _sample(policy: Policy, sampling: Sampling, asked: Sequence[Asked]) -> list[Served | Failed]:
    requests = [request for request, _ in asked if isinstance(request, Sample)]
    prompts = [prompt for request, (_, seed) in zip(requests, asked, strict=True) for prompt in _prompts(request, seed)]
    start = time.perf_counter()
    completions = policy.sample(prompts, sampling) if prompts else []
    seconds = time.perf_counter() - start
    if len(completions) != len(prompts):
        raise BadAnswer(f"it gave {len(completions)} completions for {len(prompts)} prompts")
    rest = iter(completions)
    answers = [Samples(tuple(tuple(islice(rest, request.n)) for _ in request.states)) for request in requests]
    given = [[completion for row in answer.values for completion in row] for answer in answers]
    shares = _shares(seconds, [sum(len(c.tokens) + c.prompt_tokens_read for c in some) for some in given])
    costs = [sampling_cost(some, share) for some, share in zip(given, shares, strict=True)]
    return [
        Served(answer, cost)
        if all(completion.tokens for completion in some)
        else Failed(BadAnswer("it gave a completion without a token"), cost)
        for answer, some, cost in zip(answers, given, costs, strict=True)
    ]


def _score(scorer: Scorer | None, asked: Sequence[Asked]) -> list[Served | Failed]:
    requests = [request for request, _ in asked if isinstance(request, Score)]
    if scorer is None:
        accepted = "a scorer, because this strategy is guided by scores"
        raise InvalidValue("scorer", None, accepted, "pass scorer=..., or guide the strategy by the verifier")
    states = list(chain.from_iterable([request.states for request in requests]))
    completions = list(chain.from_iterable([request.completions for request in requests]))
    start = time.perf_counter()
    given = scorer.score(states, completions) if states else []
    seconds = time.perf_counter() - start
    values = list(map(float, given))
    if len(values) != len(states):
        raise BadAnswer(f"{scorer.name!r} gave {len(values)} scores for {len(states)} states")
    rest = iter(values)
    tokens = [scorer.cost_tokens(request.states) if request.states else 0 for request in requests]
    shares = _shares(seconds, tokens if any(tokens) else [len(request.states) for request in requests])
    served: list[Served | Failed] = []
    for request, read, share in zip(requests, tokens, shares, strict=True):
        scores, cost = tuple(islice(rest, len(request.states))), Cost(scorer_tokens=read, seconds=share)
        nan = any(map(math.isnan, scores))
        served.append(Failed(BadAnswer(f"{scorer.name!r} gave NaN"), cost) if nan else Served(Scores(scores), cost))
    return served


def _verify(roles: Roles, states: Sequence[State]) -> Served | Failed:
    start = time.perf_counter()
    verdicts = tuple(roles.task.verify(s.problem, roles.policy.text(s)) for s in states)
    cost = Cost(verifier_calls=len(states), seconds=time.perf_counter() - start)
    for verdict in verdicts:
        if verdict.value is not None and math.isnan(verdict.value):
            return Failed(BadAnswer(f"it gave {verdict!r}"), cost)
    return Served(Verdicts(verdicts), cost)


def _extract(roles: Roles, states: Sequence[State]) -> Served:
    start = time.perf_counter()
    answers = Answers(tuple(roles.task.extract(roles.policy.text(s)) for s in states))
    return Served(answers, Cost(seconds=time.perf_counter() - start))


def _shares(seconds: float, weights: Sequence[int]) -> list[float]:
    """`seconds` in proportion to `weights`; in equal parts if there is nothing to go by."""
    total = sum(weights)
    return [seconds * weight / total if total else seconds / len(weights) for weight in weights]
