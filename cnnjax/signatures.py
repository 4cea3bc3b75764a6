"""What of a run is compiled in, as opposed to data: runs with one signature share their programs."""

import json
from dataclasses import replace

from cnnjax.config import ModelConfig, RunConfig

MOST_AT_ONCE = 64
"""Runs of a signature in one program; more would fill no device better, and lose more when one of them fails."""


def static_signature(config: RunConfig) -> str:
    """Returns a string that is equal for runs whose programs are the same.

    Seed, learning rate, momentum, weight decay, dropout rate and label smoothing are data, and so is the number of
    epochs under a constant schedule; whether there is any momentum, decay or dropout is compiled in.
    """
    values = config.to_dict()
    train = values["train"]
    for name in ("learning_rate", "label_smoothing", "early_stopping_patience"):
        del train[name]
    for name in ("momentum", "weight_decay"):
        train[name] = bool(train[name])
    if config.train.schedule == "constant" and not config.train.warmup_share:
        del train["epochs"]
    values["model"] = static_model(config.model).to_dict()
    del values["seed"], values["data"]["manual_dir"]
    return json.dumps(values, sort_keys=True)


def static_model(model: ModelConfig) -> ModelConfig:
    """Returns the network that is compiled: of dropout, only whether there is any."""
    return replace(model, dropout=0.5 if model.dropout else 0.0)
