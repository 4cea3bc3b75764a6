"""The user's own functions in the training of a run: checked before it starts, and metrics computed after it."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.data.dataset import DatasetInfo
from cnnjax.errors import InputError
from cnnjax.runs.train_config import TrainConfig, name_metric
from cnnjax.settings.functions import split_function
from cnnjax.settings.references import running_code
from cnnjax.training.optimizers import init_optimizer, make_optimizer


def check_functions(config: TrainConfig, info: DatasetInfo, run_metrics: bool = True) -> None:
    """Tries the user's functions on values of the right shapes.

    Args:
        config: the training, with its functions.
        info: the dataset.
        run_metrics: whether metrics are tried too; these are run, and may so take a device, where others are traced.

    Raises:
        InputError: a function has changed since the configuration was made, or returns something else than it must.
        CodeError: a function raised an exception.
    """
    config.check_code()
    examples = 2 * info.classes
    logits = jax.ShapeDtypeStruct((examples, info.classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((examples,), jnp.int32)
    key = jax.eval_shape(jax.random.key, 0)
    image = jax.ShapeDtypeStruct(info.image_shape, jnp.float32)
    for name, text in config.functions:
        where, function = f"train.{name}={text!r}", config.load(name, text)
        if name == "loss":
            losses = jax.eval_shape(function, logits, labels)
            _check_form(losses, (examples,), where, "the losses of the examples")
        elif name == "augment":
            changed = jax.eval_shape(function, key, image)
            _check_form(changed, info.image_shape, where, "the changed image")
        elif name == "optimizer":
            with running_code(split_function(text, where)[0], f"train.{name}"):  # its update runs outside of `function`
                jax.eval_shape(functools.partial(_take_step, config), {"kernel": logits})
        elif run_metrics:
            given = np.arange(examples, dtype=np.int32) % info.classes
            _measure(function, text, np.eye(info.classes, dtype=np.float32)[given], given)


def compute_scores(
    config: TrainConfig, logits: np.ndarray, labels: np.ndarray, note: Callable[[str], None]
) -> dict[str, float | None]:
    """Returns the metrics of a run on its test set, by name.

    A metric that raises an exception, or is not a finite number, is ``None``, so that no trained network is lost.

    Args:
        config: the training, with its metrics.
        logits: float32 (n, classes).
        labels: int32 (n,).
        note: receives a line for each metric that could not be computed.
    """
    scores: dict[str, float | None] = {}
    for text in config.metrics:
        try:
            scores[name_metric(text)] = _measure(config.load("metrics", text), text, logits, labels)
        except InputError as error:
            scores[name_metric(text)] = None
            note(f"{error}; the metric is stored as missing")
    return scores


def _measure(metric: Callable[..., Any], text: str, logits: np.ndarray, labels: np.ndarray) -> float | None:
    values = np.asarray(metric(logits, labels))
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
