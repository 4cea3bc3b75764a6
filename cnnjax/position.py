"""Where a run is between two pieces of an epoch, and how that travels through a checkpoint.

With the configuration, a `Position` is all that is needed to go on: the random key follows from the seed, the order of
the epoch from the step, and everything else is here.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnnjax.checkpoints import Checkpoint, Checkpoints
from cnnjax.errors import InputError
from cnnjax.history import EpochMetrics
from cnnjax.sharding import place
from cnnjax.training import Metrics, TrainState


@dataclass(frozen=True)
class Position:
    """Where a run is.

    Attributes:
        state: after the last step.
        metrics: sums of the epoch so far.
        history: metrics of the epochs that are whole.
        epoch_seconds: wall time of the epoch so far.
        train_seconds: wall time of all training so far, over every session of the run.
    """

    state: TrainState
    metrics: Metrics = dataclasses.field(default_factory=Metrics.zero)
    history: tuple[EpochMetrics, ...] = ()
    epoch_seconds: float = 0.0
    train_seconds: float = 0.0

    def spend(self, seconds: float) -> "Position":
        """Returns the position with `seconds` more on its clocks."""
        return dataclasses.replace(
            self, epoch_seconds=self.epoch_seconds + seconds, train_seconds=self.train_seconds + seconds
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns what a checkpoint keeps as arrays, by path."""
        return {
            jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(self._tree())
        }

    def progress(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps as JSON values."""
        return {
            "history": [dataclasses.asdict(epoch) for epoch in self.history],
            "epoch_seconds": self.epoch_seconds,
            "train_seconds": self.train_seconds,
        }

    def save(self, checkpoints: Checkpoints) -> Path:
        """Writes a checkpoint and returns its folder; raises `UnavailableError` where it cannot be written."""
        return checkpoints.save(int(self.state.step), self.arrays(), self.progress())

    def restore(self, checkpoint: Checkpoint) -> "Position":
        """Returns the position that `checkpoint` kept, this one giving the form and the random key.

        Raises:
            InputError: the checkpoint is of another network or optimizer.
        """
        expected = {name: (array.shape, array.dtype) for name, array in self.arrays().items()}
        if {name: (array.shape, array.dtype) for name, array in checkpoint.arrays.items()} != expected:
            raise InputError(f"checkpoint {checkpoint.path} does not fit this network and optimizer")
        places, structure = jax.tree.flatten(jax.tree.map(lambda leaf: leaf.sharding, self._tree()))
        leaves = [place(checkpoint.arrays[name], where) for name, where in zip(expected, places, strict=True)]
        tree = jax.tree.unflatten(structure, leaves)
        return Position(
            tree["state"].replace(key=self.state.key),
            tree["metrics"],
            tuple(EpochMetrics(**epoch) for epoch in checkpoint.progress["history"]),
            checkpoint.progress["epoch_seconds"],
            checkpoint.progress["train_seconds"],
        )

    def _tree(self) -> dict[str, Any]:
        return {"state": self.state.replace(key=None), "metrics": self.metrics}
