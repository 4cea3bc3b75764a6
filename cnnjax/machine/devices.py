"""One run on several devices: each takes its share of every batch, and they agree on the gradient before every step.

The examples and the state are on all devices. The batch, the order of the images and the mathematics are those of one
device; sums are rounded in another order. A program is one function that runs on all devices of a mesh, with its
collectives written where they happen (`jax.shard_map`).
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
"""Examples of a batch on a CPU device; matrix products of fewer are slower."""


def make_mesh(devices: int, batch_size: int) -> Mesh | None:
    """Returns the mesh of the first so many local devices; ``None`` for one device.

    Where there are several processes, it is of the devices of all of them.

    Args:
        devices: how many.
        batch_size: of the run, which they must divide.

    Raises:
        InputError: there are not so many, or they cannot have equal shares.
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
    """Returns the default number of devices of a run.

    Of CPUs, as many as divide the batch into equal shares of `LEAST_SHARE` examples or more; a process has several
    CPU devices only on request. One accelerator, as a small network does not fill
    more. Of several processes, all devices.
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
    """Returns how a run on so many devices is executed, in words for its provenance."""
    processes = jax.process_count()
    return "solo" if devices == 1 else f"{devices} devices" + (f" of {processes} processes" if processes > 1 else "")


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Returns the arrays on all devices of a mesh; as they are without one."""
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda array: place(array, everywhere), tree)


def place(array: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """Returns an array that all processes have, on the devices of a sharding, which may be those of all processes."""
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = place(jax.random.key_data(array), sharding)
        keys: jax.Array = jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
        return keys
    placed: jax.Array = jax.make_array_from_process_local_data(sharding, np.asarray(array))
    return placed


def run_on_all(*arguments: Any, program: Callable[..., Any], mesh: Mesh, **static: Any) -> Any:
    """Runs a function of replicated arrays, which returns the same on all devices, on every device of a mesh."""

    def run(*arguments: Any) -> Any:
        return program(*arguments, **static)

    same = PartitionSpec()
    return jax.shard_map(run, mesh=mesh, in_specs=same, out_specs=same, check_vma=False)(*arguments)


def take_share(rows: jax.Array, axis: str | None) -> jax.Array:
    """Returns this device's equal share of the rows, along the last dimension; all of them without an axis."""
    if axis is None:
        return rows
    size = rows.shape[-1] // lax.axis_size(axis)
    return lax.dynamic_slice_in_dim(rows, lax.axis_index(axis) * size, size, -1)
