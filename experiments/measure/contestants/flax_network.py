"""Flax as its own examples use it: ``nn.Conv``, ``nn.max_pool`` and a jitted step for every batch.

A ``lax.scan`` over the steps would be slower on a CPU, where XLA's convolutions leave their fast path inside of it.
"""

import functools
from typing import Any

from experiments.measure.contestants.networks import CLASSES, Network
from experiments.measure.contestants.serving import BATCH, RATE, Options, Trainer, load_images, main


def make_module(network: Network, dtype: Any) -> Any:
    """Returns the linen module, whose layers compute in a dtype."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    pools: dict[str, Any] = {"max": nn.max_pool, "avg": nn.avg_pool}

    class Module(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            inputs = []
            for block in network.blocks:
                inputs.append(x)
                x = nn.Conv(
                    block.filters,
                    (block.window, block.window),
                    block.strides,
                    padding=block.padding.upper(),
                    feature_group_count=x.shape[3] if block.is_depthwise else 1,
                    use_bias=block.bias,
                    dtype=dtype,
                )(x)
                if block.norm:
                    x = nn.BatchNorm(use_running_average=not train, dtype=dtype)(x)
                if block.shortcut:
                    start = inputs[-block.shortcut]
                    stride = start.shape[1] // x.shape[1]
                    channels = x.shape[3] - start.shape[3]
                    x += jnp.pad(start[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, channels)))
                x = nn.relu(x)
                if block.pool != "none":
                    x = pools[block.pool](x, (2, 2), (2, 2))
            x = x.mean((1, 2)) if network.averages else x.reshape(len(x), -1)
            for width in network.dense:
                x = nn.relu(nn.Dense(width, dtype=dtype)(x))
            return nn.Dense(CLASSES, dtype=dtype)(x).astype(jnp.float32)

    return Module()


@functools.cache
def _make_programs(network: Network, precision: str) -> Any:
    """Returns the module, the optimizer, the jitted step and predictions, which the seeds of a network share."""
    import jax
    import jax.numpy as jnp
    import optax

    module, optimizer = make_module(network, jnp.dtype(precision)), optax.sgd(RATE)

    @jax.jit
    def step(variables: Any, state: Any, images: jax.Array, labels: jax.Array) -> Any:
        def loss_of(params: Any) -> Any:
            logits, changed = module.apply({**variables, "params": params}, images, True, mutable=["batch_stats"])
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels)), changed

        (loss, changed), gradients = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
        updates, state = optimizer.update(gradients, state)
        return {**changed, "params": optax.apply_updates(variables["params"], updates)}, state, loss

    predict = jax.jit(lambda variables, images: jnp.argmax(module.apply(variables, images, False), -1))
    return module, optimizer, step, predict


def make_trainer(options: Options, network: Network, seed: int) -> Trainer:
    """Returns a trainer; JAX finds its one core by itself."""
    from cnnjax.machine.files import keep_programs

    keep_programs()
    import jax
    import numpy as np

    module, optimizer, step, predict = _make_programs(network, options.precision)
    images, labels = load_images(network.image_shape, "train")
    variables = jax.jit(module.init, static_argnums=2)(jax.random.key(seed), images[:1], False)
    state = optimizer.init(variables["params"])
    random = np.random.default_rng(seed)

    def train(steps: int) -> float:
        nonlocal variables, state
        rows = random.permutation(len(images))[: steps * BATCH].reshape(steps, BATCH)
        for batch in rows:
            variables, state, loss = step(variables, state, images[batch], labels[batch])
        return float(loss)

    def evaluate() -> float:
        tests, answers = load_images(network.image_shape, "test")
        right = [
            predict(variables, tests[start : start + BATCH]) == answers[start : start + BATCH]
            for start in range(0, len(tests), BATCH)
        ]
        return float(np.mean(right))

    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables))
    return Trainer(str(jax.devices()[0].device_kind), parameters, train, evaluate)


if __name__ == "__main__":
    main(make_trainer)
