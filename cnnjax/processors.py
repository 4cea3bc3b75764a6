"""The cores of this process, and the devices that JAX makes of them. No JAX here."""

import importlib.metadata
import importlib.util
import os
from collections.abc import Sequence

from cnnjax.errors import InputError

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Environment of a process that is pinned to a core."""


def list_cores() -> Sequence[int | None]:
    """Returns the cores of this process, as the system numbers them; ``None`` for each where it cannot pin to one."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return [None] * (os.cpu_count() or 1)


def count_cores() -> int:
    """Returns how many cores this process may use."""
    return len(list_cores())


def offer_cpu_devices(count: int | None = None) -> None:
    """Has JAX make so many devices of the CPU, so that a run can be divided among them.

    This sets a variable of the environment, so it must come before JAX is imported. What the user has set stays.

    Args:
        count: how many, of which there is at most one a core; ``None`` is one a core.
    """
    if not _are_cpu_devices_set():
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(min(count or count_cores(), count_cores())))


def check_cpu_devices(count: int | None) -> None:
    """Raises `InputError` where so many devices cannot be had, as far as that is known before JAX starts."""
    if count and count > count_cores() and not may_have_accelerators() and not _are_cpu_devices_set():
        raise InputError(f"--devices={count}: must be <= {count_cores()}, the CPU cores of this process")


def may_have_accelerators() -> bool:
    """Whether JAX might find another device than the CPU here; which one, only starting it would tell."""
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    platforms = os.environ.get("JAX_PLATFORMS")
    return platforms != "cpu" and bool(platforms or plugins or importlib.util.find_spec("libtpu"))


def _are_cpu_devices_set() -> bool:
    flags = os.environ.get("XLA_FLAGS", "")
    return "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in flags
