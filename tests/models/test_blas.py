"""Products inside compiled loops against numpy, at sizes on both sides of every block's edge."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from clew.models.blas import multiply, multiply_transposed, sgemm

F = np.float32
SIZES = [(1, 1, 1), (3, 5, 7), (32, 128, 64), (33, 129, 1000), (64, 385, 130), (70, 800, 65), (0, 4, 4), (4, 3, 0)]


def rand(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(F)


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products_of_parts_of_larger_matrices(size: tuple[int, int, int], beta: float) -> None:
    m, k, n = size
    a, b, out = rand(m, k + 3)[:, 1 : k + 1], rand(k, n + 2, seed=1)[:, :n], rand(m, n + 5, seed=2)
    before = out.astype(np.float64)
    if beta == 0.0:
        # What memory happens to hold must not matter.
        out[:, 2 : n + 2] = np.nan
    multiply(sgemm(), a, b, out[:, 2 : n + 2], F(beta))
    expected = a.astype(np.float64) @ b + beta * before[:, 2 : n + 2]
    np.testing.assert_allclose(out[:, 2 : n + 2], expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(out[:, :2], before[:, :2])
    np.testing.assert_array_equal(out[:, n + 2 :], before[:, n + 2 :])


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products_of_a_transposed_matrix(size: tuple[int, int, int], beta: float) -> None:
    m, k, n = size
    a, b, out = rand(k, m + 3)[:, 1 : m + 1], rand(k, n + 2, seed=1)[:, :n], rand(m, n, seed=2)
    expected = a.T.astype(np.float64) @ b + beta * out
    multiply_transposed(sgemm(), a, b, out, F(beta))
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-4)


def test_one_row_whose_stride_means_nothing() -> None:
    """A column that was transposed counts as contiguous, but its stride is not the length of its row."""
    row, b = rand(40, 1).T, rand(40, 7, seed=1)
    out = np.full((1, 7), np.nan, F)
    multiply(sgemm(), row, b, out, F(0.0))
    np.testing.assert_allclose(out, row @ b, rtol=1e-5, atol=1e-5)
    given, across = rand(1, 7, seed=2), np.full((40, 7), np.nan, F)
    multiply_transposed(sgemm(), row, given, across, F(0.0))
    np.testing.assert_allclose(across, row.T @ given, rtol=1e-5, atol=1e-5)
    across = np.full((7, 40), np.nan, F)
    multiply_transposed(sgemm(), given, row, across, F(0.0))
    np.testing.assert_allclose(across, given.T @ row, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_change_of_one_loop_is_noticed_by_those_that_call_it(tmp_path: object) -> None:
    """Names in numba's cache depend on the sources of all compiled loops."""
    code = (
        "from pathlib import Path; import clew.models.kernels as k; names = [k.swiglu.py_func.__qualname__];"
        "k._digest.cache_clear(); read = Path.read_bytes;"
        "Path.read_bytes = lambda self: read(self) + (b'#' if self.name == 'column_kernels.py' else b'');"
        "names.append(k.compiled(lambda x: x).py_func.__qualname__);"
        "assert names[0].split('-')[1] != names[1].split('-')[1], names"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
