"""The settings of the training: epochs, optimizer, loss, metrics, random changes of images, precision.

Optimizer, loss, metrics and changes may be functions of the user, by import path. Nothing here imports JAX.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cnnjax.errors import InputError
from cnnjax.settings import Settings
from cnnjax.settings.checking import Count, Fraction, Interval, Reader, choice
from cnnjax.settings.functions import (
    complete_function,
    find_function_source,
    is_function,
    load_function,
    read_function,
    split_function,
)
from cnnjax.settings.references import Source, describe_package, strip_folder

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
_INSTALLED = "installed"
_TAKEN = ("accuracy", "loss", "test", "validation")
"""Names that no metric of the user may have."""


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
    later = ("clip_norm", "average", "augment", "normalize", "loss", "metrics", "code")
    internal = ("code",)

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
    """The import paths of functions of the user among these settings, each with the SHA-256 of its source, or with
    ``installed`` for one of an installed package."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._complete_functions()
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
        names = [name_metric(text) for text in self.metrics]
        taken = next((name for name in names if name in _TAKEN), None)
        if taken:
            raise InputError(f"train.metrics: a metric cannot be called {taken}, as {', '.join(_TAKEN)} have a meaning")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise InputError(f"train.metrics: two metrics are called {twice}; must have different names")

    @property
    def functions(self) -> tuple[tuple[str, str], ...]:
        """The functions of the user: the setting, such as ``loss``, and the function with its arguments."""
        named = (("optimizer", self.optimizer), ("loss", self.loss))
        listed = ((name, text) for name in ("augment", "metrics") for text in getattr(self, name))
        return tuple((name, text) for name, text in (*named, *listed) if is_function(text))

    @property
    def references(self) -> tuple[str, ...]:
        """The import paths of these functions."""
        return tuple(split_function(text, f"train.{name}")[0] for name, text in self.functions)

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that are part of the run key; functions are named without the folders of their files."""
        sources = [[reference, source] for reference, source in self.code or () if source != _INSTALLED]
        texts = [*(text for _, text in self.functions), *dict(self.code or ())]
        return {
            name: _rename(value, {text: strip_folder(text) for text in texts})
            for name, value in {**super().identity, "code": sources}.items()
            if value or name != "code"
        }

    def load(self, name: str, text: str) -> Callable[..., Any]:
        """Returns one of `functions`; raises `InputError` or `CodeError` as `load_function`."""
        where = f"train.{name}"
        source = dict(self.code or ()).get(split_function(text, where)[0], "")
        return load_function(text, _PARAMETERS[name], where, source)

    def find_code(self) -> dict[str, Source]:
        """Returns the sources of the functions by their import paths, as they are now."""
        found = {
            split_function(text, name)[0]: find_function_source(text, f"train.{name}") for name, text in self.functions
        }
        return {reference: source for reference, source in found.items() if source}

    def describe_code(self) -> dict[str, Any]:
        """Returns the texts of the functions by import path, with their hash, as JSON values; of packages, the version.

        Example:
            >>> TrainConfig(metrics=["math:isclose"]).describe_code()["math:isclose"]["package"]
            'python'
        """
        sources = self.find_code()
        references = {split_function(text, name)[0] for name, text in self.functions}
        return {
            reference: sources[reference].to_dict() if reference in sources else describe_package(reference)
            for reference in sorted(references)
        }

    def check_code(self) -> None:
        """Raises `InputError` if the source of a function is not that of these settings any more."""
        known = dict(self.code or ())
        changed = next((name for name, source in self.find_code().items() if source.sha256 != known.get(name)), None)
        if changed:
            raise InputError(f"train: the source of {changed} is not the one of this run; it has changed since")

    def _complete_functions(self) -> None:
        """Brings the functions to their normal form, and keeps the hash of the source of each.

        A function whose hash is given, as in a stored configuration, is taken as it is.
        """
        known = dict(self.code or ())
        found = {}

        def complete(name: str, text: str) -> str:
            reference, _ = split_function(text, f"train.{name}")
            if reference in known:
                found[reference] = known[reference]
                return text
            completed = complete_function(text, _PARAMETERS[name], f"train.{name}")
            source = find_function_source(text, f"train.{name}")
            found[reference] = source.sha256 if source else _INSTALLED
            return completed

        texts = {(name, text): complete(name, text) for name, text in self.functions}
        for name in _PARAMETERS:
            value = getattr(self, name)
            is_list = isinstance(value, tuple)
            completed = tuple(texts.get((name, text), text) for text in (value if is_list else (value,)))
            self._set(name, completed if is_list else completed[0])
        self._set("code", tuple(sorted(found.items())) or None)

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
