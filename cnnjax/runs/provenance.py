"""Where a result comes from: versions, device, XLA flags, source commit, dataset."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from cnnjax.data.dataset import DatasetInfo
from cnnjax.machine.processes import count_cores

PACKAGES = ("cnnjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets", "pillow")
JAX_SETTINGS = ("jax_default_matmul_precision", "jax_enable_x64", "jax_threefry_partitionable")


def collect_provenance(dataset: DatasetInfo, execution: str = "solo", at_once: int = 1) -> dict[str, Any]:
    """Returns JSON values that say what made a result: needed to reproduce it bit for bit, or to explain a difference.

    Args:
        dataset: the images that were used.
        execution: ``solo``, or how else the run was executed: divided among devices, or with others in one program.
        at_once: runs of the program, whose times were shared among them.
    """
    import jax

    device = jax.devices()[0]
    return {
        "packages": {name: find_version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": {
            "backend": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "cpu_threads": count_cores(),
        },
        "execution": execution,
        "at_once": at_once,
        "jax_settings": {name: getattr(jax.config, name) for name in JAX_SETTINGS},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "git": describe_source(),
        "dataset": {
            "name": dataset.name,
            "version": dataset.version,
            "sha256": dataset.sha256,
            "order": dataset.order,
            "image_shape": list(dataset.image_shape),
            "classes": dataset.classes,
        },
    }


def find_version(package: str) -> str | None:
    """Returns the installed version of a package, ``None`` where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def describe_source() -> dict[str, Any]:
    """Returns the commit of this package's repository, and whether files differ from it; ``None`` without one."""
    root = Path(__file__).resolve().parent.parent
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    status = _git(root, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _git(root: Path, *arguments: str) -> str | None:
    # Inside a hook of another repository, these name that one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(root), *arguments]
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
