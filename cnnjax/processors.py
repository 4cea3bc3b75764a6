"""The cores of this process, and the devices that JAX makes of them. No JAX here."""

import os
from collections.abc import Sequence

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
        count: how many; ``None`` is one a core.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(count or count_cores()))
