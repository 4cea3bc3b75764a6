"""The configuration of a run, as frozen dataclasses that check their values, and the key that identifies a run.

A `RunConfig` holds all that can change a result. When a configuration is made, every value is checked and brought
to one normal form, so configurations that mean the same are equal and share a run key. They can be written and read as
dicts, JSON and TOML. The defaults are the textbook network and its training. Nothing here imports JAX.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from cnnjax.data.settings import READING, DataConfig
from cnnjax.errors import InputError
from cnnjax.models.cnn import ModelConfig
from cnnjax.models.own_module import WHERE, ModuleConfig, describe_module, is_linen_module
from cnnjax.runs import trial_function
from cnnjax.runs.train_config import TrainConfig
from cnnjax.runs.trial_function import FunctionConfig, describe_function
from cnnjax.settings import Settings
from cnnjax.settings.checking import Interval, check_keys
from cnnjax.settings.code import find_code
from cnnjax.settings.functions import is_function
from cnnjax.settings.references import read_reference
from cnnjax.settings.schema import Schema, Table, flatten


@dataclass(frozen=True)
class RunConfig(Settings):
    """One run: the network, its training, its images and the seed of all randomness.

    A run with `trial` calls a function of the user instead; the network, the training and the images then have their
    defaults, mean nothing, and are left out of what is stored. Others are refused.

    Raises:
        InputError: a value is not legal.

    Example:
        >>> config = RunConfig(ModelConfig(filters=(8,)), TrainConfig(epochs=1), seed=3)
        >>> RunConfig.from_dict(config.to_dict()) == config
        True
        >>> config.key == RunConfig(ModelConfig(filters=(8,)), TrainConfig(epochs=1), seed=4).key
        False
    """

    model: ModelConfig | ModuleConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)
    seed: Annotated[int, Interval(0, 2**32 - 1)] = 0
    """Seed of initialisation, data order and dropout."""
    trial: FunctionConfig | None = None
    """A function of the user that is called, instead of training a network."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trial:
            defaults = {"model": ModelConfig(), "train": TrainConfig(), "data": DataConfig()}
            given = next((name for name, default in defaults.items() if getattr(self, name) != default), None)
            if given:
                raise InputError(f"{given}: has no effect on trial.function={self.trial.function!r}; must be left out")

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as JSON values, for `from_dict`."""
        values = super().to_dict()
        trial = values.pop("trial")
        return {"trial": trial, "seed": self.seed} if trial else values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds a configuration as `Settings.from_dict` does.

        ``model.module`` names a module of the user, and ``trial.function`` a function of the user.
        """
        if isinstance(values, Mapping) and "trial" in values:
            check_keys(values, ("trial", "seed"), "configuration")
            return cls(**{**values, "trial": FunctionConfig.from_dict(values["trial"])})
        if isinstance(values, Mapping) and "model" in values:
            table = values["model"]
            kind = ModuleConfig if isinstance(table, Mapping) and "module" in table else ModelConfig
            values = {**values, "model": kind.from_dict(table)}
        return super().from_dict(values)

    @classmethod
    def schema(cls, values: Any = ()) -> Schema:
        """Returns the schema of a run's settings, which knows them by their paths, such as ``train.epochs``.

        Args:
            values: nested tables of settings, such as a study's. The modules or functions of the user that they name
                have settings of their own; without any, those of `ModelConfig` are the settings of the model.

        Raises:
            InputError, CodeError: as `describe_module` and `describe_function`.
        """
        functions = find_code(values, trial_function.WHERE)
        if functions:
            return Schema([describe_function(read_reference(name, trial_function.WHERE)) for name in functions])
        networks: list[Table] = [describe_module(read_reference(name, WHERE)) for name in find_code(values, WHERE)]
        return Schema([*(networks or [ModelConfig]), TrainConfig, DataConfig])

    @classmethod
    def _check(cls, name: str, value: Any) -> Any:
        if name == "trial":
            return value
        if name != "model":
            return super()._check(name, value)
        if isinstance(value, ModelConfig | ModuleConfig):
            return value
        if is_linen_module(value):
            return ModuleConfig.from_module(value)
        raise InputError(f"model: must be a ModelConfig or a linen module, not {type(value).__name__}")

    @functools.cached_property
    def key(self) -> str:
        """The run key: the SHA-256 of the settings that can change the result, as canonical JSON; 64 hex digits."""
        if self.trial:
            return _hash({"trial": self.trial.identity, "seed": self.seed})
        if self.data.own_files:
            raise InputError(f"data.name={self.data.name!r}: its images have not been read, so the run has no key yet")
        parts = {name: getattr(self, name).identity for name in ("model", "train", "data")}
        values = {**self.to_dict(), **parts}
        for name in ("manual_dir", *READING):
            del values["data"][name]
        if self.data.sha256 is None:
            del values["data"]["sha256"]
        return _hash(values)

    @property
    def references(self) -> tuple[str, ...]:
        """The import paths of all code that is not the library's, such as ``nets.py:ResNet``."""
        return self.trial.references if self.trial else (*self.model.references, *self.train.references)

    def check_code(self) -> None:
        """Raises `InputError` if code of the user is not what this configuration was made with."""
        for part in (self.trial,) if self.trial else (self.model, self.train):
            part.check_code()


def _hash(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


MOST_AT_ONCE = 64
"""Most runs in one program; with more, a device would be used no better, and a failure would lose more runs."""


def static_signature(config: RunConfig) -> str:
    """Returns a string that is equal for runs that can share their compiled programs and their images.

    The programs take seed, learning rate, momentum, weight decay, dropout rate and label smoothing as data, so these
    are not in the string, nor is the patience of early stopping; the number of epochs is not either, under a constant
    schedule without warmup. Whether momentum, weight decay and dropout are zero is compiled in.

    Example:
        >>> first, second = (RunConfig(train=TrainConfig(learning_rate=rate)) for rate in (0.1, 0.2))
        >>> static_signature(first) == static_signature(second)
        True
    """
    return json.dumps(_list_static(config), sort_keys=True)


def find_difference(config: RunConfig, other: RunConfig) -> tuple[str, Any, Any] | None:
    """Returns the path of a setting because of which two runs cannot share programs, and its value in each run.

    Returns ``None`` if the runs have the same static signature.
    """
    ours, theirs = _list_static(config), _list_static(other)
    for section, values in ours.items():
        for name in values.keys() | theirs[section].keys():
            if values.get(name) != theirs[section].get(name):
                path = f"{section}.{name}"
                return path, flatten(config).get(path), flatten(other).get(path)
    return None


def _list_static(config: RunConfig) -> dict[str, dict[str, Any]]:
    values = config.to_dict()
    if config.trial:
        return {"trial": {"function": config.trial.function}}
    model, train, data = config.model.split()[0].to_dict(), values["train"], values["data"]
    for name in ("learning_rate", "label_smoothing", "early_stopping_patience"):
        del train[name]
    for name in ("momentum", "weight_decay"):
        train[name] = bool(train[name])
    if config.train.schedule == "constant" and not config.train.warmup_share and not is_function(train["optimizer"]):
        del train["epochs"]
    del data["manual_dir"]
    return {"model": model, "train": train, "data": data}
