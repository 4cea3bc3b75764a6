"""What of a run is compiled in, as opposed to data: runs with one signature share their programs."""

import json
from dataclasses import replace
from typing import Any

from cnnjax.config import ModelConfig, RunConfig

MOST_AT_ONCE = 64
"""Runs of a signature in one program; more would fill no device better, and lose more when one of them fails."""


def static_signature(config: RunConfig) -> str:
    """Returns a string that is equal for runs whose programs are the same.

    Seed, learning rate, momentum, weight decay, dropout rate, label smoothing and the patience of early stopping are
    data, and so is the number of epochs under a constant schedule without warmup; whether there is any momentum, decay
    or dropout is compiled in.
    """
    return json.dumps(_list_static(config), sort_keys=True)


def find_difference(config: RunConfig, other: RunConfig) -> tuple[str, Any, Any] | None:
    """Returns a setting that gives runs programs of their own, and its values; ``None`` where they share them."""
    ours, theirs = _list_static(config), _list_static(other)
    for section, values in ours.items():
        for name in values.keys() | theirs[section].keys():
            if values.get(name) != theirs[section].get(name):
                own, others = (getattr(getattr(run, section), name) for run in (config, other))
                return f"{section}.{name}", own, others
    return None


def static_model(model: ModelConfig) -> ModelConfig:
    """Returns the network that is compiled: of dropout, only whether there is any."""
    return replace(model, dropout=0.5 if model.dropout else 0.0)


def _list_static(config: RunConfig) -> dict[str, dict[str, Any]]:
    values = config.to_dict()
    model, train, data = values["model"], values["train"], values["data"]
    model["dropout"] = bool(model["dropout"])
    for name in ("learning_rate", "label_smoothing", "early_stopping_patience"):
        del train[name]
    for name in ("momentum", "weight_decay"):
        train[name] = bool(train[name])
    if config.train.schedule == "constant" and not config.train.warmup_share:
        del train["epochs"]
    del data["manual_dir"]
    return {"model": model, "train": train, "data": data}
