"""What of a run is compiled in, as opposed to data: runs with one signature share their programs."""

import json

from cnnjax.config import RunConfig


def static_signature(config: RunConfig) -> str:
    """Returns a string that is equal for runs whose programs are the same.

    Seed, learning rate, momentum, weight decay and label smoothing are data, and so is the number of epochs under a
    constant schedule; whether there is any momentum or decay is compiled in.
    """
    values = config.to_dict()
    train = values["train"]
    for name in ("learning_rate", "label_smoothing", "early_stopping_patience"):
        del train[name]
    for name in ("momentum", "weight_decay"):
        train[name] = bool(train[name])
    if config.train.schedule == "constant" and not config.train.warmup_share:
        del train["epochs"]
    del values["seed"], values["data"]["manual_dir"]
    return json.dumps(values, sort_keys=True)
