"""Matrix products inside compiled loops: SciPy's BLAS, called without the interpreter.

A small model's products take microseconds, as long as a call from Python does; in a compiled loop they follow each
other at once, and threads that run such loops do not wait for each other's turn in the interpreter. Products are cut
into blocks that OpenBLAS multiplies without packing them first, which is faster where one side is small.

Matrices are float32 and row-major: rows may be apart, the numbers of a row are neighbours.
"""

from __future__ import annotations

import ctypes
import importlib
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic

from clew.models.kernels import inlined

_PLAIN, _TRANSPOSED = np.uint8(ord("N")), np.uint8(ord("T"))
_UNPACKED = 1_000_000
"""Multiplications of a product that OpenBLAS does without packing."""
_ROWS, _INNER, _COLUMNS = 32, 384, 64
"""A block's rows, the terms of its sums, and what its columns are a multiple of."""


@lru_cache(maxsize=1)
def sgemm() -> int:
    """Where the product of BLAS is, for the functions below. From then on SciPy's BLAS computes with one thread.

    Threads divide a batch among themselves; more threads inside each product would only be in their way.
    """
    module = importlib.import_module("scipy.linalg.cython_blas")
    library = ctypes.CDLL(module.__file__)
    for name in ("scipy_openblas_set_num_threads", "openblas_set_num_threads"):
        if hasattr(library, name):
            getattr(library, name)(1)
    return int(get_cython_function_address(module.__name__, "sgemm"))


@intrinsic
def _call(_context, address, ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc):  # type: ignore[no-untyped-def]
    """sgemm of BLAS at `address`, which takes everything by reference: c = a b + beta c, column-major."""
    size, pointer = types.intp, types.uintp
    arguments = (pointer, types.uint8, types.uint8, size, size, size, pointer, size, pointer, size, types.float32)
    signature = types.void(*arguments, pointer, size)

    def generate(context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        address, ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc = given
        letter, number, real = ir.IntType(8), ir.IntType(32), ir.FloatType()
        kinds = [letter, letter, number, number, number, real, real, number, real, number, real, real, number]
        function = builder.inttoptr(
            address, ir.FunctionType(ir.VoidType(), [k.as_pointer() for k in kinds]).as_pointer()
        )

        def whole(value: Any) -> Any:
            return cgutils.alloca_once_value(builder, builder.trunc(value, number))

        def matrix(value: Any) -> Any:
            return builder.inttoptr(value, real.as_pointer())

        sizes = [whole(m), whole(n), whole(k), cgutils.alloca_once_value(builder, real(1.0))]
        letters = [cgutils.alloca_once_value(builder, value) for value in (ta, tb)]
        factors = [matrix(a), whole(lda), matrix(b), whole(ldb)]
        builder.call(
            function, [*letters, *sizes, *factors, cgutils.alloca_once_value(builder, beta), matrix(c), whole(ldc)]
        )
        return context.get_dummy_value()

    return signature, generate


@inlined
def _step(multiplications, most):
    """How many of `most` rows or columns make a block of at most so many `multiplications` for each of them."""
    fit = _UNPACKED // max(multiplications, 1) // _COLUMNS * _COLUMNS
    return fit if 0 < fit < most else max(most, 1)


@inlined
def _apart(matrix):
    """Numbers from the beginning of one row to that of the next; the stride of a single row may be anything."""
    return max(matrix.strides[0] // 4, matrix.shape[1])


@inlined
def multiply(blas, a, b, out, beta):
    """out = a @ b + beta * out for a [m, k], b [k, n], out [m, n]."""
    (m, k), n = a.shape, b.shape[1]
    lda, ldb, ldc = _apart(a), _apart(b), _apart(out)
    for inner in range(0, k, _INNER):
        depth = min(_INNER, k - inner)
        columns = _step(min(_ROWS, m) * depth, n)
        for i in range(0, m, _ROWS):
            height = min(_ROWS, m - i)
            for j in range(0, n, columns):
                width = min(columns, n - j)
                # Column-major, everything is its own transpose: out.T = b.T @ a.T.
                _call(
                    blas, _PLAIN, _PLAIN, width, height, depth,
                    b.ctypes.data + 4 * (inner * ldb + j), ldb, a.ctypes.data + 4 * (i * lda + inner), lda,
                    beta if inner == 0 else np.float32(1.0), out.ctypes.data + 4 * (i * ldc + j), ldc,
                )  # fmt: skip


@inlined
def multiply_transposed(blas, a, b, out, beta):
    """out = a.T @ b + beta * out for a [k, m], b [k, n], out [m, n]."""
    (k, m), n = a.shape, b.shape[1]
    rows = _step(k * n, m)
    lda, ldb, ldc = _apart(a), _apart(b), _apart(out)
    for i in range(0, m, rows):
        height = min(rows, m - i)
        _call(
            blas, _PLAIN, _TRANSPOSED, n, height, k,
            b.ctypes.data, ldb, a.ctypes.data + 4 * i, lda,
            beta, out.ctypes.data + 4 * i * ldc, ldc,
        )  # fmt: skip
