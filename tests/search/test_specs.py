"""Strategies and guides by name: what is filled in, what can be set, and what is refused in three parts."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Literal

import pytest

from clew.core.errors import ClewError, InvalidValue, UnknownName
from clew.core.types import Sampling
from clew.search import MeanLogProb, ScriptedPolicy, run_searches
from clew.search.beam import Beam
from clew.search.best_of_n import BestOfN
from clew.search.mcts import Mcts
from clew.search.rules import Puct, Uct
from clew.search.specs import (
    FALLBACK,
    GUIDANCE,
    STRATEGIES,
    VERIFIER,
    Given,
    Guidance,
    GuideSource,
    parse_guidance,
    parse_strategy,
)

STEP = Sampling(step_ends=("=",), max_tokens=48, temperature=0.5)
SOLUTION = Sampling(max_tokens=288, temperature=0.5)
GIVEN = Given(step=STEP, solution=SOLUTION, seed=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd:
    """Fields of every kind that a strategy may have."""

    flag: bool = False
    share: float = 0.5
    word: str = "a"
    kind: Literal["one", "two"] = "one"
    most: int | None = 4
    pieces: tuple[int, ...] = ()
    rule: Uct | Puct = field(default_factory=Uct)

    @property
    def name(self):
        return "odd"

    def run(self, problem):
        yield from ()


def odd(settings):
    return parse_strategy(f"odd:{settings}", GIVEN, {"odd": Odd}).strategy


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_name_alone_is_a_strategy_with_what_the_command_line_says(name):
    strategy, guidance = parse_strategy(name, GIVEN)
    known = {f.name for f in fields(strategy)}
    assert strategy.sampling == (STEP if "max_depth" in known else SOLUTION)
    assert getattr(strategy, "rollout", SOLUTION) == SOLUTION
    assert getattr(strategy, "seed", 3) == 3
    assert guidance is not None or getattr(strategy, "guide", None) is None
    assert getattr(strategy, "answering", SOLUTION).temperature == 0.5
    if guidance is not None:
        assert strategy.guide == ("verifier" if guidance == VERIFIER else "scorer")


def test_nothing_but_what_is_given_differs_from_the_defaults():
    strategy = parse_strategy("mcts", GIVEN).strategy
    assert replace(strategy, sampling=Sampling(), rollout=Sampling(), seed=0) == Mcts()


def test_settings_become_fields():
    strategy = parse_strategy("mcts:iterations=8, width=2,choose=visits,rule=puct,rule.c1=2", GIVEN).strategy
    assert (strategy.iterations, strategy.width, strategy.choose) == (8, 2, "visits")
    assert strategy.rule == Puct(c1=2.0)
    assert parse_strategy("mcts:sampling.top_p=0.9,sampling.max_tokens=1", GIVEN).strategy.sampling == replace(
        STEP, top_p=0.9, max_tokens=1
    )


def test_settings_of_every_kind():
    assert odd("flag=true,share=1e-3,word=b,kind=two,most=7") == Odd(
        flag=True, share=1e-3, word="b", kind="two", most=7
    )
    assert odd("most=none,flag=False").most is None
    assert odd("rule.c=2").rule == Uct(c=2.0)


@pytest.mark.parametrize(
    ("guidance", "guide", "said"),
    [(None, "verifier", VERIFIER), (VERIFIER, "verifier", VERIFIER), (FALLBACK, "scorer", FALLBACK)],
)
def test_guidance_of_a_strategy_that_the_verifier_guides(guidance, guide, said):
    chosen = parse_strategy("best-of-n", replace(GIVEN, guidance=guidance))
    assert (chosen.strategy.guide, chosen.guidance) == (guide, said)


def test_a_scored_strategy_without_guidance_is_guided_by_log_probs():
    assert parse_strategy("beam", GIVEN).guidance == FALLBACK


def test_a_guide_that_may_be_left_out_is_left_out():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Free(Odd):
        guide: Literal["verifier", "scorer"] | None = None

    for asked, guide in ((None, None), (VERIFIER, "verifier"), (FALLBACK, "scorer")):
        chosen = parse_strategy("free", replace(GIVEN, guidance=asked), {"free": Free})
        assert (chosen.strategy.guide, chosen.guidance) == (guide, asked)


def test_statistics_are_sampled_for_guides_that_read_them():
    guides = {"sure": Guidance(make=lambda _: MeanLogProb(), statistics=True), FALLBACK: GUIDANCE[FALLBACK]}
    for name, wanted in (("sure", True), (FALLBACK, False)):
        strategy = parse_strategy("mcts", replace(GIVEN, guidance=name), guides=guides).strategy
        assert strategy.sampling.statistics is strategy.rollout.statistics is wanted


@pytest.mark.parametrize(
    ("spec", "guidance", "says"),
    [
        ("mtcs", None, "did you mean 'mcts'?"),
        ("mcts:", None, "unknown setting of strategy mcts"),
        ("mcts:iteratons=3", None, "did you mean 'iterations'?"),
        ("mcts:iterations", None, "write an equals sign"),
        ("mcts:iterations=x", None, "a whole number"),
        ("mcts:iterations=1.5", None, "a whole number"),
        ("mcts:iterations=1_0", None, "a whole number"),
        ("mcts:iterations=0", None, "iterations is 0"),
        ("mcts:choose=valeu", None, "did you mean 'value'?"),
        ("mcts:rule=put", None, "did you mean 'puct'?"),
        ("mcts:rule.c3=1", None, "unknown setting of mcts rule"),
        ("mcts:width.x=1", None, "write width=1"),
        ("mcts:guide=scorer", None, "give --guidance instead"),
        ("mcts:seed=1", None, "give --seed instead"),
        ("mcts:evaluate=value", None, "the environment judges finished responses only"),
        ("mcts:sampling.temperature=-1", None, "temperature is -1.0"),
        ("mcts:sampling.step_ends=a", None, "set it in Python"),
        ("beam", "verifer", "did you mean 'verifier'?"),
        ("majority-vote", VERIFIER, "leave --guidance out"),
        ("majority-vote", "nobody", "unknown guidance"),
    ],
)
def test_what_is_refused_says_what_to_do(spec, guidance, says):
    with pytest.raises(ClewError) as caught:
        parse_strategy(spec, replace(GIVEN, guidance=guidance))
    message = str(caught.value)
    assert says in message
    assert "\n  accepted: " in message and "\n  what to do: " in message


@pytest.mark.parametrize("settings", ["flag=yes", "share=nan", "share=ten", "kind=three", "most=x", "pieces=1", "no=1"])
def test_values_of_the_wrong_kind_are_refused(settings):
    with pytest.raises((InvalidValue, UnknownName)):
        odd(settings)


def test_guides_by_name(toy):
    source = GuideSource(policy=toy.policy(), task=toy.Task(), sampling=STEP)
    assert parse_guidance(VERIFIER).make(source) is None
    assert parse_guidance(FALLBACK).make(source) == MeanLogProb()
    with pytest.raises(UnknownName, match="mean-logprob"):
        parse_guidance("mean-logprod")


def test_a_parsed_strategy_runs_as_one_that_was_built(toy):
    policy = ScriptedPolicy(lambda prompt, sampling: f"answer {prompt.seed % 10}", logprob=lambda p, t: -1.0)
    parsed = parse_strategy("best-of-n:n=5", Given(step=SOLUTION, solution=SOLUTION)).strategy
    built = BestOfN(n=5, sampling=SOLUTION)
    chosen = [
        [o.result.chosen for o in run_searches(strategy, toy.problems, policy, task=toy.Task())]
        for strategy in (parsed, built)
    ]
    assert chosen[0] == chosen[1]
    assert isinstance(parse_strategy("beam", GIVEN).strategy, Beam)
