"""The machine that measurements were made on: its processor, the versions of the packages, its speed."""

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from cnnjax.machine.processes import count_cores, python_command, python_environment
from cnnjax.runs.provenance import describe_source, find_version

PACKAGES = ("cnnjax", "jax", "jaxlib", "flax", "optax", "keras", "tensorflow", "tensorflow-cpu", "torch", "numpy")
FEATURES = ("avx512_bf16", "amx_bf16")
"""Instructions of processors for bfloat16, as Linux names them."""


def write_machine(device: str) -> str:
    """Returns one line with the machine, the versions of the installed packages, and the commit."""
    machine = describe_machine()
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    features = " and ".join(f"{'with' if has else 'without'} {name}" for name, has in machine["features"].items())
    return (
        f"{machine['processor']} {features}, {machine['cores']} cores, {device}, Python {machine['python']}, "
        f"{versions}, commit {machine['commit']}"
    )


def describe_machine() -> dict[str, Any]:
    """Returns the processor, its features and cores, and the versions of Python and of the packages, as JSON values."""
    source = describe_source()
    commit = (source["commit"] or "unknown")[:12] + (" with changes" if source["dirty"] else "")
    flags = _read_processor("flags").split()
    return {
        "processor": _read_processor("model name") or platform.processor() or platform.machine(),
        "features": {name: name in flags for name in FEATURES},
        "cores": count_cores(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := find_version(name))},
        "commit": commit,
    }


def measure_dot() -> float:
    """Returns the floating-point operations per second of a large matrix product in JAX, in a separate process."""
    words, environment = python_command("-m", "experiments.measure.contestants.dot_peak"), python_environment()
    result = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return float(json.loads(result.stdout))


def _read_processor(entry: str) -> str:
    """Returns what Linux says of the first core; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == entry), "")
