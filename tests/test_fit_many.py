"""Runs trained together in one program equal those trained one by one, up to rounding."""

import dataclasses
import os
import signal

import chex
import jax
import numpy as np
import pytest

from cnnjax import DataConfig, InputError, Interrupted, ModelConfig, RunConfig, Store, TrainConfig, fit, fit_many
from cnnjax.data.loading import load
from cnnjax.machine.compilation import _compile
from cnnjax.runs.config import MOST_AT_ONCE
from cnnjax.runs.history import Silence
from cnnjax.training import step as training_module
from cnnjax.training.loop import TrainResult
from cnnjax.training.memory import choose_at_once, estimate_bytes

MODEL = ModelConfig(filters=(3,), kernel_size=3, dense=(5,), dropout=0.3, batch_norm=True)
TRAIN = TrainConfig(
    2, 48, learning_rate=0.05, momentum=0.9, weight_decay=0.01, validation_split=0.1, label_smoothing=0.1
)
BASE = RunConfig(MODEL, TRAIN, DataConfig(train_size=250))


def vary(seed=0, dropout=0.3, **train):
    model = dataclasses.replace(MODEL, dropout=dropout)
    return dataclasses.replace(BASE, seed=seed, model=model, train=dataclasses.replace(TRAIN, **train))


OTHER = dataclasses.replace(load("mnist"), name="fashion_mnist")
VARIED = [
    vary(),
    vary(seed=1),
    vary(learning_rate=0.2, momentum=0.5),
    vary(seed=2, weight_decay=0.1, label_smoothing=0.0),
    vary(dropout=0.6),
    vary(epochs=3),
    vary(epochs=1),
]


def assert_same(one, other, atol=1e-4):
    assert one.record.config == other.record.config
    assert one.record.status == other.record.status
    assert one.record.reason == other.record.reason
    assert len(one.history) == len(other.history)
    for ours, theirs in zip(one.history, other.history, strict=True):
        assert ours.accuracy == pytest.approx(theirs.accuracy, abs=0.005)
        assert (ours.loss, ours.val_loss) == pytest.approx((theirs.loss, theirs.val_loss), abs=1e-3)
    for ours, theirs in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=atol)
    for ours, theirs in zip(jax.tree.leaves(one.batch_stats), jax.tree.leaves(other.batch_stats), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    if one.predictions is not None:
        assert (one.predictions == other.predictions).mean() > 0.999


def assert_equal(one, other):
    for ours, theirs in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_runs_trained_together_equal_those_of_fit():
    together = fit_many(VARIED, out=None, at_once=len(VARIED))
    for config, run in zip(VARIED, together, strict=True):
        assert_same(run, fit(config, out=None))
        assert run.record.provenance["execution"] == "7 runs in one program"
    assert {run.record.seconds["compile"] for run in together} == {together[0].record.seconds["compile"]}


def test_runs_trained_one_at_a_time_equal_those_of_fit_bit_for_bit():
    runs = fit_many(VARIED[:2], out=None)
    for config, run in zip(VARIED, runs, strict=False):
        assert_equal(run, fit(config, out=None))
        assert run.record.provenance["execution"] == "solo"


def test_training_the_same_runs_again_gives_the_same_bits():
    first, second = (fit_many(VARIED[:3], out=None, at_once=3) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert_equal(one, other)


def test_a_run_that_diverges_does_not_affect_the_others():
    plain = RunConfig(
        ModelConfig(filters=(3,), kernel_size=3), TrainConfig(epochs=2, batch_size=50), DataConfig(train_size=200)
    )
    wild = dataclasses.replace(plain, train=dataclasses.replace(plain.train, learning_rate=1e30))
    for configs in ([plain, wild], [wild, wild]):
        configs = [dataclasses.replace(config, seed=seed) for seed, config in enumerate(configs)]
        runs = fit_many(configs, out=None, at_once=2)
        for config, run in zip(configs, runs, strict=True):
            alone = fit(config, out=None)
            assert (run.record.status, run.record.reason) == (alone.record.status, alone.record.reason)
            if run.record.status == "completed":
                assert_same(run, alone)
            else:
                assert (run.predictions, run.record.test_accuracy, run.history) == (None, None, alone.history)


def test_each_run_stops_early_on_its_own():
    configs = [
        vary(epochs=6, early_stopping_patience=1, learning_rate=rate, seed=seed)
        for seed, rate in enumerate((0.5, 1e-3, 0.05))
    ]
    runs = fit_many(configs, out=None, at_once=3)
    alone = [fit(config, out=None) for config in configs]
    assert len({len(run.history) for run in runs}) > 1
    for run, other in zip(runs, alone, strict=True):
        assert_same(run, other, atol=1e-3)


def test_runs_that_differ_only_in_numbers_compile_nothing_new():
    _compile.cache_clear()
    traced = chex.assert_max_traces(training_module.train_step, n=2)  # full batches, and the last, smaller one
    original, training_module.train_step = training_module.train_step, traced
    try:
        fit_many(VARIED[:3], out=None, at_once=3)
        before = _compile.cache_info().misses
        fit_many([vary(seed=9), vary(learning_rate=1.0, momentum=0.1), vary(dropout=0.9)], out=None, at_once=3)
    finally:
        training_module.train_step = original
    assert _compile.cache_info().misses == before


def test_the_order_is_kept_repeats_are_one_run_and_what_is_stored_is_not_run_again(tmp_path, monkeypatch):
    configs = [vary(seed=2), vary(seed=1), vary(seed=2)]
    stored = fit(vary(seed=1), tmp_path)
    runs = fit_many(configs, tmp_path, at_once=2)
    assert [run.key for run in runs] == [config.key for config in configs]
    assert runs[1].record == stored.record
    assert runs[0] is runs[2]
    assert {*Store(tmp_path).list_statuses()} == {config.key for config in configs}
    monkeypatch.setattr(TrainResult, "conclude", None)
    again = fit_many(configs, tmp_path, at_once=2)
    assert [run.record for run in again] == [run.record for run in runs]


def test_force_trains_stored_runs_again(tmp_path):
    first = fit_many(VARIED[:2], tmp_path, at_once=2)
    second = fit_many(VARIED[:2], tmp_path, at_once=2, force=True)
    assert first[0].record.seconds != second[0].record.seconds


def test_no_configurations_give_no_runs():
    assert fit_many([], out=None) == []


@pytest.mark.parametrize(
    ("configs", "options", "message"),
    [
        ([vary(), vary(batch_size=50)], {}, r"configs\[1\]: train.batch_size=50 needs other programs than .* 48"),
        ([vary(), vary(momentum=0.0)], {}, r"configs\[1\]: train.momentum=0.0 needs other programs than .* 0.9"),
        ([vary(), vary(dropout=0.0)], {}, r"configs\[1\]: model.dropout=0.0 needs other programs than .* 0.3"),
        ([vary(), None], {}, r"configs\[1\]: must be a RunConfig, not NoneType"),
        ([vary()], {"at_once": 0}, "at_once=0: must be >= 1"),
        ([vary()], {"dataset": OTHER}, "dataset: is fashion_mnist, but the run's data.name='mnist'"),
    ],
)
def test_bad_input_is_refused(configs, options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        fit_many(configs, tmp_path, **options)
    assert not [*tmp_path.iterdir()]


class Interrupter(Silence):
    def advance(self, progress):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_stops_all_runs_and_keeps_those_that_had_ended(tmp_path):
    configs = [vary(seed=seed) for seed in range(4)]

    def watch(config):
        return Interrupter() if config.seed == 2 else Silence()

    message = "interrupted after step 5; 0 of 2 runs had ended and are stored"
    with pytest.raises(Interrupted, match=message) as caught:
        fit_many(configs, tmp_path, at_once=2, make_observer=watch)
    assert caught.value.exit_code == 130
    assert {*Store(tmp_path).list_statuses()} == {config.key for config in configs[:2]}


class Late(Silence):
    """Sends a signal in the second epoch."""

    def advance(self, progress):
        if progress.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_run_that_ends_before_the_others_is_stored_at_once(tmp_path):
    configs = [vary(epochs=1), vary(epochs=50, seed=1)]
    with pytest.raises(Interrupted, match="1 of 2 runs had ended and are stored"):
        fit_many(configs, tmp_path, at_once=2, make_observer=lambda config: Late())
    assert [*Store(tmp_path).list_statuses()] == [configs[0].key]


class Notes(Silence):
    def __init__(self, notes):
        self.notes = notes

    def note(self, message):
        self.notes.append(message)


def test_a_run_trained_alone_resumes_bit_for_bit_after_a_signal(tmp_path):
    configs = [vary(seed=seed) for seed in range(3)]
    with pytest.raises(Interrupted, match="interrupted after step 5; saved "):
        fit_many(configs, tmp_path, make_observer=lambda config: Interrupter() if config.seed == 1 else Silence())
    notes = []
    runs = fit_many(configs, tmp_path, make_observer=lambda config: Notes(notes))
    assert len(notes) == 1
    assert notes[0].startswith("resuming after step 5 from ")
    for run, other in zip(runs, fit_many(configs, out=None), strict=True):
        assert_equal(run, other)
        assert [epoch.loss for epoch in run.history] == [epoch.loss for epoch in other.history]
    assert not (tmp_path / "checkpoints").exists()


def test_force_starts_over_despite_a_checkpoint(tmp_path):
    with pytest.raises(Interrupted):
        fit_many([vary()], tmp_path, make_observer=lambda config: Interrupter())
    notes = []
    fit_many([vary()], tmp_path, force=True, make_observer=lambda config: Notes(notes))
    assert [note.partition(";")[0] for note in notes] == ["starting over"]


class TestChoice:
    def test_on_cpu_each_run_is_trained_by_itself(self):
        assert choose_at_once(BASE, load("mnist").info) == 1

    @pytest.mark.parametrize(("gibibytes", "expected"), [(80, MOST_AT_ONCE), (8, range(20, 64)), (0.01, 1)])
    def test_elsewhere_as_many_runs_are_trained_at_once_as_fit_the_memory(self, monkeypatch, gibibytes, expected):
        class Device:
            platform = "gpu"

            def memory_stats(self):
                return {"bytes_limit": int(gibibytes * 2**30)}

        monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
        chosen = choose_at_once(RunConfig(), load("mnist").info)
        assert chosen in expected if isinstance(expected, range) else chosen == expected

    def test_with_a_small_batch_evaluation_needs_the_most_memory(self):
        one, hundred = (
            estimate_bytes(RunConfig(train=TrainConfig(batch_size=size)), (28, 28, 1), 10) for size in (1, 100)
        )
        assert one > hundred / 4

    def test_a_device_of_unknown_memory_is_assumed_to_be_small(self, monkeypatch):
        class Device:
            platform = "tpu"

            def memory_stats(self):
                return None

        monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
        assert 1 < choose_at_once(RunConfig(), load("mnist").info) < MOST_AT_ONCE

    def test_the_estimate_grows_with_the_batch_and_the_network(self):
        small = estimate_bytes(RunConfig(), (28, 28, 1), 10)
        assert estimate_bytes(RunConfig(train=TrainConfig(batch_size=200)), (28, 28, 1), 10) > 1.9 * small
        assert estimate_bytes(RunConfig(ModelConfig(filters=(64, 64))), (28, 28, 1), 10) > 1.5 * small
