"""What to run: frozen dataclasses that refuse what cannot exist, and the key that names a run.

A `RunConfig` says everything that can change a result. Every value is checked where it is set and brought to one normal
form, so configurations that mean the same are equal and share a run key; they travel as dicts, JSON and TOML. The
defaults are the textbook network and its training. Nothing here imports JAX.
"""

import functools
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cnnjax.data.settings import DataConfig
from cnnjax.errors import InputError
from cnnjax.models.cnn import ModelConfig
from cnnjax.settings import Settings
from cnnjax.settings.checking import Count, Fraction, Interval
from cnnjax.settings.schema import Schema


@dataclass(frozen=True)
class TrainConfig(Settings):
    """The training: how many epochs, by which optimizer, at which precision."""

    section = "train"

    epochs: Count = 5
    """Passes over the training examples."""
    batch_size: Count = 100
    """Examples per step; the last batch of an epoch may be smaller."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """sgd, adam or adamw."""
    learning_rate: Annotated[float, Interval(0, open_low=True)] = 0.01
    """Peak learning rate, which the schedule multiplies."""
    momentum: Fraction = 0.0
    """Momentum of sgd."""
    nesterov: bool = False
    """Nesterov's form of momentum."""
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    """constant, cosine (decay to zero) or onecycle (cosine up from 1/25, then down to nearly zero)."""
    warmup: Fraction | None = None
    """Share of the steps with a rising learning rate; left out, 0.3 for onecycle and 0 otherwise."""
    weight_decay: Annotated[float, Interval(0)] = 0.0
    """Decay of the kernels: added to the gradient for sgd and adam, decoupled for adamw."""
    label_smoothing: Fraction = 0.0
    """Probability mass spread evenly over all classes."""
    validation_split: Fraction = 0.0
    """Share of the training examples, the last ones, held out for validation."""
    early_stopping_patience: Count | None = None
    """Epochs without a better validation loss, after which training stops."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the layers; parameters and loss are always float32."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.momentum and self.optimizer != "sgd":
            raise InputError(f"train.momentum={self.momentum}: only sgd has momentum, not {self.optimizer}; use 0")
        if self.nesterov and not self.momentum:
            raise InputError("train.nesterov=True: needs train.momentum > 0")
        if self.early_stopping_patience and not self.validation_split:
            raise InputError(
                f"train.early_stopping_patience={self.early_stopping_patience}: needs train.validation_split > 0"
            )
        if self.schedule == "onecycle" and self.warmup == 0:
            raise InputError("train.warmup=0.0: must be > 0 and < 1 for the onecycle schedule")
        default = 0.3 if self.schedule == "onecycle" else 0.0
        if self.warmup == default:
            self._set("warmup", None)

    @property
    def warmup_share(self) -> float:
        """The share of the steps with a rising learning rate, in [0, 1)."""
        if self.warmup is not None:
            return self.warmup
        return 0.3 if self.schedule == "onecycle" else 0.0


@dataclass(frozen=True)
class RunConfig(Settings):
    """One run: the network, its training, its images and the seed of all randomness."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)
    seed: Annotated[int, Interval(0, 2**32 - 1)] = 0
    """Seed of initialisation, data order and dropout."""

    @classmethod
    @functools.cache
    def schema(cls) -> Schema:
        """Returns the settings that a run is made of, by their paths."""
        return Schema((ModelConfig, TrainConfig, DataConfig))

    @functools.cached_property
    def key(self) -> str:
        """The run key: SHA-256, in 64 hexadecimal digits, of the canonical JSON of all that can change the result."""
        values = self.to_dict()
        del values["data"]["manual_dir"]
        if self.data.sha256 is None:
            del values["data"]["sha256"]
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


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


def _list_static(config: RunConfig) -> dict[str, dict[str, Any]]:
    values = config.to_dict()
    model, train, data = config.model.split()[0].to_dict(), values["train"], values["data"]
    for name in ("learning_rate", "label_smoothing", "early_stopping_patience"):
        del train[name]
    for name in ("momentum", "weight_decay"):
        train[name] = bool(train[name])
    if config.train.schedule == "constant" and not config.train.warmup_share:
        del train["epochs"]
    del data["manual_dir"]
    return {"model": model, "train": train, "data": data}


def split_sizes(config: RunConfig, examples: int) -> tuple[int, int]:
    """Returns how many of the training examples train, from their start, and how many validate, from their end.

    The validation examples are the same for every `train_size`, so learning curves are comparable.

    Raises:
        InputError: a part would be empty, `train_size` is more than there are, or the steps are too many to count.
    """
    # Rounded first: 60000 * (1 - 0.9) is a hair below 6000.
    rest = math.floor(round(examples * (1 - config.train.validation_split), 6))
    validation = examples - rest
    if rest == 0 or (config.train.validation_split and validation == 0):
        raise InputError(
            f"train.validation_split={config.train.validation_split}: leaves {rest} examples to train and "
            f"{validation} to validate; must leave at least one of each"
        )
    size = rest if config.data.train_size is None else config.data.train_size
    if size > rest:
        raise InputError(f"data.train_size={size}: must be <= {rest}, the training examples of {config.data.name}")
    steps = math.ceil(size / config.train.batch_size)
    if config.train.epochs * steps >= 2**31:
        raise InputError(f"train.epochs={config.train.epochs}: must be < {2**31 // steps}, for {steps} steps an epoch")
    return size, validation
