"""Where a result comes from: versions, device, XLA flags, source commit, dataset."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cnnjax
from cnnjax.machine.processes import count_cores
from cnnjax.runs.config import RunConfig

if TYPE_CHECKING:
    from cnnjax.data.dataset import DatasetInfo

PACKAGES = ("cnnjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets", "pillow")
JAX_SETTINGS = ("jax_default_matmul_precision", "jax_enable_x64", "jax_threefry_partitionable")


def collect_provenance(
    config: RunConfig, dataset: "DatasetInfo", execution: str = "solo", at_once: int = 1
) -> dict[str, Any]:
    """Returns what a result depends on, as JSON values: to reproduce it bit for bit, or to explain a difference.

    In ``code`` it has the texts of the module and the functions of the user, by their import paths, so that they can be
    read later; they are never run from there. Of one of an installed package it has the package and its version.

    Args:
        config: the run.
        dataset: the dataset of the run.
        execution: mode of execution, such as ``solo``, ``2 devices`` or ``8 runs in one program``.
        at_once: number of runs in the program; each has an equal share of the measured times.
    """
    import jax

    device = jax.devices()[0]
    code = {**config.model.describe_code(), **config.train.describe_code()}
    return {
        **({"code": code} if code else {}),
        **describe_software(),
        "device": {
            "backend": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "cpu_threads": count_cores(),
        },
        "convolutions": describe_convolutions(device.platform),
        "execution": execution,
        "at_once": at_once,
        "jax_settings": {name: getattr(jax.config, name) for name in JAX_SETTINGS},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "dataset": {
            "name": dataset.name,
            "version": dataset.version,
            "sha256": dataset.sha256,
            "order": dataset.order,
            "image_shape": list(dataset.image_shape),
            "classes": dataset.classes,
        },
    }


def describe_convolutions(backend: str) -> str:
    """Returns what convolves on a backend: ``oneDNN`` with its version, ``cnnjax`` (in JAX alone on CPU), or ``XLA``.

    Example:
        >>> describe_convolutions("gpu")
        'XLA'
    """
    from cnnjax.layers import custom_calls

    return "XLA" if backend != "cpu" else custom_calls.describe() or "cnnjax"


def list_code(provenance: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns what a provenance has of code of the user, by import path.

    Older records name the module of a network in its entry, and have functions in one of their own.

    Example:
        >>> list_code({"code": {"module": "nets.py:ResNet", "sha256": "1f"}, "functions": {"optax:lion": {}}})
        {'nets.py:ResNet': {'sha256': '1f'}, 'optax:lion': {}}
    """
    code = dict(provenance.get("code") or {})
    module = code.pop("module", None)
    return {**(code if module is None else {str(module): code}), **(provenance.get("functions") or {})}


def describe_software() -> dict[str, Any]:
    """Returns the versions of packages, of Python and of this package's source, and the platform, as JSON values."""
    return {
        "packages": {name: find_version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": describe_source(),
    }


def find_version(package: str) -> str | None:
    """Returns the version of a package, or ``None`` if it is not installed.

    Example:
        >>> find_version("no-such-package") is None
        True
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def describe_source() -> dict[str, Any]:
    """Returns the ``commit`` of this package's repository, and whether tracked files differ from it (``dirty``).

    Both are ``None`` if the package is not in a git repository.
    """
    root = Path(cnnjax.__file__).resolve().parent.parent
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    status = _git(root, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _git(root: Path, *arguments: str) -> str | None:
    """Returns what a git command printed, or ``None`` if it failed."""
    # In a git hook of another repository, GIT_DIR and others point to that repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(root), *arguments]
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
