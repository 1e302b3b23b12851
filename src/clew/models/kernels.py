"""Compiled loops for what stands between the matrix products of a small model on a CPU.

Each loop passes once over memory that eager mode passes over several times. They release the interpreter's lock,
so that threads run them side by side, and are compiled at first use, then cached on disk. Arrays are float32 and
contiguous; `grad` is the gradient of what the forward loop wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

# Sums may be reordered; infinities and NaNs keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}
_LOWEST, _HIGHEST = np.float32(-87.0), np.float32(88.0)
"""Between them, exp(x) is a normal float32."""


@lru_cache(maxsize=1)
def _digest() -> str:
    """Of the sources of all compiled loops: numba's cache of one file does not notice a change in another."""
    here = Path(__file__).parent
    sources = [here / "blas.py", *sorted(here.glob("*kernels.py"))]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which Python calls, compiled for the types of the arguments it meets; cached where there is room."""
    return _compiled(function)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which other loops call, as `compiled` has it; each of them has its code inside its own.

    Else every loop that calls it would bring a copy of its own under the one name that it has in a process. Copies
    round differently, and whose is called would depend on what that process has compiled or loaded before.
    """
    return _compiled(function, forceinline=True)


def _compiled(function: Callable[..., Any], **options: bool) -> Callable[..., Any]:
    # The cache's files are named after it.
    function.__qualname__ = f"{function.__qualname__}-{_digest()}"
    # Nobody calls a loop from C: one copy less of its code.
    told = {"nogil": True, "error_model": "numpy", "fastmath": _FAST, "no_cfunc_wrapper": True, **options}
    try:
        return njit(cache=True, **told)(function)
    except RuntimeError:
        return njit(**told)(function)


@njit(inline="always", fastmath=_FAST)
def exp32(x: np.float32) -> np.float32:
    """e to the power of x, which is brought between -87 and 88 before; relative error below 2e-7.

    The polynomial is that of expf in the Cephes library, which loops can vectorise.
    """
    x = min(max(x, _LOWEST), _HIGHEST)
    n = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(nogil=True, error_model="numpy", fastmath=_FAST | {"nnan"}, forceinline=True)
def largest(x):
    """The largest entry of a vector."""
    found = x[0]
    for i in range(x.size):
        found = max(found, x[i])
    return found


@compiled
def add_rows(rows, places, out):
    """out[places[i]] += rows[i] for each of rows [n, width]; places may repeat."""
    for i in range(places.size):
        # Slices, because an index from memory keeps the compiler from vectorising.
        row, into = rows[i], out[places[i]]
        for j in range(row.size):
            into[j] += row[j]


@inlined
def normalise(x, eps, out, scale):
    """out = x * scale [tokens, width] with scale = 1 / rms(x) [tokens]."""
    rows, width = x.shape
    for row in range(rows):
        total = np.float32(0.0)
        for i in range(width):
            total += x[row, i] * x[row, i]
        scale[row] = np.float32(1.0) / np.sqrt(total / np.float32(width) + eps)
        for i in range(width):
            out[row, i] = x[row, i] * scale[row]


@inlined
def normalise_backward(grad, z, scale, residual, out):
    """out = residual + the gradient of x, for z = x * scale [tokens, width], scale = 1 / rms(x) [tokens]."""
    tokens, width = z.shape
    for token in range(tokens):
        mean = np.float32(0.0)
        for i in range(width):
            mean += grad[token, i] * z[token, i]
        mean /= np.float32(width)
        for i in range(width):
            out[token, i] = residual[token, i] + scale[token] * (grad[token, i] - z[token, i] * mean)


@inlined
def swiglu(gate_up, out):
    """out = silu(gate) * up for [tokens, 2 * inner], gates first; out is [tokens, inner]."""
    rows, inner = out.shape
    for row in range(rows):
        # Slices, because an offset in an index keeps the compiler from vectorising.
        gates, ups = gate_up[row, :inner], gate_up[row, inner:]
        for i in range(inner):
            out[row, i] = gates[i] / (np.float32(1.0) + exp32(-gates[i])) * ups[i]


@compiled
def draw_plainly(logits, owners, uniform, tokens, logprobs):
    """Draw a token each of samples from softmax(logits) [rows, vocab] of its row, `owners` [samples]: invert the
    cumulative distribution at `uniform` [samples].

    Samples of one row are best neighbours. `logits` are overwritten. As in `sampling.draw`, uniform * total never
    rounds up to the total.
    """
    vocab = logits.shape[1]
    cumulative = np.empty(vocab, np.float32)
    row, total = -1, np.float32(0.0)
    for sample in range(owners.size):
        if owners[sample] != row:
            row = owners[sample]
            highest = largest(logits[row])
            for i in range(vocab):
                logits[row, i] = logits[row, i] - highest
            for i in range(vocab):
                cumulative[i] = exp32(logits[row, i])
            total = np.float32(0.0)
            for i in range(vocab):
                total += cumulative[i]
                cumulative[i] = total
        aim = uniform[sample] * total
        token = 0
        while cumulative[token] <= aim:
            token += 1
        tokens[sample] = token
        logprobs[sample] = logits[row, token] - np.log(total)


@compiled
def describe(logits, entropies, certainties):
    """Entropy of p = softmax(logits) [rows, vocab] and its KL divergence from uniform, KL(uniform || p), [rows], nats.

    The latter is the self-certainty of arXiv 2502.18581, - sum over i of ln(vocab * p_i) / vocab.
    """
    rows, vocab = logits.shape
    for row in range(rows):
        highest = largest(logits[row])
        total = np.float32(0.0)
        weighted = np.float32(0.0)
        plain = np.float32(0.0)
        for i in range(vocab):
            shifted = logits[row, i] - highest
            weight = exp32(shifted)
            total += weight
            weighted += weight * shifted
            plain += shifted
        log_total = np.log(total)
        # Neither is negative; rounding alone can make it so.
        entropies[row] = max(log_total - weighted / total, np.float32(0.0))
        certainties[row] = max(log_total - plain / np.float32(vocab) - np.log(np.float32(vocab)), np.float32(0.0))


@inlined
def split_heads(y, norms, cos, sin, eps, times, first, q, k, v, scale):
    """Normalised and rotated queries and keys, and values, of `y` [tokens, (heads + 2 * kv_heads) * head_width].

    `norms` [heads + kv_heads, head_width] are the weights of the norms, `cos` and `sin` [time, head_width / 2] the
    angles at `times` [tokens]. `q` is [kv_heads, n * groups, head_width], `k` and `v` [n, kv_heads, head_width] of n
    tokens, among which these begin with `first`; `scale` [n, heads + kv_heads] keeps 1 / rms for the backward pass.
    """
    kv_heads, width = k.shape[1:]
    heads = len(norms) - kv_heads
    groups, half = heads // kv_heads, width // 2
    for i in range(len(y)):
        token, cosines, sines = first + i, cos[times[i]], sin[times[i]]
        for head in range(heads + kv_heads):
            own, norm = y[i, head * width : (head + 1) * width], norms[head]
            total = np.float32(0.0)
            for j in range(width):
                total += own[j] * own[j]
            by = np.float32(1.0) / np.sqrt(total / np.float32(width) + eps)
            scale[token, head] = by
            into = q[head // groups, token * groups + head % groups] if head < heads else k[token, head - heads]
            for j in range(half):
                low, high = own[j] * norm[j], own[half + j] * norm[half + j]
                into[j] = by * (low * cosines[j] - high * sines[j])
            for j in range(half):
                low, high = own[j] * norm[j], own[half + j] * norm[half + j]
                into[half + j] = by * (high * cosines[j] + low * sines[j])
        for kv in range(kv_heads):
            start = (heads + kv_heads + kv) * width
            own, into = y[i, start : start + width], v[token, kv]
            for j in range(width):
                into[j] = own[j]


@inlined
def join_heads_backward(grad_q, grad_k, grad_v, y, norms, cos, sin, times, first, scale, grad_y, grad_norms):
    """The gradients of `y` and, added up, of `norms`, from those of what `split_heads` wrote; arguments as there."""
    kv_heads, width = grad_k.shape[1:]
    heads = len(norms) - kv_heads
    groups, half = heads // kv_heads, width // 2
    turned, normed = np.empty(width, np.float32), np.empty(width, np.float32)
    for i in range(len(y)):
        token, cosines, sines = first + i, cos[times[i]], sin[times[i]]
        for head in range(heads + kv_heads):
            own, norm, of_norm = y[i, head * width : (head + 1) * width], norms[head], grad_norms[head]
            into = grad_y[i, head * width : (head + 1) * width]
            grad = (
                grad_q[head // groups, token * groups + head % groups] if head < heads else grad_k[token, head - heads]
            )
            for j in range(half):
                turned[j] = grad[j] * cosines[j] + grad[half + j] * sines[j]
            for j in range(half):
                turned[half + j] = grad[half + j] * cosines[j] - grad[j] * sines[j]
            by = scale[token, head]
            mean = np.float32(0.0)
            for j in range(width):
                normed[j] = own[j] * by
                of_norm[j] += turned[j] * normed[j]
                turned[j] *= norm[j]
                mean += turned[j] * normed[j]
            mean /= np.float32(width)
            for j in range(width):
                into[j] = by * (turned[j] - normed[j] * mean)
        for kv in range(kv_heads):
            start = (heads + kv_heads + kv) * width
            own, into = grad_v[token, kv], grad_y[i, start : start + width]
            for j in range(width):
                into[j] = own[j]


@inlined
def causal_softmax(scores, first, groups):
    """The softmax of scores [times * groups, columns] over columns not later than its own time, in place.

    `groups` neighbours share a time; the earliest is `first`. Later columns get weight 0.
    """
    for query in range(len(scores)):
        end = first + query // groups + 1
        seen, rest = scores[query, :end], scores[query, end:]
        highest = largest(seen)
        total = np.float32(0.0)
        for t in range(seen.size):
            weight = exp32(seen[t] - highest)
            seen[t] = weight
            total += weight
        scale = np.float32(1.0) / total
        for t in range(seen.size):
            seen[t] *= scale
        rest[:] = np.float32(0.0)


@inlined
def softmax_backward(probs, grad):
    """The gradient of the scores from `grad`, that of their softmax `probs` [queries, columns]; in place."""
    for query in range(len(probs)):
        own, of = probs[query], grad[query]
        mean = np.float32(0.0)
        for t in range(own.size):
            mean += own[t] * of[t]
        for t in range(own.size):
            of[t] = own[t] * (of[t] - mean)


@compiled
def log_softmax_at(logits, targets, temperature, logprobs, entropies):
    """Log-probabilities of `targets` [tokens] under softmax(logits / temperature), and its entropy, both [tokens].

    `logits` [tokens, vocab] become the probabilities.
    """
    tokens, vocab = logits.shape
    for token in range(tokens):
        highest = largest(logits[token])
        chosen = (logits[token, targets[token]] - highest) / temperature
        total = np.float32(0.0)
        weighted = np.float32(0.0)
        for i in range(vocab):
            shifted = (logits[token, i] - highest) / temperature
            weight = exp32(shifted)
            logits[token, i] = weight
            total += weight
            weighted += weight * shifted
        log_total = np.log(total)
        logprobs[token] = chosen - log_total
        entropies[token] = log_total - weighted / total
        scale = np.float32(1.0) / total
        for i in range(vocab):
            logits[token, i] *= scale
