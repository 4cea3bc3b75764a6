"""This process and its children: how children start, cores, memory, foreign logs, signals. No JAX here."""

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

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Environment of a process that is pinned to one core."""
_GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_last: list[int] = [signal.SIGINT]
_lost: list[int] = []


def python_command(*arguments: str) -> list[str]:
    """Returns a command line of this Python; ``-P`` keeps the working folder out of the search path."""
    return [sys.executable, "-P", *arguments]


def python_environment() -> dict[str, str]:
    """Returns this process's environment, with `sys.path` in it, so that a child finds the same packages.

    A script or a notebook may have changed the path.
    """
    path = []
    for entry in sys.path:
        with contextlib.suppress(OSError):  # the working folder was deleted
            path.append(os.path.abspath(entry))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def list_cores() -> Sequence[int | None]:
    """Returns the cores of this process by their numbers; ``None`` for each if the system cannot pin to a core."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return [None] * (os.cpu_count() or 1)


def count_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(list_cores())


def offer_cpu_devices(count: int | None = None) -> None:
    """Makes JAX offer the CPU as several devices, so that a run can be divided among them.

    This sets an environment variable, so it must come before JAX is imported. What the user has set stays.

    Args:
        count: number of devices, at most one per core. Default: one per core.
    """
    if not _are_cpu_devices_set():
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(min(count or count_cores(), count_cores())))


def check_cpu_devices(count: int | None) -> None:
    """Raises `InputError` if there cannot be so many devices, as far as that is known before JAX starts."""
    if count and count > count_cores() and not may_have_accelerators() and not _are_cpu_devices_set():
        raise InputError(f"--devices={count}: must be <= {count_cores()}, the CPU cores of this process")


def may_have_accelerators() -> bool:
    """Whether JAX might find another device than the CPU; only starting JAX would tell which."""
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    platforms = os.environ.get("JAX_PLATFORMS")
    return platforms != "cpu" and bool(platforms or plugins or importlib.util.find_spec("libtpu"))


def _are_cpu_devices_set() -> bool:
    flags = os.environ.get("XLA_FLAGS", "")
    return "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in flags


def find_memory() -> int:
    """Returns the memory in bytes of this machine, or of the container that this process runs in."""
    import psutil  # 40 ms, which --help does without

    limits = [psutil.virtual_memory().total]
    for path in map(Path, _GROUP_LIMITS):
        if path.is_file() and (limit := path.read_text().strip()).isdecimal():
            limits.append(int(limit))
    return min(limits)


def out_of_memory(needed: float, memory: float) -> UnavailableError:
    """Returns the error that names the bytes that are needed and those that there are."""
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
    """Returns standard output for the caller alone; all else printed there goes to standard error from now on."""
    own = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    os.dup2(2, 1)
    return own


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Discards what Python code prints and its warnings while the context lasts."""
    nowhere = _open_nowhere()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@functools.cache
def _open_nowhere() -> TextIO:
    """Returns a stream that is never closed, because libraries may keep it as their standard output."""
    return open(os.devnull, "w")


def raise_on_signals() -> None:
    """Makes SIGINT, SIGTERM and SIGHUP raise `KeyboardInterrupt`; those that are ignored, as under nohup, stay so."""
    for number in _STOPPING:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            signal.signal(number, _raise)
    sys.unraisablehook = _remember_interrupt


def last_signal() -> int:
    """Returns the number of the last signal that `raise_on_signals` raised for, SIGINT where there was none."""
    return _last[0]


@contextlib.contextmanager
def deferred_signals() -> Iterator[Callable[[], int | None]]:
    """Holds back the first SIGINT, SIGTERM or SIGHUP while the context lasts; a second one acts at once.

    Signals that are ignored already, as under ``nohup``, stay ignored.

    Yields:
        A function that returns the number of the signal that arrived, or ``None``. Outside the main thread, which
        alone may handle signals, it always returns ``None``.
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
            # Not print: a handler may interrupt a print.
            os.write(2, b"\nstopping at the next pause; again stops at once\n")

    for number in previous:
        signal.signal(number, hold_back)
    try:
        yield lambda: received[0] if received else None
    finally:
        restore()


def _remember_interrupt(lost: Any) -> None:
    if isinstance(lost.exc_value, KeyboardInterrupt):
        _lost.append(_last[0])
    else:
        sys.__unraisablehook__(lost)


def _raise(number: int, frame: FrameType | None) -> None:
    _last[0] = number
    raise KeyboardInterrupt
