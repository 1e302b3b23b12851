"""Semantic entropy: how many different things the samples of a problem mean (arXiv 2302.09664; Nature 630, 2024).

Samples are put into clusters of one meaning first: by their canonical answer, or by `cluster_by_entailment`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence

from clew.core.errors import InvalidValue


def semantic_entropy(labels: Sequence[Hashable]) -> float:
    """Entropy of the share of samples in each cluster, in nats (the discrete form); `labels` name clusters.

    A sample labelled None says nothing and means the same as no other: it is a cluster of its own. Raises
    `InvalidValue` if there is no sample.

    >>> round(semantic_entropy("aaaaaabbbc"), 6)
    0.897946
    """
    return _entropy(_weights(labels, [1.0] * len(labels)))


def likelihood_semantic_entropy(labels: Sequence[Hashable], mean_logprobs: Sequence[float]) -> float:
    """As `semantic_entropy`, each sample weighing its likelihood, normalised by length: exp(mean log-prob a token).

    p(c) is the sum over the samples of c, divided by that over all samples (arXiv 2302.09664).
    Raises `InvalidValue` for a log-prob that is not finite.

    >>> round(likelihood_semantic_entropy("ab", [-1.0, -1.0]) / math.log(2), 6)
    1.0
    """
    if len(labels) != len(mean_logprobs):
        given = f"{len(mean_logprobs)} for {len(labels)} samples"
        raise InvalidValue("number of log-probs", given, "one log-prob a sample", "pass both from the same samples")
    if not all(map(math.isfinite, mean_logprobs)):
        raise InvalidValue("log-probs", list(mean_logprobs), "finite numbers", "leave out samples that have none")
    # Only ratios matter: relative to the likeliest sample, no sum can vanish.
    top = max(mean_logprobs, default=0.0)
    return _entropy(_weights(labels, [math.exp(logprob - top) for logprob in mean_logprobs]))


def cluster_by_entailment(texts: Sequence[str], entails: Callable[[str, str], bool]) -> list[int]:
    """A cluster label for each text, numbered from 0 in the order of their first members.

    Two texts mean the same if each entails the other. A text is compared with the first member of each cluster, in
    order, and joins the first that fits (arXiv 2302.09664, algorithm 1). `entails(premise, hypothesis)` is the user's:
    a language-inference model, or a rule. With context, put the question in front of both.

    >>> cluster_by_entailment(["7", "7.0", "8"], lambda premise, hypothesis: float(premise) == float(hypothesis))
    [0, 0, 1]
    """
    firsts: list[str] = []
    labels = []
    for text in texts:
        fits = (label for label, first in enumerate(firsts) if entails(first, text) and entails(text, first))
        label = next(fits, len(firsts))
        if label == len(firsts):
            firsts.append(text)
        labels.append(label)
    return labels


def _weights(labels: Sequence[Hashable], weights: Iterable[float]) -> list[float]:
    if not labels:
        raise InvalidValue("labels", labels, "at least one sample", "sample before measuring uncertainty")
    clusters: dict[Hashable, list[float]] = {}
    for place, (label, weight) in enumerate(zip(labels, weights, strict=True)):
        key = ("says nothing", place) if label is None else ("says", label)
        clusters.setdefault(key, []).append(weight)
    return [math.fsum(members) for members in clusters.values()]


def _entropy(weights: Sequence[float]) -> float:
    total = math.fsum(weights)
    shares = [weight / total for weight in weights if weight > 0.0]
    # One cluster is certain: -1 ln 1 would be -0.
    return max(0.0, -math.fsum(share * math.log(share) for share in shares))
