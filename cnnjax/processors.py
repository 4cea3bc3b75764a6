"""The cores of this process, and the devices that JAX makes of them. No JAX here."""

import os


def count_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def offer_cpu_devices(count: int | None = None) -> None:
    """Has JAX make so many devices of the CPU, so that a run can be divided among them.

    This sets a variable of the environment, so it must come before JAX is imported. What the user has set stays.

    Args:
        count: how many; ``None`` is one a core.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(count or count_cores()))
