"""Splits the noise of an accuracy into the part from training (the seeds) and the part from the test images.

The input is a table of correct answers, with a row per seed and a column per test image. Both are random draws: of
trainings, and of images that one might have tested on. The difference of two arms is a table as well, of -1, 0 and 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnnjax.errors import InputError
from cnnjax.statistics.paired import least_spread

RESAMPLES = 2_000
_AT_ONCE = 100


@dataclass(frozen=True)
class Noise:
    """The mean of a table, and the variance of that mean by source.

    Attributes:
        seeds, images: number of rows and of columns.
        mean: mean of the table.
        from_seeds, from_images, from_both: variance of the mean that comes from the choice of seeds, from the choice of
            images, and from the interaction of seeds with single images; at least 0.
        error_of_seeds: standard error of the mean over seeds, as Student's interval has it.
        error_of_images: what the choice of images adds to it; 0 if the images vary no more than the rest.
        low, high: interval of the mean for new seeds and new images; never narrower than Student's for new seeds alone.
        bootstrap: the same interval by resampling seeds and images; slightly too wide, but too narrow for few seeds;
            ``None`` if it was left out.
    """

    seeds: int
    images: int
    mean: float
    from_seeds: float
    from_images: float
    from_both: float
    error_of_seeds: float
    error_of_images: float
    low: float
    high: float
    bootstrap: tuple[float, float] | None

    @property
    def share_of_seeds(self) -> float | None:
        """Share of the variance of the mean that more seeds would reduce; ``None`` if there is no variance."""
        total = self.from_seeds + self.from_images + self.from_both
        return (self.from_seeds + self.from_both) / total if total else None

    def interval(self, confidence: float) -> tuple[float, float]:
        """Returns the interval of the mean for new seeds and new images."""
        half = half_width(self.error_of_seeds, self.error_of_images, self.seeds, confidence)
        return self.mean - half, self.mean + half


def half_width(error_of_seeds: float, error_of_images: float, seeds: int, confidence: float) -> float:
    """Returns the half width of an interval for new seeds and new images: both parts join like sides of a right angle.

    Args:
        error_of_seeds: standard error of the mean over seeds.
        error_of_images: what the choice of images adds to it.
        seeds: number of seeds.
        confidence: confidence of the interval, > 0 and < 1.
    """
    from scipy.special import ndtri, stdtrit

    tail = (1 + confidence) / 2
    return math.hypot(float(stdtrit(seeds - 1, tail)) * error_of_seeds, float(ndtri(tail)) * error_of_images)


def split_noise(
    tables: Sequence[np.ndarray], confidence: float = 0.95, seed: int = 0, *, resample: bool = True
) -> tuple[Noise, ...]:
    """Splits the variance of the mean of every table into the parts from seeds and from images.

    The components of variance follow from the mean squares of rows, columns and residuals of the two-way table. The
    interval's half width is ``sqrt(t² MS_seed + z² max(MS_image - MS_rest, 0)) / sqrt(n m)``, with Student's quantile
    `t` for the seeds and the normal quantile `z` for the images. `MS_seed` has a lower bound, because means in steps of
    one image may hide some spread, as in `compare_paired`. The bootstrap resamples rows and columns independently, and
    uses the same resamples for every table.

    Args:
        tables: bool or numbers (seeds, images), at least 2 x 2 and of one shape: whether each answer is correct, or
            differences of two such tables.
        confidence: confidence of the intervals.
        seed: seed of the bootstrap.
        resample: whether to make the bootstrap, which takes most of the time.

    Raises:
        InputError: the tables have other shapes.

    Example:
        >>> (noise,) = split_noise([np.random.default_rng(0).random((3, 100)) < 0.9])
        >>> noise.seeds, noise.images, noise.low < noise.mean < noise.high
        (3, 100, True)

    References:
        Graybill and Wang, "Confidence intervals on nonnegative linear combinations of variances", 1980; Howe,
        "Approximate confidence limits on the mean of X + Y where X and Y are two tabled independent random variables",
        1974; Burdick and Graybill, Confidence Intervals on Variance Components, 1992; Owen, "The pigeonhole
        bootstrap", 2007.
    """
    shapes = {table.shape for table in tables}
    if len(shapes) != 1 or len(min(shapes)) != 2 or min(min(shapes)) < 2:
        raise InputError(f"tables: must be (seeds, images) of one shape, at least 2 x 2, not {sorted(shapes)}")
    if not resample:
        return tuple(_split(table, confidence, None) for table in tables)
    resampled = _resample(tables, seed)
    ends = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1).T
    return tuple(
        _split(table, confidence, (float(low), float(high))) for table, (low, high) in zip(tables, ends, strict=True)
    )


def mcnemar_p(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the exact two-sided p value of McNemar's test of whether two networks are equally accurate.

    Of the images that exactly one of the networks gets right, the number that the first gets right is binomial with
    probability one half if they are.

    Args:
        first, second: whether each network is right about each of the same images, bool (images,).

    Example:
        >>> first = np.array([True] * 8 + [False, False])
        >>> mcnemar_p(first, second=np.array([False] * 8 + [True, False]))
        0.0390625

    References:
        McNemar, "Note on the sampling error of the difference between correlated proportions", 1947; Dietterich,
        "Approximate statistical tests for comparing supervised classification learning algorithms", 1998.
    """
    from scipy.stats import binomtest

    alone = int(np.count_nonzero(first & ~second))
    others = int(np.count_nonzero(second & ~first))
    return float(binomtest(alone, alone + others).pvalue) if alone + others else 1.0


def _split(table: np.ndarray, confidence: float, bootstrap: tuple[float, float] | None) -> Noise:
    n, m = table.shape
    values = table.astype(float)
    rows, columns, mean = values.mean(1), values.mean(0), float(values.mean())
    squares = np.array([m * np.sum((rows - mean) ** 2), n * np.sum((columns - mean) ** 2), 0.0])
    squares[2] = max(np.sum((values - mean) ** 2) - squares.sum(), 0.0)
    freedoms = np.array([n - 1, m - 1, (n - 1) * (m - 1)])
    seeds, images, both = squares / freedoms
    error_of_seeds = math.sqrt(max(seeds, m * least_spread(1 / m) ** 2) / (n * m))
    error_of_images = math.sqrt(max(images - both, 0.0) / (n * m))
    half = half_width(error_of_seeds, error_of_images, n, confidence)
    return Noise(
        seeds=n,
        images=m,
        mean=mean,
        from_seeds=float(max(seeds - both, 0.0) / (n * m)),
        from_images=float(max(images - both, 0.0) / (n * m)),
        from_both=float(both / (n * m)),
        error_of_seeds=error_of_seeds,
        error_of_images=error_of_images,
        low=mean - half,
        high=mean + half,
        bootstrap=bootstrap,
    )


def _resample(tables: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Returns the means of every table over resampled rows and columns, (tables, resamples)."""
    n, m = tables[0].shape
    random = np.random.default_rng(seed)
    stacked = np.concatenate([table.astype(np.float32) for table in tables])
    means = []
    for _ in range(RESAMPLES // _AT_ONCE):
        images = random.multinomial(m, np.full(m, 1 / m), _AT_ONCE).astype(np.float32)
        seeds = random.multinomial(n, np.full(n, 1 / n), _AT_ONCE)
        by_seed = (stacked @ images.T / m).reshape(len(tables), n, _AT_ONCE)
        means.append(np.einsum("tnb,bn->tb", by_seed, seeds) / n)
    return np.concatenate(means, axis=1)
