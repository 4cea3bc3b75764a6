"""This process and its children: starting children, cores, memory, silencing other libraries, signals. No JAX here."""

import contextlib
import functools
import importlib.metadata
import importlib.util
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from cnnjax.errors import InputError, UnavailableError
from cnnjax.machine.files import configure_jax

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Environment variables for a process that is pinned to one core."""
_STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_last: list[int] = [signal.SIGINT]
"""The last signal that `_raise` raised for."""
_lost: list[int] = []
"""Signals whose `KeyboardInterrupt` Python discarded, as it was raised in a finaliser."""


def python_command(*arguments: str) -> list[str]:
    """Returns a command line for this Python interpreter; ``-P`` keeps the working folder out of `sys.path`."""
    return [sys.executable, "-P", *arguments]


def python_environment() -> dict[str, str]:
    """Returns the environment of this process with `sys.path` in it, so that a child process imports the same packages.

    A script or a notebook may have changed `sys.path`.
    """
    path = []
    for entry in sys.path:
        with contextlib.suppress(OSError):  # the working folder was deleted
            path.append(os.path.abspath(entry))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def list_cores() -> Sequence[int | None]:
    """Returns the numbers of the cores that this process may use; ``None`` for each if it cannot be pinned to cores."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return [None] * (os.cpu_count() or 1)


def count_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(list_cores())


def offer_cpu_devices(count: int | None = None) -> None:
    """Makes JAX see the CPU as several devices, so that a run can be divided among them.

    This must be called before JAX starts. A number that the user has set is not changed.

    Args:
        count: number of devices, at most one per core. Default: one per core.
    """
    if not _are_cpu_devices_set():
        configure_jax("jax_num_cpu_devices", min(count or count_cores(), count_cores()))


def check_cpu_devices(count: int | None) -> None:
    """Raises `InputError` if `count` is more than the CPU cores, and JAX will certainly find no other devices."""
    if count and count > count_cores() and not may_have_accelerators() and not _are_cpu_devices_set():
        raise InputError(f"--devices={count}: must be <= {count_cores()}, the CPU cores of this process")


def may_have_accelerators() -> bool:
    """Whether JAX might find other devices than CPUs; only starting JAX would tell for certain."""
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    platforms = os.environ.get("JAX_PLATFORMS")
    return platforms != "cpu" and bool(platforms or plugins or importlib.util.find_spec("libtpu"))


def _are_cpu_devices_set() -> bool:
    flags = os.environ.get("XLA_FLAGS", "")
    return "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in flags


def find_memory() -> int:
    """Returns the memory in bytes of this machine, or the limit of the control group that this process runs in."""
    import psutil  # imported here because it takes 40 ms, which --help need not wait for

    limits = [psutil.virtual_memory().total]
    for path in _list_limits():
        if path.is_file() and (limit := path.read_text().strip()).isdecimal():
            limits.append(int(limit))
    return min(limits)


def _list_limits() -> Iterator[Path]:
    """Yields the files that may limit the memory of this process, of its control groups, version 1 or 2.

    A container may name its group by a path on its host, and yet has its limit at the root.
    """
    groups = Path("/proc/self/cgroup")
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        _, controller, group = line.split(":", 2)
        if controller in ("", "memory"):
            folder = Path(f"/sys/fs/cgroup/{controller}{group}")
            for each in (folder, *folder.parents):
                yield from (each / name for name in ("memory.max", "memory.limit_in_bytes"))


def out_of_memory(needed: float, memory: float) -> UnavailableError:
    """Returns the error for a run that needs `needed` bytes where there are only `memory` bytes."""
    return UnavailableError(
        f"out of memory; use a smaller train.batch_size or network: at least {needed / 2**30:,.1f} GiB are needed, "
        f"and there are {memory / 2**30:,.1f} GiB"
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the logger of TFDS and Orbax while the context lasts; their errors are still raised."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def take_stdout() -> TextIO:
    """Returns a stream to standard output that only the caller has.

    Everything that other code prints to standard output, also from C, goes to standard error from then on.
    """
    own = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    os.dup2(2, 1)
    return own


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Discards the output and the warnings of Python code while the context lasts."""
    nowhere = _open_nowhere()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@functools.cache
def _open_nowhere() -> TextIO:
    """Returns a stream to the null device, never closed, because libraries may keep it as their standard output."""
    return open(os.devnull, "w")


def raise_on_signals() -> None:
    """Makes SIGINT, SIGTERM and SIGHUP raise `KeyboardInterrupt`; signals that are ignored, as under nohup, stay so."""
    for number in _STOPPING:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            signal.signal(number, _raise)
    sys.unraisablehook = _remember_interrupt


def last_signal() -> int:
    """Returns the number of the last signal that raised `KeyboardInterrupt`; SIGINT if there was none."""
    return _last[0]


@contextlib.contextmanager
def deferred_signals() -> Iterator[Callable[[], int | None]]:
    """Holds back the first SIGINT, SIGTERM or SIGHUP while the context lasts; a second one takes effect at once.

    Signals that are ignored already, as under ``nohup``, stay ignored.

    Yields:
        A function that returns the number of the signal that was held back, or ``None``. Python handles signals in the
        main thread only; in other threads, the function always returns ``None``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received = _lost.copy()
    _lost.clear()
    handlers = {number: signal.getsignal(number) for number in _STOPPING}
    previous = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def hold_back(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()
        with contextlib.suppress(OSError):
            # Not print, because the signal may have interrupted a print, which is not reentrant.
            os.write(2, b"\nstopping at the next pause; again stops at once\n")

    for number in previous:
        signal.signal(number, hold_back)
    try:
        yield lambda: received[0] if received else None
    finally:
        restore()


def _remember_interrupt(lost: Any) -> None:
    """Remembers a `KeyboardInterrupt` that Python has to discard, such as in a finaliser, for `deferred_signals`."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        _lost.append(_last[0])
    else:
        sys.__unraisablehook__(lost)


def _raise(number: int, frame: FrameType | None) -> None:
    _last[0] = number
    raise KeyboardInterrupt
