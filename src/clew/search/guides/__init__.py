"""Guides that need no weights of their own: scorers over what the policy said, what it is asked, rules and verdicts.

Internal guidance (roadmap section 5.1): `MeanLogProb`, `MeanEntropy`, `SelfCertainty`, `SemanticEntropy`,
`SelfEvaluation`, `PairwiseSelfJudgement`. External: `HeuristicRule`, `VerifierScorer`. Learned and exact values are in
`clew.reward`.
"""

from __future__ import annotations

from clew.search.guidance import MeanLogProb
from clew.search.guides.pairwise import PairwiseSelfJudgement
from clew.search.guides.rules import HeuristicRule, VerifierScorer
from clew.search.guides.self_evaluation import SelfEvaluation
from clew.search.guides.semantic_entropy import SemanticEntropy
from clew.search.guides.uncertainty import MeanEntropy, SelfCertainty

__all__ = [
    "HeuristicRule",
    "MeanEntropy",
    "MeanLogProb",
    "PairwiseSelfJudgement",
    "SelfCertainty",
    "SelfEvaluation",
    "SemanticEntropy",
    "VerifierScorer",
]
