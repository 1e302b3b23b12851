"""Compiled loops for what stands between the matrix products of a small model on a CPU.

Each loop passes once over memory that eager mode passes over several times. They release the interpreter's lock,
so that threads run them side by side, and are compiled at first use, then cached on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

# Sums may be reordered; infinities and NaNs keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}
_LOWEST = np.float32(-87.0)
"""Below it, exp(x) is no longer a normal float32."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, compiled for the types of its first arguments."""
    return njit(nogil=True, cache=True, error_model="numpy", fastmath=_FAST)(function)


@njit(inline="always", fastmath=_FAST)
def exp32(x: np.float32) -> np.float32:
    """e to the power of x <= 88, relative error below 2e-7: the polynomial of Cephes' expf, which loops can vectorise."""
    x = max(x, _LOWEST)
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


@compiled
def normalise(x, eps, out):
    """out = x / rms(x), rows of [tokens, width]."""
    rows, width = x.shape
    for row in range(rows):
        total = np.float32(0.0)
        for i in range(width):
            total += x[row, i] * x[row, i]
        scale = np.float32(1.0) / np.sqrt(total / np.float32(width) + eps)
        for i in range(width):
            out[row, i] = x[row, i] * scale


@compiled
def swiglu(gate_up, out):
    """out = silu(gate) * up for [tokens, 2 * inner], gates first; out is [tokens, inner]."""
    rows, inner = out.shape
    for row in range(rows):
        for i in range(inner):
            gate = gate_up[row, i]
            out[row, i] = gate / (np.float32(1.0) + exp32(-gate)) * gate_up[row, inner + i]


@compiled
def rotate_into_cache(y, cos, sin, keys, values, padding, column, eps, queries):
    """Divide what a projection made, `y` [rows, heads + 2 * kv_heads, head_width], into queries, keys and values.

    Queries and keys are normalised and rotated by tables [context, heads + kv_heads, head_width] that carry norm weights
    and 1 / sqrt(head_width). Queries go to `queries` [rows, heads, head_width], the others to `column` of `keys` [rows,
    kv_heads, head_width, capacity] and `values` [rows, kv_heads, capacity, head_width]; `padding` [rows] columns come
    before position 0.
    """
    rows, all_heads, width = y.shape
    heads, kv_heads = queries.shape[1], keys.shape[1]
    half = width // 2
    rotated = np.empty((heads + kv_heads, width), np.float32)
    for row in range(rows):
        position = column - padding[row]
        for head in range(heads + kv_heads):
            total = np.float32(0.0)
            for i in range(width):
                total += y[row, head, i] * y[row, head, i]
            scale = np.float32(1.0) / np.sqrt(total / np.float32(width) + eps)
            for i in range(half):
                low, high = scale * y[row, head, i], scale * y[row, head, i + half]
                rotated[head, i] = low * cos[position, head, i] + high * sin[position, head, i]
            for i in range(half):
                low, high = scale * y[row, head, i], scale * y[row, head, i + half]
                rotated[head, i + half] = high * cos[position, head, i + half] + low * sin[position, head, i + half]
        for head in range(heads):
            for i in range(width):
                queries[row, head, i] = rotated[head, i]
        for kv in range(kv_heads):
            for i in range(width):
                keys[row, kv, i, column] = rotated[heads + kv, i]
            for i in range(width):
                values[row, kv, column, i] = y[row, heads + kv_heads + kv, i]


@compiled
def softmax_after(scores, padding):
    """The softmax of scores [rows, heads, columns] over columns, in place; the first `padding` [rows] get weight 0."""
    rows, heads, columns = scores.shape
    for row in range(rows):
        for head in range(heads):
            for t in range(padding[row]):
                scores[row, head, t] = -np.inf
            largest = _largest(scores[row, head])
            total = np.float32(0.0)
            for t in range(columns):
                weight = exp32(scores[row, head, t] - largest)
                scores[row, head, t] = weight
                total += weight
            scale = np.float32(1.0) / total
            for t in range(columns):
                scores[row, head, t] *= scale
            for t in range(padding[row]):
                scores[row, head, t] = np.float32(0.0)


@njit(nogil=True, error_model="numpy", fastmath=_FAST | {"nnan"})
def _largest(x):
    largest = x[0]
    for i in range(x.size):
        largest = max(largest, x[i])
    return largest


@compiled
def draw_plainly(logits, uniform, tokens, logprobs):
    """Draw a token a row from softmax(logits) [rows, vocab] by inverting the cumulative distribution at `uniform` [rows].

    `logits` are overwritten. As in `sampling.draw`, uniform * total never rounds up to the total.
    """
    rows, vocab = logits.shape
    cumulative = np.empty(vocab, np.float32)
    for row in range(rows):
        largest = _largest(logits[row])
        for i in range(vocab):
            logits[row, i] = logits[row, i] - largest
        for i in range(vocab):
            cumulative[i] = exp32(logits[row, i])
        running = np.float32(0.0)
        for i in range(vocab):
            running += cumulative[i]
            cumulative[i] = running
        aim = uniform[row] * running
        token = 0
        while cumulative[token] <= aim:
            token += 1
        tokens[row] = token
        logprobs[row] = logits[row, token] - np.log(running)
