"""One run on the devices of several processes, as on several hosts: how they find each other, and what they agree on.

Every process runs the same program on the same arguments. The first one alone writes; all of them read the output
folder, which must therefore be one that all see, and go on only where they have found the same.
"""

import atexit
import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from cnnjax.errors import InputError, UnavailableError
from cnnjax.machine.backend import import_jax, run_settings

WAIT_SECONDS = 300
"""For the first process to answer, and for the others to come."""
PAUSE_SECONDS = 0.5
MOST_PROCESSES = 4096
"""More than hosts of the largest slices; the first process keeps a record of each before any has come."""

LOSS = re.compile("(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): ")
"""How JAX begins the message of a computation on several hosts that cannot be ended."""

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
    if not 1 <= num_processes <= MOST_PROCESSES:
        raise InputError(f"num_processes={num_processes}: must be >= 1 and <= {MOST_PROCESSES}")
    if not 0 <= process_id < num_processes:
        raise InputError(f"process_id={process_id}: must be >= 0 and < num_processes={num_processes}")


def join(
    coordinator: str,
    num_processes: int,
    process_id: int,
    devices: int | None = None,
    note: Callable[[str], None] = lambda message: None,
) -> None:
    """Waits for the other processes; from then on JAX knows the devices of all of them.

    This must come before anything is computed.

    Args:
        coordinator: ``host:port`` of the first process.
        num_processes: how many there are.
        process_id: which of them this is, from 0.
        devices: of this process, the first so many accelerators; ``None`` for all. Those of a CPU are made by
            `cnnjax.machine.processes.offer_cpu_devices`.
        note: is told at once what is waited for, and until when.

    Raises:
        InputError: they cannot be.
        UnavailableError: the others do not come.
    """
    check_processes(coordinator, num_processes, process_id)
    note(_describe_wait(coordinator, num_processes, process_id))
    if process_id:
        _wait_for_answer(coordinator)  # JAX would end this process where nothing answers
    import_jax()
    import jax

    with contextlib.suppress(AttributeError):
        jax.config.update("jax_enable_preemption_service", False)  # which would take SIGTERM for itself
    own = devices and [*range(devices)]
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, own, initialization_timeout=WAIT_SECONDS)
    except RuntimeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnavailableError(
            f"coordinator={coordinator!r}: the processes do not find each other: {reason}"
        ) from error


def _describe_wait(coordinator: str, num_processes: int, process_id: int) -> str:
    others = f"{num_processes - 1} other process{'' if num_processes == 2 else 'es'} to come to {coordinator}"
    waited = f"the first process to answer at {coordinator}" if process_id else others
    until = datetime.now() + timedelta(seconds=WAIT_SECONDS)
    return f"waiting for {waited}, until {until:%H:%M:%S} ({WAIT_SECONDS} s)"


def _wait_for_answer(coordinator: str) -> None:
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PAUSE_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                reason = f"nothing answers there within {WAIT_SECONDS} s ({error.strerror or error})"
                raise UnavailableError(f"coordinator={coordinator!r}: {reason}") from None
            time.sleep(PAUSE_SECONDS)


def is_joined() -> bool:
    """Whether this process is one of several; JAX is not started to find out."""
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def is_first() -> bool:
    """Whether this process is the one that writes."""
    import jax

    return jax.process_index() == 0


@run_settings()
def agree(number: int) -> int:
    """Returns the largest of the numbers of all processes, which all must ask for at the same point."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("all",))
    own = np.full(jax.local_device_count(), number, np.int32)
    every = jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("all")), own, (mesh.size,))
    return int(jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))(every))


def check_same(number: int, what: str, must: str = "out: must be a folder that all processes see") -> None:
    """Raises `UnavailableError` where the processes have different numbers, such as each finds in its output folder.

    Args:
        number: of this process.
        what: it is, in words.
        must: what must be so for them to be equal.
    """
    largest, smallest = agree(number), -agree(-number)
    if largest != smallest:
        seen = f"{what} is {smallest} for one of them and {largest} for another"
        raise UnavailableError(f"{must}; {seen}")


@contextlib.contextmanager
def named_losses() -> Iterator[None]:
    """Turns the error of a computation that another of several processes has left into one that says so.

    This process ends without waiting for the others when it ends, as JAX would.

    Raises:
        UnavailableError: another process has gone.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if not is_joined() or not LOSS.match(str(error)):
            raise
        atexit.register(_leave)
        reason = str(error).splitlines()[0]
        raise UnavailableError(
            f"another of the processes has gone; start all again, with --resume where there are checkpoints: {reason}"
        ) from error


def _leave() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(UnavailableError.exit_code)


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """Has an error in any of several processes end them all, before one waits for another that will not come.

    Raises:
        UnavailableError: another process has failed.
    """
    if not is_joined():
        yield
        return
    try:
        yield
    except BaseException:
        agree(1)
        raise
    if agree(0):
        raise UnavailableError("another of the processes has failed; its own message says why")
