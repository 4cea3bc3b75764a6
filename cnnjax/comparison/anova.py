"""Which factor matters most: the variance of a factorial study, divided among factors, their interactions and the rest.

The model has a mean for every seed (the arms of one seed share its batches), an effect of every level of each factor,
and one of every pair of levels of two factors. Sums of squares are of type II: of a factor, by how much it betters
the model that has everything but what contains it; so the design need not be balanced, nor complete.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cnnjax.errors import InputError

Cells = Mapping[tuple[str, ...], Mapping[int, float]]
"""Values by seed of every cell, a cell being the labels of its levels in the order of the factors."""
Term = tuple[int, ...]


@dataclass(frozen=True)
class Share:
    """What one term explains.

    Attributes:
        factors: one, or the two that interact.
        freedom: degrees of freedom.
        squares: sum of squares of type II.
        F, p: of the test that the term has no effect at all.
        omega_squared: estimated share of the whole variance, at least 0.
        partial: estimated share of the variance that is left when the other terms have explained theirs, at least 0.
        low, high: interval of the partial share.
    """

    factors: tuple[str, ...]
    freedom: int
    squares: float
    F: float
    p: float
    omega_squared: float
    partial: float
    low: float
    high: float


def analyze_variance(factors: Sequence[str], cells: Cells, confidence: float = 0.95) -> tuple[Share, ...]:
    """Returns the share of every factor and of every interaction of two that the design can tell, largest first.

    With error mean square ``e``, ``omega² = (SS - df e) / (SS_total + e)`` and ``partial omega² = df (F - 1) /
    (df (F - 1) + N)`` for `N` values; the interval is that of the noncentrality `l` of F, as ``l / (l + N)``.

    Args:
        factors: their names.
        cells: values of the cells.
        confidence: of the intervals.

    Returns:
        Nothing where no degree of freedom is left for the error, or all values are equal.

    Raises:
        InputError: a cell has another number of labels than there are factors.

    References:
        Yates, "The analysis of multiple classifications with unequal numbers", 1934; Olejnik and Algina, "Generalized
        eta and omega squared statistics", 2003; Steiger, "Beyond the F test", 2004.
    """
    wrong = next((labels for labels in cells if len(labels) != len(factors)), None)
    if wrong is not None:
        raise InputError(f"cells: {wrong} must have {len(factors)} labels, one for each of {', '.join(factors)}")
    if not any(cells.values()):
        return ()
    design = _Design(cells)
    terms = [term for order in (1, 2) for term in combinations(range(len(factors)), order)]
    error, freedom = design.fit(terms)
    total = float(np.sum((design.values - design.values.mean()) ** 2))
    if freedom < 1 or error <= 1e-12 * total or not total:
        return ()
    shares = list(_share(design, terms, (error / freedom, freedom, total), confidence, factors))
    return tuple(sorted(shares, key=lambda share: -share.omega_squared))


class _Design:
    """The values as one column, and the columns of the terms that explain it."""

    def __init__(self, cells: Cells) -> None:
        rows = [(labels, seed, value) for labels, values in cells.items() for seed, value in values.items()]
        self.labels = [labels for labels, _, _ in rows]
        self.values = np.array([value for _, _, value in rows], float)
        self.seeds = _indicate([seed for _, seed, _ in rows])

    def fit(self, terms: Sequence[Term]) -> tuple[float, int]:
        """Returns the sum of squares that the terms and the seeds leave, and its degrees of freedom."""
        columns = [_indicate([tuple(labels[index] for index in term) for labels in self.labels]) for term in terms]
        matrix = np.hstack([self.seeds, *columns])
        left, singular, _ = np.linalg.svd(matrix, full_matrices=False)
        kept = left[:, singular > 1e-9 * singular.max(initial=0.0)]
        centred = self.values - self.values.mean()  # the seeds span the constant, and small numbers keep their digits
        residual = centred - kept @ (kept.T @ centred)
        return float(residual @ residual), len(self.values) - kept.shape[1]


def _indicate(keys: Sequence[object]) -> np.ndarray:
    distinct = list(dict.fromkeys(keys))
    return np.array([[key == other for other in distinct] for key in keys], float)


def _share(
    design: _Design,
    terms: Sequence[Term],
    error: tuple[float, int, float],
    confidence: float,
    factors: Sequence[str],
) -> Iterator[Share]:
    from scipy.special import fdtrc

    mean_square, error_freedom, total = error
    count = len(design.values)
    for term in terms:
        others = [other for other in terms if not set(term) <= set(other)]
        without, freedom_without = design.fit(others)
        squares, freedom_with = design.fit([*others, term])
        freedom = freedom_without - freedom_with
        if freedom < 1:
            continue
        explained = max(without - squares, 0.0)
        ratio = explained / freedom / mean_square
        gain = freedom * (ratio - 1)
        yield Share(
            tuple(factors[index] for index in term),
            freedom,
            explained,
            ratio,
            float(fdtrc(freedom, error_freedom, ratio)),
            max((explained - freedom * mean_square) / (total + mean_square), 0.0),
            max(gain / (gain + count), 0.0) if gain > -count else 0.0,
            *(
                noncentrality / (noncentrality + count)
                for noncentrality in _noncentralities(ratio, freedom, error_freedom, confidence)
            ),
        )


def _noncentralities(ratio: float, freedom: int, error_freedom: int, confidence: float) -> Iterator[float]:
    """Yields the ends of the interval of the noncentrality of F."""
    from scipy.optimize import brentq
    from scipy.special import ncfdtr

    for level in ((1 + confidence) / 2, (1 - confidence) / 2):

        def lack(noncentrality: float, level: float = level) -> float:
            return float(np.nan_to_num(ncfdtr(freedom, error_freedom, noncentrality, ratio)) - level)

        high = 1.0
        while lack(high) > 0:
            high *= 2
        yield float(brentq(lack, 0, high)) if lack(0.0) > 0 else 0.0
