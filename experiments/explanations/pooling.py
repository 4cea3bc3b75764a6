"""The 7 made smaller by pooling: no run, no JAX."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cnnjax.blocks import Size, read_window
from experiments.explanations.pictures import Explanation, PictureArguments, align, blamed

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class PoolingArguments(PictureArguments):
    """Shows what pooling leaves of a 7 of ones, 12 x 12::

    python -m experiments.explain pooling --pool avg --pool-size 3

    A list is a height and a width: --pool-size '[2, 3]'.
    """

    pool: Literal["max", "avg"] = "max"
    """max or avg."""
    pool_size: Size = 2
    """Window of the pooling."""
    pool_strides: Size | None = None
    """Steps of the window; left out, they equal --pool-size."""


def explain_pooling(arguments: PoolingArguments) -> Explanation:
    """Returns the 7 before and after, as text and as a picture."""
    pool_size = read_window(arguments.pool_size, "--pool-size")
    strides = arguments.pool_strides
    pool_strides = None if strides is None else read_window(strides, "--pool-strides")
    from cnnjax.figures.sliding import draw_pooling
    from cnnjax.inspection.sliding import SEVEN, pool

    with blamed(f"--pool-size={arguments.pool_size}"):
        pooling = pool(SEVEN, arguments.pool, pool_size, pool_strides)
    text = "\n\n".join([pooling.describe(), _write(pooling.picture), _write(pooling.pooled)])
    values = {"picture": SEVEN.tolist(), "pooled": pooling.pooled.tolist()}
    return Explanation(text, values, {"pooling": draw_pooling(pooling)})


def _write(values: "np.ndarray") -> str:
    return align([["." if value == 0 else f"{value:.2g}" for value in row] for row in values])
