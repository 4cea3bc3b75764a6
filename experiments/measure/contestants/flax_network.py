"""Flax as its own examples use it: ``nn.Conv``, ``nn.max_pool`` and a jitted step for every batch."""

import functools
from typing import Any

from experiments.measure.contestants import Architecture
from experiments.measure.contestants.serving import BATCH, RATE, Options, Trainer, load_images, main


@functools.cache
def _make_network(network: Architecture) -> Any:
    """Returns the module, the jitted step and the jitted predictions, which the seeds of a network share."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax
    from flax.training.train_state import TrainState

    class Module(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for filters in network.filters:
                x = nn.relu(nn.Conv(filters, (network.window,) * 2, padding=network.padding.upper())(x))
                x = nn.max_pool(x, (2, 2), (2, 2))
            return nn.Dense(10)(x.reshape(len(x), -1))

    @jax.jit
    def step(state: TrainState, images: jax.Array, labels: jax.Array) -> tuple[TrainState, jax.Array]:
        def loss_of(params: Any) -> jax.Array:
            logits = state.apply_fn({"params": params}, images)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

        loss, gradients = jax.value_and_grad(loss_of)(state.params)
        return state.apply_gradients(grads=gradients), loss

    module, optimizer = Module(), optax.sgd(RATE)
    predict = jax.jit(lambda state, images: jnp.argmax(state.apply_fn({"params": state.params}, images), -1))
    return module.apply, module.init, optimizer, step, predict


def make_trainer(options: Options, network: Architecture, seed: int) -> Trainer:
    """Returns a trainer; JAX finds its one core by itself."""
    from cnnjax.machine.files import keep_programs

    keep_programs()
    import jax
    import numpy as np
    from flax.training.train_state import TrainState

    apply, init, optimizer, step, predict = _make_network(network)
    images, labels = load_images("train")
    params = init(jax.random.key(seed), images[:1])["params"]
    state = TrainState.create(apply_fn=apply, params=params, tx=optimizer)
    random = np.random.default_rng(seed)

    def train(steps: int) -> float:
        nonlocal state
        rows = random.permutation(len(images))[: steps * BATCH].reshape(steps, BATCH)
        for batch in rows:
            state, loss = step(state, images[batch], labels[batch])
        return float(loss)

    def evaluate() -> float:
        tests, answers = load_images("test")
        right = [
            predict(state, tests[start : start + BATCH]) == answers[start : start + BATCH]
            for start in range(0, len(tests), BATCH)
        ]
        return float(np.mean(right))

    return Trainer(str(jax.devices()[0].device_kind), train, evaluate)


if __name__ == "__main__":
    main(make_trainer)
