"""Computing on CPU in one way and elsewhere in another, also inside ``jax.shard_map``."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax import lax

Result = TypeVar("Result")


def choose_by_platform(*operands: jax.Array, cpu: Callable[..., Result], default: Callable[..., Result]) -> Result:
    """Returns what `cpu` makes of the operands on CPU, and what `default` makes of them elsewhere.

    Inside ``jax.shard_map`` the default backend decides, not a branch of the program: XLA on CPU computes sums over
    devices inside a branch and those outside at once, and confuses them (jaxlib 0.10.2 crashes).

    Args:
        operands: arrays, which both functions take.
        cpu, default: functions whose results have the same shapes and dtypes.

    Example:
        >>> import jax.numpy as jnp
        >>> choose_by_platform(jnp.ones(2), jnp.ones(2), cpu=jnp.add, default=jnp.add).tolist()
        [2.0, 2.0]
    """
    operands = vary_alike(*operands)
    if jax.sharding.get_abstract_mesh().manual_axes:
        return (cpu if jax.default_backend() == "cpu" else default)(*operands)
    result: Result = lax.platform_dependent(*operands, cpu=cpu, default=default)
    return result


def vary_alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the arrays, marked inside ``jax.shard_map`` as different on all devices on which one of them is.

    The gradient of an array that is the same on all devices is then the sum of theirs.
    """
    varying = [_find_varying(array) for array in arrays]
    missing = [tuple(sorted(frozenset().union(*varying) - axes, key=str)) for axes in varying]
    return tuple(lax.pcast(array, axes, to="varying") for array, axes in zip(arrays, missing, strict=True))


def _find_varying(array: jax.Array) -> frozenset[Any]:
    """Returns the mesh axes along which an array inside ``jax.shard_map`` differs."""
    form: Any = jax.typeof(array)
    return frozenset(form.vma if hasattr(form, "vma") else form.manual_axis_type.varying)  # JAX 0.8 has `vma`
