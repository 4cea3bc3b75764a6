"""A mean that a wild run at either end does not move."""

from collections.abc import Iterable

import numpy as np

from cnnjax.estimates import read_sample


def interquartile_mean(values: Iterable[float]) -> float:
    """Returns the mean of the middle half of the values.

    A quarter of the weight is cut off at each end, in part of one value where a quarter of ``n`` is no whole number.

    Args:
        values: finite numbers, at least one.

    Raises:
        InputError: there is no value, or one is not finite.

    Example:
        >>> interquartile_mean([0.1, 0.96, 0.97, 0.98, 0.99])  # weights 0, 0.75, 1, 0.75, 0
        0.97

    References:
        Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", 2021.
    """
    sample = np.sort(read_sample(values))
    ends = np.clip(np.arange(len(sample) + 1), len(sample) / 4, 3 * len(sample) / 4)
    return float(np.average(sample, weights=np.diff(ends)))
