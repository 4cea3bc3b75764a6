"""What to run: frozen dataclasses that refuse what cannot exist, and the key that names a run.

A `RunConfig` says everything that can change a result. Every value is checked where it is set and brought to one normal
form, so configurations that mean the same are equal and share a run key; they travel as dicts, JSON and TOML. The
defaults are the textbook network and its training. Nothing here imports JAX.
"""

import functools
import hashlib
import json
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from cnnjax.blocks import Activation, Padding, Pair, Pixels, Pool, Size, collapse, expand, read_padding, read_window
from cnnjax.dataset_names import parse_name
from cnnjax.errors import InputError
from cnnjax.rules import Interval, check, choice
from cnnjax.settings import Settings

Count = Annotated[int, Interval(1, 2**31 - 1)]
Fraction = Annotated[float, Interval(0, 1, open_high=True)]


@dataclass(frozen=True)
class Block:
    """One convolution block in full: convolution, batch normalisation if asked for, activation, pooling."""

    filters: int
    kernel_size: Pair
    strides: Pair
    padding: Literal["valid", "same"] | Pixels
    activation: str
    pool: str
    pool_size: Pair
    pool_strides: Pair


@dataclass(frozen=True)
class ModelConfig(Settings):
    """The network: convolution blocks, then hidden dense layers, then the classifier.

    A setting of the blocks is one value for all of them, or a list with one entry per block.
    """

    section = "model"

    filters: tuple[int, ...] = field(default=(32, 64), metadata={"own_check": True})
    """Filters of each convolution block; [] is a dense network on the pixels."""
    kernel_size: Size | tuple[Size, ...] = field(default=5, metadata={"own_check": True})
    """Window of the convolution: 5, or one entry per block such as [5, 3] or [[5, 3], [3, 3]]."""
    strides: Size | tuple[Size, ...] = field(default=1, metadata={"own_check": True})
    """Strides of the convolution, written as kernel_size is."""
    padding: Padding | tuple[Padding, ...] = field(default="valid", metadata={"own_check": True})
    """valid, same, pixels on every side, or [[[top, bottom], [left, right]], ...] with one entry per block."""
    activation: Activation | tuple[Activation, ...] = field(default="relu", metadata={"own_check": True})
    """relu, leaky_relu, elu, gelu, silu, tanh, sigmoid or linear; hidden dense layers take the last block's."""
    pool: Pool | tuple[Pool, ...] = field(default="max", metadata={"own_check": True})
    """max, avg or none, after the activation."""
    pool_size: Size | tuple[Size, ...] = field(default=2, metadata={"own_check": True})
    """Window of the pooling, written as kernel_size is."""
    pool_strides: Size | tuple[Size, ...] | None = field(default=None, metadata={"own_check": True})
    """Strides of the pooling; left out, they equal pool_size."""
    dense: tuple[int, ...] = field(default=(), metadata={"own_check": True})
    """Widths of the hidden dense layers."""
    dropout: Fraction = 0.0
    """Rate of dropout before every dense layer."""
    batch_norm: bool = False
    """Batch normalisation before every hidden activation (momentum 0.99, epsilon 0.001)."""
    use_bias: bool = True
    """A bias in every convolution and dense layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("filters", _read_widths(self.filters, "model.filters"))
        self._set("dense", _read_widths(self.dense, "model.dense"))
        blocks = self.blocks
        for name in ("kernel_size", "strides", "padding", "pool", "pool_size", "pool_strides"):
            self._set(
                name, collapse([getattr(block, name) for block in blocks]) if blocks else getattr(type(self), name)
            )
        if all(block.pool_strides == block.pool_size for block in blocks):
            self._set("pool_strides", None)
        activations: tuple[str, ...] = (*(block.activation for block in blocks), self.dense_activation)
        if not blocks and not self.dense:
            activations = ("relu",)
            self._set("batch_norm", False)
        self._set("activation", collapse(activations) if len(set(activations)) == 1 else activations[:-1])

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The convolution blocks, each with its settings in full; pooling that is absent has the default window."""

        def entries(name: str, read: Callable[[Any, str], Any]) -> tuple[Any, ...]:
            return expand(getattr(self, name), len(self.filters), read, f"model.{name}")

        pools = entries("pool", _read_pool)
        pool_sizes = entries("pool_size", read_window)
        columns = (
            self.filters,
            entries("kernel_size", read_window),
            entries("strides", read_window),
            entries("padding", read_padding),
            entries("activation", _read_activation),
            pools,
            _where_pooled(pool_sizes, pools),
            _where_pooled(pool_sizes if self.pool_strides is None else entries("pool_strides", read_window), pools),
        )
        return tuple(Block(*settings) for settings in zip(*columns, strict=True))

    @property
    def dense_activation(self) -> str:
        """The activation of the hidden dense layers: the last block's, or the single value where there is no block."""
        if self.blocks:
            return self.blocks[-1].activation
        return _read_activation(self.activation, "model.activation")


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
class DataConfig(Settings):
    """The images."""

    section = "data"

    name: str = "mnist"
    """mnist (bundled), or the name of any TensorFlow Datasets set of labelled images."""
    train_size: Count | None = None
    """Train on the first so many examples; left out, on all."""
    manual_dir: str | None = None
    """Folder of files that TensorFlow Datasets prepares a set from; not part of the run key."""

    sha256: str | None = None
    """Content hash of images that were handed over in Python, which their name alone does not tell from others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_name(self.name)
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise InputError(f"data.sha256={self.sha256!r}: must be 64 hexadecimal digits, in lower case")

    @property
    def source(self) -> tuple[str, str | None]:
        """Which images they are."""
        return self.name, self.sha256

    @property
    def whole(self) -> "DataConfig":
        """The whole dataset, of which a run may train on a part only."""
        return replace(self, train_size=None)


@dataclass(frozen=True)
class RunConfig(Settings):
    """One run: the network, its training, its images and the seed of all randomness."""

    model: ModelConfig = field(default_factory=ModelConfig, metadata={"own_check": True})
    train: TrainConfig = field(default_factory=TrainConfig, metadata={"own_check": True})
    data: DataConfig = field(default_factory=DataConfig, metadata={"own_check": True})
    seed: Annotated[int, Interval(0, 2**32 - 1)] = 0
    """Seed of initialisation, data order and dropout."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kind in (("model", ModelConfig), ("train", TrainConfig), ("data", DataConfig)):
            if not isinstance(getattr(self, name), kind):
                raise InputError(f"{name}: must be a {kind.__name__}, not {type(getattr(self, name)).__name__}")

    @functools.cached_property
    def key(self) -> str:
        """The run key: SHA-256, in 64 hexadecimal digits, of the canonical JSON of all that can change the result."""
        values = self.to_dict()
        del values["data"]["manual_dir"]
        if self.data.sha256 is None:
            del values["data"]["sha256"]
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def _read_widths(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{where}={value!r}: must be a list of integers, such as [32, 64]")
    return tuple(check(width, Count, f"{where}[{index}]") for index, width in enumerate(value))


def _read_activation(value: Any, where: str) -> str:
    return choice(value, typing.get_args(Activation), where)  # type: ignore[no-any-return]


def _read_pool(value: Any, where: str) -> str:
    return choice(value, typing.get_args(Pool), where)  # type: ignore[no-any-return]


def _where_pooled(windows: tuple[Pair, ...], pools: tuple[str, ...]) -> tuple[Pair, ...]:
    return tuple(window if pool != "none" else (2, 2) for window, pool in zip(windows, pools, strict=True))
