"""All layers of a small model over whole sequences, forwards and backwards, each in one compiled loop.

n tokens stand in their sequences one after another: piece i of them, `begins`[i] to `begins`[i + 1], belongs to
sequence `rows`[i] and begins there at time `firsts`[i]; `places` [sequences, time] says which token holds the keys of
each time of a sequence, so that sequences may have their beginnings in common. Tokens pass in small blocks, whose
activations are still in the processor's cache where they are used next. `grad_` is the gradient of what follows.
"""

from __future__ import annotations

import numpy as np

from clew.models.blas import multiply, multiply_transposed
from clew.models.kernels import (
    causal_softmax,
    compiled,
    exp32,
    inlined,
    join_heads_backward,
    normalise,
    normalise_backward,
    softmax_backward,
    split_heads,
    swiglu,
)

BLOCK, LARGE_BLOCK = 32, 256
"""Tokens that pass together, through small weights and through large ones."""
_SMALL = 1 << 17
"""Numbers of a weight that is small."""
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@compiled
def fold(weight, norm, plain, turned, first):
    """Put weight [out, in] * norm [in] into `plain` [more, in] from row `first` on, and transposed into `turned`."""
    outs, ins = weight.shape
    for block in range(0, outs, 16):
        stop = min(block + 16, outs)
        for i in range(block, stop):
            row, into = weight[i], plain[first + i]
            for j in range(ins):
                into[j] = row[j] * norm[j]
        for j in range(ins):
            into = turned[j, first + block : first + stop]
            for i in range(block, stop):
                into[i - block] = plain[first + i, j]


@compiled
def unfold(grad, weight, norm, grad_weight, grad_norm):
    """Gradients of `weight` [out, in] and, added up, of `norm` [in] from `grad`, that of weight * norm."""
    outs, ins = weight.shape
    for i in range(outs):
        own, row, into = grad[i], weight[i], grad_weight[i]
        for j in range(ins):
            into[j] = own[j] * norm[j]
            grad_norm[j] += own[j] * row[j]


@compiled
def attention_room(begins, firsts, groups):
    """Weights of causal attention of one key-value head that are kept for the backward pass."""
    room = 0
    for piece in range(firsts.size):
        count = begins[piece + 1] - begins[piece]
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            room += (stop - start) * groups * (firsts[piece] + stop)
    return room


@inlined
def attend(blas, q, k, v, begins, rows, firsts, places, probs, mixed):
    """Values mixed by causal attention, `mixed` [kv_heads, n * groups, head_width], of `q` of the same shape.

    `k` and `v` are [n, kv_heads, head_width]; `probs` [kv_heads, room] keeps the weights.
    """
    n, kv_heads, width = k.shape
    groups = q.shape[1] // max(n, 1)
    time = places.shape[1]
    turned, values = np.empty((width, time), np.float32), np.empty((time, width), np.float32)
    for kv in range(kv_heads):
        at = 0
        for piece in range(rows.size):
            begin, first, path = begins[piece], firsts[piece], places[rows[piece]]
            count = begins[piece + 1] - begin
            for t in range(first + count):
                token = path[t]
                for i in range(width):
                    turned[i, t] = k[token, kv, i]
                    values[t, i] = v[token, kv, i]
            for start in range(0, count, BLOCK):
                stop = min(start + BLOCK, count)
                seen = first + stop
                own = slice((begin + start) * groups, (begin + stop) * groups)
                size = (stop - start) * groups
                weights = probs[kv, at : at + size * seen].reshape(size, seen)
                at += size * seen
                multiply(blas, q[kv, own], turned[:, :seen], weights, _ZERO)
                causal_softmax(weights, first + start, groups)
                multiply(blas, weights, values[:seen], mixed[kv, own], _ZERO)


@inlined
def attend_backward(blas, grad, q, k, v, begins, rows, firsts, places, probs, grad_q, grad_k, grad_v):
    """The gradients of `q`, `k` and `v` from that of what `attend` mixed; those of `k` and `v` are added up."""
    n, kv_heads, width = k.shape
    groups = q.shape[1] // max(n, 1)
    time = places.shape[1]
    keys, turned = np.empty((time, width), np.float32), np.empty((width, time), np.float32)
    of_keys, of_values = np.empty((time, width), np.float32), np.empty((time, width), np.float32)
    memory = np.empty(BLOCK * groups * time, np.float32)
    for kv in range(kv_heads):
        at = 0
        for piece in range(rows.size):
            begin, first, path = begins[piece], firsts[piece], places[rows[piece]]
            count = begins[piece + 1] - begin
            for t in range(first + count):
                token = path[t]
                for i in range(width):
                    keys[t, i] = k[token, kv, i]
                    turned[i, t] = v[token, kv, i]
            of_keys[: first + count] = _ZERO
            of_values[: first + count] = _ZERO
            for start in range(0, count, BLOCK):
                stop = min(start + BLOCK, count)
                seen = first + stop
                own = slice((begin + start) * groups, (begin + stop) * groups)
                size = (stop - start) * groups
                weights = probs[kv, at : at + size * seen].reshape(size, seen)
                scores = memory[: size * seen].reshape(size, seen)
                at += size * seen
                multiply_transposed(blas, weights, grad[kv, own], of_values[:seen], _ONE)
                multiply(blas, grad[kv, own], turned[:, :seen], scores, _ZERO)
                softmax_backward(weights, scores)
                multiply(blas, scores, keys[:seen], grad_q[kv, own], _ZERO)
                multiply_transposed(blas, scores, q[kv, own], of_keys[:seen], _ONE)
            for t in range(first + count):
                token = path[t]
                for i in range(width):
                    grad_k[token, kv, i] += of_keys[t, i]
                    grad_v[token, kv, i] += of_values[t, i]


@inlined
def _block(width, inner):
    """Tokens that pass together: few, unless the gradients of larger weights would not stay in the cache meanwhile."""
    return BLOCK if width * inner <= _SMALL else LARGE_BLOCK


@compiled
def forward(blas, weights, shape, kept, x):
    """Bring `x` [n, width] through the layers; it is overwritten, and everything that `backward` needs is kept.

    `weights` are the transposed projections, the norms of the heads and the angles; `shape` is where tokens stand.
    """
    qkv, output, gate_up, down, norms, cos, sin, eps = weights
    times, begins, rows, firsts, places = shape
    z1, scale1, y, scales, q, k, v, probs, mixed, mixed_rows, z2, scale2, lifted, z, scale = kept
    (n, width), inner = x.shape, down.shape[1]
    block = _block(width, inner)
    kv_heads, part = mixed.shape[1], mixed.shape[3]
    product = np.empty((block, inner), np.float32)
    for layer in range(len(qkv)):
        for a in range(0, n, block):
            b = min(a + block, n)
            normalise(x[a:b], eps, z1[layer, a:b], scale1[layer, a:b])
            multiply(blas, z1[layer, a:b], qkv[layer], y[layer, a:b], _ZERO)
            split_heads(
                y[layer, a:b], norms[layer], cos, sin, eps, times[a:b], a, q[layer], k[layer], v[layer], scales[layer]
            )
        attend(
            blas, q[layer], k[layer], v[layer], begins, rows, firsts, places, probs[layer], mixed_rows[layer]
        )  # fmt: skip
        for a in range(0, n, block):
            b = min(a + block, n)
            for kv in range(kv_heads):
                multiply(blas, mixed[layer, kv, a:b], output[layer, kv * part : (kv + 1) * part], x[a:b], _ONE)
            normalise(x[a:b], eps, z2[layer, a:b], scale2[layer, a:b])
            multiply(blas, z2[layer, a:b], gate_up[layer], lifted[layer, a:b], _ZERO)
            swiglu(lifted[layer, a:b], product[: b - a])
            multiply(blas, product[: b - a], down[layer], x[a:b], _ONE)
    normalise(x, eps, z, scale)


@inlined
def swiglu_again(grad, gate_up, out, product):
    """The gradient `out` of `gate_up` [tokens, 2 * inner] from that of silu(gate) * up, and the latter once more."""
    tokens, inner = grad.shape
    for token in range(tokens):
        gates, ups, of = gate_up[token, :inner], gate_up[token, inner:], grad[token]
        grad_gates, grad_ups, into = out[token, :inner], out[token, inner:], product[token]
        for i in range(inner):
            gate = gates[i]
            sigmoid = _ONE / (_ONE + exp32(-gate))
            silu = gate * sigmoid
            into[i] = silu * ups[i]
            grad_gates[i] = of[i] * ups[i] * (sigmoid + silu * (_ONE - sigmoid))
            grad_ups[i] = of[i] * silu


@compiled
def backward(blas, weights, shape, kept, grads, grad):
    """The gradients of all weights, added up, from `grad` [n, width], which becomes that of the first hidden states.

    `weights` are the projections as they are, [layers, out, in], the norms of the heads and the angles.
    """
    qkv, output, gate_up, down, norms, cos, sin = weights
    times, begins, rows, firsts, places = shape
    z1, scale1, y, scales, q, k, v, probs, mixed, _, z2, scale2, lifted, z, scale = kept
    of_qkv, of_output, of_gate_up, of_down, of_norms = grads
    n, width = grad.shape
    layers, kv_heads, _, part = mixed.shape
    inner, head_width = down.shape[2], k.shape[3]
    block = _block(width, inner)
    of_product, product = np.empty((block, inner), np.float32), np.empty((block, inner), np.float32)
    of_lifted, of_z = np.empty((block, 2 * inner), np.float32), np.empty((block, width), np.float32)
    of_y = np.empty((block, y.shape[2]), np.float32)
    of_mixed = np.empty((kv_heads, n, part), np.float32)
    of_mixed_rows = of_mixed.reshape(kv_heads, n * (part // head_width), head_width)
    grad_q = np.empty_like(of_mixed_rows)
    grad_k, grad_v = np.empty((n, kv_heads, head_width), np.float32), np.empty((n, kv_heads, head_width), np.float32)
    for a in range(0, n, block):
        b = min(a + block, n)
        of_z[:] = _ZERO
        normalise_backward(grad[a:b], z[a:b], scale[a:b], of_z[: b - a], grad[a:b])
    for layer in range(layers - 1, -1, -1):
        for a in range(0, n, block):
            b = min(a + block, n)
            m = b - a
            multiply(blas, grad[a:b], down[layer], of_product[:m], _ZERO)
            swiglu_again(of_product[:m], lifted[layer, a:b], of_lifted[:m], product[:m])
            multiply_transposed(blas, grad[a:b], product[:m], of_down[layer], _ONE)
            multiply_transposed(blas, of_lifted[:m], z2[layer, a:b], of_gate_up[layer], _ONE)
            multiply(blas, of_lifted[:m], gate_up[layer], of_z[:m], _ZERO)
            normalise_backward(of_z[:m], z2[layer, a:b], scale2[layer, a:b], grad[a:b], grad[a:b])
            for kv in range(kv_heads):
                own = slice(kv * part, (kv + 1) * part)
                multiply(blas, grad[a:b], output[layer, :, own], of_mixed[kv, a:b], _ZERO)
                multiply_transposed(blas, grad[a:b], mixed[layer, kv, a:b], of_output[layer, :, own], _ONE)
        grad_k[:] = _ZERO
        grad_v[:] = _ZERO
        attend_backward(
            blas, of_mixed_rows, q[layer], k[layer], v[layer], begins, rows, firsts, places, probs[layer],
            grad_q, grad_k, grad_v,
        )  # fmt: skip
        for a in range(0, n, block):
            b = min(a + block, n)
            m = b - a
            join_heads_backward(
                grad_q, grad_k, grad_v, y[layer, a:b], norms[layer], cos, sin, times[a:b], a, scales[layer],
                of_y[:m], of_norms[layer],
            )  # fmt: skip
            multiply_transposed(blas, of_y[:m], z1[layer, a:b], of_qkv[layer], _ONE)
            multiply(blas, of_y[:m], qkv[layer], of_z[:m], _ZERO)
            normalise_backward(of_z[:m], z1[layer, a:b], scale1[layer, a:b], grad[a:b], grad[a:b])


@compiled
def log_softmax_at(blas, hidden, weight, rows, starts, targets, temperature, probs, logprobs, entropies):
    """Log-probabilities of `targets` [targets] under softmax(hidden @ weight / temperature), and its entropy.

    Targets `starts`[i] to `starts`[i + 1] are those of row `rows`[i] of `hidden` [n, width]; `weight` is [width,
    vocab]. The probabilities of each such row are kept in `probs` [rows, vocab].
    """
    vocab, width = weight.shape[1], hidden.shape[1]
    some = np.empty((BLOCK, width), np.float32)
    for a in range(0, rows.size, BLOCK):
        b = min(a + BLOCK, rows.size)
        for i in range(a, b):
            some[i - a] = hidden[rows[i]]
        multiply(blas, some[: b - a], weight, probs[a:b], _ZERO)
        for i in range(a, b):
            logits = probs[i]
            highest = logits[0]
            for j in range(vocab):
                highest = max(highest, logits[j])
            for at in range(starts[i], starts[i + 1]):
                logprobs[at] = (logits[targets[at]] - highest) / temperature
            total, weighted = _ZERO, _ZERO
            for j in range(vocab):
                shifted = (logits[j] - highest) / temperature
                chance = exp32(shifted)
                logits[j] = chance
                total += chance
                weighted += chance * shifted
            log_total = np.log(total)
            for at in range(starts[i], starts[i + 1]):
                logprobs[at] -= log_total
                entropies[at] = log_total - weighted / total
            share = _ONE / total
            for j in range(vocab):
                logits[j] *= share


@compiled
def log_softmax_at_backward(
    blas, hidden, weight, rows, starts, targets, probs, grad, grad_hidden, grad_weight
):  # fmt: skip
    """Gradients of `hidden` [n, width], of `rows` alone, and `weight` [vocab, width], added up, from `grad` [targets].

    `grad` is that of the log-probabilities, divided by the temperature.
    """
    vocab, width = weight.shape
    some, of_some = np.empty((BLOCK, width), np.float32), np.empty((BLOCK, width), np.float32)
    of_logits = np.empty((BLOCK, vocab), np.float32)
    for a in range(0, rows.size, BLOCK):
        b = min(a + BLOCK, rows.size)
        for i in range(a, b):
            some[i - a] = hidden[rows[i]]
            total = _ZERO
            for at in range(starts[i], starts[i + 1]):
                total += grad[at]
            into, own = of_logits[i - a], probs[i]
            for j in range(vocab):
                into[j] = -total * own[j]
            for at in range(starts[i], starts[i + 1]):
                into[targets[at]] += grad[at]
        multiply(blas, of_logits[: b - a], weight, of_some[: b - a], _ZERO)
        multiply_transposed(blas, of_logits[: b - a], some[: b - a], grad_weight, _ONE)
        for i in range(a, b):
            grad_hidden[rows[i]] = of_some[i - a]
