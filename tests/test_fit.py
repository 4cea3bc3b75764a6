"""One run from configuration to stored record: when it is skipped or refused, what it shares, and what it keeps."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from cnnjax import (
    DataConfig,
    InputError,
    Interrupted,
    ModelConfig,
    RunConfig,
    Store,
    TrainConfig,
    UnavailableError,
    fit,
)
from cnnjax.machine import compilation
from cnnjax.runs.history import Silence

CONFIG = RunConfig(
    model=ModelConfig(filters=()), train=TrainConfig(epochs=2, batch_size=50), data=DataConfig(train_size=200)
)


class Recorder(Silence):
    def __init__(self):
        self.notes, self.epochs, self.closed = [], 0, 0

    def note(self, message):
        self.notes.append(message)

    def end_epoch(self, metrics):
        self.epochs += 1

    def close(self):
        self.closed += 1


def test_a_stored_run_is_returned_without_training(tmp_path):
    first, second = Recorder(), Recorder()
    run = fit(CONFIG, tmp_path, observer=first)
    again = fit(CONFIG, tmp_path, observer=second)
    assert (first.epochs, second.epochs) == (2, 0)
    assert again.record == run.record
    (note,) = second.notes
    assert note.startswith(f"run {run.key[:12]} is already in {tmp_path / 'runs.sqlite'}")
    assert "force=True" in note


def test_a_failed_run_is_no_result_and_is_run_again(tmp_path):
    import sqlite3

    run = fit(CONFIG, tmp_path)
    with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
        connection.execute("UPDATE runs SET status = 'failed', test_accuracy = NULL")
    observer = Recorder()
    assert fit(CONFIG, tmp_path, observer=observer).record.test_accuracy == run.record.test_accuracy
    assert observer.epochs == 2


def test_the_observer_is_closed_however_the_run_ends(tmp_path):
    observer = Recorder()
    fit(CONFIG, None, observer=observer)
    assert observer.closed == 1


def test_runs_that_differ_in_numbers_alone_share_their_programs():
    fit(CONFIG, None)
    compiled = compilation._compile.cache_info().misses
    fit(replace(CONFIG, seed=7, train=replace(CONFIG.train, learning_rate=0.5, label_smoothing=0.1)), None)
    assert compilation._compile.cache_info().misses == compiled


def test_a_signal_while_the_result_is_stored_stops_after_the_commit(tmp_path, monkeypatch):
    add = Store.add

    def interrupted_add(store, run):
        os.kill(os.getpid(), signal.SIGINT)
        add(store, run)

    monkeypatch.setattr(Store, "add", interrupted_add)
    with pytest.raises(Interrupted, match="interrupted after the run was stored") as stop:
        fit(CONFIG, tmp_path)
    assert (stop.value.exit_code, stop.value.checkpoint) == (130, None)
    assert Store(tmp_path).list_keys() == [CONFIG.key]


class StopAtFirstEpoch(Recorder):
    def end_epoch(self, metrics):
        os.kill(os.getpid(), signal.SIGTERM)


def test_starting_over_is_reported_and_its_checkpoints_replace_the_old_ones(tmp_path):
    longer = replace(CONFIG, train=replace(CONFIG.train, epochs=4))
    with pytest.raises(Interrupted) as stop:
        fit(longer, tmp_path, observer=StopAtFirstEpoch())
    abandoned = stop.value.checkpoint.parent / "000000900"
    stop.value.checkpoint.rename(abandoned)
    observer = StopAtFirstEpoch()
    with pytest.raises(Interrupted) as stop:
        fit(longer, tmp_path, observer=observer)
    assert "starting over; --resume would go on" in observer.notes[0]
    assert stop.value.checkpoint.exists()
    assert not abandoned.exists()


def test_a_completed_run_leaves_no_checkpoints(tmp_path):
    fit(CONFIG, tmp_path, checkpoint_every=1)
    assert [path.name for path in tmp_path.iterdir()] == ["runs.sqlite"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resume": True}, "out=None: keeps no checkpoints"),
        ({"checkpoint_every": 2}, "out=None: keeps no checkpoints"),
        ({"checkpoint_every": 0}, "checkpoint_every=0: must be >= 1"),
    ],
)
def test_arguments_that_would_be_ignored_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        fit(CONFIG, None, **arguments)


def test_the_seconds_of_the_phases_add_up_to_the_total(tmp_path):
    seconds = fit(CONFIG, None).record.seconds
    assert seconds["total"] == pytest.approx(sum(seconds[phase] for phase in ("load", "compile", "train", "evaluate")))


def test_early_stopping_ends_when_validation_no_longer_improves():
    train = TrainConfig(epochs=200, learning_rate=1.0, validation_split=0.5, early_stopping_patience=1, batch_size=50)
    history = fit(replace(CONFIG, train=train), None).history
    losses = [epoch.val_loss for epoch in history]
    assert 1 < len(history) < 200
    assert losses[-1] >= min(losses[:-1])
    assert all(np.diff(losses[:-1]) < 0)


def test_bfloat16_trains_with_float32_parameters():
    train = replace(CONFIG.train, precision="bfloat16", learning_rate=0.1)
    run = fit(replace(CONFIG, train=train, model=ModelConfig(filters=(2,))), None)
    assert run.params["Conv_0"]["kernel"].dtype == np.float32
    assert run.history[-1].loss < run.history[0].loss


def test_a_result_that_cannot_be_stored_is_kept_in_a_checkpoint(tmp_path, monkeypatch):
    def refuse(store, run):
        raise UnavailableError(f"{store.path}: database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", refuse)
        with pytest.raises(UnavailableError, match=r"database is locked; the trained network is in .*000000008"):
            fit(CONFIG, tmp_path)
    observer = Recorder()
    run = fit(CONFIG, tmp_path, resume=True, observer=observer)
    assert observer.epochs == 0
    assert run.record.test_accuracy == fit(CONFIG, None).record.test_accuracy


def test_an_impossible_validation_split_is_refused_before_the_store_is_created(tmp_path, monkeypatch):
    from cnnjax.data.loading import load_data_info

    def unknown_sizes(data):
        return replace(load_data_info(data), train_size=None, test_size=None, sha256=None)

    monkeypatch.setattr("cnnjax.training.fit.load_data_info", unknown_sizes)
    with pytest.raises(InputError, match=r"data.train_size=60001: must be <= 60000"):
        fit(replace(CONFIG, data=DataConfig(train_size=60001)), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_that_cannot_be_written_does_not_stop_the_training(tmp_path, monkeypatch):
    def refuse(self, checkpoints):
        raise UnavailableError("cannot write the checkpoint: No space left on device")

    monkeypatch.setattr("cnnjax.training.loop.Position.save", refuse)
    observer = Recorder()
    assert fit(CONFIG, tmp_path, checkpoint_every=1, observer=observer).record.status == "completed"
    assert "No space left on device; training goes on" in observer.notes[0]


def test_a_network_too_large_for_the_memory_is_refused_in_one_line(tmp_path):
    config = replace(CONFIG, model=ModelConfig(filters=(2**31 - 1,)))
    with pytest.raises(UnavailableError, match=r"out of memory; use a smaller train.batch_size or network"):
        fit(config, tmp_path)


def test_more_steps_than_can_be_counted_are_refused():
    config = replace(CONFIG, train=TrainConfig(epochs=2**31 - 1))
    with pytest.raises(InputError, match=r"train.epochs=2147483647: must be < 1073741824, for 2 steps an epoch"):
        fit(config, None)


def test_numpy_numbers_are_accepted_as_settings():
    config = RunConfig(
        seed=np.int64(3), train=TrainConfig(learning_rate=np.float64(0.1)), model=ModelConfig(kernel_size=np.int32(3))
    )
    assert config == RunConfig(seed=3, train=TrainConfig(learning_rate=0.1), model=ModelConfig(kernel_size=3))
    assert type(config.seed) is int


def test_predictions_need_images_of_the_size_that_was_trained_on():
    run = fit(CONFIG, None)
    assert run.predict(np.zeros((0, 28, 28, 1), np.uint8)).shape == (0,)
    assert run.predict(np.zeros((3, 28, 28, 1), np.uint8)).shape == (3,)
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)
    assert (run.predict_proba(images).argmax(1) == run.predict(images)).all()
    for shape in ((3, 29, 29, 1), (3, 28, 28), (3, 28, 28, 3)):
        with pytest.raises(InputError, match=r"images: must be uint8 \(n, 28, 28, 1\), not uint8"):
            run.predict(np.zeros(shape, np.uint8))
