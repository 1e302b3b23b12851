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
    """`function`, compiled for the types of the arguments it meets; cached where there is a place to write."""
    # The cache's files are named after it.
    function.__qualname__ = f"{function.__qualname__}-{_digest()}"
    options = {"nogil": True, "error_model": "numpy", "fastmath": _FAST}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        return njit(**options)(function)


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


@njit(nogil=True, error_model="numpy", fastmath=_FAST | {"nnan"})
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


@compiled
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


@compiled
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


@compiled
def swiglu(gate_up, out):
    """out = silu(gate) * up for [tokens, 2 * inner], gates first; out is [tokens, inner]."""
    rows, inner = out.shape
    for row in range(rows):
        # Slices, because an offset in an index keeps the compiler from vectorising.
        gates, ups = gate_up[row, :inner], gate_up[row, inner:]
        for i in range(inner):
            out[row, i] = gates[i] / (np.float32(1.0) + exp32(-gates[i])) * ups[i]


@compiled
def swiglu_backward(grad, gate_up, out):
    """The gradient `out` of `gate_up` [tokens, 2 * inner] from that of silu(gate) * up [tokens, inner]."""
    tokens, inner = grad.shape
    for token in range(tokens):
        gates, ups = gate_up[token, :inner], gate_up[token, inner:]
        grad_gates, grad_ups = out[token, :inner], out[token, inner:]
        for i in range(inner):
            gate = gates[i]
            sigmoid = np.float32(1.0) / (np.float32(1.0) + exp32(-gate))
            silu = gate * sigmoid
            slope = sigmoid + silu * (np.float32(1.0) - sigmoid)
            grad_gates[i] = grad[token, i] * ups[i] * slope
            grad_ups[i] = grad[token, i] * silu


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


@compiled
def split_heads(y, norms, cos, sin, eps, scale, q, k, v):
    """Normalised and rotated queries and keys, and values, of `y` [batch, time, heads + 2 * kv_heads, head_width].

    `norms` [heads + kv_heads, head_width] are the weights of the norms, `cos` and `sin` [time, head_width / 2] the
    angles. `q` is [batch, kv_heads, time, groups, head_width], `k` and `v` [batch, kv_heads, time, head_width]; `scale`
    [batch, time, heads + kv_heads] keeps 1 / rms for the backward pass.
    """
    batch, time, _, width = y.shape
    kv_heads, groups = q.shape[1], q.shape[3]
    heads = kv_heads * groups
    half = width // 2
    rotated = np.empty(width, np.float32)
    for row in range(batch):
        for t in range(time):
            for head in range(heads + kv_heads):
                total = np.float32(0.0)
                for i in range(width):
                    total += y[row, t, head, i] * y[row, t, head, i]
                by = np.float32(1.0) / np.sqrt(total / np.float32(width) + eps)
                scale[row, t, head] = by
                for i in range(half):
                    low, high = y[row, t, head, i] * norms[head, i], y[row, t, head, half + i] * norms[head, half + i]
                    rotated[i] = by * (low * cos[t, i] - high * sin[t, i])
                for i in range(half):
                    low, high = y[row, t, head, i] * norms[head, i], y[row, t, head, half + i] * norms[head, half + i]
                    rotated[half + i] = by * (high * cos[t, i] + low * sin[t, i])
                if head < heads:
                    for i in range(width):
                        q[row, head // groups, t, head % groups, i] = rotated[i]
                else:
                    for i in range(width):
                        k[row, head - heads, t, i] = rotated[i]
            for kv in range(kv_heads):
                for i in range(width):
                    v[row, kv, t, i] = y[row, t, heads + kv_heads + kv, i]


@compiled
def split_heads_backward(grad_q, grad_k, grad_v, y, norms, cos, sin, scale, grad_y, grad_norms):
    """The gradients of `y` and, added up, of `norms`, from those of what `split_heads` wrote."""
    batch, time, _, width = y.shape
    kv_heads, groups = grad_q.shape[1], grad_q.shape[3]
    heads = kv_heads * groups
    half = width // 2
    grad, turned, normed = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    for row in range(batch):
        for t in range(time):
            for head in range(heads + kv_heads):
                if head < heads:
                    for i in range(width):
                        grad[i] = grad_q[row, head // groups, t, head % groups, i]
                else:
                    for i in range(width):
                        grad[i] = grad_k[row, head - heads, t, i]
                for i in range(half):
                    turned[i] = grad[i] * cos[t, i] + grad[half + i] * sin[t, i]
                for i in range(half):
                    turned[half + i] = grad[half + i] * cos[t, i] - grad[i] * sin[t, i]
                by = scale[row, t, head]
                mean = np.float32(0.0)
                for i in range(width):
                    normed[i] = y[row, t, head, i] * by
                    grad_norms[head, i] += turned[i] * normed[i]
                    turned[i] *= norms[head, i]
                    mean += turned[i] * normed[i]
                mean /= np.float32(width)
                for i in range(width):
                    grad_y[row, t, head, i] = by * (turned[i] - normed[i] * mean)
            for kv in range(kv_heads):
                for i in range(width):
                    grad_y[row, t, heads + kv_heads + kv, i] = grad_v[row, kv, t, i]


@compiled
def causal_softmax(scores, first, groups):
    """The softmax of scores [rows, times * groups, columns] over columns not later than its own time, in place.

    `groups` neighbours share a time; the earliest is `first`. Later columns get weight 0.
    """
    rows, queries, _ = scores.shape
    for row in range(rows):
        for query in range(queries):
            end = first + query // groups + 1
            seen = scores[row, query, :end]
            highest = largest(seen)
            total = np.float32(0.0)
            for t in range(seen.size):
                weight = exp32(seen[t] - highest)
                seen[t] = weight
                total += weight
            scale = np.float32(1.0) / total
            for t in range(seen.size):
                seen[t] *= scale
            scores[row, query, end:] = np.float32(0.0)


@compiled
def softmax_backward(probs, grad):
    """The gradient of the scores from `grad`, that of their softmax `probs` [rows, queries, columns]; in place."""
    rows, queries, columns = probs.shape
    for row in range(rows):
        for query in range(queries):
            mean = np.float32(0.0)
            for t in range(columns):
                mean += probs[row, query, t] * grad[row, query, t]
            for t in range(columns):
                grad[row, query, t] = probs[row, query, t] * (grad[row, query, t] - mean)


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


@compiled
def log_softmax_at_backward(probs, targets, grad, out):
    """The gradient `out` [tokens, vocab] of logits / temperature from `grad` [tokens] of the log-probabilities."""
    tokens, vocab = probs.shape
    for token in range(tokens):
        for i in range(vocab):
            out[token, i] = -grad[token] * probs[token, i]
        out[token, targets[token]] += grad[token]
