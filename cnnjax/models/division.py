"""Whether a module of the user gives the same for shares of a batch on several devices as for the whole batch on one.

Nothing in a module says so: it may take a mean over the batch outside of batch normalisation, or draw random numbers
by the shape of its share. So both are computed in float32, for two shares of four images and parameters of noise, and
compared.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.errors import CodeError, InputError
from cnnjax.machine.compilation import compile_program
from cnnjax.machine.devices import AXIS
from cnnjax.models.adapter import call_module, divide_layer
from cnnjax.models.network import LOSSES, UNSAVED, Shape
from cnnjax.models.own_module import ModuleConfig

SHARES, EXAMPLES = 2, 4
"""Number of shares of the batch that is tried, and of images in each."""
TOLERANCE = 1e-3
"""Largest difference of what counts as the same, relative to the largest value: shares are rounded in another order."""


@functools.lru_cache(maxsize=64)
def is_divisible(config: ModuleConfig, image_shape: Shape, classes: int) -> bool:
    """Returns whether a batch in shares gives the logits, losses and other variables of the whole batch in training.

    It is tried with `SHARES` shares of `EXAMPLES` images, in float32.

    Args:
        config: the settings of the module.
        image_shape: (height, width, channels).
        classes: number of classes.

    Raises:
        InputError: the module is not that of these settings, or does not return logits (batch, classes).
        CodeError: the module raised an exception with the whole batch.

    Example:
        >>> is_divisible(ModuleConfig.from_dict({"module": "experiments.networks.lenet:LeNet5"}), (28, 28, 1), 10)
        True
    """
    module = config.make(classes, jnp.dtype(jnp.float32))
    call = functools.partial(call_module, train=False, reference=config.module)
    random = np.random.default_rng(0)
    images = random.random((SHARES * EXAMPLES, *image_shape), np.float32)
    forms = jax.eval_shape(nn.init(call, module), jax.random.key(0), images)
    saved = {name: tree for name, tree in forms.items() if name not in UNSAVED}
    variables = jax.tree.map(functools.partial(_draw, random), saved)
    try:
        program = compile_program(_compare, variables, images, module=module, reference=config.module)
    except (CodeError, InputError):  # it needs a whole batch
        return False
    return bool(program(variables, images))


def _compare(variables: dict[str, Any], images: jax.Array, *, module: nn.Module, reference: str) -> jax.Array:
    def train(images: jax.Array, axis: str | None) -> tuple[jax.Array, Any]:
        call = functools.partial(call_module, train=True, reference=reference)
        mutable = [*(name for name in variables if name != "params"), LOSSES]
        with nn.intercept_methods(functools.partial(divide_layer, axis)):
            run = nn.apply(call, module, mutable=mutable)
            logits, updates = run(variables, images, rngs={"dropout": key, "params": key})
        losses = sum((jnp.sum(leaf) for leaf in jax.tree.leaves(updates.pop(LOSSES, {}))), jnp.float32(0))
        return logits, (losses if axis is None else lax.pmean(losses, axis), updates)

    key = jax.random.key(0)
    logits, others = train(images, None)
    run_shares = jax.vmap(functools.partial(train, axis=AXIS), axis_name=AXIS)
    logits_of_shares, others_of_shares = run_shares(images.reshape(SHARES, EXAMPLES, *images.shape[1:]))
    same = [_is_same(logits, logits_of_shares.reshape(logits.shape))]
    for whole, shares in zip(jax.tree.leaves(others), jax.tree.leaves(others_of_shares), strict=True):
        same += [_is_same(whole, share) for share in shares]
    return jnp.array(same).all()


def _draw(random: np.random.Generator, form: Any) -> np.ndarray:
    """Returns noise: around 0 and of the size of usual kernels, or around 1, so that nothing is multiplied by 0."""
    if not jnp.issubdtype(form.dtype, jnp.floating):
        return np.zeros(form.shape, form.dtype)
    noise = random.standard_normal(form.shape)
    kernels = len(form.shape) > 1
    return np.asarray(noise / math.sqrt(math.prod(form.shape[:-1])) if kernels else 1 + noise / 10, form.dtype)


def _is_same(whole: jax.Array, shares: jax.Array) -> jax.Array:
    """Whether values are finite, and differ by rounding alone."""
    whole, shares = whole.astype(jnp.float32), shares.astype(jnp.float32)
    return jnp.abs(whole - shares).max(initial=0) <= TOLERANCE * jnp.abs(whole).max(initial=0)
