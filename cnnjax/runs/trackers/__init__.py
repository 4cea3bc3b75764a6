"""Runs told to other tools as they go, below the output folder: TensorBoard, MLflow, Weights & Biases.

The store stays the truth. A tracker that fails is dropped with a note, and never stops or changes a run.
"""

import importlib.util
import os
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from cnnjax.errors import UnavailableError
from cnnjax.runs.config import RunConfig
from cnnjax.runs.trackers.tracking import Tracker, Tracking
from cnnjax.settings.checking import choice

__all__ = ["TRACKERS", "Tracker", "TrackerName", "Tracking", "check_trackers", "make_trackers"]


TrackerName = Literal["tensorboard", "mlflow", "wandb"]
TRACKERS: tuple[TrackerName, ...] = typing.get_args(TrackerName)
"""The names of the trackers, which are also those of the extras that install what they need."""
_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


def check_trackers(names: Iterable[str]) -> None:
    """Raises where one of the trackers cannot be made; imports none of their packages.

    Raises:
        InputError: there is no tracker of that name.
        UnavailableError: its package is not installed.
    """
    for name in names:
        choice(name, TRACKERS, "--log")
        package = _PACKAGES[name]
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:  # without origin: a mere folder of that name, as wandb makes them
            raise UnavailableError(f"--log {name}: needs the package {package}: pip install -e '.[{name}]'")


def make_trackers(names: Iterable[str], folder: str | os.PathLike[str], config: RunConfig) -> dict[str, Tracker]:
    """Returns the trackers of a run by name, each once; they write nothing before they are told of the run.

    Args:
        names: any of `TRACKERS`.
        folder: the output folder, in which each makes one of its own.
        config: the run.

    Raises:
        InputError, UnavailableError: as `check_trackers`.
    """
    names = tuple(dict.fromkeys(names))
    check_trackers(names)
    return {name: _make(name, Path(folder), config) for name in names}


def _make(name: str, folder: Path, config: RunConfig) -> Tracker:
    if name == "tensorboard":
        from cnnjax.runs.trackers.tensorboard_files import TensorBoardTracker

        return TensorBoardTracker(folder, config)
    if name == "mlflow":
        from cnnjax.runs.trackers.mlflow_database import MlflowTracker

        return MlflowTracker(folder, config)
    from cnnjax.runs.trackers.wandb_offline import WandbTracker

    return WandbTracker(folder, config)
