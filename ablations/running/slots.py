"""The places for workers on this machine: one a core on CPU, one a device on accelerators."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from cnnjax.backend import check_flags
from cnnjax.children import python_command, python_environment
from cnnjax.errors import InputError, UnavailableError
from cnnjax.processors import list_cores, may_have_accelerators

PROBE_SECONDS = 300
_PROBE = """
import json, sys
from cnnjax.errors import UnavailableError
from cnnjax.backend import jax_started
try:
    with jax_started():
        import jax
except UnavailableError as error:
    sys.exit(str(error))
print(json.dumps([jax.default_backend(), jax.local_device_count()]))
"""


@dataclass(frozen=True)
class Slot:
    """A place for a worker: its number, the one core it runs on, if it is pinned, and its environment beyond ours."""

    number: int
    core: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_cpu(self) -> bool:
        """Whether the worker trains on a CPU."""
        return self.environment.get("JAX_PLATFORMS") == "cpu"


def make_slots(workers: int | None = None) -> list[Slot]:
    """Returns the places for workers.

    On CPU a worker is pinned to one core: side by side they train more than one process with all cores. On GPUs and
    TPUs a worker sees one device.

    Args:
        workers: how many; ``None`` is one a core, or one a device.

    Raises:
        InputError: more workers than devices.
        UnavailableError: JAX cannot start.
    """
    backend, devices = _find_accelerators()
    if backend == "cpu":
        cores = list_cores()
        return [Slot(i, cores[i % len(cores)], {"JAX_PLATFORMS": "cpu"}) for i in range(workers or len(cores))]
    if workers and workers > devices:
        raise InputError(f"--workers={workers}: must be <= {devices}, the number of {backend} devices, one worker each")
    return [Slot(index, None, _show_device(backend, index)) for index in range(workers or devices)]


def _find_accelerators() -> tuple[str, int]:
    check_flags()
    if not may_have_accelerators():
        return "cpu", 0
    # In a process of its own, for JAX would take the devices that the workers need.
    command = python_command("-c", _PROBE)
    try:
        probe = subprocess.run(
            command, env=python_environment(), capture_output=True, text=True, errors="replace", timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"JAX cannot start: it has not found its devices in {PROBE_SECONDS} s") from None
    if probe.returncode:
        raise UnavailableError((probe.stderr.strip().splitlines() or ["JAX cannot start: no reason given"])[-1])
    backend, count = json.loads(probe.stdout.splitlines()[-1])
    return backend, count


def _show_device(backend: str, index: int) -> dict[str, str]:
    if backend == "tpu":
        bounds = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
        return {"TPU_VISIBLE_CHIPS": str(index), **bounds}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return {"CUDA_VISIBLE_DEVICES": visible[index] if visible != [""] else str(index)}
