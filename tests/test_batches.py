"""A batch cut into parts gives the step of the whole batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.models.batches import LEAST_PART, count_parts
from cnnjax.models.cnn import ModelConfig
from cnnjax.runs.config import RunConfig
from cnnjax.runs.train_config import TrainConfig
from cnnjax.training.step import Examples, make_state, train_step

MNIST, CLASSES = (28, 28, 1), 10


def test_a_batch_of_the_textbook_network_goes_in_quarters():
    assert count_parts(ModelConfig(), MNIST, CLASSES, 100) == 4
    assert count_parts(ModelConfig(filters=(8, 16)), MNIST, CLASSES, 100) == 1


def test_a_network_with_many_parameters_has_larger_parts():
    named = {"kernel_size": 3, "strides": 2, "padding": "same", "pool": "none"}
    assert count_parts(ModelConfig(filters=(64, 128, 32), **named), (32, 32, 3), CLASSES, 50) == 2
    assert count_parts(ModelConfig(filters=(64, 128, 256), **named), (32, 32, 3), CLASSES, 50) == 1


@pytest.mark.parametrize("change", [{"dropout": 0.5}, {"spatial_dropout": 0.5}, {"norm": "batch"}])
def test_dropout_and_batch_normalisation_keep_the_batch_whole(change):
    assert count_parts(ModelConfig(**change), MNIST, CLASSES, 100) == 1


@pytest.mark.parametrize("norm", ["layer", "group", "instance"])
def test_the_normalisations_of_single_images_do_not(norm):
    assert count_parts(ModelConfig(norm=norm), MNIST, CLASSES, 100) == 4


@given(st.integers(1, 600), st.sampled_from([(4,), (32, 64), (256,)]))
def test_parts_are_equal_and_never_tiny(examples, filters):
    parts = count_parts(ModelConfig(filters=filters), MNIST, CLASSES, examples)
    assert examples % parts == 0
    assert examples // parts >= min(LEAST_PART, examples)


def test_a_step_in_parts_is_the_step_of_the_whole_batch():
    train = TrainConfig(learning_rate=0.1, momentum=0.9, weight_decay=0.01, label_smoothing=0.1)
    config = RunConfig(ModelConfig(filters=(4, 5), kernel_size=3), dataclasses.replace(train))
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (48, 12, 11, 2)).astype(np.uint8)
    batch = Examples(jnp.asarray(images), jnp.asarray(random.integers(0, 3, 48).astype(np.int32)))
    state = make_state(config, (12, 11, 2), 3, steps=10)
    step = jax.jit(train_step, static_argnames="parts")
    (whole, whole_metrics), (cut, cut_metrics) = step(state, batch), step(state, batch, parts=3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), cut.params, whole.params)
    assert int(cut_metrics.correct) == int(whole_metrics.correct)
    assert int(cut_metrics.seen) == int(whole_metrics.seen) == 48
    np.testing.assert_allclose(cut_metrics.loss, whole_metrics.loss, rtol=1e-5)
    assert int(cut.step) == 1
