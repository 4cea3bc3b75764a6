"""The optax optimizer that a `TrainConfig` describes.

Learning rate, momentum and weight decay, which vary between trials, are kept in the optimizer state, where a compiled
step reads them as data. Only the form is compiled in: which optimizer, whether it has momentum and decay, and which
schedule.
"""

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax.errors import InputError
from cnnjax.runs.train_config import TrainConfig
from cnnjax.settings.code import read_parameters
from cnnjax.settings.functions import is_function

_DIRECTIONS = {
    "adam": optax.scale_by_adam,
    "adamw": optax.scale_by_adam,
    "rmsprop": optax.scale_by_rms,
    "lion": optax.scale_by_lion,
    "lamb": functools.partial(optax.scale_by_adam, eps=1e-6),
}
_Parts = tuple[optax.GradientTransformation, ...]
_DECOUPLED = ("adamw", "lion", "lamb")
"""Optimizers whose decay does not go through the moments of the gradient."""


def make_optimizer(config: TrainConfig, steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of a run.

    Runs of the same form share one optimizer; `init_optimizer` puts the learning rate, momentum and weight decay of
    each run into its state.

    The update is ``-learning_rate * schedule(step) * direction``. For sgd the direction is the gradient plus decay,
    with momentum; for adam and rmsprop it is theirs, of the gradient plus decay; adamw and lion add the decay to their
    direction, and so does lamb before it scales the direction of every array to the norm of its parameters. Only
    kernels decay: parameters with two or more dimensions. With `clip_norm`, the gradient is first scaled down to it.

    A function of the user makes its own update. If it has such parameters, it is given ``learning_rate``, a number or
    an optax schedule, and ``steps``.

    Args:
        config: the training.
        steps: number of steps of the whole run.

    Raises:
        InputError: the learning rate or its schedule has no effect on the optimizer of the user.

    References:
        Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013 (sgd);
        Kingma and Ba, "Adam", 2015; Loshchilov and Hutter, "Decoupled weight decay regularization", 2019 (adamw);
        Tieleman and Hinton, "RMSProp", 2012; Chen et al., "Symbolic discovery of optimization algorithms", 2023 (lion);
        You et al., "Large batch optimization for deep learning", 2020 (lamb); Pascanu, Mikolov and Bengio, "On the
        difficulty of training recurrent neural networks", 2013 (clipping).
    """
    scheduled = config.schedule != "constant" or config.warmup_share > 0
    if is_function(config.optimizer):
        factory = config.load("optimizer", config.optimizer)
        _check_learning_rate(config, factory)
        return _transform_by(factory, config.clip_norm, scheduled, config.schedule, config.warmup_share, steps)
    return _transformation(
        config.optimizer,
        config.nesterov,
        bool(config.momentum),
        bool(config.weight_decay),
        config.clip_norm,
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
        kind: ``constant`` (1), ``cosine`` or ``linear`` (from 1 to 0), ``step`` (1, then 1/10 and 1/100 after 1/2 and
            3/4 of all steps), ``restarts`` (cosine from 1 to 0 in cycles of 1, 2 and 4 sevenths of the steps after the
            warmup), or ``onecycle`` (cosine from 1/25 up to 1, then down to 1/250,000).
        warmup_share: share of the steps over which the factor rises to 1: linearly from 0, or as onecycle does.
        steps: number of steps of the whole run.

    References:
        Loshchilov and Hutter, "SGDR", 2017 (cosine, restarts); Smith and Topin, "Super-convergence", 2019 (onecycle);
        He et al., "Deep residual learning", 2016 (step).

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
    if kind == "linear":
        main = optax.linear_schedule(1.0, 0.0, max(steps - warmup, 1))
    if kind == "restarts":
        rest = max(steps - warmup, 1)
        starts = [0, rest // 7, 3 * rest // 7, rest]
        cycles = [optax.cosine_decay_schedule(1.0, max(end - start, 1)) for start, end in itertools.pairwise(starts)]
        main = optax.join_schedules(cycles, starts[1:-1])
    if kind == "step":
        falls = (steps // 2 - warmup, 3 * steps // 4 - warmup)

        def main(step: chex.Numeric) -> chex.Numeric:
            return 0.1 ** sum(jnp.asarray(step >= fall, jnp.float32) for fall in falls)

    if warmup == 0:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), main], [warmup])


@functools.lru_cache(maxsize=64)
def _transformation(
    optimizer: str,
    nesterov: bool,
    has_momentum: bool,
    has_decay: bool,
    clip_norm: float | None,
    schedule: str,
    warmup_share: float,
    steps: int,
) -> optax.GradientTransformation:
    factor = make_schedule(schedule, warmup_share, steps)

    def build(learning_rate: jax.Array, momentum: jax.Array, weight_decay: jax.Array) -> _Parts:
        decay = optax.add_decayed_weights(weight_decay, mask=_is_kernel) if has_decay else optax.identity()
        if optimizer == "sgd":
            direction = optax.trace(momentum, nesterov) if has_momentum else optax.identity()
        else:
            direction = _DIRECTIONS[optimizer]()
        ordered = (direction, decay) if optimizer in _DECOUPLED else (decay, direction)
        ratio = (optax.scale_by_trust_ratio(),) if optimizer == "lamb" else ()
        return (*ordered, *ratio, optax.scale_by_schedule(factor), optax.scale(-1), optax.scale(learning_rate))

    return _chain(build, clip_norm)


def _check_learning_rate(config: TrainConfig, factory: Callable[..., Any]) -> None:
    if "learning_rate" in read_parameters(factory):
        return
    for name in ("learning_rate", "schedule", "warmup"):
        if getattr(config, name) != getattr(TrainConfig, name):
            raise InputError(
                f"train.{name}={getattr(config, name)!r}: has no effect, as {config.optimizer} has no parameter "
                "learning_rate; leave it out"
            )


@functools.lru_cache(maxsize=64)
def _transform_by(
    factory: Callable[..., Any], clip_norm: float | None, scheduled: bool, schedule: str, warmup: float, steps: int
) -> optax.GradientTransformation:
    """Returns the optimizer that a function of the user makes."""
    factor = make_schedule(schedule, warmup, steps)

    def build(learning_rate: jax.Array) -> _Parts:
        rate = (lambda step: learning_rate * factor(step)) if scheduled else learning_rate
        given = {"learning_rate": rate, "steps": steps}
        made = factory(**{name: given[name] for name in given if name in read_parameters(factory)})
        if not isinstance(made, optax.GradientTransformation):
            raise InputError(f"train.optimizer: must return an optax optimizer, not {type(made).__name__}")
        return (made,)

    return _chain(build, clip_norm)


def _chain(build: Callable[..., _Parts], clip_norm: float | None) -> optax.GradientTransformation:
    """Returns the chain of what `build` makes of numbers in its state, after the clipping of the gradient."""

    @functools.wraps(build)  # by whose parameters optax knows the numbers
    def chain(**numbers: jax.Array) -> optax.GradientTransformation:
        clip = () if clip_norm is None else (optax.clip_by_global_norm(clip_norm),)
        parts = (*clip, *build(**numbers))
        return optax.chain(*parts) if len(parts) > 1 else parts[0]

    return optax.inject_hyperparams(chain)(**dict.fromkeys(inspect.signature(build).parameters, 0.0))


def _is_kernel(params: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, params)
