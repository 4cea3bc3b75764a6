"""What a run reports while it trains: metrics of an epoch, progress within it, and who listens. No JAX here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class EpochMetrics:
    """Metrics of one epoch: means over its training examples as they were seen, and over the validation examples."""

    epoch: int
    loss: float
    accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float

    @property
    def is_finite(self) -> bool:
        """Whether its losses are numbers; the run has diverged where they are not."""
        return math.isfinite(self.loss) and (self.val_loss is None or math.isfinite(self.val_loss))


@dataclass(frozen=True)
class Progress:
    """Where a run is: `seen` of `examples` of epoch `epoch` (from 1) of `epochs`, with the means so far."""

    epoch: int
    epochs: int
    seen: int
    examples: int
    loss: float
    accuracy: float
    seconds: float


class Observer(Protocol):
    """Listens to a run."""

    def note(self, message: str) -> None:
        """Receives one line that the user should know."""

    def advance(self, progress: Progress) -> None:
        """Receives the progress after every piece of an epoch."""

    def end_epoch(self, metrics: EpochMetrics) -> None:
        """Receives the metrics at the end of every epoch."""

    def close(self) -> None:
        """Learns that nothing more will come, whether the run ended or was stopped."""


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
    """Whether the last `patience` epochs brought no validation loss below the best before them."""
    losses = [epoch.val_loss for epoch in history if epoch.val_loss is not None]
    if patience is None or len(losses) <= patience:
        return False
    return min(losses[-patience:]) >= min(losses[:-patience])
