"""What a run reports while it trains: metrics of an epoch, progress within an epoch, and the observer. No JAX here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class EpochMetrics:
    """Metrics of one epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        loss, accuracy: means over the training examples, each as it was seen, before its step.
        val_loss, val_accuracy: means over the validation examples after the epoch; ``None`` without validation.
        seconds: wall time of the epoch.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float

    @property
    def is_finite(self) -> bool:
        """Whether both losses are finite; if one is not, the run has diverged."""
        return math.isfinite(self.loss) and (self.val_loss is None or math.isfinite(self.val_loss))


@dataclass(frozen=True)
class Progress:
    """Progress of a running epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        epochs: number of epochs of the run.
        seen: examples seen in this epoch.
        examples: examples in an epoch.
        loss, accuracy: means over the examples seen in this epoch.
        seconds: wall time of this epoch so far.
    """

    epoch: int
    epochs: int
    seen: int
    examples: int
    loss: float
    accuracy: float
    seconds: float


class Observer(Protocol):
    """Receives the progress of a run."""

    def note(self, message: str) -> None:
        """Receives one line for the user, such as a warning."""

    def advance(self, progress: Progress) -> None:
        """Receives the progress after every piece of an epoch."""

    def end_epoch(self, metrics: EpochMetrics) -> None:
        """Receives the metrics at the end of every epoch."""

    def close(self) -> None:
        """Is called once after everything else, whether the run ended or was stopped."""


class Silence:
    """The observer that ignores everything."""

    def note(self, message: str) -> None:
        """Ignores the message."""

    def advance(self, progress: Progress) -> None:
        """Ignores the progress."""

    def end_epoch(self, metrics: EpochMetrics) -> None:
        """Ignores the metrics."""

    def close(self) -> None:
        """Does nothing."""


def stopped_early(history: Sequence[EpochMetrics], patience: int | None) -> bool:
    """Whether none of the last `patience` epochs had a validation loss below the best of the epochs before them.

    Example:
        >>> history = [EpochMetrics(epoch, 0.1, 0.9, val, 0.9, 1.0) for epoch, val in enumerate([0.3, 0.2, 0.2], 1)]
        >>> stopped_early(history, patience=1), stopped_early(history, patience=2)
        (True, False)
    """
    losses = [epoch.val_loss for epoch in history if epoch.val_loss is not None]
    if patience is None or len(losses) <= patience:
        return False
    return min(losses[-patience:]) >= min(losses[:-patience])
