"""Newton-Schulz on one matrix in one compiled loop; products that are symmetric are half computed, half mirrored."""

from __future__ import annotations

import numpy as np

from clew.models.blas import multiply, multiply_transposed
from clew.models.kernels import compiled, inlined

_ROWS = 32


@inlined
def _mirror(x):
    """Write what stands on and above the diagonal blocks of `x` [n, n] below them too."""
    n = len(x)
    for start in range(0, n, _ROWS):
        stop = min(start + _ROWS, n)
        for i in range(stop, n):
            into = x[i, start:stop]
            for j in range(start, stop):
                into[j - start] = x[j, i]


@inlined
def multiply_symmetric(blas, a, b, out):
    """out = a @ b for a [n, k], b [k, n] whose product is symmetric."""
    for start in range(0, len(a), _ROWS):
        stop = min(start + _ROWS, len(a))
        multiply(blas, a[start:stop], b[:, start:], out[start:stop, start:], np.float32(0.0))
    _mirror(out)


@compiled
def orthogonalise(blas, matrix, coefficients, steps, eps, out):
    """What `clew.learn.muon.orthogonalise` makes of one matrix [rows, cols]; no two arrays may overlap."""
    rows, cols = matrix.shape
    a, b, c = coefficients
    size = min(rows, cols)
    gram, square, factor = (
        np.empty((size, size), np.float32), np.empty((size, size), np.float32), np.empty((size, size), np.float32)
    )  # fmt: skip
    product, spare = np.empty((size, size), np.float32), np.empty((size, size), np.float32)
    total = np.float32(0.0)
    for i in range(rows):
        for j in range(cols):
            total += matrix[i, j] * matrix[i, j]
    scale = np.float32(1.0) / max(np.sqrt(total), eps)
    x = np.empty_like(matrix)
    for i in range(rows):
        for j in range(cols):
            x[i, j] = matrix[i, j] * scale
    if rows > cols:
        for start in range(0, size, _ROWS):
            stop = min(start + _ROWS, size)
            multiply_transposed(blas, x[:, start:stop], x[:, start:], gram[start:stop, start:], np.float32(0.0))
        _mirror(gram)
    else:
        multiply_symmetric(blas, x, np.ascontiguousarray(x.T), gram)
    for step in range(steps):
        multiply_symmetric(blas, gram, gram, square)
        for i in range(size):
            into, one, two = factor[i], gram[i], square[i]
            for j in range(size):
                into[j] = b * one[j] + c * two[j]
            into[i] += a
        if step == 0:
            product[:] = factor
        else:
            multiply_symmetric(blas, factor, product, spare)
            product, spare = spare, product
        if step < steps - 1:
            multiply_symmetric(blas, gram, factor, square)
            multiply_symmetric(blas, factor, square, gram)
    if steps == 0:
        out[:] = x
    elif rows > cols:
        multiply(blas, x, product, out, np.float32(0.0))
    else:
        multiply(blas, product, x, out, np.float32(0.0))
