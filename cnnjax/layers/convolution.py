"""Two-dimensional convolution, alone or followed by max-pooling, by the algorithm that measures fastest.

On CPU this is minimal filtering or patches, for the gradients of XLA's own convolution are slow inside a scan. On
accelerators it is XLA's own, except under `vmap` over kernels, as when many runs are trained in one program: there
XLA would make one grouped convolution, which is slow on accelerators, where patches make one batched matrix product.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.errors import InputError
from cnnjax.layers.grouped import convolve_in_groups
from cnnjax.layers.minimal_filtering import (
    MOST_POINTS,
    convolve_and_pool_by_tiles,
    convolve_by_tiles,
    count_multiplications,
)
from cnnjax.layers.patches import (
    can_be_patches,
    convolve_and_pool_by_patches,
    convolve_by_patches,
    is_worth_pooling_patches,
)
from cnnjax.layers.platforms import choose_by_platform
from cnnjax.layers.pooling import check_window, count_steps, max_pool, size_of
from cnnjax.settings.blocks import Pair, Pixels, dilate, pad_pixels
from cnnjax.settings.checking import choice

Algorithm = Literal["xla", "patches", "tiles"]
"""XLA's own convolution; a matrix product of patches (im2col); tiles by minimal filtering (Winograd), stride 1 only."""


class ConvolutionPlan(NamedTuple):
    """The algorithm of each mode of a convolution."""

    outputs: Algorithm
    kernel_gradient: Algorithm
    image_gradient: Algorithm


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    strides: Pair = (1, 1),
    padding: str | Pixels = "valid",
    algorithm: Algorithm | ConvolutionPlan | None = None,
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> jax.Array:
    """Convolves images with a kernel: ``y[i, j, n, f] = sum x[i*s + a, j*t + b, n, c] * kernel[a, b, c, f]``.

    Args:
        images: (height, width, batch, channels), float32 or bfloat16.
        kernel: (window height, window width, channels / groups, filters), of the same dtype.
        strides: ``(s, t)``, steps of the window down and across.
        padding: ``valid``, ``same`` or ``((top, bottom), (left, right))`` zeros.
        algorithm: one for all modes, or a `ConvolutionPlan`; by default chosen by shape and backend. With dilation or
            groups there is but one.
        dilation: distances of adjacent positions in the window, down and across; 1 leaves no gaps.
        groups: number of groups of channels that see only each other, which divides channels and filters.

    Returns:
        (rows, columns, batch, filters), of the same dtype.

    Raises:
        InputError: there is no such padding or algorithm, or the algorithm cannot do this; the window is larger than
            the padded images.

    Example:
        >>> images, kernel = jnp.ones((28, 28, 100, 1)), jnp.ones((5, 5, 1, 32))
        >>> convolve(images, kernel).shape, convolve(images, kernel, (2, 2), "same").shape
        ((24, 24, 100, 32), (14, 14, 100, 32))
    """
    padded = _pad(images, kernel, strides, padding, dilation)
    if (dilation, groups) != ((1, 1), 1):
        return convolve_in_groups(padded, kernel, strides, dilation, groups)
    if algorithm is not None:
        plan = ConvolutionPlan(algorithm, algorithm, algorithm) if isinstance(algorithm, str) else algorithm
        _check_plan(plan, size_of(kernel), strides)
        return _convolve(padded, kernel, strides, plan)
    on_cpu = functools.partial(_convolve, strides=strides, plan=choose_plan(padded, kernel, strides))
    elsewhere = functools.partial(convolve_on_accelerator, strides=strides)
    return choose_by_platform(padded, kernel, cpu=_widen(on_cpu), default=elsewhere)


def convolve_and_pool(
    images: jax.Array,
    kernel: jax.Array,
    strides: Pair,
    padding: str | Pixels,
    window: Pair,
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> jax.Array:
    """Returns the maxima of a convolution over adjacent windows, without keeping its other outputs.

    Args:
        images, kernel, strides, padding, dilation, groups: as for `convolve`.
        window: height and width of the pooling, which are its strides too.

    Returns:
        (rows, columns, batch, filters), of the same dtype.

    Raises:
        InputError: there is no such padding, or a window is larger than what it slides over.

    Example:
        >>> images, kernel = jnp.ones((28, 28, 100, 1)), jnp.ones((5, 5, 1, 32))
        >>> convolve_and_pool(images, kernel, (1, 1), "valid", (2, 2)).shape
        (12, 12, 100, 32)
    """
    if (dilation, groups) != ((1, 1), 1):
        return max_pool(convolve(images, kernel, strides, padding, None, dilation, groups), window, window)
    padded = _pad(images, kernel, strides, padding)

    def one_after_the_other(padded: jax.Array, kernel: jax.Array) -> jax.Array:
        return max_pool(convolve(padded, kernel, strides), window, window)

    def by_patches(padded: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve_and_pool_by_patches(padded, kernel, strides, window)

    def by_tiles(padded: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve_and_pool_by_tiles(padded, kernel, window)

    on_cpu = one_after_the_other
    if _is_worth_tiling(padded, kernel, strides, window):
        on_cpu = by_tiles
    elif is_worth_pooling_patches(padded, kernel, strides, window):
        on_cpu = by_patches
    return choose_by_platform(padded, kernel, cpu=_widen(on_cpu), default=one_after_the_other)


def _pad(
    images: jax.Array, kernel: jax.Array, strides: Pair, padding: str | Pixels, dilation: Pair = (1, 1)
) -> jax.Array:
    if isinstance(padding, str):
        choice(padding, ("valid", "same"), "padding")
    window = dilate(size_of(kernel), dilation)
    padded = jnp.pad(images, (*pad_pixels(padding, size_of(images), window, strides), (0, 0), (0, 0)))
    check_window(size_of(padded), window)
    return padded


def _check_plan(plan: ConvolutionPlan, window: Pair, strides: Pair) -> None:
    for algorithm in plan:
        choice(algorithm, get_args(Algorithm), "algorithm")
        if algorithm == "tiles" and strides != (1, 1):
            raise InputError(f"algorithm='tiles': needs strides (1, 1), not {strides}")
        if algorithm == "tiles" and max(window) > MOST_POINTS:
            size = "x".join(map(str, window))
            raise InputError(f"algorithm='tiles': needs a window of at most {MOST_POINTS}x{MOST_POINTS}, not {size}")


def _widen(function: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns the function with bfloat16 operands computed in float32, and the result rounded to bfloat16 again.

    On CPU XLA converts bfloat16 back and forth in loops that are not vectorised: 76 ms a step, against 12.3 this way.
    """

    def run(images: jax.Array, kernel: jax.Array) -> jax.Array:
        if images.dtype != jnp.bfloat16:
            return function(images, kernel)
        return function(images.astype(jnp.float32), kernel.astype(jnp.float32)).astype(jnp.bfloat16)

    return run


def choose_plan(images: jax.Array, kernel: jax.Array, strides: Pair) -> ConvolutionPlan:
    """Returns the algorithms that measure fastest on CPU; only shapes and dtype of the padded arguments matter."""
    # Tiles as soon as they save any multiplication, by docs/convolutions.md.
    # One algorithm for all modes, as a mode reuses what another has transformed.
    if _is_worth_tiling(images, kernel, strides):
        return ConvolutionPlan("tiles", "tiles", "tiles")
    if can_be_patches(images, kernel, strides):
        return ConvolutionPlan("patches", "patches", "patches")
    return ConvolutionPlan("xla", "xla", "xla")


def _is_worth_tiling(images: jax.Array, kernel: jax.Array, strides: Pair, group: Pair = (1, 1)) -> bool:
    is_possible = strides == (1, 1) and images.dtype in (jnp.float32, jnp.bfloat16)
    return is_possible and count_saved(images, kernel, group) > 1


def count_saved(images: Any, kernel: Any, group: Pair = (1, 1)) -> float:
    """Returns the ratio of the multiplications of the definition to those of tiles; 0 if no tile exists.

    Args:
        images, kernel: the operands at stride 1, of which only the shapes matter.
        group: height and width of the windows of a pooling that follows.

    Example:
        >>> images, kernel = jnp.ones((12, 12, 1, 32)), jnp.ones((5, 5, 32, 64))
        >>> round(count_saved(images, kernel), 1)
        4.3
    """
    height, width, channels, filters = kernel.shape
    size = count_steps(size_of(images), (height, width))
    tiled = count_multiplications(size, (height, width), channels, filters, group)
    whole: int = math.prod((*size, height, width, channels, filters))
    return whole / tiled


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(images: jax.Array, kernel: jax.Array, strides: Pair, plan: ConvolutionPlan) -> jax.Array:
    return _ALGORITHMS[plan.outputs](images, kernel, strides)


def _forward(
    images: jax.Array, kernel: jax.Array, strides: Pair, plan: ConvolutionPlan
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(images, kernel, strides, plan), (images, kernel)


def _backward(
    strides: Pair, plan: ConvolutionPlan, operands: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    images, kernel = operands
    # What an algorithm shares with the forward pass, such as transformed images, XLA computes once.
    _, pull_to_images = jax.vjp(lambda images: _ALGORITHMS[plan.image_gradient](images, kernel, strides), images)
    _, pull_to_kernel = jax.vjp(lambda kernel: _ALGORITHMS[plan.kernel_gradient](images, kernel, strides), kernel)
    return *pull_to_images(cotangent), *pull_to_kernel(cotangent)


_convolve.defvjp(_forward, _backward)


def convolve_by_xla(images: jax.Array, kernel: jax.Array, strides: Pair) -> jax.Array:
    """Convolves images (height, width, batch, channels) without padding."""
    return lax.conv_general_dilated(images, kernel, strides, "VALID", dimension_numbers=("HWNC", "HWIO", "HWNC"))


def _convolve_by_tiles(images: jax.Array, kernel: jax.Array, strides: Pair) -> jax.Array:
    assert strides == (1, 1)
    return _widen(convolve_by_tiles)(images, kernel)


_ALGORITHMS = {"xla": convolve_by_xla, "patches": convolve_by_patches, "tiles": _convolve_by_tiles}


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_on_accelerator(images: jax.Array, kernel: jax.Array, strides: Pair) -> jax.Array:
    """Convolves images without padding: by XLA; under `vmap` over kernels by patches, unless their matrix is too large.

    Arguments and result are those of `convolve_by_patches`.
    """
    outputs: jax.Array = _dispatch(_forward_by, images, kernel, strides)(images, kernel)
    return outputs


def _forward_on_accelerator(
    images: jax.Array, kernel: jax.Array, strides: Pair
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve_on_accelerator(images, kernel, strides), (images, kernel)


def _backward_on_accelerator(
    strides: Pair, operands: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    gradients: tuple[jax.Array, jax.Array] = _dispatch(_backward_by, *operands, strides)(*operands, cotangent)
    return gradients


convolve_on_accelerator.defvjp(_forward_on_accelerator, _backward_on_accelerator)


def _forward_by(convolve: Callable[..., jax.Array]) -> Callable[..., Any]:
    return convolve


def _backward_by(convolve: Callable[..., jax.Array]) -> Callable[..., Any]:
    return lambda images, kernel, cotangent: jax.vjp(convolve, images, kernel)[1](cotangent)


def _dispatch(
    mode: Callable[[Callable[..., jax.Array]], Callable[..., Any]], images: jax.Array, kernel: jax.Array, strides: Pair
) -> Callable[..., Any]:
    """Returns the mode of XLA's convolution as a function of (images, kernel, ...), under `vmap` that of patches."""
    by_xla = mode(functools.partial(convolve_by_xla, strides=strides))
    if not can_be_patches(images, kernel, strides):
        return by_xla
    by_patches = mode(functools.partial(convolve_by_patches, strides=strides))
    chooser = jax.custom_batching.custom_vmap(by_xla)

    @chooser.def_vmap
    def choose(size: int, is_batched: Sequence[bool], *operands: jax.Array) -> tuple[Any, Any]:
        chosen = by_patches if is_batched[1] else by_xla
        results = jax.vmap(chosen, [0 if batched else None for batched in is_batched], axis_size=size)(*operands)
        return results, jax.tree.map(lambda array: True, results)

    # A function with a rule for `vmap` has no derivative of its own, which the gradient of a gradient needs.
    differentiable = jax.custom_vjp(chooser)
    differentiable.defvjp(
        lambda *operands: (chooser(*operands), operands),
        lambda operands, cotangent: jax.vjp(by_xla, *operands)[1](cotangent),
    )
    return differentiable
