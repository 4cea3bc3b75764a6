"""Puts the fast layers in the place of XLA's own in any function of JAX, without touching its code.

The function is traced, with Flax's batch normalisation replaced. Then the convolutions and poolings of its program are
replaced, and a ReLU becomes part of the batch normalisation before it, also inside loops, branches and inner functions
of the program, but not inside functions that have derivative rules of their own. Everything else stays as it is.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

from cnnjax.layers.flax_modules import replace_batch_norm
from cnnjax.layers.general import conv_general_dilated
from cnnjax.layers.normalization import Normalized, normalize_batch
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

        replace = functools.partial(replace_batch_norm, normalize=_normalize)
        # In this context, JAX keeps no trace of functions inside that would be found outside of it.
        with _REPLACED(True), nn.intercept_methods(replace):
            program, form = jax.make_jaxpr(call, return_shape=True)(*arrays)
        return jax.tree.unflatten(jax.tree.structure(form), jaxpr_as_fun(_rewrite(program))(*arrays))

    return run  # type: ignore[return-value]


def _normalize(
    images: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis: str | None, relu: bool
) -> Normalized:
    """Calls `normalize_batch` as a function that is found in the program again by its name."""
    layer = functools.partial(normalize_batch, epsilon=epsilon, axis=axis)

    def run(*operands: jax.Array) -> Normalized:
        return layer(*operands, relu=relu)

    run.__name__ = "_".join(map(str, ("batch_normalization", images.dtype, *images.shape, epsilon, axis, relu)))
    _NORMALIZATIONS[run.__name__] = images.shape, layer
    normalized: Normalized = jax.jit(run)(images, scale, bias)
    return normalized


_NORMALIZATIONS: dict[str, tuple[tuple[int, ...], Callable[..., Normalized]]] = {}
"""The batch normalisations of traced programs, by name, with the shape of their images."""


def _fuse_relu(program: Jaxpr) -> Jaxpr:
    """Returns the program with every ReLU that alone reads a batch normalisation as a part of it."""
    reads = Counter(atom for equation in program.eqns for atom in equation.invars if isinstance(atom, Var))
    reads.update(atom for atom in program.outvars if isinstance(atom, Var))
    relus = {equation.invars[0]: equation for equation in program.eqns if _is_relu(equation)}
    equations: list[JaxprEqn] = []
    fused = []
    for equation in program.eqns:
        layer = _find_normalization(equation)
        relu = relus.get(equation.outvars[0]) if layer else None
        if layer and relu and reads[equation.outvars[0]] == 1:
            activated = _call(functools.partial(layer, relu=True), equation)
            equations.append(activated.replace(outvars=[relu.outvars[0], *equation.outvars[1:]]))
            fused.append(relu)
        elif equation not in fused:
            equations.append(equation)
    replaced: Jaxpr = program.replace(eqns=equations)
    return replaced


def _find_normalization(equation: JaxprEqn) -> Callable[..., Normalized] | None:
    """Returns the batch normalisation that an operation is, unless `vmap` or a derivative has made another of it."""
    shape, layer = _NORMALIZATIONS.get(str(equation.params.get("name")), (None, None))
    operands: list[Any] = [atom.aval for atom in equation.invars]
    is_whole = len(operands) == len(equation.outvars) == 3 and operands[0].shape == shape and operands[1].ndim == 1
    return layer if is_whole else None


def _is_relu(equation: JaxprEqn) -> bool:
    """Whether an operation is ``jax.nn.relu``, which has a derivative rule of its own, with 0 at 0."""
    if equation.primitive.name != "custom_jvp_call" or not isinstance(equation.invars[0], Var):
        return False
    program = equation.params["call_jaxpr"].jaxpr
    while len(program.eqns) == 1 and "jaxpr" in program.eqns[0].params:
        program = program.eqns[0].params["jaxpr"].jaxpr
    if [inner.primitive.name for inner in program.eqns] != ["max"]:
        return False
    first, second = program.eqns[0].invars
    return first is program.invars[0] and isinstance(second, Literal) and not np.any(second.val)


def _rewrite(program: ClosedJaxpr) -> ClosedJaxpr:
    rewritten: ClosedJaxpr = program.replace(jaxpr=_rewrite_open(program.jaxpr))
    return rewritten


def _rewrite_open(program: Jaxpr) -> Jaxpr:
    fused = _fuse_relu(program)
    rewritten: Jaxpr = fused.replace(eqns=[_replace(equation) for equation in fused.eqns])
    return rewritten


def _replace(equation: JaxprEqn) -> Any:
    """Returns the operation with the fast layers in its place, or in the programs inside it."""
    name = equation.primitive.name
    find = _REPLACEMENTS.get(name)
    function = find and find(*(atom.aval for atom in equation.invars), **equation.params)
    if function:
        return _call(function, equation)
    if name.startswith("custom_"):
        return equation
    return equation.replace(params={key: _rewrite_inside(value) for key, value in equation.params.items()})


def _call(function: Callable[..., Any], equation: JaxprEqn) -> JaxprEqn:
    """Returns the call of a function in the place of an operation."""
    program = jax.make_jaxpr(jax.jit(function))(*(atom.aval for atom in equation.invars))
    (call,) = program.jaxpr.eqns
    replaced: JaxprEqn = call.replace(
        invars=equation.invars, outvars=equation.outvars, source_info=equation.source_info
    )
    return replaced


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
