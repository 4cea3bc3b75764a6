"""Convolution and pooling as functions of arrays, forward and backward, on every backend.

Activations are (height, width, batch, channels) here: what a window sees is then a few long runs of memory.
"""

from cnnjax.layers.convolution import convolve, convolve_and_pool, convolve_batch
from cnnjax.layers.pooling import average_pool, max_pool

__all__ = ["average_pool", "convolve", "convolve_and_pool", "convolve_batch", "max_pool"]
