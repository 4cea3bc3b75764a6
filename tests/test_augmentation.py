"""Random changes and normalisation of training images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import DataConfig, InputError, ModelConfig, RunConfig, TrainConfig, fit, load_run
from cnnjax.data.loading import load
from cnnjax.training.augmentation import augment
from cnnjax.training.loop import measure_images
from cnnjax.training.step import Examples, Metrics, make_state, shuffle, train_epoch

SHAPE = (8, 8, 3)
IMAGES = jax.random.uniform(jax.random.key(1), (64, *SHAPE))
KEYS = jax.random.split(jax.random.key(2), 64)
EVERY = ("crop:2", "flip", "cutout:4", "rotate:10", "brightness:0.1", "contrast:0.1")
SMALL = ModelConfig(filters=(), dense=(4,))


def test_a_crop_shifts_the_image_by_at_most_its_pixels():
    changed = np.asarray(augment(IMAGES, KEYS, ("crop:2",)))
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    shifts = [
        [
            (top, left)
            for top in range(5)
            for left in range(5)
            if (padded[index, top : top + 8, left : left + 8] == image).all()
        ]
        for index, image in enumerate(changed)
    ]
    assert all(len(found) == 1 for found in shifts)
    assert {found[0][0] for found in shifts} == {found[0][1] for found in shifts} == {0, 1, 2, 3, 4}


def test_a_flip_mirrors_about_half_of_the_images():
    changed = augment(IMAGES, KEYS, ("flip",))
    mirrored = (changed == IMAGES[:, :, ::-1]).all((1, 2, 3))
    assert (mirrored | (changed == IMAGES).all((1, 2, 3))).all()
    assert 16 < mirrored.sum() < 48


def test_a_cutout_empties_a_square_that_may_hang_over_the_edge():
    cut = jax.jit(augment, static_argnums=2)
    empty = np.asarray((cut(IMAGES, KEYS, ("cutout:4",)) == 0).all(-1))
    sizes = {(rows.any(1).sum(), rows.any(0).sum()) for rows in empty}
    assert (4, 4) in sizes
    assert all(2 <= height <= 4 and 2 <= width <= 4 for height, width in sizes)
    assert all(rows.sum() == rows.any(1).sum() * rows.any(0).sum() for rows in empty)


def test_a_rotation_keeps_the_middle_and_loses_corners():
    images = jnp.ones((64, 9, 9, 1))
    changed = augment(images, KEYS, ("rotate:45",))
    assert (changed[:, 4, 4] > 0.999).all()
    assert (changed[:, 0, 0] < 0.5).any()


@pytest.mark.parametrize(("name", "expected"), [("brightness:0.2", 0.2), ("contrast:0.2", 0.1)])
def test_brightness_and_contrast_change_pixels_by_at_most_their_number(name, expected):
    changes = np.asarray(augment(IMAGES, KEYS, (name,)) - IMAGES)
    assert 0.8 * expected < np.abs(changes).max() <= expected + 0.02
    assert changes.min() < 0 < changes.max()


def test_changes_differ_between_epochs_and_examples_but_not_between_networks_or_batch_sizes(monkeypatch):
    seen = []

    def note(state, batch, parts=1):
        seen.append((int(state.step), np.asarray(batch.images)))
        return state.replace(step=state.step + 1), Metrics.zero()

    monkeypatch.setattr("cnnjax.training.step.train_step", note)
    monkeypatch.setattr(
        "jax.lax.scan", lambda body, carry, rows: (run_eagerly(body, carry, rows), jnp.zeros(len(rows)))
    )

    def collect(model, batch_size):
        seen.clear()
        config = RunConfig(model, TrainConfig(augment=("crop:2", "flip"), batch_size=batch_size))
        state = make_state(config, SHAPE, 10, steps=8)
        data = Examples(jnp.asarray(IMAGES[:8] * 255, jnp.uint8), jnp.arange(8, dtype=jnp.int32))
        epochs = []
        for _ in range(2):
            order = shuffle(state, 8, batch_size)
            (state, _, _) = train_epoch(
                state, Metrics.zero(), data, order, batch_size=batch_size, steps=8 // batch_size
            )
            images = np.concatenate([images for _, images in seen[-(8 // batch_size) :]])
            epochs.append(images[np.argsort(np.asarray(order))])
        return epochs

    first, second = collect(SMALL, 4)
    others = collect(ModelConfig(filters=(2,), kernel_size=3), 2)
    np.testing.assert_array_equal(first, others[0])
    np.testing.assert_array_equal(second, others[1])
    assert not np.array_equal(first, second)


def run_eagerly(body, carry, rows):
    for step in zip(*rows, strict=True):
        carry, _ = body(carry, step)
    return carry


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (["krop:4"], "must be one of crop, flip, cutout, rotate, brightness, contrast; did you mean 'crop'"),
        (["crop"], r"train.augment\[0\]='crop': must be crop:NUMBER, with an integer >= 1"),
        (["crop:1.5"], "must be crop:NUMBER, with an integer"),
        (["flip:2"], "takes no number; must be flip"),
        (["flip", "rotate:200"], r"train.augment\[1\]='rotate:200': must be rotate:NUMBER, with > 0 and <= 180"),
        (["contrast:nan"], "must be contrast:NUMBER"),
        (["brightness:"], "must be brightness:NUMBER"),
    ],
)
def test_changes_that_do_not_exist_are_refused(augment, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(augment=augment)


def test_spellings_of_one_change_are_one_run():
    assert TrainConfig(augment=["brightness:0.20", "crop:4.0"]) == TrainConfig(augment=("brightness:0.2", "crop:4"))


def test_the_mean_and_deviation_are_those_of_the_training_images():
    images = np.random.default_rng(0).integers(0, 256, (250, 6, 5, 3), np.uint8)
    images[..., 2] = 7
    measured = measure_images(images, np.arange(250))
    np.testing.assert_allclose(measured["mean"], (images / 255).mean((0, 1, 2)))
    np.testing.assert_allclose(measured["deviation"], [*(images / 255).std((0, 1, 2))[:2], 1.0])
    rows = np.array([0, 3, 3, 249])
    np.testing.assert_allclose(measure_images(images, rows)["mean"], (images[rows] / 255).mean((0, 1, 2)))


def test_a_normalised_run_predicts_as_it_was_tested(tmp_path):
    data = DataConfig(train_size=200)
    config = RunConfig(SMALL, TrainConfig(epochs=1, normalize="standard", augment=("crop:2",)), data)
    run = fit(config, tmp_path)
    loaded, test = load_run(run.key, tmp_path), load("mnist").test
    assert run.record.test_accuracy == np.mean(loaded.predict(test.images) == test.labels)
    pixels = load("mnist").train.images[:200] / 255
    np.testing.assert_allclose(loaded.collections["normalization"]["mean"], [pixels.mean()], rtol=1e-6)
    np.testing.assert_allclose(loaded.collections["normalization"]["deviation"], [pixels.std()], rtol=1e-6)
    images = (test.images[:5] / np.float32(255) - pixels.mean()) / pixels.std()
    hidden = np.maximum(images.reshape(5, -1) @ run.params["Dense_0"]["kernel"] + run.params["Dense_0"]["bias"], 0)
    logits = hidden @ run.params["Dense_1"]["kernel"] + run.params["Dense_1"]["bias"]
    assert (loaded.predict(test.images[:5]) == logits.argmax(1)).all()


def test_an_augmented_run_resumes_and_repeats_bit_for_bit():
    train = TrainConfig(epochs=2, augment=EVERY, batch_size=30)
    config = RunConfig(SMALL, train, DataConfig(train_size=100))
    first, second = (fit(config, None) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    plain = fit(dataclasses.replace(config, train=dataclasses.replace(train, augment=())), None)
    assert plain.history[0].loss != first.history[0].loss
