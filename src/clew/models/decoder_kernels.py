"""All layers of a small model over new tokens, in one compiled loop: the interpreter is asked once a step."""

from __future__ import annotations

import numpy as np

from clew.models.blas import multiply
from clew.models.column_kernels import rotate_into_cache
from clew.models.kernels import compiled, exp32, inlined, largest, normalise, swiglu


@inlined
def attend(blas, queries, keys, values, rows, columns, padding, out):
    """Values mixed by causal attention, `out` [tokens, heads, head_width], of `queries` of the same shape.

    The token at `rows` and `columns` [tokens] sees its row's keys [rows, kv_heads, head_width, capacity] and values
    [rows, kv_heads, capacity, head_width] from column `padding` [rows] up to its own.
    """
    heads, kv_heads = queries.shape[1], keys.shape[1]
    groups = heads // kv_heads
    memory = np.empty(groups * keys.shape[3], np.float32)
    for token in range(rows.size):
        row = rows[token]
        first, stop = padding[row], columns[token] + 1
        size = stop - first
        scores = memory[: groups * size].reshape(groups, size)
        for kv in range(kv_heads):
            of_kv = slice(kv * groups, (kv + 1) * groups)
            multiply(blas, queries[token, of_kv], keys[row, kv, :, first:stop], scores, np.float32(0.0))
            mixed = out[token, of_kv]
            for group in range(groups):
                own = scores[group]
                highest = largest(own)
                total = np.float32(0.0)
                for t in range(size):
                    weight = exp32(own[t] - highest)
                    own[t] = weight
                    total += weight
                scale = np.float32(1.0) / total
                for t in range(size):
                    own[t] *= scale
            multiply(blas, scores, values[row, kv, first:stop], mixed, np.float32(0.0))


@compiled
def through_layers(
    blas, qkv, output, gate_up, down, norms, cos, sin, keys, values, rows, columns, padding, eps,
    x, z, y, queries, mixed, lifted, product, scale,
):  # fmt: skip
    """Bring hidden states `x` [tokens, width] through the layers; `z` are then the normalised final ones.

    Weights are [layers, in, out], `norms` [layers, heads + kv_heads, head_width], `keys` and `values`
    as in `attend` with layers in front. What follows them in the arguments is as in `attend` and `rotate_into_cache`,
    then memory for what each layer makes.
    """
    tokens, width = rows.size, queries.shape[2]
    zero, one = np.float32(0.0), np.float32(1.0)
    by_heads = y.reshape(tokens, y.shape[1] // width, width)
    flat = mixed.reshape(tokens, mixed.shape[1] * width)
    for layer in range(len(qkv)):
        normalise(x, eps, z, scale)
        multiply(blas, z, qkv[layer], y, zero)
        own = keys[layer], values[layer]
        rotate_into_cache(by_heads, norms[layer], cos, sin, own[0], own[1], rows, columns, padding, eps, queries)
        attend(blas, queries, own[0], own[1], rows, columns, padding, mixed)
        multiply(blas, flat, output[layer], x, one)
        normalise(x, eps, z, scale)
        multiply(blas, z, gate_up[layer], lifted, zero)
        swiglu(lifted, product)
        multiply(blas, product, down[layer], x, one)
    normalise(x, eps, z, scale)
