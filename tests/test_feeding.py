"""Images that are fed in chunks train and test a network bit for bit as those on the device."""

import dataclasses
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax import DataConfig, Dataset, InputError, Interrupted, ModelConfig, RunConfig, TrainConfig, fit, fit_many
from cnnjax.data.dataset import Split
from cnnjax.errors import UnavailableError
from cnnjax.machine.processes import find_memory
from cnnjax.models.batches import EVALUATION_BATCH
from cnnjax.runs.history import Silence
from cnnjax.training import feeding, loop, memory

random = np.random.default_rng(0)
IMAGES, LABELS = random.integers(0, 256, (430, 8, 8, 1), np.uint8), random.integers(0, 3, 430).astype(np.int32)
DATASET = Dataset.from_arrays((IMAGES, LABELS), (IMAGES[:205], LABELS[:205]), ["a", "b", "c"])
DENSE = ModelConfig(filters=(), dense=(4,))
PLAIN = RunConfig(DENSE, TrainConfig(epochs=2, batch_size=4, learning_rate=0.1), DataConfig("arrays"))
CONFIGS = {
    "plain": PLAIN,
    "everything": RunConfig(
        ModelConfig(filters=(3,), kernel_size=3, dropout=0.3, batch_norm=True),
        TrainConfig(
            epochs=6,
            batch_size=4,
            augment=("crop:2", "flip", "rotate:10"),
            normalize="standard",
            validation_split=0.3,
            early_stopping_patience=1,
            average=0.9,
        ),
        DataConfig("arrays"),
    ),
    "one batch": dataclasses.replace(PLAIN, train=dataclasses.replace(PLAIN.train, batch_size=1000)),
}
CHUNKS = "memory.IMAGE_SHARE, feeding.CHUNK_BYTES = 0, 2560"
"""Feeds images of 64 bytes in chunks of 10 batches of 4, or of single larger batches."""


@pytest.fixture
def fed(monkeypatch):
    """Returns a function that makes all runs from then on feed their images."""

    def feed_all():
        monkeypatch.setattr(memory, "IMAGE_SHARE", 0)
        monkeypatch.setattr(feeding, "CHUNK_BYTES", 2560)

    return feed_all


def test_joined_processes_refuse_images_larger_than_memory_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("cnnjax.training.fit.is_joined", lambda: True)
    images = IMAGES.nbytes + IMAGES[:205].nbytes
    shares = os.cpu_count() / memory.count_cores()
    for more, message in ((-1, "its images do not fit into the memory of this process"), (0, "stop here")):
        monkeypatch.setattr(memory, "find_memory", lambda more=more: (images + more) * shares)
        monkeypatch.setattr(loop, "prepare", refuse)
        with pytest.raises(UnavailableError, match=message):
            fit(PLAIN, tmp_path / "runs", dataset=DATASET)
        assert not (tmp_path / "runs/runs.sqlite").exists() or not more


def refuse(*arguments):
    raise UnavailableError("stop here")


def list_results(run):
    """Returns everything that training computed."""
    history = [(epoch.loss, epoch.accuracy, epoch.val_loss, epoch.val_accuracy) for epoch in run.history]
    return [*jax.tree.leaves((run.params, run.collections)), run.predictions, history, run.record.test_loss]


def assert_identical(one, other):
    for ours, theirs in zip(list_results(one), list_results(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """Returns the images in a mapped file."""
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, IMAGES)
    return np.load(path, mmap_mode="r")


@given(st.permutations(range(12)), st.sets(st.integers(1, 11)))
def test_the_chunks_are_the_examples_in_their_order(mapped, order, cuts):
    split, sharding = Split(mapped[200:212], LABELS[:12]), jax.sharding.SingleDeviceSharding(jax.devices()[0])
    bounds = [0, *sorted(cuts), 12]
    chunks = [*feeding.feed(split, np.array(order), bounds, sharding)]
    assert np.cumsum([len(chunk.labels) for chunk in chunks]).tolist() == bounds[1:]
    for name in ("images", "labels"):
        joined = np.concatenate([getattr(chunk, name) for chunk in chunks])
        np.testing.assert_array_equal(joined, {"images": IMAGES[200:212], "labels": LABELS[:12]}[name][order])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_run_that_is_fed_equals_that_in_memory_bit_for_bit(config, fed, monkeypatch):
    whole = fit(config, None, dataset=DATASET)
    fed()
    sizes = []
    monkeypatch.setattr(feeding, "place", lambda array, sharding: sizes.append(len(array)) or jax.device_put(array))
    assert_identical(fit(config, None, dataset=DATASET), whole)
    assert 0 < max(sizes) <= max(config.train.batch_size, EVALUATION_BATCH)


@pytest.mark.parametrize("starts_fed", [False, True])
def test_an_interrupted_run_goes_on_bit_for_bit_whether_it_is_fed_or_not(starts_fed, fed, monkeypatch, tmp_path):
    class Stopper(Silence):
        def advance(self, progress):
            if progress.epoch == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    config = dataclasses.replace(PLAIN, data=DataConfig("arrays", train_size=400))  # all pieces of an epoch are equal
    whole = fit(config, None, dataset=DATASET)
    if starts_fed:
        fed()
    with pytest.raises(Interrupted, match=f"after step {100 + (10 if starts_fed else 50)}"):
        fit(config, tmp_path, dataset=DATASET, observer=Stopper())
    monkeypatch.setattr(memory, "IMAGE_SHARE", 1 if starts_fed else 0)
    assert_identical(fit(config, tmp_path, dataset=DATASET, resume=True), whole)


def test_devices_that_share_batches_are_fed_with_the_same_training():
    program = f"""
import sys
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 2)
sys.path.insert(0, "tests")
from test_feeding import DATASET, PLAIN, feeding, fit, memory
whole = fit(PLAIN, None, dataset=DATASET, devices=2)
{CHUNKS}
fed = fit(PLAIN, None, dataset=DATASET, devices=2)
jax.tree.map(np.testing.assert_array_equal, fed.params, whole.params)
np.testing.assert_array_equal(fed.predictions, whole.predictions)
assert [epoch.loss for epoch in fed.history] == [epoch.loss for epoch in whole.history]
np.testing.assert_allclose(fed.record.test_loss, whole.record.test_loss, rtol=1e-6)
"""
    root = os.path.dirname(os.path.dirname(__file__))
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, env=environment)
    assert result.returncode == 0, result.stderr


def test_runs_that_are_fed_are_trained_one_by_one(fed):
    configs = [PLAIN, dataclasses.replace(PLAIN, seed=1)]
    fed()
    with pytest.raises(InputError, match="at_once=2: must be 1, as the images do not fit"):
        fit_many(configs, None, dataset=DATASET, at_once=2)
    assert [run.record.status for run in fit_many(configs, None, dataset=DATASET)] == ["completed", "completed"]


def test_images_are_fed_from_a_share_of_the_memory_on():
    info = dataclasses.replace(DATASET.info, train_size=1, test_size=1)
    cores = memory.count_cores() / os.cpu_count()
    largest = int(memory.IMAGE_SHARE * find_memory() * cores / 64)  # as each image has 64 bytes
    fits = [
        memory.fit_on_devices(PLAIN, dataclasses.replace(info, train_size=size - 1), devices)
        for size, devices in ((largest, 1), (largest + 2, 1), (largest // 2, 2), (largest // 2 + 2, 2))
    ]
    assert fits == [True, False, True, False]
    assert isinstance(loop.prepare(PLAIN, DATASET).splits["train"], loop.Examples)
