"""A run directory that looks like a speedrun's, made of arithmetic instead of training."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

STAGES = ("pretrain", "sft", "expert_iteration", "rl")
PASS = {"pretrain": 0.03, "sft": 0.31, "expert_iteration": 0.42, "rl": 0.63}
SECONDS = {"pretrain": 95.0, "sft": 120.0, "expert_iteration": 60.0, "rl": 210.0}
STEPS = {"pretrain": 700, "sft": 600, "expert_iteration": 150, "rl": 350}
TOKENS = {"pretrain": 8_400_000, "sft": 7_100_000, "expert_iteration": 2_000_000, "rl": 6_250_000}
RIGHT = (
    "have 3 5 7 11 make 24 plan 24 = 11 + 13 try 3 + 5 = 8 7 + 11 = 18 8 + 18 = 26 "
    "no back or try 7 * 5 = 35 35 - 11 = 24 "
    "check 3 left no wait try 3 * 11 = 33 33 - 7 = 26 no back try 7 + 3 = 10 11 + 3 = 14 yes answer 11 + 3 + 5 + 5"
)
WRONG = "have 2 2 9 9 make 17 try 9 + 9 = 18 18 - 2 = 16 16 + 2 = 18 no back try 9 * 2 = 18 yes answer 9 * 2 - 9 / 9"


def rate(mean: float, n: int = 512) -> dict[str, float]:
    """`mean` with a Wald interval that is cut to [0, 1]."""
    half = 1.96 * math.sqrt(max(mean * (1 - mean), 1e-4) / n)
    return {"mean": mean, "low": max(0.0, mean - half), "high": min(1.0, mean + half), "n": n}


def coverage(p: float, k: int, spread: float) -> float:
    """pass@k of problems whose success rates are spread around `p` (larger `spread`: more alike)."""
    a, b = p * spread, (1 - p) * spread
    return 1.0 - math.exp(math.lgamma(b + k) + math.lgamma(a + b) - math.lgamma(b) - math.lgamma(a + b + k))


def stage(name: str) -> dict[str, Any]:
    """One entry of `stages`."""
    p, i = PASS[name], STAGES.index(name)
    alike = (2.0, 1.8, 1.2, 0.55)[i]
    counts = (0.1, 1.0, 1.4, 2.6)[i]
    return {
        "name": name,
        "seconds": SECONDS[name],
        "tokens": TOKENS[name],
        "pass_at_1": rate(p),
        "greedy": rate(p + 0.06),
        "direct": rate(0.7 * p),
        "first_attempt": rate(0.62 * p),
        "pass_at_k": {str(k): rate(coverage(p, k, alike)) for k in (1, 2, 4, 8, 16, 32, 64)},
        "majority_at_k": {str(k): rate(min(0.95, p + 0.05 * math.log2(k))) for k in (4, 8, 16, 32)},
        "by_difficulty": {
            b: rate(p * f, 170) for b, f in (("one multiplication", 1.3), ("mixed", 1.0), ("division", 0.6))
        },
        "mean_length": (30.5, 61.2, 58.9, 83.4)[i],
        "behaviours": {
            "analysis": 0.98 if i else 0.0,
            "decomposition": 0.6 if i else 0.0,
            "completion": 1 + counts,
            "alternative": 0.3 * counts,
            "evaluation": counts,
            "correction": 0.8 * counts,
        },
        "transitions": {
            "analysis": {"completion": 300, "decomposition": 200 - 40 * i},
            "decomposition": {"completion": 190},
            "completion": {"evaluation": 400 + 150 * i, "completion": 130},
            "evaluation": {"correction": 200 + 120 * i, "completion": 160, "alternative": 60},
            "correction": {"completion": 240 + 60 * i, "alternative": 90 + 20 * i},
            "alternative": {"completion": 150},
        },
        "verdict_reasons": {
            "equals 22, not 24": 41,
            "equals 7, not 12": 37,
            "uses 3 twice": 22,
            "no answer": 31,
            "division by zero": 2,
            "right": 379,
        },
    }


def search() -> list[dict[str, Any]]:
    """Three lines of searches over sizes 1 to 64."""
    lines = (("best-of-n", "verifier", 0.093), ("best-of-n", "mean-logprob", 0.022), ("majority-vote", None, 0.036))
    out = []
    for strategy, guidance, gain in lines:
        for n in (1, 2, 4, 8, 16, 32, 64):
            cost = {
                "tokens_sampled": 83.4 * n,
                "prompt_tokens_read": 12.0,
                "prompt_tokens_cached": 12.0 * (n - 1),
                "scorer_tokens": 0.0,
                "verifier_calls": float(n) if guidance == "verifier" else 0.0,
                "model_calls": float(n),
                "seconds": 0.0021 * n,
            }
            accuracy = rate(min(0.985, 0.63 + gain * math.log2(n) * (1 - 0.05 * math.log2(n))))
            out.append({"strategy": strategy, "guidance": guidance, "n": n, "cost": cost, "accuracy": accuracy})
    return out


def summary() -> dict[str, Any]:
    """A whole `summary.json`."""
    return {
        "total_seconds": 571.3,
        "peak_rss_mib": 1422.0,
        "device": "cpu",
        "seed": 0,
        "stages": [stage(name) for name in STAGES],
        "search": search(),
        "claims": {
            "thinking": {
                "think": rate(0.63),
                "direct": rate(0.441),
                "holds": True,
                "note": "Same weights, same problems.",
            },
            "majority_above_sampling": {"majority": rate(0.79), "one_sample": rate(0.63), "holds": True, "note": ""},
        },
    }


def metrics(seed: int = 0) -> list[dict[str, Any]]:
    """Rows of all four stages; RL has every metric."""
    random_ = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for name in STAGES:
        for step in range(STEPS[name]):
            done = step / STEPS[name]
            row: dict[str, Any] = {
                "stage": name,
                "step": step,
                "seconds": SECONDS[name] * (step + 1) / STEPS[name],
                "tokens": int(TOKENS[name] * (step + 1) / STEPS[name]),
                "loss": 0.7 + 4.0 * math.exp(-12 * done) + random_.gauss(0, 0.05),
                "lr": 4e-3 * min(1.0, 20 * done) * (1 - done),
                "grad_norm": 0.4 + random_.expovariate(6),
                "tokens_per_second": 40_000 + random_.gauss(0, 900),
            }
            if name == "rl":
                row |= {
                    "accuracy": min(1.0, max(0.0, 0.42 + 0.23 * (1 - math.exp(-4 * done)) + random_.gauss(0, 0.03))),
                    "length": 59 + 25 * done + random_.gauss(0, 2),
                    "kl": 0.06 * done + abs(random_.gauss(0, 0.004)),
                    "entropy": 0.9 - 0.5 * done + random_.gauss(0, 0.02),
                    "groups_dropped": float(random_.randint(4, 20)),
                    "unscored": 0,
                }
            rows.append(row)
    return rows


def samples() -> list[dict[str, Any]]:
    """Seven right and seven wrong answers of the last stage, and two of an earlier one."""
    out = []
    for i in range(14):
        right = i % 2 == 0
        out.append(
            {
                "stage": "rl",
                "problem_id": f"countdown:3-5-7-11={24 + i}",
                "prompt": f"numbers 3 5 7 11 target {24 + i}",
                "text": RIGHT if right else WRONG,
                "outcome": "right" if right else "wrong",
                "reason": "" if right else "equals 17, but 2 is unused",
                "tokens": 71 if right else 44,
            }
        )
    return [{**out[0], "stage": "sft", "problem_id": "early"}, *out]


def odd() -> list[dict[str, Any]]:
    """Two samples of reinforcement learning that stand out, the first twice."""
    paid = {"problem_id": "countdown:2-2-9-9=17", "prompt": "numbers 2 2 9 9 target 17", "text": WRONG, "reward": 1.0}
    hacked = {**paid, "step": 40, "outcome": "wrong", "odd_by": "wrong", "oddness": 103.2, "parts": {"style": 1.0}}
    long = {**paid, "step": 7, "text": RIGHT, "outcome": "right", "odd_by": "length", "oddness": 4.18, "parts": {}}
    return [hacked, {**hacked, "step": 41}, long]


ACCOUNT = {"samples": 200, "samples_learnt": 150, "samples_without_advantage": 50, "groups": 25, "updates": 3}

CONFIG: dict[str, Any] = {
    "task": {"name": "countdown", "numbers": 4, "low": 1, "high": 9},
    "model": {"layers": 4, "width": 128, "heads": 4},
    "rl": {"steps": 350, "problems": 64, "samples": 8, "lr": 4e-4, "kl": None, "betas": [0.9, 0.95]},
    "seed": 0,
}
ENVIRONMENT: dict[str, Any] = {
    "python": "3.11.9",
    "versions": {"torch": "2.13.0+cpu", "transformers": "5.1.0"},
    "cpu": "Intel(R) Xeon(R) Platinum 8481C",
    "cores": 2,
    "memory_gib": 7.8,
    "git_commit": "ccdc9fc",
}


def write(run_dir: Path, **changes: Any) -> Path:
    """Write a fake run into `run_dir`; a change of None leaves that file out, any other value replaces it."""
    files: dict[str, Any] = {
        "summary": summary(),
        "metrics": metrics(),
        "config": CONFIG,
        "environment": ENVIRONMENT,
        "samples": samples(),
        "rl_odd_samples": odd(),
        "rl_account": ACCOUNT,
        **changes,
    }
    run_dir.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        if value is None:
            continue
        if name == "metrics":
            (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in value), encoding="utf-8")
        else:
            (run_dir / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return run_dir
