"""Trackers, which write the progress of runs for other tools: TensorBoard, MLflow, Weights & Biases.

Their files are in the output folder, beside the store, which remains the authoritative record. A tracker that fails is
dropped with a warning; it never stops or changes a run.
"""

import importlib.util
import os
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from cnnjax.errors import UnavailableError
from cnnjax.runs.config import RunConfig
from cnnjax.runs.trackers.mlflow_database import MlflowTracker
from cnnjax.runs.trackers.tensorboard_files import TensorBoardTracker
from cnnjax.runs.trackers.tracking import Tracker, Tracking
from cnnjax.runs.trackers.wandb_offline import WandbTracker
from cnnjax.settings.checking import choice

__all__ = ["TRACKERS", "Tracker", "TrackerName", "Tracking", "check_trackers", "make_trackers"]


TrackerName = Literal["tensorboard", "mlflow", "wandb"]
TRACKERS: tuple[TrackerName, ...] = typing.get_args(TrackerName)
"""Names of the trackers; the extras that install their packages have the same names."""
_CLASSES: dict[str, Callable[[Path, RunConfig], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "mlflow": MlflowTracker,
    "wandb": WandbTracker,
}
_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


def check_trackers(names: Iterable[str]) -> None:
    """Checks that trackers can be made, without importing their packages.

    Raises:
        InputError: there is no tracker with one of these names.
        UnavailableError: the package of a tracker is not installed.
    """
    for name in names:
        choice(name, TRACKERS, "--log")
        package = _PACKAGES[name]
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:  # no origin: just a folder of that name, such as wandb's output folder
            raise UnavailableError(f"--log {name}: needs the package {package}: pip install -e '.[{name}]'")


def make_trackers(names: Iterable[str], folder: str | os.PathLike[str], config: RunConfig) -> dict[str, Tracker]:
    """Returns the trackers of a run, by name; nothing is written before their methods are called.

    Args:
        names: any of `TRACKERS`; a repeated name counts once.
        folder: the output folder, in which each tracker makes a folder of its own.
        config: the run.

    Raises:
        InputError, UnavailableError: as `check_trackers`.
    """
    names = tuple(dict.fromkeys(names))
    check_trackers(names)
    return {name: _CLASSES[name](Path(folder), config) for name in names}
