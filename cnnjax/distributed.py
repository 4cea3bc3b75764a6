"""One run on the devices of several processes, as on several hosts: how they find each other, and what they agree on.

Every process runs the same program on the same arguments. The first one alone writes; all of them read the output
folder, which must therefore be one that all see.
"""

import re
from typing import TYPE_CHECKING

from cnnjax.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from jax.sharding import Mesh

ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):([0-9]{1,5})")


def check_processes(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Raises `InputError` where these are not all given, or cannot be."""
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        raise InputError(f"{missing[0]}: must be given with {' and '.join(sorted(given.keys() - missing))}")
    if coordinator is None or num_processes is None or process_id is None:
        return
    address = ADDRESS.fullmatch(coordinator)
    if not address or not 0 < int(address[2]) < 2**16:
        raise InputError(f"coordinator={coordinator!r}: must be host:port, with a port >= 1 and <= 65535")
    if num_processes < 1:
        raise InputError(f"num_processes={num_processes}: must be >= 1")
    if not 0 <= process_id < num_processes:
        raise InputError(f"process_id={process_id}: must be >= 0 and < num_processes={num_processes}")


def join(coordinator: str, num_processes: int, process_id: int) -> None:
    """Waits for the other processes; from then on JAX knows the devices of all of them.

    This must come before anything is computed.

    Args:
        coordinator: ``host:port`` of the first process.
        num_processes: how many there are.
        process_id: which of them this is, from 0.

    Raises:
        InputError: they cannot be.
        UnavailableError: the others do not come.
    """
    check_processes(coordinator, num_processes, process_id)
    import jax

    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except RuntimeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnavailableError(
            f"coordinator={coordinator!r}: the processes do not find each other: {reason}"
        ) from error


def is_first() -> bool:
    """Whether this process is the one that writes."""
    import jax

    return jax.process_index() == 0


def agree(number: int, mesh: "Mesh") -> int:
    """Returns the largest of the numbers of all processes, which all must ask for at the same point."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    from cnnjax.sharding import AXIS

    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    own = np.full(jax.local_device_count(), number, np.int32)
    every = jax.make_array_from_process_local_data(sharding, own, (mesh.size,))
    return int(jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))(every))
