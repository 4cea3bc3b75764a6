"""Programs compiled ahead of time, once for every form of their arguments.

Compiling apart from calling lets a run report the two times apart. The form of the arguments is their tree, shapes and
dtypes, and what is static in them (the network, the optimizer's form); runs that differ in traced values alone, such as
the seed or the learning rate, share their programs.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax

from cnnjax.machine.backend import run_settings
from cnnjax.machine.processes import find_memory, out_of_memory

SETTINGS = (
    "jax_default_matmul_precision",
    "jax_enable_x64",
    "jax_threefry_partitionable",
    "jax_debug_nans",
    "jax_default_device",
)

CPU_OPTIONS: dict[str, str | bool] = {"xla_backend_optimization_level": "1"}
"""Of LLVM; measured: programs are ready in 60% of the time of XLA's own level, 3, and run no slower.

XLA's own gradients of a convolution, taken where patches would be too large, are up to four times slower.
"""


def compile_program(
    function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...] = (), **static: Hashable
) -> Callable[..., Any]:
    """Returns `function` compiled for arguments like these.

    Args:
        function: a pure function of array trees.
        arguments: examples of what it will be called with; nothing is computed.
        donate: positions of the arguments whose memory the result may take over.
        static: keyword arguments that are compiled in.

    Returns:
        A function of the positional arguments alone.
    """
    forms, tree = jax.tree.flatten(jax.eval_shape(lambda *trees: trees, *arguments))
    leaves = map(_place_like, forms, jax.tree.leaves(arguments))
    settings = tuple(str(getattr(jax.config, name)) for name in SETTINGS)
    return _compile(function, tuple(sorted(static.items())), donate, tree, tuple(leaves), settings)


def _place_like(form: jax.ShapeDtypeStruct, argument: Any) -> jax.ShapeDtypeStruct:
    """Returns the form with the devices of its argument, where these are several."""
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
    del settings  # JAX reads them itself; here they tell programs apart
    program = jax.jit(functools.partial(function, **dict(static)), donate_argnums=donate)
    options = CPU_OPTIONS if jax.default_backend() == "cpu" else None
    with run_settings():
        compiled = program.lower(*jax.tree.unflatten(tree, leaves)).compile(options)
    if options:
        _check_memory(compiled)
    return compiled


def _check_memory(compiled: jax.stages.Compiled) -> None:
    """Raises `UnavailableError` where a program for a CPU needs more memory than the machine has."""
    analysis = compiled.memory_analysis()
    if analysis is None:  # of a backend that does not tell
        return
    memory = find_memory()
    own = analysis.output_size_in_bytes - analysis.alias_size_in_bytes + analysis.temp_size_in_bytes
    if analysis.argument_size_in_bytes + own > memory:
        raise out_of_memory(analysis.argument_size_in_bytes + own, memory)
