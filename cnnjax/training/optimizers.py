"""The optax optimizer that a `TrainConfig` describes.

Learning rate, momentum and weight decay, which vary between trials, are kept in the optimizer state, where a compiled
step reads them as data. Only the form is compiled in: which optimizer, whether it has momentum and decay, and which
schedule.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax.runs.config import TrainConfig


def make_optimizer(config: TrainConfig, steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of a run.

    Runs of the same form share one optimizer; `init_optimizer` puts the learning rate, momentum and weight decay of
    each run into its state.

    The update is ``-learning_rate * schedule(step) * direction``. For sgd the direction is the gradient plus decay,
    with momentum; for adam it is Adam's, of the gradient plus decay; adamw adds the decay to Adam's direction. Only
    kernels decay: parameters with two or more dimensions.

    Args:
        config: the training.
        steps: number of steps of the whole run, for the schedule.

    References:
        Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013 (sgd);
        Kingma and Ba, "Adam", 2015; Loshchilov and Hutter, "Decoupled weight decay regularization", 2019 (adamw).
    """
    scheduled = config.schedule != "constant" or config.warmup_share > 0
    return _transformation(
        config.optimizer,
        config.nesterov,
        bool(config.momentum),
        bool(config.weight_decay),
        config.schedule,
        config.warmup_share,
        steps if scheduled else 0,
    )


def init_optimizer(optimizer: optax.GradientTransformation, config: TrainConfig, params: Any) -> Any:
    """Returns the optimizer state before the first step.

    It holds the learning rate, momentum and weight decay of `config` as float32 ().
    """
    state = optimizer.init(params)
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, and the run diverges
        numbers = {name: jnp.float32(getattr(config, name)) for name in state.hyperparams}
    return state._replace(hyperparams=numbers)


def make_schedule(kind: str, warmup_share: float, steps: int) -> optax.Schedule:
    """Returns a function from the step to a factor in [0, 1] that multiplies the learning rate.

    Args:
        kind: ``constant`` (1), ``cosine`` (from 1 to 0), or ``onecycle`` (cosine from 1/25 up to 1, then down to
            1/250,000).
        warmup_share: share of the steps over which the factor rises to 1: linearly from 0, or as onecycle does.
        steps: number of steps of the whole run.

    References:
        Loshchilov and Hutter, "SGDR", 2017 (cosine); Smith and Topin, "Super-convergence", 2019 (onecycle).

    Example:
        >>> schedule = make_schedule("cosine", warmup_share=0.5, steps=4)
        >>> [round(float(schedule(step)), 3) for step in range(5)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    warmup = round(warmup_share * steps)
    if kind == "onecycle":
        # Half a step is added because optax rounds the product down; a rise of no steps would divide by zero.
        return optax.cosine_onecycle_schedule(steps, 1.0, pct_start=(max(warmup, 1) + 0.5) / max(steps, 2))
    main = optax.constant_schedule(1.0)
    if kind == "cosine":
        main = optax.cosine_decay_schedule(1.0, max(steps - warmup, 1))
    if warmup == 0:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), main], [warmup])


@functools.lru_cache(maxsize=64)
def _transformation(
    optimizer: str, nesterov: bool, has_momentum: bool, has_decay: bool, schedule: str, warmup_share: float, steps: int
) -> optax.GradientTransformation:
    factor = make_schedule(schedule, warmup_share, steps)

    def build(learning_rate: jax.Array, momentum: jax.Array, weight_decay: jax.Array) -> optax.GradientTransformation:
        decay = optax.add_decayed_weights(weight_decay, mask=_is_kernel) if has_decay else optax.identity()
        if optimizer == "sgd":
            direction = optax.trace(momentum, nesterov) if has_momentum else optax.identity()
        else:
            direction = optax.scale_by_adam()
        ordered = (direction, decay) if optimizer == "adamw" else (decay, direction)
        return optax.chain(*ordered, optax.scale_by_schedule(factor), optax.scale(-1), optax.scale(learning_rate))

    return optax.inject_hyperparams(build)(learning_rate=0.0, momentum=0.0, weight_decay=0.0)


def _is_kernel(params: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, params)
