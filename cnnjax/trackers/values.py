"""What a tracker says of a run: flat tables of numbers and words, under the names that the store uses."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cnnjax.config import RunConfig
from cnnjax.history import EpochMetrics

if TYPE_CHECKING:
    from cnnjax.records import Record

Value = str | bool | int | float
EPOCH_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "seconds")


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """Returns the values of nested tables under dotted names; lists as JSON, and ``None`` as ``none``.

    Example:
        >>> flatten({"model": {"filters": [32, 64], "dropout": 0.0}, "seed": 1})
        {'model.filters': '[32, 64]', 'model.dropout': 0.0, 'seed': 1}
    """
    flat: dict[str, Value] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif value is None:
            flat[prefix + name] = "none"
        else:
            flat[prefix + name] = value if isinstance(value, str | bool | int | float) else json.dumps(value)
    return flat


def list_settings(config: RunConfig) -> dict[str, Value]:
    """Returns every setting of a run by its path, such as ``train.learning_rate``."""
    return flatten(config.to_dict())


def list_metrics(epoch: EpochMetrics) -> dict[str, float]:
    """Returns the metrics of an epoch, those of validation where there are any."""
    values = {name: getattr(epoch, name) for name in EPOCH_METRICS}
    return {name: value for name, value in values.items() if value is not None}


def list_results(record: "Record") -> dict[str, float]:
    """Returns the numbers of a whole run: test loss and accuracy where it has them, its size, and its times."""
    numbers = {name: getattr(record, name) for name in ("test_loss", "test_accuracy", "parameters", "flops")}
    times = {f"seconds.{phase}": spent for phase, spent in record.seconds.items()}
    return {name: float(value) for name, value in (numbers | times).items() if value is not None}


def list_origins(record: "Record") -> dict[str, Value]:
    """Returns the words of a whole run: its key, its status with the reason, and its provenance."""
    return flatten(
        {"key": record.key, "status": record.status, "reason": record.reason, "provenance": record.provenance}
    )
