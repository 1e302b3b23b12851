"""The unbiased pass@k estimator (arXiv 2107.03374, section 2.1, equation 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clew.core.errors import InvalidValue

# Legend: P problems.


def pass_at_k(num_samples_P: ArrayLike, num_right_P: ArrayLike, k: int) -> NDArray[np.float64]:
    """Per problem, the chance that at least one of `k` samples drawn without replacement is right.

    1 - C(n - c, k) / C(n, k) for n samples of which c are right, as a product of `k` ratios, so that no
    binomial is ever formed. Returns shape [P]; raises `InvalidValue` if there is no problem or k > n anywhere.

    >>> pass_at_k([10, 10], [3, 0], k=2).round(4).tolist()
    [0.5333, 0.0]
    """
    n_P, c_P = np.broadcast_arrays(np.atleast_1d(num_samples_P), np.atleast_1d(num_right_P))
    if n_P.size == 0:
        raise InvalidValue("number of problems", 0, "at least one problem", "evaluate some problems first")
    if k < 1 or k > n_P.min():
        accepted = f"an integer from 1 to {n_P.min()}, the fewest samples that any problem has"
        raise InvalidValue("k of pass@k", k, accepted, "lower k or draw more samples a problem")
    if (c_P < 0).any() or (c_P > n_P).any():
        raise InvalidValue("number right", c_P.tolist(), "from 0 to the number of samples", "count both over one group")
    none_right_P = np.ones(n_P.shape)
    for drawn in range(k):
        none_right_P *= np.maximum(n_P - c_P - drawn, 0) / (n_P - drawn)
    return 1.0 - none_right_P
