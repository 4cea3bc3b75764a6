"""One run on the devices of several processes, such as one process on each of several hosts.

Every process runs the same program with the same arguments. Only the first process writes. All processes read the
output folder, so it must be on a file system that they share; they check that they have read the same, and stop if not.
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
"""Time limit for the first process to answer and for the others to join."""
PAUSE_SECONDS = 0.5
"""Time between two attempts to reach the first process."""
MOST_PROCESSES = 4096
"""Most processes: more than the largest TPU slices have hosts. The first process allocates memory for each of them."""

LOSS = re.compile("(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): ")
"""Start of JAX's message when a computation on several hosts fails because a process is lost."""

ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):([0-9]{1,5})")


def check_processes(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Raises `InputError` if only some of the three arguments of `join` are given, or one is not legal.

    Example:
        >>> check_processes("localhost:1234", num_processes=2, process_id=2)
        Traceback (most recent call last):
            ...
        cnnjax.errors.InputError: process_id=2: must be >= 0 and < num_processes=2
    """
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
    """Joins this process with the others, and waits for them; then JAX knows the devices of all processes.

    This must be called before anything is computed.

    Args:
        coordinator: ``host:port`` of the first process.
        num_processes: number of processes.
        process_id: index of this process, from 0.
        devices: number of accelerators that this process uses; ``None`` for all. For CPUs, use
            `cnnjax.machine.processes.offer_cpu_devices` instead.
        note: receives a message before the wait: what this process waits for, and until when.

    Raises:
        InputError: an argument is not legal.
        UnavailableError: the processes did not find each other within `WAIT_SECONDS`.
    """
    check_processes(coordinator, num_processes, process_id)
    note(_describe_wait(coordinator, num_processes, process_id))
    if process_id:
        _wait_for_answer(coordinator)  # if nothing answers, JAX would end this process without an exception
    import_jax()
    import jax

    with contextlib.suppress(AttributeError):
        jax.config.update("jax_enable_preemption_service", False)  # it would catch SIGTERM, which cnnjax handles
    own = devices and [*range(devices)]
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, own, initialization_timeout=WAIT_SECONDS)
    except RuntimeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnavailableError(
            f"coordinator={coordinator!r}: the processes did not find each other: {reason}"
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
    """Whether this process has joined others by `join`; does not start JAX."""
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def is_first() -> bool:
    """Whether this process is the first one, which alone writes; always so for a process that has not joined others."""
    import jax

    return jax.process_index() == 0


@run_settings()
def agree(number: int) -> int:
    """Returns the largest of the numbers that the processes pass; all of them must call this at the same point."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("all",))
    own = np.full(jax.local_device_count(), number, np.int32)
    every = jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("all")), own, (mesh.size,))
    return int(jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))(every))


def check_same(number: int, what: str, must: str = "out: must be a folder that all processes see") -> None:
    """Raises `UnavailableError` if the processes pass different numbers; all of them must call this at the same point.

    Args:
        number: an int32 that this process has found, such as the step of a checkpoint in the output folder.
        what: what the number is, in words for the message.
        must: what the user must ensure so that the numbers are equal, for the message.
    """
    largest, smallest = agree(number), -agree(-number)
    if largest != smallest:
        seen = f"{what} is {smallest} for one of them and {largest} for another"
        raise UnavailableError(f"{must}; {seen}")


@contextlib.contextmanager
def named_losses() -> Iterator[None]:
    """Turns JAX's error for a lost process into an `UnavailableError` that says what to do.

    After such an error, this process does not wait for the others when it exits, as JAX would do.

    Raises:
        UnavailableError: another process has ended, so the computation of all of them cannot go on.
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
    """Makes an error in one process raise in all processes, so that none waits for a process that has failed.

    All processes must enter this context at the same point.

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
        raise UnavailableError("another of the processes has failed; see its message for the reason")
