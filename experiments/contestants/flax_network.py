"""Flax as its own examples use it: ``nn.Conv``, ``nn.max_pool`` and a jitted step for every batch."""

from typing import Any

from experiments.contestants.serving import BATCH, RATE, Trainer, load_training_images, read_options, serve


def make_trainer() -> Trainer:
    """Returns a trainer of the textbook network."""
    from cnnjax.caches import keep_programs

    keep_programs()
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from flax.training.train_state import TrainState

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for filters in (32, 64):
                x = nn.relu(nn.Conv(filters, (5, 5), padding="VALID")(x))
                x = nn.max_pool(x, (2, 2), (2, 2))
            return nn.Dense(10)(x.reshape(len(x), -1))

    images, labels = load_training_images()
    network = Network()
    params = network.init(jax.random.key(0), images[:1])["params"]
    state = TrainState.create(apply_fn=network.apply, params=params, tx=optax.sgd(RATE))

    @jax.jit
    def step(state: TrainState, images: jax.Array, labels: jax.Array) -> tuple[TrainState, jax.Array]:
        def loss_of(params: Any) -> jax.Array:
            logits = state.apply_fn({"params": params}, images)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

        loss, gradients = jax.value_and_grad(loss_of)(state.params)
        return state.apply_gradients(grads=gradients), loss

    random = np.random.default_rng(0)

    def train(steps: int) -> float:
        nonlocal state
        rows = random.permutation(len(images))[: steps * BATCH].reshape(steps, BATCH)
        for batch in rows:
            state, loss = step(state, images[batch], labels[batch])
        return float(loss)

    return Trainer(str(jax.devices()[0].device_kind), train)


if __name__ == "__main__":
    read_options()
    serve(make_trainer())
