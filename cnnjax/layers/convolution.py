"""Two-dimensional convolution, alone or with a max-pooling after it, by the algorithm that measures fastest.

A convolution is linear in its images and in its kernel, so each of its three modes (the outputs, the gradient of the
kernel, the gradient of the images) may be computed by another algorithm. On CPU, XLA's own gradients of a convolution
leave its fast path inside a scan (measured: 1.5 s for a step that takes 0.04 s as matrix products), so there the choice
is between matrix products: minimal filtering where it saves multiplications, patches elsewhere. Accelerators have fast
convolutions of their own. `docs/performance.md` has the measurements.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.architecture import pad_pixels
from cnnjax.blocks import Pair, Pixels
from cnnjax.errors import InputError
from cnnjax.layers.accelerators import convolve_by_xla, convolve_on_accelerator
from cnnjax.layers.minimal_filtering import (
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
from cnnjax.layers.pooling import max_pool
from cnnjax.layers.toom_cook import MOST_POINTS
from cnnjax.layers.windows import check_window, count_steps, size_of
from cnnjax.rules import choice

Algorithm = Literal["xla", "patches", "tiles"]
"""XLA's own convolution; a matrix product of patches (im2col); minimal filtering (Winograd), at stride 1 only."""


class Plan(NamedTuple):
    """The algorithm of each mode of a convolution."""

    outputs: Algorithm
    kernel_gradient: Algorithm
    image_gradient: Algorithm


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    strides: Pair = (1, 1),
    padding: str | Pixels = "valid",
    algorithm: Algorithm | Plan | None = None,
) -> jax.Array:
    """Convolves images with a kernel: ``y[i, j, n, f] = sum x[i*s + a, j*t + b, n, c] * kernel[a, b, c, f]``.

    Args:
        images: (height, width, batch, channels), float32 or bfloat16.
        kernel: (window height, window width, channels, filters), of the same dtype.
        strides: ``(s, t)``, steps of the window down and across.
        padding: ``valid``, ``same`` or ``((top, bottom), (left, right))`` zeros.
        algorithm: one for all modes, or one each; ``None`` chooses by shape and backend.

    Returns:
        (rows, columns, batch, filters), of the same dtype.

    Raises:
        InputError: there is no such padding or algorithm, or it cannot do this; the window is larger than the padded
            images.
    """
    padded = _pad(images, kernel, strides, padding)
    if algorithm is not None:
        plan = Plan(algorithm, algorithm, algorithm) if isinstance(algorithm, str) else algorithm
        _check_plan(plan, size_of(kernel), strides)
        return _convolve(padded, kernel, strides, plan)
    on_cpu = functools.partial(_convolve, strides=strides, plan=choose_plan(padded, kernel, strides))
    elsewhere = functools.partial(convolve_on_accelerator, strides=strides)
    result: jax.Array = lax.platform_dependent(padded, kernel, cpu=_widen(on_cpu), default=elsewhere)
    return result


def convolve_and_pool(
    images: jax.Array, kernel: jax.Array, strides: Pair, padding: str | Pixels, window: Pair
) -> jax.Array:
    """Returns the maxima over windows, side by side, of a convolution whose other outputs are needed nowhere.

    Args:
        images, kernel, strides, padding: as for `convolve`.
        window: height and width of the pooling, whose strides are the same.

    Returns:
        (rows, columns, batch, filters), of the same dtype.
    """
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
    result: jax.Array = lax.platform_dependent(padded, kernel, cpu=_widen(on_cpu), default=one_after_the_other)
    return result


def _widen(function: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Has bfloat16 computed in float32, for CPUs are slow at it; operands and result stay what they are."""

    def run(images: jax.Array, kernel: jax.Array) -> jax.Array:
        if images.dtype != jnp.bfloat16:
            return function(images, kernel)
        return function(images.astype(jnp.float32), kernel.astype(jnp.float32)).astype(jnp.bfloat16)

    return run


def choose_plan(images: jax.Array, kernel: jax.Array, strides: Pair) -> Plan:
    """Returns the algorithms that measure fastest on CPU; of the arguments, padded already, shapes and dtype count."""
    if _is_worth_tiling(images, kernel, strides):
        return Plan("tiles", "tiles", "tiles")
    if can_be_patches(images, kernel, strides):
        return Plan("patches", "patches", "patches")
    return Plan("xla", "xla", "xla")


def count_saved(images: jax.Array, kernel: jax.Array, group: Pair = (1, 1)) -> float:
    """Returns how many times fewer multiplications tiles take than the definition; 0 where no tile exists.

    Args:
        images, kernel: of which the shapes count, at stride 1.
        group: height and width of the windows of a pooling that follows.
    """
    height, width, channels, filters = kernel.shape
    size = count_steps(size_of(images), (height, width))
    tiled = count_multiplications(size, (height, width), channels, filters, group)
    return size[0] * size[1] * height * width * channels * filters / tiled


def _check_plan(plan: Plan, window: Pair, strides: Pair) -> None:
    for algorithm in plan:
        choice(algorithm, get_args(Algorithm), "algorithm")
        if algorithm == "tiles" and strides != (1, 1):
            raise InputError(f"algorithm='tiles': needs strides (1, 1), not {strides}")
        if algorithm == "tiles" and max(window) > MOST_POINTS:
            size = "x".join(map(str, window))
            raise InputError(f"algorithm='tiles': needs a window of at most {MOST_POINTS}x{MOST_POINTS}, not {size}")


def _is_worth_tiling(images: jax.Array, kernel: jax.Array, strides: Pair, group: Pair = (1, 1)) -> bool:
    is_possible = strides == (1, 1) and images.dtype in (jnp.float32, jnp.bfloat16)
    return is_possible and count_saved(images, kernel, group) > 1


def _pad(images: jax.Array, kernel: jax.Array, strides: Pair, padding: str | Pixels) -> jax.Array:
    if isinstance(padding, str):
        choice(padding, ("valid", "same"), "padding")
    pixels = pad_pixels(padding, size_of(images), size_of(kernel), strides)
    padded = jnp.pad(images, (*pixels, (0, 0), (0, 0)))
    check_window(size_of(padded), size_of(kernel))
    return padded


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(images: jax.Array, kernel: jax.Array, strides: Pair, plan: Plan) -> jax.Array:
    return _ALGORITHMS[plan.outputs](images, kernel, strides)


def _forward(
    images: jax.Array, kernel: jax.Array, strides: Pair, plan: Plan
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(images, kernel, strides, plan), (images, kernel)


def _backward(
    strides: Pair, plan: Plan, operands: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    images, kernel = operands
    # What an algorithm shares with the forward pass, such as transformed images, XLA computes once.
    _, pull_to_images = jax.vjp(lambda images: _ALGORITHMS[plan.image_gradient](images, kernel, strides), images)
    _, pull_to_kernel = jax.vjp(lambda kernel: _ALGORITHMS[plan.kernel_gradient](images, kernel, strides), kernel)
    return *pull_to_images(cotangent), *pull_to_kernel(cotangent)


_convolve.defvjp(_forward, _backward)


def _convolve_by_tiles(images: jax.Array, kernel: jax.Array, strides: Pair) -> jax.Array:
    assert strides == (1, 1)
    return _widen(convolve_by_tiles)(images, kernel)


_ALGORITHMS = {"xla": convolve_by_xla, "patches": convolve_by_patches, "tiles": _convolve_by_tiles}
