"""One honest sentence under each figure, made from its numbers.

Two rates are said to differ only when their 95 % intervals are disjoint; otherwise the sentence says that
the run cannot tell them apart.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from clew.report.data import Rate, SearchPoint, Stage, Summary
from clew.report.plots import Point, behaviour_names
from clew.report.words import ROUND, count, listed, percent, short, stage_label, with_interval

CURVES = "Pale: step by step; strong: running mean. From and to are the means of the first and last tenth of the steps."

ROUNDING = 1e-6


def disjoint(a: Rate, b: Rate) -> bool:
    """Whether the intervals of `a` and `b` share no value."""
    return a.low > b.high or b.low > a.high


def compared(new: Rate, old: Rate) -> str:
    """How `new` stands to `old`, as a phrase: above or below only with disjoint intervals."""
    if not disjoint(new, old):
        return "not clearly different from"
    return "above" if new.mean > old.mean else "below"


def headline(summary: Summary) -> str:
    """The result of the run in one sentence."""
    last = _last(summary.stages, "pass_at_1")
    counted = summary.labels.get("labels"), summary.labels.get("solutions")
    if last is None and all(isinstance(n, int) for n in counted):
        return "{:,} steps of {:,} solutions are labelled.".format(*counted)
    if last is None:
        return "No accuracy was measured in this run."
    rate = last.rates["pass_at_1"]
    names = listed(_steps_taken([s.name for s in summary.stages[: summary.stages.index(last) + 1]]))
    text = f"After {names}, one sampled answer solves {percent(rate.mean)} of {rate.n:,} held-out problems"
    best = best_search(summary.search)
    if best is None:
        return f"{text}."
    return f"{text}; {best.label} reaches {percent(best.accuracy.mean)}."


def _steps_taken(names: Sequence[str]) -> list[str]:
    """The stages by name; of a loop, how many rounds."""
    rounds = sum(name.startswith(ROUND) for name in names)
    if not rounds:
        return [stage_label(name) for name in names]
    return [f"{rounds} round{'s' * (rounds > 1)} of search and learning"]


def best_search(points: Sequence[SearchPoint]) -> SearchPoint | None:
    """The point of highest accuracy; of equals, the cheapest."""
    return max(points, key=lambda p: (p.accuracy.mean, -(p.tokens or 0.0)), default=None)


def accuracy(stages: Sequence[Stage]) -> str:
    """pass@1 of the first and the last stage that have it."""
    have = [s for s in stages if "pass_at_1" in s.rates]
    if not have:
        return "Dots are accuracy, whiskers the 95 % interval."
    new = have[-1].rates["pass_at_1"]
    text = (
        f"{_sentence_case(stage_label(have[-1].name))} ends at a pass@1 of {with_interval(new)} over {new.n:,} problems"
    )
    if len(have) == 1:
        return f"{text}; whiskers are 95 % intervals."
    before = have[-2]
    old = before.rates["pass_at_1"]
    relation = compared(new, old)
    return f"{text}, {relation} the {with_interval(old)} of {stage_label(before.name)}; whiskers are 95 % intervals."


def pass_at_k(stages: Sequence[Stage]) -> str:
    """What happened to coverage at the largest k that the first and last curve share."""
    have = [s for s in stages if s.pass_at_k]
    how = "pass@k is the chance that at least one of k samples is right"
    if len(have) < 2:
        return f"{_sentence_case(how)}; bands are 95 % intervals."
    old, new = have[-2], have[-1]
    shared = [k for k in new.pass_at_k if k in old.pass_at_k]
    if not shared:
        return f"{_sentence_case(how)}; bands are 95 % intervals."
    k = max(shared)
    a, b = old.pass_at_k[k], new.pass_at_k[k]
    text = (
        f"{_sentence_case(how)}: at k = {k}, {stage_label(new.name)} has {with_interval(b)}, {compared(b, a)} "
        f"the {with_interval(a)} of {stage_label(old.name)}"
    )
    one_old, one_new = old.pass_at_k.get(1), new.pass_at_k.get(1)
    if one_old and one_new and disjoint(one_new, one_old) and one_new.mean > one_old.mean and b.mean < a.mean:
        certain = "lost coverage" if disjoint(a, b) else "did not gain coverage"
        return f"{text}; it gained at k = 1 and {certain} at {k}: sharpening."
    return f"{text}."


def difficulty(stages: Sequence[Stage]) -> str:
    """The easiest and the hardest bin of the last stage."""
    have = [s for s in stages if s.by_difficulty]
    bins = have[-1].by_difficulty if have else {}
    if len(bins) < 2:
        return "One colour a stage, one place a difficulty; whiskers are 95 % intervals."
    easy, hard = max(bins, key=lambda b: bins[b].mean), min(bins, key=lambda b: bins[b].mean)
    text = (
        f"After {stage_label(have[-1].name)}, {easy!r} problems are solved most often, {with_interval(bins[easy])}, "
        f"and {hard!r} ones least, {with_interval(bins[hard])}"
    )
    return text + ("." if disjoint(bins[easy], bins[hard]) else "; the intervals overlap, so the order is not certain.")


def curve(what: str, points: Sequence[Point], unit: str = "") -> str:
    """Where a training curve began and ended: means of its first and last tenth.

    Fewer than twenty steps show no noise, so of those it only says from where to where.
    """
    tenth = max(1, len(points) // 10)
    first = sum(y for _, y in points[:tenth]) / tenth
    last = sum(y for _, y in points[-tenth:]) / tenth
    # Beside what the curve reaches, rounding is nothing.
    level = max(abs(y) for _, y in points)
    first, last = (0.0 if abs(end) < ROUNDING * level else end for end in (first, last))
    if tenth < 2 and first != last:
        return f"{_sentence_case(what)} went from {short(first)} to {short(last)}{unit}."
    noise = math.sqrt(
        sum(sum((y - m) ** 2 for _, y in part) for part, m in ((points[:tenth], first), (points[-tenth:], last)))
    )
    # Twice the standard error of the difference of two means of `tenth` values each.
    clear = abs(last - first) > 2 * noise / tenth
    verb = "shows no clear change, from" if not clear else "rose from" if last > first else "fell from"
    return f"{_sentence_case(what)} {verb} {short(first)} to {short(last)}{unit}."


def search(points: Sequence[SearchPoint], stages: Sequence[Stage]) -> str:
    """The best point, its price, and the best without a verifier against one sample."""
    best = best_search([p for p in points if p.tokens])
    if best is None or best.tokens is None:
        return ""
    price = f"{count(best.tokens)} tokens per problem"
    text = f"{_sentence_case(best.label)} is best, {with_interval(best.accuracy)} for {price}"
    last = _last(stages, "pass_at_1")
    blind = best_search([p for p in points if p.guidance != "verifier"])
    if last is None or blind is None:
        return f"{text}; bands are 95 % intervals."
    one = last.rates["pass_at_1"]
    relation = compared(blind.accuracy, one)
    return (
        f"{text}; without the verifier's help the best is {blind.label}, {with_interval(blind.accuracy)}, {relation} "
        f"one sample, {with_interval(one)}. Bands are 95 % intervals."
    )


def behaviours(stages: Sequence[Stage]) -> str:
    """The behaviour whose frequency changed most between the first and last stage."""
    have = [s for s in stages if s.behaviours]
    if not have:
        return ""
    old, new = have[0], have[-1]
    names = behaviour_names(have)
    if old is new:
        most = max(names, key=lambda b: new.behaviours.get(b, 0.0))
        return f"The most frequent behaviour is {most}, {new.behaviours.get(most, 0.0):.2f} times per response."
    moved = max(names, key=lambda b: abs(new.behaviours.get(b, 0.0) - old.behaviours.get(b, 0.0)))
    a, b = old.behaviours.get(moved, 0.0), new.behaviours.get(moved, 0.0)
    if f"{a:.2f}" == f"{b:.2f}":
        return f"From {stage_label(old.name)} to {stage_label(new.name)} no behaviour became more or less frequent."
    return (
        f"From {stage_label(old.name)} to {stage_label(new.name)}, {moved} changed most: {a:.2f} to {b:.2f} times per "
        "response; these are mean counts by cue words, without an interval."
    )


def transitions(stage: Stage) -> str:
    """How to read a transition map, and its most common pair."""
    pairs = {(a, b): n for a, row in stage.transitions.items() for b, n in row.items() if n > 0}
    if not pairs:
        return ""
    (a, b), n = max(pairs.items(), key=lambda item: item[1])
    share = n / sum(stage.transitions[a].values())
    return (
        f"After {stage_label(stage.name)}: each row says what follows that behaviour, in percent; the pair "
        f"seen most is {a} then {b}, which is what follows {a} in {percent(share)} of cases."
    )


def thinking(think: Rate, direct: Rate) -> str:
    """Whether thinking pays, as far as the intervals say."""
    numbers = (
        f"thinking solves {with_interval(think)} of {think.n:,} problems, the direct policy {with_interval(direct)}"
    )
    if not disjoint(think, direct):
        return f"This run cannot tell whether thinking pays: {numbers}, and the intervals overlap."
    if think.mean > direct.mean:
        return f"Thinking pays: {numbers}, and the intervals are disjoint."
    return f"Thinking does not pay here: {numbers}, and the intervals are disjoint."


def reasons(counts: Mapping[str, float], most: int = 6) -> list[tuple[str, int, float]]:
    """The commonest verdict reasons with their numbers blanked: (reason, count, share of all)."""
    merged: Counter[str] = Counter()
    for reason, n in counts.items():
        merged[re.sub(r"-?\d+(?:[/.]\d+)?", "#", reason)] += int(n)
    total = sum(merged.values())
    ordered = sorted(merged.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [(reason, n, n / total) for reason, n in ordered if total]


def _last(stages: Sequence[Stage], key: str) -> Stage | None:
    return next((s for s in reversed(stages) if key in s.rates), None)


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]
