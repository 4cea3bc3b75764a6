"""Early stopping, by worked examples."""

import pytest

from cnnjax.runs.history import EpochMetrics, Progress, Silence, stopped_early

WORKED = [
    # (validation losses, patience, stopped)
    ([], 1, False),
    ([1.0], 1, False),
    ([1.0, 0.9], 1, False),
    ([1.0, 1.1], 1, True),
    ([1.0, 1.0], 1, True),
    ([1.0, 1.1], 2, False),
    ([1.0, 1.1, 1.2], 2, True),
    ([1.0, 1.1, 0.9], 2, False),
    ([0.5, 0.9, 0.8, 0.7], 3, True),
    ([0.5, 0.9, 0.8, 0.4], 3, False),
    ([1.0, 2.0, 3.0, 4.0], None, False),
]


def metrics(epoch: int, val_loss: float | None) -> EpochMetrics:
    return EpochMetrics(epoch, loss=1.0, accuracy=0.5, val_loss=val_loss, val_accuracy=0.5, seconds=1.0)


@pytest.mark.parametrize(("losses", "patience", "stopped"), WORKED)
def test_a_run_stops_when_patience_epochs_brought_no_loss_below_the_best_before_them(losses, patience, stopped):
    history = [metrics(epoch, loss) for epoch, loss in enumerate(losses, 1)]
    assert stopped_early(history, patience) is stopped


def test_a_run_stops_at_the_first_epoch_that_exhausts_its_patience():
    losses = [1.0, 0.8, 0.9, 0.7, 0.75, 0.71, 0.8, 0.9]
    history = [metrics(epoch, loss) for epoch, loss in enumerate(losses, 1)]
    first = next(count for count in range(len(history)) if stopped_early(history[:count], 3))
    assert first == 7  # the best was epoch 4


def test_without_validation_a_run_never_stops_early():
    assert not stopped_early([metrics(epoch, None) for epoch in range(1, 10)], 1)


def test_silence_ignores_everything():
    silence = Silence()
    assert silence.note("hello") is None
    assert silence.advance(Progress(1, 2, 3, 4, 0.5, 0.5, 1.0)) is None
    assert silence.end_epoch(metrics(1, None)) is None
