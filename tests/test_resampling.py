"""Training examples that the seed draws: the same for all arms, others for every seed, in every way of execution."""

import dataclasses
import json
import math
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ablations import Study
from ablations.study.grid import expand
from cnnjax import DataConfig, Dataset, InputError, Interrupted, RunConfig, TrainConfig, fit, fit_many
from cnnjax.data.dataset import Split
from cnnjax.runs.history import Silence
from cnnjax.runs.splits import draw_training, take_splits
from cnnjax.runs.store import Store
from cnnjax.training import feeding, loop, memory, step
from test_feeding import CONFIGS, DATASET, IMAGES, LABELS, PLAIN, assert_identical

BOOTSTRAP, SUBSET = DataConfig("arrays", resample="bootstrap"), DataConfig("arrays", 100, resample="subset")
DRAWS = {"bootstrap": BOOTSTRAP, "subset": SUBSET, "smaller bootstrap": dataclasses.replace(BOOTSTRAP, train_size=50)}


def draw(config):
    return draw_training(config, len(LABELS))


def take(data, seed=0, **train):
    return dataclasses.replace(PLAIN, data=data, seed=seed, train=dataclasses.replace(PLAIN.train, **train))


def reference(config, examples):
    """The draw in a few lines of its own."""
    size, rest = config.data.train_size, examples - round(examples * config.train.validation_split)
    random = np.random.default_rng([config.seed, 1])
    if config.data.resample == "subset":
        return np.sort(random.permutation(rest)[:size])
    return np.sort(random.integers(0, rest, rest if size is None else size))


@pytest.mark.parametrize("data", DRAWS.values(), ids=DRAWS)
def test_a_draw_is_that_of_the_seed_whatever_the_arm(data):
    for seed in range(3):
        rows = draw(take(data, seed))
        assert rows.dtype == np.int32
        np.testing.assert_array_equal(rows, reference(take(data, seed), 430))
        other = dataclasses.replace(take(data, seed, batch_size=7, epochs=9), model=CONFIGS["everything"].model)
        np.testing.assert_array_equal(draw(other), rows)
    assert len({draw(take(data, seed)).tobytes() for seed in range(20)}) == 20


def test_a_subset_has_each_example_once_and_a_bootstrap_some_often():
    drawn = np.concatenate([draw(take(SUBSET, seed)) for seed in range(400)]).reshape(400, 100)
    assert all(len(set(rows)) == 100 for rows in drawn.tolist())
    # each of 430 examples is in a subset with probability 100/430
    counts = np.bincount(drawn.ravel(), minlength=430)
    assert np.abs(counts - 400 * 100 / 430).max() < 5 * math.sqrt(400 * (100 / 430) * (330 / 430))
    distinct = [len(np.unique(draw(take(BOOTSTRAP, seed)))) / 430 for seed in range(50)]
    assert np.mean(distinct) == pytest.approx(1 - (1 - 1 / 430) ** 430, abs=0.01)  # 63.2%


def test_smaller_subsets_of_a_seed_are_parts_of_larger_ones():
    small, large = (set(draw(take(dataclasses.replace(SUBSET, train_size=size))).tolist()) for size in (30, 100))
    assert small < large


@pytest.mark.parametrize("data", DRAWS.values(), ids=DRAWS)
def test_no_validation_example_is_drawn(data):
    config = take(data, validation_split=0.3)
    rows, splits = draw(config), take_splits(config, DATASET)
    assert rows.max() < 301
    np.testing.assert_array_equal(splits["validation"].images, IMAGES[301:])
    np.testing.assert_array_equal(splits["train"].images, IMAGES[:301])
    np.testing.assert_array_equal(rows, reference(config, 430))


@pytest.mark.parametrize(("data", "normalize"), [(SUBSET, "scale"), (BOOTSTRAP, "standard")])
def test_a_run_trains_on_the_examples_that_it_draws(data, normalize):
    config = take(data, 3, epochs=1, normalize=normalize, batch_size=80)
    run = fit(config, None, dataset=DATASET)
    rows, prepared = draw(config), loop.prepare(config, DATASET)
    order = np.asarray(prepared.programs.shuffle(prepared.state))
    assert sorted(order.tolist()) == list(range(len(rows)))
    pixels = IMAGES / np.float32(255)
    if normalize == "standard":
        pixels = (pixels - pixels[rows].mean()) / pixels[rows].std()
    params, flat = prepared.state.params, jnp.asarray(pixels.reshape(430, -1), jnp.float32)

    def measure(params, batch):
        hidden = jax.nn.relu(flat[batch] @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
        logits = hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(LABELS)[batch]).mean()

    differentiate, losses = jax.jit(jax.value_and_grad(measure)), []
    for start in range(0, len(rows), 80):
        batch = rows[order[start : start + 80]]
        loss, gradients = differentiate(params, batch)
        losses.append(float(loss) * len(batch))
        params = jax.tree.map(lambda value, gradient: value - 0.1 * gradient, params, gradients)
    assert run.history[0].loss == pytest.approx(sum(losses) / len(rows), rel=1e-4)
    for ours, theirs in zip(jax.tree.leaves(run.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_an_image_that_is_drawn_twice_is_changed_in_two_ways(monkeypatch):
    seen = []
    config = take(DataConfig("arrays", 4, resample="bootstrap"), augment=("crop:3",), epochs=1)
    state = step.make_state(config, (8, 8, 1), 3, steps=1, sample=np.zeros(4, np.int32))
    zero = step.Metrics.zero()
    monkeypatch.setattr(step, "train_step", lambda state, batch, **_: (state, seen.append(batch) or zero))
    data = step.Examples(jnp.asarray(IMAGES), jnp.asarray(LABELS))
    step.train_last_batch(state, zero, data, jnp.arange(4), batch_size=5)
    assert seen[0].labels.tolist() == [LABELS[0]] * 4
    assert len(np.unique(np.asarray(seen[0].images), axis=0)) > 1


@pytest.mark.parametrize("data", [BOOTSTRAP, SUBSET], ids=["bootstrap", "subset"])
def test_a_run_that_draws_equals_one_on_the_drawn_images(data):
    config = take(data, 1)
    drawn = Split(IMAGES[draw(config)], LABELS[draw(config)])
    alone = Dataset.from_arrays((drawn.images, drawn.labels), (IMAGES[:205], LABELS[:205]), ["a", "b", "c"])
    assert_identical(fit(config, None, dataset=DATASET), fit(take(DataConfig("arrays"), 1), None, dataset=alone))


def test_a_run_that_draws_is_fed_bit_for_bit(monkeypatch):
    config = take(BOOTSTRAP, 2, normalize="standard", validation_split=0.3)
    whole = fit(config, None, dataset=DATASET)
    monkeypatch.setattr(memory, "IMAGE_SHARE", 0)
    monkeypatch.setattr(feeding, "CHUNK_BYTES", 2560)
    assert isinstance(loop.prepare(config, DATASET).splits["train"], Split)
    assert_identical(fit(config, None, dataset=DATASET), whole)


def test_the_images_to_draw_from_count_as_memory():
    info = dataclasses.replace(DATASET.info, train_size=10**9, test_size=1)
    assert memory.fit_on_devices(take(dataclasses.replace(SUBSET, resample="none")), info)
    assert not memory.fit_on_devices(take(SUBSET), info)


@pytest.mark.parametrize("data", [BOOTSTRAP, SUBSET], ids=["bootstrap", "subset"])
def test_seeds_in_one_program_share_the_images_and_draw_others(data):
    configs = [take(data, seed) for seed in range(3)]
    prepared = loop.prepare_together(configs, DATASET)
    assert prepared.splits["train"].images.shape == IMAGES.shape
    np.testing.assert_array_equal(prepared.state.sample, [draw(config) for config in configs])
    for together, config in zip(fit_many(configs, None, dataset=DATASET, at_once=3), configs, strict=True):
        alone = fit(config, None, dataset=DATASET)
        assert together.record.config == alone.record.config
        assert [epoch.loss for epoch in together.history] == pytest.approx([epoch.loss for epoch in alone.history])
        for ours, theirs in zip(jax.tree.leaves(together.params), jax.tree.leaves(alone.params), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_an_interrupted_run_goes_on_with_its_examples_bit_for_bit(tmp_path):
    class Stopper(Silence):
        def advance(self, progress):
            if progress.epoch == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    config = take(BOOTSTRAP, 5)
    whole = fit(config, None, dataset=DATASET)
    with pytest.raises(Interrupted, match="saved"):
        fit(config, tmp_path, dataset=DATASET, observer=Stopper())
    assert_identical(fit(config, tmp_path, dataset=DATASET, resume=True), whole)


def test_a_run_that_draws_has_a_key_of_its_own_and_others_keep_theirs():
    plain, drawn = RunConfig(), RunConfig(data=DataConfig(resample="bootstrap"))
    assert plain.key != drawn.key
    assert RunConfig.from_json(drawn.to_json()) == drawn
    values = json.loads(plain.to_json())
    del values["data"]["resample"]  # as earlier versions wrote it
    assert RunConfig.from_dict(values).key == plain.key


def test_an_unknown_way_of_drawing_is_refused():
    with pytest.raises(InputError, match=r"data.resample='jackknife': must be one of none, subset, bootstrap"):
        DataConfig(resample="jackknife")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"resample": "subset", "train_size": 301}, "data.train_size=301: must be a number < 301, .*'subset' draws"),
        ({"resample": "subset"}, "data.train_size=None: must be a number < 301"),
        ({"resample": "subset", "train_size": 302}, "data.train_size=302: must be <= 301"),
        ({"resample": "bootstrap", "train_size": 302}, "data.train_size=302: must be <= 301"),
    ],
)
def test_more_than_there_is_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        draw(take(DataConfig("arrays", **data), validation_split=0.3))


def test_examples_sorted_by_class_may_be_drawn_from():
    labels = np.repeat(np.arange(3, dtype=np.int32), 100)
    split = Split(np.zeros((300, 2, 2, 1), np.uint8), labels)
    dataset = Dataset.from_arrays((split.images, labels), (split.images, labels))
    with pytest.raises(InputError, match="class '1' is not among the 100 training examples"):
        take_splits(RunConfig(data=DataConfig("arrays", 100)), dataset)
    take_splits(RunConfig(data=SUBSET), dataset)
    late = Split(split.images, np.array([0, 1] * 90 + [0, 1, 2] * 40, np.int32))
    dataset = Dataset.from_arrays((late.images, late.labels), (late.images, late.labels))
    with pytest.raises(InputError, match="class '2' is not among the 180 training examples"):
        take_splits(RunConfig(train=TrainConfig(validation_split=0.4), data=BOOTSTRAP), dataset)


def test_a_study_may_vary_the_size_of_its_subsets():
    study = Study(data=DataConfig(resample="subset"), grid={"train_size": [100, 200]})
    assert [cell.config.data.train_size for cell in expand(study.config).cells] == [100, 200]
    with pytest.raises(InputError, match=r"cell data.train_size=60000: .*: must be a number < 60000"):
        expand(Study(data=DataConfig(resample="subset"), grid={"train_size": [100, 60000]}).config)


@pytest.mark.slow
def test_arms_of_a_study_are_paired_by_the_images_of_their_seeds(tmp_path):
    base = {"filters": [], "dense": [4], "epochs": 1, "learning_rate": 0.1}
    study = Study(data=DataConfig(train_size=300, resample="subset"), base=base, grid={"momentum": [0.0, 0.9]}, seeds=2)
    study.run(tmp_path, workers=1, quiet=True)
    records = [record for record in Store(tmp_path).find_all().values() if record.status == "completed"]
    assert len(records) == 4
    drawn = {}
    for record in records:
        drawn.setdefault(record.config.seed, set()).add(draw_training(record.config, 60000).tobytes())
    assert [len(each) for each in drawn.values()] == [1, 1]
    assert drawn[0] != drawn[1]
