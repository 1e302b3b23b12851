"""How hard a problem looks to a policy, judged by a few of its samples and without the answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from clew.core.errors import InvalidValue


def disagreement(answers: Sequence[str | None]) -> float:
    """The share of samples that do not give the most frequent answer; one that gives none agrees with nobody.

    >>> disagreement(["a", "a", "b", None])
    0.5
    """
    if not answers:
        raise InvalidValue("answers", answers, "at least one sample", "sample before predicting difficulty")
    votes = Counter(answer for answer in answers if answer is not None)
    return 1.0 - max(votes.values(), default=0) / len(answers)


def predicted_difficulty(answers: Sequence[str | None], mean_logprobs: Sequence[float | None]) -> float:
    """Disagreement of the samples plus their surprise, -log-prob a token in nats, where the policy gives log-probs.

    The higher, the harder. Surprise orders problems whose few samples disagree equally.
    """
    known = [value for value in mean_logprobs if value is not None]
    return disagreement(answers) - (sum(known) / len(known) if known else 0.0)
