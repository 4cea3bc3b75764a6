"""The default run under the library's own layers learns as under those of Flax, step by step."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import RunConfig
from cnnjax.data.loading import load
from cnnjax.training.loop import prepare
from cnnjax.training.step import Metrics

BATCH = 100


class Reference(nn.Module):
    @nn.compact
    def __call__(self, images):
        x = images
        for filters in (32, 64):
            x = nn.max_pool(nn.relu(nn.Conv(filters, (5, 5), padding="VALID")(x)), (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(len(x), -1))


@jax.jit
def reference_step(params, images, labels):
    def loss_of(params):
        logits = Reference().apply({"params": params}, images.astype(jnp.float32) / 255)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    loss, gradients = jax.value_and_grad(loss_of)(params)
    return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradients), loss


def train_both(pieces):
    """Returns the losses of the first steps of the default run, and its parameters; then those of the reference."""
    prepared = prepare(RunConfig(), load("mnist"))
    programs, data, state = prepared.programs, prepared.splits["train"], prepared.state
    params, order = jax.tree.map(jnp.copy, state.params), programs.shuffle(state)
    ours = []
    for program, _ in itertools.islice(programs.remaining(state, data, order, 0), pieces):
        state, _, losses = program(state, Metrics.zero(), data, order)
        ours += [*np.asarray(losses) / BATCH]
    theirs = []
    for rows in order.reshape(-1, BATCH)[: len(ours)]:
        params, loss = reference_step(params, data.images[rows], data.labels[rows])
        theirs.append(float(loss))
    return np.array(ours), state.params, np.array(theirs), params


def assert_alike(pieces, tolerance, reached):
    ours, our_params, theirs, their_params = train_both(pieces)
    assert theirs[-20:].mean() < reached
    np.testing.assert_allclose(ours, theirs, rtol=tolerance)
    for one, other in zip(jax.tree.leaves(our_params), jax.tree.leaves(their_params), strict=True):
        # Where the bias of a filter passes zero, the blank part of every image turns on or off in one step.
        np.testing.assert_allclose(one, other, atol=3e-3)


def test_the_first_steps_of_the_default_run_agree_with_flax():
    assert_alike(1, tolerance=1e-4, reached=2.25)


@pytest.mark.slow
def test_the_first_epoch_of_the_default_run_agrees_with_flax():
    # Differences of rounding, of 1e-7 in one step, grow with the steps; how far depends on the CPU.
    assert_alike(12, tolerance=1e-2, reached=0.5)
