"""The user's own functions in the training of a run: checked before it starts, and metrics computed after it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.data.dataset import DatasetInfo
from cnnjax.errors import InputError
from cnnjax.runs.config import TrainConfig, name_metric
from cnnjax.settings.functions import call_function
from cnnjax.training.optimizers import init_optimizer, make_optimizer


def check_functions(config: TrainConfig, info: DatasetInfo) -> None:
    """Tries the user's functions on values of the right shapes.

    Raises:
        InputError: a function has changed since the configuration was made, or returns something else than it must.
        CodeError: a function raised an exception.
    """
    config.check_code()
    examples = 2 * info.classes
    logits = jax.ShapeDtypeStruct((examples, info.classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((examples,), jnp.int32)
    image = jax.ShapeDtypeStruct(info.image_shape, jnp.float32)
    for text, where in config.functions.items():
        if where == "train.loss":
            losses = call_function(jax.eval_shape, text, where, config.load(text), logits, labels)
            _check_form(losses, (examples,), f"{where}={text!r}", "the losses of the examples")
        elif where == "train.augment":
            changed = call_function(jax.eval_shape, text, where, config.load(text), jax.random.key(0), image)
            _check_form(changed, info.image_shape, f"{where}={text!r}", "the changed image")
        elif where == "train.optimizer":
            call_function(jax.eval_shape, text, where, lambda params: _take_step(config, params), {"kernel": logits})
        else:
            given = np.arange(examples, dtype=np.int32) % info.classes
            _measure(config, text, np.eye(info.classes, dtype=np.float32)[given], given)


def compute_scores(config: TrainConfig, logits: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """Returns the metrics of a run on its test set, by name; ``None`` for one that is not a finite number.

    Args:
        config: the training, with its metrics.
        logits: float32 (n, classes).
        labels: int32 (n,).

    Raises:
        CodeError: a metric raised an exception.
    """
    return {name_metric(text): _measure(config, text, logits, labels) for text in config.metrics}


def _measure(config: TrainConfig, text: str, logits: np.ndarray, labels: np.ndarray) -> float | None:
    found = call_function(config.load(text), text, "train.metrics", logits, labels)
    values = np.asarray(found)
    if values.dtype.kind not in "fiub" or values.shape not in ((), labels.shape):
        raise InputError(
            f"train.metrics={text!r}: must return a number, or one for each of {len(labels)} examples, not "
            f"{values.dtype} {values.shape}"
        )
    score = float(values.mean(dtype=np.float64))
    return score if math.isfinite(score) else None


def _take_step(config: TrainConfig, params: Any) -> Any:
    optimizer = make_optimizer(config, steps=1)
    return optimizer.update(params, init_optimizer(optimizer, config, params), params)


def _check_form(found: Any, shape: tuple[int, ...], where: str, what: str) -> None:
    is_right = isinstance(found, jax.ShapeDtypeStruct) and found.shape == shape
    if not (is_right and jnp.issubdtype(found.dtype, jnp.floating)):
        got = f"{found.dtype} {found.shape}" if isinstance(found, jax.ShapeDtypeStruct) else type(found).__name__
        raise InputError(f"{where}: must return {what}, float {shape}, not {got}")
