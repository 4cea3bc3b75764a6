"""Convolution and pooling as functions of arrays, forward and backward, on every backend."""

from cnnjax.layers.convolution import convolve
from cnnjax.layers.pooling import average_pool, max_pool

__all__ = ["average_pool", "convolve", "max_pool"]
