"""Puts the fast layers in the place of XLA's own in any function of JAX, without touching its code.

The function is traced, with Flax's batch normalisation replaced. Then the convolutions and poolings of its program are
replaced, also those inside its loops, branches and inner functions, but not those inside functions that have derivative
rules of their own. Everything else stays as it is.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun

from cnnjax.layers.flax_modules import replace_batch_norm
from cnnjax.layers.general import conv_general_dilated
from cnnjax.layers.reduction import find_reduction

Function = TypeVar("Function", bound=Callable[..., Any])
_REPLACED: Any = (
    jax.make_user_context(False) if hasattr(jax, "make_user_context") else contextlib.nullcontext
)  # JAX 0.8 has none
"""Whether batch normalisation is replaced, by which JAX tells apart the traces of functions inside."""


def use_fast_layers(function: Function) -> Function:
    """Returns a function that computes the same with the fast layers, where they are faster.

    Its results and gradients differ by rounding. On accelerators nothing changes. It is meant to be called inside
    `jax.jit`, for otherwise every call compiles its layers again. Gradients are to be taken of it,
    as in ``jax.grad(use_fast_layers(f))``, for those inside `f` stay XLA's. On CPU, derivatives are in reverse mode
    only.

    Args:
        function: a function of any arguments. Those that are no arrays, such as flags, are passed as they are.

    Example:
        >>> import jax.numpy as jnp
        >>> def smooth(images, kernel):
        ...     return jax.lax.conv(images, kernel, (1, 1), "SAME")
        >>> use_fast_layers(smooth)(jnp.ones((1, 1, 8, 8)), jnp.ones((4, 1, 3, 3))).shape
        (1, 4, 8, 8)
    """

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        leaves, tree = jax.tree.flatten((arguments, named))
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray | np.generic)]
        arrays = [leaves[place] for place in places]

        def call(*arrays: Any) -> Any:  # JAX keeps what it traces by function, so this one must be new
            given = dict(zip(places, arrays, strict=True))
            arguments, named = jax.tree.unflatten(tree, [given.get(place, leaf) for place, leaf in enumerate(leaves)])
            return function(*arguments, **named)

        # In this context, JAX keeps no trace of functions inside that would be found outside of it.
        with _REPLACED(True), nn.intercept_methods(replace_batch_norm):
            program, form = jax.make_jaxpr(call, return_shape=True)(*arrays)
        return jax.tree.unflatten(jax.tree.structure(form), jaxpr_as_fun(_rewrite(program))(*arrays))

    return run  # type: ignore[return-value]


def _rewrite(program: ClosedJaxpr) -> ClosedJaxpr:
    rewritten: ClosedJaxpr = program.replace(jaxpr=_rewrite_open(program.jaxpr))
    return rewritten


def _rewrite_open(program: Jaxpr) -> Jaxpr:
    rewritten: Jaxpr = program.replace(eqns=[_replace(equation) for equation in program.eqns])
    return rewritten


def _replace(equation: JaxprEqn) -> Any:
    """Returns the operation with the fast layers in its place, or in the programs inside it."""
    name = equation.primitive.name
    find = _REPLACEMENTS.get(name)
    function = find and find(*(atom.aval for atom in equation.invars), **equation.params)
    if function:
        program = jax.make_jaxpr(jax.jit(function))(*(atom.aval for atom in equation.invars))
        (call,) = program.jaxpr.eqns
        return call.replace(invars=equation.invars, outvars=equation.outvars, source_info=equation.source_info)
    if name.startswith("custom_"):
        return equation
    return equation.replace(params={key: _rewrite_inside(value) for key, value in equation.params.items()})


def _rewrite_inside(value: Any) -> Any:
    """Rewrites programs among the parameters of an operation."""
    if isinstance(value, tuple) and any(isinstance(part, ClosedJaxpr | Jaxpr) for part in value):
        return tuple(map(_rewrite_inside, value))
    if isinstance(value, ClosedJaxpr):
        return _rewrite(value)
    return _rewrite_open(value) if isinstance(value, Jaxpr) else value


def _find_convolution(images: Any, kernel: Any, **parameters: Any) -> Callable[..., Any]:
    return functools.partial(conv_general_dilated, **parameters)


def _find_mapped(*operands: Any, jaxpr: Jaxpr, mesh: Any, **parameters: Any) -> Callable[..., Any]:
    """Traces ``jax.shard_map`` again, as types of arrays in it hold only there."""

    def run(*operands: Any) -> Any:
        return tuple(jaxpr_as_fun(_rewrite(ClosedJaxpr(jaxpr, ())))(*operands))

    names = ("in_specs", "out_specs", "check_vma")
    axes = parameters.get("newly_manual_axes") or parameters["manual_axes"]  # the latter in JAX 0.8
    return jax.shard_map(run, mesh=mesh, axis_names=axes, **{name: parameters[name] for name in names})


_REPLACEMENTS: dict[str, Callable[..., Callable[..., Any] | None]] = {
    "conv_general_dilated": _find_convolution,
    "shard_map": _find_mapped,
    "reduce_window_max": functools.partial(find_reduction, reduce=lax.max),
    "reduce_window_sum": functools.partial(find_reduction, reduce=lax.add),
}
