"""Ahead-of-time compilation of programs, once for every form of their arguments.

Programs are compiled before they are called, so that a run can report the two times separately. The form of the
arguments is their tree structure, shapes and dtypes, and the static values (the network, the form of the optimizer).
Runs that differ only in traced values, such as the seed or the learning rate, share their programs.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax

from cnnjax.machine.backend import run_settings
from cnnjax.machine.native import are_fast_layers_wanted
from cnnjax.machine.processes import find_memory, out_of_memory

SETTINGS = (
    "jax_default_matmul_precision",
    "jax_enable_x64",
    "jax_threefry_partitionable",
    "jax_debug_nans",
    "jax_default_device",
)
"""Settings of JAX that change a compiled program, so a program compiled under other values is not reused."""

CPU_OPTIONS: dict[str, str | bool] = {"xla_backend_optimization_level": "1"}
"""Options of XLA on CPU: LLVM optimises at level 1 instead of XLA's default, 3.

Measured on the textbook network: its programs compile in 3.9 s instead of 6.2 and run no slower (9.9 ms per step, 10.3
at level 3). Only XLA's own gradients of a convolution, used where patches would be too large, are up to four times
slower.
"""


def compile_program(
    function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...] = (), **static: Hashable
) -> Callable[..., Any]:
    """Returns `function` compiled for arguments of the same form as `arguments`.

    Args:
        function: a pure function of trees of arrays.
        arguments: arrays with the shapes, dtypes and devices that it will be called with; their values are not used.
        donate: positions of the arguments that are donated: the result may reuse their memory.
        static: keyword arguments that are compiled in.

    Returns:
        The compiled function, which takes the positional arguments alone.

    Raises:
        UnavailableError: a program for a CPU needs more memory than the machine has.

    Example:
        >>> import jax.numpy as jnp
        >>> def scale(x, *, factor):
        ...     return factor * x
        >>> double = compile_program(scale, jnp.zeros(2), factor=2)
        >>> double(jnp.ones(2)).tolist()
        [2.0, 2.0]
    """
    forms, tree = jax.tree.flatten(jax.eval_shape(lambda *trees: trees, *arguments))
    leaves = map(_place_like, forms, jax.tree.leaves(arguments))
    settings = (*(str(getattr(jax.config, name)) for name in SETTINGS), str(are_fast_layers_wanted()))
    return _compile(function, tuple(sorted(static.items())), donate, tree, tuple(leaves), settings)


def _place_like(form: jax.ShapeDtypeStruct, argument: Any) -> jax.ShapeDtypeStruct:
    """Returns the form, with the sharding of its argument if that is on several devices."""
    sharding = getattr(argument, "sharding", None)
    if sharding is None or len(sharding.device_set) == 1:
        return form
    return jax.ShapeDtypeStruct(form.shape, form.dtype, sharding=sharding)


@functools.lru_cache(maxsize=64)
def _compile(
    function: Callable[..., Any],
    static: tuple[tuple[str, Hashable], ...],
    donate: tuple[int, ...],
    tree: Any,
    leaves: tuple[jax.ShapeDtypeStruct, ...],
    settings: tuple[str, ...],
) -> Callable[..., Any]:
    del settings  # JAX reads the settings itself; here they are only part of the cache key
    program = jax.jit(functools.partial(function, **dict(static)), donate_argnums=donate)
    options = CPU_OPTIONS if jax.default_backend() == "cpu" else None
    with run_settings():
        compiled = program.lower(*jax.tree.unflatten(tree, leaves)).compile(options)
    if options:
        _check_memory(compiled)
    return compiled


def _check_memory(compiled: jax.stages.Compiled) -> None:
    """Raises `UnavailableError` if a program for a CPU needs more memory than the machine has."""
    analysis = compiled.memory_analysis()
    if analysis is None:  # the backend does not report it
        return
    memory = find_memory()
    own = analysis.output_size_in_bytes - analysis.alias_size_in_bytes + analysis.temp_size_in_bytes
    if analysis.argument_size_in_bytes + own > memory:
        raise out_of_memory(analysis.argument_size_in_bytes + own, memory)
