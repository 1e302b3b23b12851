"""Search: strategies as generators, one driver that runs, meters and stops them all. Never imports torch."""

from __future__ import annotations

from clew.core.errors import InvalidValue, UnknownName
from clew.core.protocols import Scorer
from clew.core.types import Sampling
from clew.search.best_of_n import BestOfN
from clew.search.driver import Progress, continue_searches, run_searches
from clew.search.first_right import FirstRight
from clew.search.guidance import Guide, MeanLogProb
from clew.search.majority_vote import MajorityVote
from clew.search.policies import PooledPolicy, ScriptedPolicy, TabularPolicy
from clew.search.record import BudgetExhausted, SearchInterrupted, SearchOutcome, SearchRecord, StopReason
from clew.search.serve import Roles

Strategy = BestOfN | FirstRight | MajorityVote

STRATEGIES = ("best-of-n", "first-right", "majority-vote")
GUIDANCE = ("verifier", "mean-logprob")

__all__ = [
    "GUIDANCE",
    "STRATEGIES",
    "BestOfN",
    "BudgetExhausted",
    "FirstRight",
    "MajorityVote",
    "MeanLogProb",
    "PooledPolicy",
    "Progress",
    "Roles",
    "ScriptedPolicy",
    "SearchInterrupted",
    "SearchOutcome",
    "SearchRecord",
    "StopReason",
    "Strategy",
    "TabularPolicy",
    "continue_searches",
    "make_scorer",
    "make_strategy",
    "run_searches",
]


def make_strategy(
    name: str,
    n: int,
    *,
    guidance: str | None = None,
    sampling: Sampling | None = None,
    per_request: int | None = None,
) -> Strategy:
    """The strategy of that name; `guidance` None is its default. Raises `UnknownName`, or `InvalidValue` for guidance
    given to a strategy that takes none."""
    _check_guidance(guidance)
    sampling = sampling if sampling is not None else Sampling()
    match name:
        case "best-of-n":
            guide: Guide = "verifier" if guidance in (None, "verifier") else "scorer"
            return BestOfN(n=n, sampling=sampling, guide=guide, per_request=per_request)
        case "first-right":
            if guidance not in (None, "verifier"):
                raise InvalidValue(
                    "guidance", guidance, "the verifier for first-right", "leave it out, or use best-of-n"
                )
            return FirstRight(n=n, sampling=sampling)
        case "majority-vote":
            if guidance is not None:
                raise InvalidValue("guidance", guidance, "none for majority-vote", "leave it out, or use best-of-n")
            return MajorityVote(n=n, sampling=sampling, per_request=per_request)
        case _:
            raise UnknownName("strategy", name, STRATEGIES)


def make_scorer(guidance: str | None) -> Scorer | None:
    """The scorer that this guidance needs; None where it needs none. Raises `UnknownName`."""
    _check_guidance(guidance)
    return MeanLogProb() if guidance == "mean-logprob" else None


def _check_guidance(guidance: str | None) -> None:
    if guidance is not None and guidance not in GUIDANCE:
        raise UnknownName("guidance", guidance, GUIDANCE)
