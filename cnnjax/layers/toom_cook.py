"""The matrices of minimal filtering: several outputs of a short filter by fewer multiplications than sliding it.

A filter of ``r`` taps and a stretch of ``m`` outputs are polynomials; their product is found by evaluating both at
``n = m + r - 1`` points, multiplying there, and interpolating (Toom and Cook). Transposed, that is a correlation:
``y = A^T [(G g) * (B^T d)]`` gives the m outputs of the taps g over the n inputs d with n multiplications instead of
``m * r``. Everything is exact in fractions; float error comes from the points alone, so they are few and near 1.

References:
    Winograd, "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast algorithms for convolutional neural
    networks", 2016; Barabasz et al., "Error analysis and improving the accuracy of Winograd convolution", 2020.
"""

import functools
from fractions import Fraction
from typing import NamedTuple

import numpy as np

POINTS = (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))
"""Where the polynomials are evaluated, beside infinity; the first ``n - 1`` of them."""
MOST_POINTS = len(POINTS) + 1


class Transforms(NamedTuple):
    """The matrices, float64: `outputs` A^T (m, n), `taps` G (n, r) and `inputs` B^T (n, n)."""

    outputs: np.ndarray
    taps: np.ndarray
    inputs: np.ndarray


@functools.cache
def make_transforms(outputs: int, taps: int) -> Transforms:
    """Returns the matrices for so many outputs of a filter of so many taps.

    The rows of ``B^T`` are scaled to a largest entry of 1, and those of ``G`` the other way, which keeps the
    transformed inputs near the size of the inputs.

    Args:
        outputs: m, >= 1.
        taps: r, >= 1, with ``m + r - 1 <= MOST_POINTS``.

    Example:
        >>> a, g, b = make_transforms(2, 3)
        >>> signal, window = np.array([1, 2, 3, 4]), np.array([1, 0, -1])
        >>> a @ ((g @ window) * (b @ signal))
        array([-2., -2.])
    """
    count = outputs + taps - 1
    inputs = np.array(_invert(_evaluate(count, count)), float).T
    scale = np.abs(inputs).max(1, keepdims=True)
    return Transforms(
        np.array(_evaluate(count, outputs), float).T, np.array(_evaluate(count, taps), float) * scale, inputs / scale
    )


def _evaluate(count: int, length: int) -> list[list[Fraction]]:
    """Returns the matrix that evaluates a polynomial of `length` coefficients at `count` points, infinity the last."""
    finite = [[Fraction(point) ** power for power in range(length)] for point in POINTS[: count - 1]]
    return [*finite, [Fraction(int(power == length - 1)) for power in range(length)]]


def _invert(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """Returns the inverse of a square matrix, by Gauss and Jordan."""
    size = len(matrix)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        pivot = next(k for k in range(i, size) if rows[k][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for k in range(size):
            if k != i and rows[k][i]:
                rows[k] = [value - rows[k][i] * other for value, other in zip(rows[k], rows[i], strict=True)]
    return [row[size:] for row in rows]
