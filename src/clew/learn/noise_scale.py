"""The gradient noise scale: the batch size beyond which larger batches stop paying (McCandlish et al. 2018)."""

from __future__ import annotations

from typing import NamedTuple

from clew.core.errors import InvalidValue


class NoiseScale(NamedTuple):
    """Unbiased estimates; the two first are worth averaging over steps before they are divided."""

    squared_gradient: float
    """|G|^2 of the true gradient; an estimate can be negative."""
    variance: float
    """tr(Sigma): the summed variance of the gradient of one example."""

    @property
    def batch_size(self) -> float:
        """tr(Sigma) / |G|^2 examples, where noise and signal are equal; infinite when no signal was measured."""
        return self.variance / self.squared_gradient if self.squared_gradient > 0 else float("inf")


def gradient_noise_scale(small: float, large: float, *, small_batch: float, large_batch: float) -> NoiseScale:
    """From squared norms of gradients averaged over `small_batch` and over `large_batch` examples.

    `small` and `large` are themselves means of |G|^2 over as many batches as there are, e.g. over the micro-batches and
    of their sum. Source: arXiv 1812.06162, appendix A.1.
    """
    if not 0 < small_batch < large_batch:
        given = f"{small_batch} and {large_batch}"
        raise InvalidValue("batch sizes", given, "0 < small_batch < large_batch", "split the batch at least in two")
    squared_gradient = (large_batch * large - small_batch * small) / (large_batch - small_batch)
    variance = (small - large) / (1 / small_batch - 1 / large_batch)
    return NoiseScale(squared_gradient, variance)
