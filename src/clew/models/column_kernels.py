"""Compiled loops that write and move keys and values by rows and columns of a cache; see `kernels`."""

from __future__ import annotations

import numpy as np

from clew.models.kernels import compiled, inlined


@inlined
def rotate_into_cache(y, norms, cos, sin, keys, values, rows, columns, padding, eps, queries):
    """Divide what a projection made, `y` [tokens, heads + 2 * kv_heads, head_width], into queries, keys and values.

    Queries and keys are normalised with the weights `norms` [heads + kv_heads, head_width] and rotated by the angles
    `cos` and `sin` [context, head_width / 2]. Queries go to `queries` [tokens, heads, head_width], the others to `rows`
    and `columns` [tokens] of `keys` [rows, kv_heads, head_width, capacity] and `values` [rows, kv_heads, capacity,
    head_width]; `padding` [rows] columns come before position 0.
    """
    tokens, _, width = y.shape
    heads, kv_heads = queries.shape[1], keys.shape[1]
    half = width // 2
    rotated = np.empty(width, np.float32)
    for token in range(tokens):
        row, column = rows[token], columns[token]
        cosines, sines = cos[column - padding[row]], sin[column - padding[row]]
        for head in range(heads + kv_heads):
            own, norm = y[token, head], norms[head]
            total = np.float32(0.0)
            for i in range(width):
                total += own[i] * own[i]
            scale = np.float32(1.0) / np.sqrt(total / np.float32(width) + eps)
            into = queries[token, head] if head < heads else rotated
            for i in range(half):
                low, high = own[i] * norm[i], own[half + i] * norm[half + i]
                into[i] = scale * (low * cosines[i] - high * sines[i])
            for i in range(half):
                low, high = own[i] * norm[i], own[half + i] * norm[half + i]
                into[half + i] = scale * (high * cosines[i] + low * sines[i])
            if head >= heads:
                for i in range(width):
                    keys[row, head - heads, i, column] = rotated[i]
        for kv in range(kv_heads):
            for i in range(width):
                values[row, kv, column, i] = y[token, heads + kv_heads + kv, i]


@compiled
def load_columns(kept, slots, layer, keys, values, rows, columns):
    """Copy `slots` [tokens] of `kept` [slots, layers, 2, kv_heads, head_width] to `rows` and `columns` [tokens] of
    `keys` [rows, kv_heads, head_width, capacity] and `values` [rows, kv_heads, capacity, head_width].
    """
    kv_heads, width = keys.shape[1:3]
    for token in range(slots.size):
        slot, row, column = slots[token], rows[token], columns[token]
        for kv in range(kv_heads):
            for i in range(width):
                keys[row, kv, i, column] = kept[slot, layer, 0, kv, i]
            for i in range(width):
                values[row, kv, column, i] = kept[slot, layer, 1, kv, i]


@compiled
def keep_columns(keys, values, rows, columns, layer, kept, slots):
    """The way back of `load_columns`."""
    kv_heads, width = keys.shape[1:3]
    for token in range(slots.size):
        slot, row, column = slots[token], rows[token], columns[token]
        for kv in range(kv_heads):
            for i in range(width):
                kept[slot, layer, 0, kv, i] = keys[row, kv, i, column]
            for i in range(width):
                kept[slot, layer, 1, kv, i] = values[row, kv, column, i]


@compiled
def copy_columns(keys, values, rows, columns, new_keys, new_values, new_rows, new_columns, counts):
    """Copy `counts` [n] columns from `rows` and `columns` [n] of `keys` and `values` to `new_rows` and `new_columns`
    [n] of `new_keys` and `new_values`, which may be the same arrays if no row is both copied and overwritten.
    """
    kv_heads, width = keys.shape[1:3]
    for n in range(rows.size):
        row, new_row = rows[n], new_rows[n]
        first, new_first, count = columns[n], new_columns[n], counts[n]
        for kv in range(kv_heads):
            for i in range(width):
                new_keys[new_row, kv, i, new_first : new_first + count] = keys[row, kv, i, first : first + count]
            new_values[new_row, kv, new_first : new_first + count] = values[row, kv, first : first + count]


@compiled
def trace(edges, vocabulary, ends, lengths, found):
    """Write the paths of `lengths` [n] that end with the slots `ends` [n] one after another to `found`: the slot above
    one is its `edges` [slots] divided by `vocabulary`.
    """
    stop = 0
    for n in range(ends.size):
        slot = ends[n]
        stop += lengths[n]
        for place in range(stop - 1, stop - lengths[n] - 1, -1):
            found[place] = slot
            slot = edges[slot] // vocabulary
