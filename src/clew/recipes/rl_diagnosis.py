"""What a run of reinforcement learning watches beside its reward: sharpening, collapse, odd samples, and where every
sample went."""

from __future__ import annotations

import math
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

from clew.core.types import FinishReason, Group, Trajectory

if TYPE_CHECKING:
    from clew.data.run import RunDirectory
    from clew.learn.mismatch import Mismatch
    from clew.recipes.rl_lessons import Lessons
    from clew.recipes.rl_partial import Waiting
    from clew.recipes.rl_rollouts import Rollouts

ACCOUNT, ODD = "rl_account.json", "rl_odd_samples.json"
START = 5
"""Updates whose mean is what an alarm compares with."""
ODD_KEPT = 20
NGRAM = 3
SILENT = 10
"""Updates without anything to learn from, in a row, between two times that this is said."""


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """When an alarm rings, against the mean of the first updates."""

    entropy: float = 0.1
    """Share of it that the entropy has fallen to."""
    longer: float = 2.0
    """Times as long as then."""
    shorter: float = 1 / 3
    repetition: float = 0.25
    """By how much the share of repeated n-grams has risen."""
    truncated: float = 0.5
    """Share of responses that are cut off, whatever it was."""


def pass_rates(groups: Sequence[Group]) -> dict[str, float]:
    """`pass_at_1`, `pass_at_2`, `pass_at_4`, ...: unbiased, over the groups that have so many scored samples."""
    from clew.stats.pass_at_k import pass_at_k

    counted = [(len(group.scored), sum(t.verdict.right for t in group.scored)) for group in groups]
    most = max((n for n, _ in counted), default=0)
    rates = {}
    for k in (2**i for i in range(most.bit_length())):
        enough = [(n, c) for n, c in counted if n >= k]
        rates[f"pass_at_{k}"] = float(pass_at_k([n for n, _ in enough], [c for _, c in enough], k).mean())
    return rates


@final
@dataclass(slots=True)
class Alarms:
    """Rings when what is watched has left where it was in the first updates; says each alarm once."""

    limits: Limits = field(default_factory=Limits)
    seen: dict[str, list[float]] = field(default_factory=dict)
    rung: set[str] = field(default_factory=set)

    def see(self, step: int, now: Mapping[str, float]) -> dict[str, float]:
        """1 or 0 for each alarm, of the numbers of update `step` that are there."""
        for name, value in now.items():
            known = self.seen.setdefault(name, [])
            if len(known) < START:
                known.append(value)
        found = {}
        for name, rings in self._rules(now).items():
            found[f"alarm_{name}"] = float(rings)
            if rings and name not in self.rung:
                self.rung.add(name)
                print(f"clew: {name} alarm at step {step}: {self._told(now)}", file=sys.stderr)
        return found

    def _rules(self, now: Mapping[str, float]) -> dict[str, bool]:
        start = {name: statistics.mean(known) for name, known in self.seen.items()}
        rules: dict[str, bool] = {}
        if "entropy" in now:
            rules["entropy"] = now["entropy"] < self.limits.entropy * start["entropy"]
        if "length" in now:
            low, high = self.limits.shorter * start["length"], self.limits.longer * start["length"]
            rules["length"] = not low <= now["length"] <= high
        if "repetition" in now:
            rules["repetition"] = now["repetition"] > start["repetition"] + self.limits.repetition
        if "truncated" in now:
            rules["truncated"] = now["truncated"] > self.limits.truncated
        return rules

    def _told(self, now: Mapping[str, float]) -> str:
        return ", ".join(
            f"{name} {value:.3g} (at first {statistics.mean(self.seen[name]):.3g})" for name, value in now.items()
        )


@final
@dataclass(slots=True)
class Diagnosis:
    """Everything that is watched over a run."""

    alarms: Alarms = field(default_factory=Alarms)
    totals: Counter[str] = field(default_factory=Counter)
    odd: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    idle: int = 0
    """Updates in a row that had nothing to learn from."""

    def see(self, step: int, rollouts: Rollouts, found: Lessons, measured: Mapping[str, float]) -> dict[str, float]:
        """What to log of update `step`; notes where every sample went, and those that are odd."""
        groups = [*rollouts.groups, *rollouts.rejected]
        flat = [t for group in groups for t in group.trajectories]
        self._count(rollouts, found, updated=bool(measured))
        self._say_if_idle(step, rollouts, found, updated=bool(measured))
        if not flat:
            return {}
        now = {
            "length": statistics.fmean(len(t.completion.tokens) for t in flat),
            "repetition": statistics.fmean(_repetition(t) for t in flat),
            "truncated": statistics.fmean(t.completion.finish is FinishReason.LENGTH for t in flat),
        }
        self._note_odd(step, flat)
        watched = now | ({"entropy": measured["entropy"]} if "entropy" in measured else {})
        shown = {name: now[name] for name in ("repetition", "truncated")}
        return pass_rates(groups) | shown | self.alarms.see(step, watched)

    def write(self, run: RunDirectory) -> None:
        """Put the account and the odd samples into the run directory."""
        run.write_json(ACCOUNT, dict(self.totals))
        run.write_json(ODD, [sample for _, sample in self.odd])

    def _count(self, rollouts: Rollouts, found: Lessons, *, updated: bool) -> None:
        self.totals["updates" if updated else "updates_skipped"] += 1
        self.totals["groups"] += len(rollouts.groups) + len(rollouts.rejected)
        self.totals["groups_rejected"] += len(rollouts.rejected)
        self.totals["prompts_too_long"] += rollouts.too_long
        self.totals["samples"] += sum(found.account.values())
        rejected = sum(len(group.trajectories) for group in rollouts.rejected)
        self.totals["samples"] += rejected
        self.totals["samples_rejected"] += rejected
        for name, count in found.account.items():
            self.totals[f"samples_{name}"] += count
        if rollouts.waiting is not None:
            self._count_pieces(rollouts, rollouts.waiting, found)

    def _count_pieces(self, rollouts: Rollouts, waiting: Waiting, found: Lessons) -> None:
        """Samples and groups are all that were begun; tokens by what became of their samples."""
        totals = self.totals
        totals["tokens_sampled"] += rollouts.tokens
        totals["tokens_rejected"] += sum(len(t.completion.tokens) for g in rollouts.rejected for t in g.trajectories)
        for name, count in found.tokens_account.items():
            totals[f"tokens_{name}"] += count
        for name in ("groups", "samples", "tokens"):
            now, dropped = getattr(waiting, name), getattr(waiting, f"{name}_dropped")
            if name != "tokens":
                totals[name] += dropped + now - totals[f"{name}_waiting"]
            totals[f"{name}_dropped"] += dropped
            totals[f"{name}_waiting"] = now

    def say_what_waits(self) -> None:
        """At the end of a run: what was sampled and never learnt from, because it had not ended."""
        waits = {name: self.totals[f"{name}_waiting"] for name in ("groups", "samples", "tokens")}
        if waits["groups"]:
            told = ", ".join(f"{count} {name}" for name, count in waits.items())
            print(f"clew: left in the pool of partial responses at the end, not learnt from: {told}", file=sys.stderr)

    def _say_if_idle(self, step: int, rollouts: Rollouts, found: Lessons, *, updated: bool) -> None:
        # Where a penalty or a bonus acts there is an update without any advantage.
        self.idle = 0 if updated and found.account.get("learnt") else self.idle + 1
        if self.idle % SILENT == 1:
            fates = found.account | {"still being written": rollouts.waiting.samples if rollouts.waiting else 0}
            where = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in fates.items() if count)
            print(f"clew: nothing to learn from at step {step}: {where or 'no samples'}", file=sys.stderr)

    def _note_odd(self, step: int, flat: Sequence[Trajectory]) -> None:
        """Of the samples with the highest reward, those least like the others; paid but wrong ones before all."""
        paid = [t for t in flat if math.isfinite(t.reward.value)]
        if not paid:
            return
        best = max(t.reward.value for t in paid)
        worst = min(t.reward.value for t in paid)
        spreads = {name: _spread([of(t) for t in paid]) for name, of in _TRAITS.items()}
        for t in paid:
            if t.reward.value < best - 0.1 * (best - worst) or best == worst:
                continue
            away = {name: abs(of(t) - spreads[name][0]) / spreads[name][1] for name, of in _TRAITS.items()}
            why = max(away, key=away.__getitem__)
            oddness = away[why] + (0.0 if t.verdict.right else 100.0)
            self.odd.append((oddness, _shown(step, t, why if t.verdict.right else "wrong", oddness)))
        different: dict[tuple[str, str], tuple[float, dict[str, Any]]] = {}
        for pair in sorted(self.odd, key=lambda pair: -pair[0]):
            # One that is sampled again and again would push out all others.
            different.setdefault((pair[1]["problem_id"], pair[1]["text"]), pair)
        self.odd = list(different.values())[:ODD_KEPT]


def mismatch_metrics(apart: Mismatch | None, tokens: Sequence[Sequence[int]]) -> dict[str, float]:
    """What to log of the sampler against the trainer; `worst_token` is the id of the token furthest apart."""
    if apart is None:
        return {}
    row, place = apart.worst_at
    return {
        "ratio_off": abs(math.expm1(min(apart.worst, 50.0))),
        "ratio_mean": apart.mean_ratio,
        "sampler_kl": apart.kl,
        "ess": apart.token_sample_size,
        "ess_sequences": apart.sequence_sample_size,
        "worst_token": float(tokens[row][place]),
    }


def versions_behind(version: str, sampled: str) -> float:
    """Updates between two versions of one policy, as `LocalPolicy.version` names them.

    >>> versions_behind("sft+7", "sft+6")
    1.0
    """
    return float(int(version.rpartition("+")[2]) - int(sampled.rpartition("+")[2]))


def _repetition(trajectory: Trajectory) -> float:
    from clew.reward.writing import repeated_share

    return repeated_share(trajectory.completion.tokens, NGRAM)


def _surprise(trajectory: Trajectory) -> float:
    logprobs = trajectory.completion.logprobs
    return -statistics.fmean(logprobs) if logprobs else 0.0


_TRAITS = {
    "length": lambda t: float(len(t.completion.tokens)),
    "repetition": _repetition,
    "surprise": _surprise,
}


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.pstdev(values) or 1.0


def _shown(step: int, trajectory: Trajectory, why: str, oddness: float) -> dict[str, Any]:
    return {
        "step": step,
        "problem_id": trajectory.state.problem.id,
        "prompt": trajectory.state.problem.prompt[-1].content if trajectory.state.problem.prompt else "",
        "text": trajectory.text,
        **({"pieces": trajectory.completion.pieces} if trajectory.completion.pieces else {}),
        "reward": trajectory.reward.value,
        "parts": dict(trajectory.reward.parts),
        "outcome": trajectory.verdict.outcome.value,
        "odd_by": why,
        "oddness": oddness,
    }
