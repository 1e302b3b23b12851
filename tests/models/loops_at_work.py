"""What a process makes of the compiled loops, as JSON: digests of samples, of their gradient and of Muon's matrices, in
the order of its arguments. With `symbols`, also the loops that stand in the code of another as functions to call."""

from __future__ import annotations

import hashlib
import json
import re
import sys

import numpy as np
import torch

from clew.core.types import Sampling
from clew.evaluate import sample_groups
from clew.learn.batch import Example, pad
from clew.models import body_kernels, column_kernels, decoder_kernels, kernels, orthogonal_kernels
from clew.models.architecture import SmallQwen3, build_model
from clew.models.blas import sgemm
from clew.models.forward import token_logprobs
from clew.models.policy import LocalPolicy
from clew.models.tokenizer import build_tokenizer
from clew.tasks import Countdown

SIZE = SmallQwen3(width=48, layers=2, heads=2, kv_heads=1, head_width=24, ffn_width=96, context=128)
TASK = Countdown(count=2, high=20, target_high=60)
PROBLEMS = TASK.problems("train", 12, 0)


def samples(policy):
    groups = sample_groups(policy, TASK, PROBLEMS, n=4, sampling=Sampling(max_tokens=24), seed=1, stage="samples")
    return [(t.completion.tokens, t.completion.logprobs) for group in groups for t in group.trajectories]


def gradient(policy):
    batch = pad(
        [
            Example(prompt_ids=policy.prompt_ids(problem, "direct"), response_ids=range(5, 30 + at))
            for at, problem in enumerate(PROBLEMS)
        ]
    )
    logprobs = token_logprobs(policy.model, batch.input_ids, batch.targets, batch.target_mask).logprobs
    found = torch.autograd.grad(-logprobs.sum(), list(policy.model.parameters()))
    return logprobs.tolist(), [g.flatten().tolist() for g in found]


def matrices(policy):
    found = []
    for shape in ((48, 96), (96, 40), (64, 24)):
        given = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
        coefficients = tuple(map(np.float32, (3.4445, -4.775, 2.0315)))
        orthogonal_kernels.orthogonalise(sgemm(), given, coefficients, 5, np.float32(1e-7), out := np.empty_like(given))
        found.append(out.tolist())
    return found


def alone(policy):
    """Two of the loops that stand in others, called by themselves."""
    x = np.random.default_rng(2).standard_normal((5, 48), dtype=np.float32)
    z, scale, out = np.empty_like(x), np.empty(5, np.float32), np.empty((5, 24), np.float32)
    kernels.normalise(x, np.float32(1e-6), z, scale)
    kernels.swiglu(x, out)
    return z.tolist(), out.tolist()


def symbols(policy):
    """[loop, loop in its code]; only a process that has compiled a loop itself can tell."""
    found = []
    for module in (kernels, column_kernels, decoder_kernels, body_kernels, orthogonal_kernels):
        for name, loop in vars(module).items():
            for code in getattr(loop, "inspect_llvm", dict)().values():
                defined = re.findall(r'^define [^@]*@"?([^"(]*)', code, re.MULTILINE)
                inside = {m[1] for line in defined if (m := re.search(r"clew6models\d+\w*?kernels\d+(\w*?)_2d", line))}
                inside |= {m[1] for line in defined if (m := re.search(r"clew6models4blas\d+(\w*?)_2d", line))}
                found += [[name, other] for other in inside if other != loop.py_func.__name__]
    return found


def main(words):
    torch.set_num_threads(1)
    policy = LocalPolicy(build_model(SIZE, build_tokenizer(), seed=0), build_tokenizer())
    told = {}
    for word in words:
        made = globals()[word](policy)
        told[word] = made if word == "symbols" else hashlib.sha256(repr(made).encode()).hexdigest()
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
