"""Data parallelism of one run: each device takes an equal share of every batch, and the gradients are averaged.

The examples and the state are replicated on all devices. Batches, data order and the mathematics are those of a run on
one device; only sums are rounded in another order. A program is one function that runs on every device of a mesh, with
explicit collectives (`jax.shard_map`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnnjax.errors import InputError

AXIS = "batch"
"""Name of the mesh axis along which a batch is divided."""
LEAST_SHARE = 10
"""Fewest examples of a batch per CPU device by default; matrix products of fewer examples are slower."""


def make_mesh(devices: int, batch_size: int) -> Mesh | None:
    """Returns a mesh of the first local devices, or ``None`` for one device.

    If several processes have joined, the mesh has the devices of all of them.

    Args:
        devices: number of devices.
        batch_size: batch size of the run, a multiple of `devices`.

    Raises:
        InputError: there are fewer devices, `batch_size` is not a multiple of `devices`, or `devices` leaves out some
            devices of joined processes.

    Example:
        >>> make_mesh(1, batch_size=100) is None
        True
    """
    processes = jax.process_count()
    found = jax.devices() if processes > 1 else jax.local_devices()
    kind = found[0].platform
    if processes > 1 and devices != len(found):
        raise InputError(f"devices={devices}: must be {len(found)}, the {kind} devices of all {processes} processes")
    if not 1 <= devices <= len(found):
        raise InputError(f"devices={devices}: must be >= 1 and <= {len(found)}, the {kind} devices of this process")
    if batch_size % devices:
        every = f", those of all {processes} processes" if processes > 1 else ""
        raise InputError(f"devices={devices}{every}: must divide train.batch_size={batch_size}")
    return Mesh(np.array(found[:devices]), (AXIS,)) if devices > 1 else None


def choose_devices(batch_size: int) -> int:
    """Returns the default number of devices of a run with this batch size.

    On CPU, the largest number that divides the batch into equal shares of `LEAST_SHARE` or more examples; a process has
    several CPU devices only on request. Otherwise one accelerator, as a small network does not fill more. If several
    processes have joined, all of their devices.
    """
    if jax.process_count() > 1:
        return jax.device_count()
    local = jax.local_devices()
    if local[0].platform != "cpu":
        return 1
    return max(
        n for n in range(1, len(local) + 1) if n == 1 or (batch_size % n == 0 and batch_size // n >= LEAST_SHARE)
    )


def describe_execution(devices: int) -> str:
    """Returns the mode of execution for the provenance of a run: ``solo``, ``2 devices``, ...

    Example:
        >>> describe_execution(2)
        '2 devices'
    """
    processes = jax.process_count()
    return "solo" if devices == 1 else f"{devices} devices" + (f" of {processes} processes" if processes > 1 else "")


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Returns a tree of arrays replicated on all devices of a mesh; without a mesh, the tree as it is."""
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda array: place(array, everywhere), tree)


def place(array: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """Returns an array, which every process must have, placed on the devices of a sharding, also of other processes."""
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = place(jax.random.key_data(array), sharding)
        keys: jax.Array = jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
        return keys
    placed: jax.Array = jax.make_array_from_process_local_data(sharding, np.asarray(array))
    return placed


def run_on_all(*arguments: Any, program: Callable[..., Any], mesh: Mesh, **static: Any) -> Any:
    """Runs a program on every device of a mesh.

    Args:
        arguments: trees of arrays, replicated on the mesh.
        program: a function whose result is the same on every device.
        mesh: the devices.
        static: keyword arguments of the program.

    Returns:
        The result, replicated.
    """

    def run(*arguments: Any) -> Any:
        return program(*arguments, **static)

    same = PartitionSpec()
    return jax.shard_map(run, mesh=mesh, in_specs=same, out_specs=same, check_vma=False)(*arguments)


def take_share(rows: jax.Array, axis: str | None) -> jax.Array:
    """Returns the share of this device, an equal slice along the last dimension; everything if `axis` is ``None``."""
    if axis is None:
        return rows
    size = rows.shape[-1] // lax.axis_size(axis)
    return lax.dynamic_slice_in_dim(rows, lax.axis_index(axis) * size, size, -1)
