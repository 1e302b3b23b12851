"""Evaluation: problems x policy x search -> groups of judged samples, rates with intervals, cost curves."""

from clew.evaluate.curve import CONTENDERS, Contender, search_curve
from clew.evaluate.sample import sample_groups
from clew.evaluate.summary import StageRates, summarise

__all__ = ["CONTENDERS", "Contender", "StageRates", "sample_groups", "search_curve", "summarise"]
