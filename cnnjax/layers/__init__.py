"""Convolution, pooling and batch normalisation as functions of arrays, forward and backward, on every backend.

`use_fast_layers` puts them into any function of JAX, such as the ``apply`` of a Flax module, and `conv_general_dilated`
is called as ``jax.lax.conv_general_dilated`` is. Activations of `convolve`, `convolve_and_pool`, `max_pool` and
`average_pool` are (height, width, batch, channels): what a window sees is then a few long runs of memory.
"""

from cnnjax.layers.convolution import convolve, convolve_and_pool
from cnnjax.layers.general import conv_general_dilated
from cnnjax.layers.normalization import normalize_batch
from cnnjax.layers.pooling import average_pool, max_pool
from cnnjax.layers.rewriting import use_fast_layers

__all__ = [
    "average_pool",
    "conv_general_dilated",
    "convolve",
    "convolve_and_pool",
    "max_pool",
    "normalize_batch",
    "use_fast_layers",
]
