"""The two orders of axes in which a network keeps its feature maps, with the layers that compute in each.

Tiles and patches want the batch inside, oneDNN wants it first. A network has one order for all its feature maps, for
changing it takes as long as a small layer.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from cnnjax.layers.convolution import convolve, convolve_and_pool
from cnnjax.layers.general import convolve_and_pool_batch, convolve_batch
from cnnjax.layers.pooling import average_pool, max_pool
from cnnjax.layers.reduction import pool_batch
from cnnjax.settings.blocks import Pair


class Layout(NamedTuple):
    """An order of axes.

    Attributes:
        batch: position of the batch.
        rows: position of the rows; the columns follow, and the channels are last.
        convolve: convolves; ``convolve(images, kernel, strides, padding, dilation=(1, 1), groups=1)``.
        convolve_and_pool: convolves, and takes the maxima of adjacent windows; with a further argument `window`.
        pool: takes maxima or means of windows; ``pool(images, kind, window, strides)``.
    """

    batch: int
    rows: int
    convolve: Callable[..., jax.Array]
    convolve_and_pool: Callable[..., jax.Array]
    pool: Callable[[jax.Array, str, Pair, Pair], jax.Array]

    def take(self, images: jax.Array) -> jax.Array:
        """Returns images (batch, height, width, channels) in this order."""
        return images if self.batch == 0 else images.transpose(1, 2, 0, 3)

    def give(self, maps: jax.Array) -> jax.Array:
        """Returns feature maps of this order as (batch, rows, columns, channels)."""
        return maps if self.batch == 0 else maps.transpose(2, 0, 1, 3)


def _pool_inside(images: jax.Array, kind: str, window: Pair, strides: Pair) -> jax.Array:
    pool = {"max": max_pool, "avg": average_pool}.get(kind)
    return pool(images, window, strides) if pool else images


BATCH_INSIDE = Layout(2, 0, convolve, convolve_and_pool, _pool_inside)
"""(height, width, batch, channels)"""
BATCH_FIRST = Layout(0, 1, convolve_batch, convolve_and_pool_batch, pool_batch)
"""(batch, height, width, channels)"""
