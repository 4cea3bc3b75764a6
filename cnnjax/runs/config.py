"""The configuration of a run, as frozen dataclasses that check their values, and the key that identifies a run.

A `RunConfig` holds all that can change a result. When a configuration is made, every value is checked and brought
to one normal form, so configurations that mean the same are equal and share a run key. They can be written and read as
dicts, JSON and TOML. The defaults are the textbook network and its training. Nothing here imports JAX.
"""

import functools
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from cnnjax.data.settings import READING, DataConfig
from cnnjax.errors import InputError
from cnnjax.models.cnn import ModelConfig
from cnnjax.models.own_module import WHERE, ModuleConfig, describe_module, is_linen_module
from cnnjax.runs import trial_function
from cnnjax.runs.trial_function import FunctionConfig, describe_function
from cnnjax.settings import Settings
from cnnjax.settings.checking import Count, Fraction, Interval, Reader, check_keys, choice
from cnnjax.settings.code import find_code
from cnnjax.settings.functions import find_sources, is_function, load_function, read_function, split_function
from cnnjax.settings.references import Source, read_reference
from cnnjax.settings.schema import Schema, Table, flatten

_AUGMENTATIONS = {
    "crop": Interval(1, 2**15),
    "flip": None,
    "cutout": Interval(1, 2**15),
    "rotate": Interval(0, 180, open_low=True),
    "brightness": Interval(0, 1, open_low=True),
    "contrast": Interval(0, 1, open_low=True, open_high=True),
}
"""The random changes of training images, each with the range of its number."""
_IN_PIXELS = ("crop", "cutout")


def split_augmentation(name: str) -> tuple[str, float]:
    """Returns the kind of a random change of images, and its number.

    Example:
        >>> split_augmentation("crop:4"), split_augmentation("flip")
        (('crop', 4.0), ('flip', 0.0))
    """
    kind, _, number = name.partition(":")
    return kind, float(number or 0)


def _read_augmentation(value: Any, where: str) -> str:
    """Returns the normal form of a random change of images, such as ``crop:4``; raises `InputError` if it is none."""
    kind, colon, text = str(value).partition(":")
    if kind not in _AUGMENTATIONS and is_function(value):
        return read_function(value, where)
    choice(kind, _AUGMENTATIONS, where)
    interval = _AUGMENTATIONS[kind]
    if interval is None:
        if colon:
            raise InputError(f"{where}={value!r}: takes no number; must be {kind}")
        return kind
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    is_whole = kind not in _IN_PIXELS or number == math.floor(number if math.isfinite(number) else 0.5)
    if number not in interval or not is_whole:
        unit = "an integer " if kind in _IN_PIXELS else ""
        raise InputError(f"{where}={value!r}: must be {kind}:NUMBER, with {unit}{interval}")
    return f"{kind}:{number:g}"


OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "lion", "lamb")
CROSS_ENTROPY = "cross_entropy"


def _read_named(names: tuple[str, ...], value: Any, where: str) -> str:
    """Returns one of these names, or the normal form of a function of the user."""
    return read_function(value, where) if is_function(value) else str(choice(value, names, where))


_Optimizer = Annotated[str, Reader(functools.partial(_read_named, OPTIMIZERS))]
_Loss = Annotated[str, Reader(functools.partial(_read_named, (CROSS_ENTROPY,)))]
_Metrics = tuple[Annotated[str, Reader(read_function)], ...]
_PARAMETERS = {
    "optimizer": ("learning_rate", "steps"),
    "loss": ("logits", "labels"),
    "metrics": ("logits", "labels"),
    "augment": ("key", "image"),
}
"""The settings that may be functions of the user, with the parameters that the library gives them."""


@dataclass(frozen=True)
class TrainConfig(Settings):
    """The training: how many epochs, by which optimizer, at which precision.

    Raises:
        InputError: a value is not legal, or would have no effect, such as momentum with adam.

    Example:
        >>> config = TrainConfig(epochs=3, optimizer="adam", learning_rate=0.001)
        >>> config.epochs, config.batch_size
        (3, 100)
        >>> TrainConfig(epochs=0)
        Traceback (most recent call last):
            ...
        cnnjax.errors.InputError: train.epochs=0: must be >= 1 and <= 2147483647
    """

    section = "train"

    epochs: Count = 5
    """Passes over the training examples."""
    batch_size: Count = 100
    """Examples per step; the last batch of an epoch may be smaller."""
    optimizer: _Optimizer = "sgd"
    """sgd, adam, adamw, rmsprop, lion, lamb, or a function that makes an optax optimizer, such as optax:adafactor or
    nets.py:make(b1=0.95); it is given learning_rate and steps if it has such parameters."""
    learning_rate: Annotated[float, Interval(0, open_low=True)] = 0.01
    """Peak learning rate, which the schedule multiplies."""
    momentum: Fraction = 0.0
    """Momentum of sgd."""
    nesterov: bool = False
    """Nesterov's form of momentum."""
    schedule: Literal["constant", "cosine", "onecycle", "linear", "step", "restarts"] = "constant"
    """constant, cosine or linear (decay to zero), step (a tenth after 1/2 and again after 3/4 of the steps), restarts
    (cosine, restarted after 1/7 and 3/7 of the steps) or onecycle (cosine up from 1/25, then down to nearly zero)."""
    warmup: Fraction | None = None
    """Share of the steps with a rising learning rate; left out, 0.3 for onecycle and 0 otherwise."""
    weight_decay: Annotated[float, Interval(0)] = 0.0
    """Decay of the kernels: added to the gradient for sgd, adam and rmsprop, decoupled for adamw, lion and lamb."""
    clip_norm: Annotated[float, Interval(0, open_low=True)] | None = None
    """Largest norm of the gradient of a step, to which longer ones are scaled down; none leaves them."""
    average: Fraction = 0.0
    """Decay of the moving average of the parameters, such as 0.999, which is then evaluated and stored instead."""
    loss: _Loss = "cross_entropy"
    """cross_entropy, or a function of logits and labels that returns the loss of every example: nets.py:focal."""
    metrics: _Metrics = ()
    """Functions of logits and labels that are computed on the test set after training, such as nets.py:macro_f1."""
    label_smoothing: Fraction = 0.0
    """Probability mass spread evenly over all classes."""
    augment: tuple[Annotated[str, Reader(_read_augmentation)], ...] = ()
    """Random changes of training images: crop:4 (shift by up to 4 pixels), flip (left and right), cutout:8 (an empty
    square of 8 pixels), rotate:10 (degrees), brightness:0.2, contrast:0.2, or a function
    of a key and an image: nets.py:jitter; such as [crop:4, flip]."""
    normalize: Literal["scale", "standard"] = "scale"
    """scale (pixels in [0, 1]) or standard (less the mean of the training images, divided by their deviation)."""
    validation_split: Fraction = 0.0
    """Share of the training examples, the last ones, held out for validation."""
    early_stopping_patience: Count | None = None
    """Epochs without a better validation loss, after which training stops."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the layers; parameters and loss are always float32."""
    code: tuple[tuple[str, str], ...] | None = None
    """The functions of your own among these settings, each with the SHA-256 of its source; found by themselves."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("code", self._identify_code())
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
        if self.weight_decay and is_function(self.optimizer):
            raise InputError(
                f"train.weight_decay={self.weight_decay}: must be an argument of {self.optimizer}, such as "
                "optax:adamw(weight_decay=0.01)"
            )
        if self.label_smoothing and self.loss != CROSS_ENTROPY:
            raise InputError(f"train.label_smoothing={self.label_smoothing}: has no effect on the loss {self.loss}")
        twice = next((name for name, count in Counter(map(name_metric, self.metrics)).items() if count > 1), None)
        if twice:
            raise InputError(f"train.metrics: two metrics are called {twice}; must have different names")

    @property
    def functions(self) -> dict[str, str]:
        """The functions of the user among the settings, each with the setting that names it."""
        named = {"optimizer": [self.optimizer], "loss": [self.loss], "metrics": self.metrics, "augment": self.augment}
        return {text: f"train.{name}" for name, texts in named.items() for text in texts if is_function(text)}

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that are part of the run key: without later ones at their defaults, and folders of functions."""
        values = {name: value for name, value in self.to_dict().items() if value != _LATER.get(name, ...)}
        names = {
            text: text[text.rfind("/", 0, text.index(":")) + 1 :] for text in [*self.functions, *dict(self.code or ())]
        }
        return {name: _rename(value, names) for name, value in values.items()}

    def load(self, text: str) -> Callable[..., Any]:
        """Returns one of `functions`; raises `InputError` or `CodeError` as `load_function`."""
        where = self.functions[text]
        return load_function(text, _PARAMETERS[where.removeprefix("train.")], where)

    def find_code(self) -> dict[str, Source]:
        """Returns the sources of the functions by their references, as they are now."""
        return {
            name: source
            for text, where in self.functions.items()
            for name, source in find_sources([text], where).items()
        }

    def check_code(self) -> None:
        """Raises `InputError` if the source of a function is not that of these settings any more."""
        known = dict(self.code or ())
        changed = next((name for name, source in self.find_code().items() if source.sha256 != known.get(name)), None)
        if changed:
            raise InputError(f"train: the source of {changed} is not the one of this run; it has changed since")

    def _identify_code(self) -> tuple[tuple[str, str], ...] | None:
        """Returns the functions with the hashes of their source: the given hash, or else that of the source now."""
        given = dict(self.code or ())
        found = {}
        for text, where in self.functions.items():
            reference, _ = split_function(text, where)
            if reference in given:
                found[reference] = given[reference]
            else:
                self.load(text)
                found |= {name: source.sha256 for name, source in find_sources([text], where).items()}
        return tuple(sorted(found.items())) or None

    @property
    def warmup_share(self) -> float:
        """The share of the steps with a rising learning rate, in [0, 1)."""
        if self.warmup is not None:
            return self.warmup
        return 0.3 if self.schedule == "onecycle" else 0.0


def name_metric(text: str) -> str:
    """Returns the name of a metric in reports: its function with its arguments, without the file.

    Example:
        >>> name_metric("nets.py:top(k=5)")
        'top(k=5)'
    """
    return text.partition(":")[2]


def _rename(value: Any, names: Mapping[str, str]) -> Any:
    """Returns a value with these strings replaced, at any depth of its lists."""
    if isinstance(value, list):
        return [_rename(part, names) for part in value]
    return names.get(value, value) if isinstance(value, str) else value


_LATER: dict[str, Any] = {
    "clip_norm": None,
    "average": 0.0,
    "augment": [],
    "normalize": "scale",
    "loss": CROSS_ENTROPY,
    "metrics": [],
    "code": None,
}
"""Settings of the training that came later, with the defaults at which run keys leave them out, as older keys do."""


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
        values = {**self.to_dict(), "model": self.model.identity, "train": self.train.identity}
        for name in ("manual_dir", *READING):
            del values["data"][name]
        if self.data.sha256 is None:
            del values["data"]["sha256"]
        return _hash(values)

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


def split_sizes(config: RunConfig, examples: int) -> tuple[int, int]:
    """Returns the numbers of examples for training and for validation.

    Of the training examples of the dataset, the first ones are used for training and the last ones for validation. The
    validation examples do not depend on `train_size`, so the points of a learning curve are comparable.

    Args:
        config: the run.
        examples: number of training examples of the dataset.

    Raises:
        InputError: a part would be empty, `train_size` is larger than the first part, or the run has 2**31 steps or
            more.

    Example:
        >>> split_sizes(RunConfig(train=TrainConfig(validation_split=0.1)), examples=60000)
        (54000, 6000)
    """
    # The product is rounded before the floor, as 60000 * (1 - 0.9) is slightly below 6000 in floating point.
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
