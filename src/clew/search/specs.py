"""Strategies and guides by name, as a command line gives them: `NAME` or `NAME:setting=value,...`.

The settings are the fields of the strategy's dataclass. A field that is itself a dataclass is chosen by the name of
its class (`mcts:rule=puct`), and its own fields are reached with a dot (`mcts:rule.c1=2`, `beam:sampling.top_p=0.9`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, final, get_args, get_origin, get_type_hints

from clew.core.errors import InvalidValue, UnknownName
from clew.core.protocols import Policy, Scorer, Search
from clew.core.types import Sampling
from clew.search.ab_mcts import AbMcts
from clew.search.adaptive_vote import AdaptiveVote
from clew.search.beam import Beam
from clew.search.best_first import BestFirst
from clew.search.best_of_n import BestOfN
from clew.search.best_of_n_then_revise import BestOfNThenRevise
from clew.search.borda import Borda
from clew.search.budget_forcing import BudgetForcing
from clew.search.dvts import Dvts
from clew.search.first_right import FirstRight
from clew.search.guidance import MeanLogProb
from clew.search.guides.semantic_entropy import SemanticEntropy
from clew.search.guides.uncertainty import MeanEntropy, SelfCertainty
from clew.search.gumbel_mcts import GumbelMcts
from clew.search.lookahead import Lookahead
from clew.search.majority_vote import MajorityVote
from clew.search.mcts import Mcts
from clew.search.mctsr import MCTSr
from clew.search.particle_filter import ParticleFilter
from clew.search.rebase import Rebase
from clew.search.reflexion import Reflexion
from clew.search.revise import Revise
from clew.search.rules import Puct
from clew.search.self_refine import SelfRefine
from clew.search.serve import Judge
from clew.search.speculative_rejection import SpeculativeRejection
from clew.search.tree_of_thoughts import TreeOfThoughtsBfs, TreeOfThoughtsDfs
from clew.search.weighted_best_of_n import WeightedBestOfN

Template = Callable[[], Search]
"""Makes a strategy with its default settings; a class of settings that all have one is such a thing."""

STRATEGIES: Mapping[str, Template] = {
    "best-of-n": BestOfN,
    "first-right": FirstRight,
    "majority-vote": MajorityVote,
    "adaptive-vote": AdaptiveVote,
    "weighted-best-of-n": WeightedBestOfN,
    "borda": Borda,
    "speculative-rejection": SpeculativeRejection,
    "beam": Beam,
    "dvts": Dvts,
    "lookahead": Lookahead,
    "rebase": Rebase,
    "best-first": BestFirst,
    "tot-bfs": TreeOfThoughtsBfs,
    "tot-dfs": TreeOfThoughtsDfs,
    "particle-filter": ParticleFilter,
    "mcts": Mcts,
    "puct": lambda: Mcts(rule=Puct()),
    "gumbel-mcts": GumbelMcts,
    "ab-mcts": AbMcts,
    "self-refine": SelfRefine,
    "revise": Revise,
    "reflexion": Reflexion,
    "budget-forcing": BudgetForcing,
    "best-of-n-then-revise": BestOfNThenRevise,
    "mctsr": MCTSr,
}
VERIFIER, FALLBACK = "verifier", "mean-logprob"
"""The guide that is no scorer, and the scorer that needs nothing but the policy's own log-probs."""

_GIVEN_ELSEWHERE = {"guide": "--guidance", "seed": "--seed"}
_NUMBER = {int: ("a whole number", re.compile(r"[+-]?\d{1,18}")), float: ("a number", re.compile(r"[^_]+"))}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GuideSource:
    """What a guide is made from."""

    policy: Policy
    task: Judge
    sampling: Sampling
    """How the search samples a step: its mode and its step ends are those the guide sees."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """A guide by name."""

    make: Callable[[GuideSource], Scorer | None]
    """None of the verifier, which is no scorer."""
    statistics: bool = False
    """Whether it reads the entropies and certainties of completions (`Sampling.statistics`)."""


GUIDANCE: Mapping[str, Guidance] = {
    VERIFIER: Guidance(make=lambda _: None),
    FALLBACK: Guidance(make=lambda _: MeanLogProb()),
    "entropy": Guidance(make=lambda _: MeanEntropy(), statistics=True),
    "self-certainty": Guidance(make=lambda _: SelfCertainty(), statistics=True),
    "semantic-entropy": Guidance(make=lambda source: SemanticEntropy(policy=source.policy, task=source.task)),
}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a command line says for every strategy alike."""

    step: Sampling
    """How strategies that grow step by step, which are those with a `max_depth`, sample a step."""
    solution: Sampling
    """How whole solutions are sampled."""
    guidance: str | None = None
    """Name of the guide; None leaves it to the strategy."""
    seed: int = 0


class Chosen(NamedTuple):
    """A strategy ready to run and the name of what guides it, None where nothing does."""

    strategy: Search
    guidance: str | None


def parse_strategy(
    spec: str,
    given: Given,
    strategies: Mapping[str, Template] = STRATEGIES,
    guides: Mapping[str, Guidance] = GUIDANCE,
) -> Chosen:
    """The strategy of `NAME` or `NAME:setting=value,...`, its sampling, guide and seed as given.

    A strategy whose guide is a scorer, without a guidance, is guided by the mean log-prob. Raises `UnknownName` or
    `InvalidValue`.

    >>> plain = Sampling()
    >>> parse_strategy("best-of-n:n=4", Given(step=plain, solution=plain)).strategy.n
    4
    """
    name, colon, settings = spec.partition(":")
    if name not in strategies:
        raise UnknownName("strategy", name, strategies)
    template: Any = strategies[name]()
    known = {field.name for field in fields(template)}
    guidance = _guidance(name, template, given.guidance, guides, takes_one="guide" in known)
    statistics = guidance is not None and guides[guidance].statistics
    filled: dict[str, Any] = {
        "sampling": given.step if "max_depth" in known else given.solution,
        "rollout": given.solution,
        "seed": given.seed,
        "guide": guidance and ("verifier" if guidance == VERIFIER else "scorer"),
    }
    filled = {key: value for key, value in filled.items() if key in known}
    for key in known:
        sampling = filled.get(key, getattr(template, key))
        if isinstance(sampling, Sampling):
            # What else a strategy samples, such as a critique, has a length of its own and all the rest in common.
            whole = given.solution
            filled[key] = replace(sampling, temperature=whole.temperature, mode=whole.mode, statistics=statistics)
    for setting in settings.split(",") if colon else ():
        _set(name, template, filled, setting)
    return Chosen(replace(template, **filled), guidance)


def takes_guide(spec: str, strategies: Mapping[str, Template] = STRATEGIES) -> bool:
    """Whether the strategy of `spec` can be guided. Raises `UnknownName`."""
    name = spec.partition(":")[0]
    if name not in strategies:
        raise UnknownName("strategy", name, strategies)
    template: Any = strategies[name]()
    return any(field.name == "guide" for field in fields(template))


def parse_guidance(name: str, guides: Mapping[str, Guidance] = GUIDANCE) -> Guidance:
    """The guide of that name. Raises `UnknownName`."""
    if name not in guides:
        raise UnknownName("guidance", name, guides)
    return guides[name]


def _guidance(
    name: str, template: Any, asked: str | None, guides: Mapping[str, Guidance], *, takes_one: bool
) -> str | None:
    if asked is not None:
        parse_guidance(asked, guides)
    if not takes_one:
        if asked is not None:
            advice = "leave --guidance out, or choose a strategy that is guided, such as best-of-n"
            raise InvalidValue("guidance", asked, f"none for {name}, which no guide can change", advice)
        return None
    return asked or {"verifier": VERIFIER, "scorer": FALLBACK}.get(template.guide)


def _set(name: str, template: Any, chosen: dict[str, Any], setting: str) -> None:
    """Put one `key=value` or `key.key=value` into `chosen`."""
    path, equals, text = (part.strip() for part in setting.partition("="))
    key, *inner = path.split(".")
    if key in _GIVEN_ELSEWHERE and any(field.name == key for field in fields(template)):
        accepted = "settings that the command line has no option for"
        raise InvalidValue(f"{name} {path}", text, accepted, f"give {_GIVEN_ELSEWHERE[key]} instead")
    hint = _hint(f"setting of strategy {name}", template, key)
    if not equals:
        accepted = f"settings with their values, such as {name}:{key}={_shown(getattr(template, key))}"
        raise InvalidValue(f"{name} {path}", text, accepted, "write an equals sign and a value after it")
    if inner:
        whole = chosen.get(key, getattr(template, key))
        chosen[key] = _with_inner(f"{name} {key}", whole, inner, text)
    else:
        chosen[key] = _value(f"{name} {path}", hint, text)


def _with_inner(name: str, whole: Any, path: list[str], text: str) -> Any:
    """`whole`, a dataclass, with the field at `path` changed."""
    if not is_dataclass(whole) or isinstance(whole, type):
        accepted = "a dot only behind a setting that has settings itself, such as sampling.temperature"
        raise InvalidValue(f"{name}.{'.'.join(path)}", text, accepted, f"write {name.split()[-1]}={text}")
    key, *inner = path
    hint = _hint(f"setting of {name}", whole, key)
    if inner:
        return replace(whole, **{key: _with_inner(f"{name}.{key}", getattr(whole, key), inner, text)})
    return replace(whole, **{key: _value(f"{name}.{key}", hint, text)})


def _hint(kind: str, owner: Any, key: str) -> Any:
    """The type of field `key`. Raises `UnknownName` for one that is none, or that is filled in by others."""
    names = [field.name for field in fields(owner) if field.init and field.name not in _GIVEN_ELSEWHERE]
    if key not in names:
        raise UnknownName(kind, key, names)
    return get_type_hints(type(owner))[key]


def _value(name: str, hint: Any, text: str) -> Any:
    """`text` as a value of type `hint`."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if NoneType in options:
        if text.lower() == "none":
            return None
        options = tuple(option for option in options if option is not NoneType)
    if all(isinstance(option, type) and is_dataclass(option) for option in options):
        classes: dict[str, Any] = {_kebab(option.__name__): option for option in options}
        return _one_of(name, text, classes)()
    (option, *others) = options
    if get_origin(option) is Literal:
        return _one_of(name, text, {str(choice): choice for choice in get_args(option)})
    if others or option not in (bool, int, float, str):
        raise InvalidValue(name, text, "a setting that one word can give", "set it in Python")
    if option is bool:
        return _one_of(name, text.lower(), {"true": True, "false": False})
    return text if option is str else _number(name, option, text)


def _number(name: str, kind: type[int] | type[float], text: str) -> int | float:
    what, pattern = _NUMBER[kind]
    try:
        number = kind(text) if pattern.fullmatch(text) else math.nan
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise InvalidValue(name, text, what, "write it in digits")
    return number


def _one_of(name: str, text: str, choices: Mapping[str, Any]) -> Any:
    if text not in choices:
        raise UnknownName(name, text, choices)
    return choices[text]


def _kebab(name: str) -> str:
    """
    >>> _kebab("GumbelMcts")
    'gumbel-mcts'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def _shown(value: Any) -> str:
    return _kebab(type(value).__name__) if is_dataclass(value) else str(value).lower()
