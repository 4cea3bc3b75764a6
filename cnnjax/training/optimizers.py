"""The optax optimizer that a `TrainConfig` describes.

Numbers that vary between trials (learning rate, momentum, weight decay) are injected into the optimizer state, where a
compiled step reads them as data; only the form (which optimizer, which terms, which schedule) is compiled in.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax.runs.config import TrainConfig


def make_optimizer(config: TrainConfig, steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of a run; runs of the same form share it, and `init_optimizer` gives each its numbers.

    The update is ``-learning_rate * schedule(step) * direction``, the direction being the gradient with decay and
    momentum (sgd) or Adam's (adam; adamw adds the decay after it). Only kernels decay: parameters of two dimensions or
    more.

    Args:
        config: the training.
        steps: all steps of the run, over which the schedule spreads.

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
    """Returns the optimizer state before the first step, with the numbers of `config` in it as float32 ()."""
    state = optimizer.init(params)
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and the run says that it diverges
        numbers = {name: jnp.float32(getattr(config, name)) for name in state.hyperparams}
    return state._replace(hyperparams=numbers)


def make_schedule(kind: str, warmup_share: float, steps: int) -> optax.Schedule:
    """Returns the factor in [0, 1] that multiplies the learning rate, as a function of the step.

    Args:
        kind: ``constant`` (1), ``cosine`` (from 1 to 0), or ``onecycle`` (cosine from 1/25 up to 1, then down to
            1/250,000).
        warmup_share: share of the steps that rise to 1: linearly from 0, or as onecycle does.
        steps: all steps of the run.

    References:
        Loshchilov and Hutter, "SGDR", 2017 (cosine); Smith and Topin, "Super-convergence", 2019 (onecycle).
    """
    warmup = round(warmup_share * steps)
    if kind == "onecycle":
        # Half a step more than the whole steps of the rise, for optax rounds down; none would divide by zero.
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
