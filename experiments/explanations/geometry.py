"""Pictures that need no stored run: a sliding window, pooling, and the tensors between layers. No JAX here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np

from cnnjax.console.arguments import Assignments, Option
from cnnjax.console.tables import align_right
from cnnjax.data.loading import load_info
from cnnjax.errors import InputError
from cnnjax.inspection.sliding import SEVEN, Sliding, pool, slide
from cnnjax.models.cnn import ModelConfig
from cnnjax.runs.summary import summarize
from cnnjax.settings.blocks import Padding, Size, read_padding, read_window
from experiments.explanations import Explanation, PictureArguments, name_option


@dataclass(frozen=True)
class PoolingArguments(PictureArguments):
    """Shows a 12 x 12 image of the digit 7 before and after pooling::

    python -m experiments.explain pooling --pool avg --pool-size 3

    A list is a height and a width: --pool-size '[2, 3]'.
    """

    pool: Literal["max", "avg"] = "max"
    """max or avg."""
    pool_size: Size = 2
    """Size of the pooling window."""
    pool_strides: Size | None = None
    """Steps of the window; by default equal to --pool-size."""


def explain_pooling(arguments: PoolingArguments) -> Explanation:
    """Returns the digit before and after pooling, as text and as a picture.

    Raises:
        InputError: the window is larger than the image, or a value is not valid.
    """
    pool_size = read_window(arguments.pool_size, "--pool-size")
    strides = arguments.pool_strides
    pool_strides = None if strides is None else read_window(strides, "--pool-strides")
    from cnnjax.figures.geometry import draw_pooling

    with name_option(f"--pool-size={arguments.pool_size}"):
        pooling = pool(SEVEN, arguments.pool, pool_size, pool_strides)
    text = "\n\n".join([pooling.describe(), _write_values(pooling.picture), _write_values(pooling.pooled)])
    values = {"picture": SEVEN.tolist(), "pooled": pooling.pooled.tolist()}
    return Explanation(text, values, {"pooling": draw_pooling(pooling)})


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Returns words on the grid of an image, whose columns are equally wide."""
    return align_right(rows, gap=1, equal=True)


def _write_values(values: np.ndarray) -> str:
    return _align([["." if value == 0 else f"{value:.2g}" for value in row] for row in values])


LARGEST = 64
"""Largest side of an image, and widest padding, that is drawn, in pixels."""
MOST_LISTED = 36
"""Largest number of windows whose pixels are printed."""


@dataclass(frozen=True)
class WindowArguments(PictureArguments):
    """Shows a window sliding over an image of numbered pixels, with one letter for every output of the window::

    python -m experiments.explain window --size 5 --kernel-size 3 --strides 2

    A list is a height and a width: --size '[5, 7]'.
    """

    size: Size = 5
    """Size of the image, in pixels."""
    kernel_size: Annotated[Size, Option(aliases=("--kernel",))] = 3
    """Size of the window, in pixels."""
    strides: Size = 1
    """Steps of the window."""
    padding: Padding = "valid"
    """valid, same, pixels on every side, or [[top, bottom], [left, right]]."""


def explain_window(arguments: WindowArguments) -> Explanation:
    """Returns the window at all its positions, as text and as a picture.

    Raises:
        InputError: the window is larger than the padded image, the image is too large to draw, or a value is not valid.
    """
    size, kernel_size, strides = (
        read_window(value, option)
        for value, option in (
            (arguments.size, "--size"),
            (arguments.kernel_size, "--kernel-size"),
            (arguments.strides, "--strides"),
        )
    )
    padding = read_padding(arguments.padding, "--padding")
    if max(size) > LARGEST:
        raise InputError(f"--size={arguments.size}: must be at most {LARGEST} pixels a side to be drawn")
    if not isinstance(padding, str) and max(map(max, padding)) > LARGEST:
        raise InputError(f"--padding={arguments.padding}: must be at most {LARGEST} pixels a side to be drawn")
    from cnnjax.figures.geometry import draw_window

    with name_option(f"--kernel-size={arguments.kernel_size}"):
        sliding = slide(size, kernel_size, strides, padding)
    return Explanation(_describe_window(sliding), _list_values(sliding), {"window": draw_window(sliding)})


def _list_values(sliding: Sliding) -> dict[str, Any]:
    positions = [(row, column) for row in range(sliding.output[0]) for column in range(sliding.output[1])]
    windows = {sliding.letters[row][column]: sliding.see((row, column)).tolist() for row, column in positions}
    return {"output_shape": [*sliding.output], "letters": sliding.letters, "windows": windows}


def _describe_window(sliding: Sliding) -> str:
    image = _align([[str(value) for value in row] for row in sliding.padded.tolist()])
    parts = [sliding.describe(), image, _align(sliding.letters)]
    windows = _list_values(sliding)["windows"]
    if len(windows) <= MOST_LISTED:
        lines = ([name, *(" ".join(map(str, row)) for row in seen)] for name, seen in windows.items())
        parts.append("\n".join(f"{name}: {' / '.join(rows)}" for name, *rows in lines))
    return "\n\n".join(parts)


@dataclass(frozen=True)
class StackArguments(PictureArguments):
    """Shows the shapes of the tensors from layer to layer::

    python -m experiments.explain stack --model.padding same

    The options --model.* are those of experiments.train.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    set: Assignments = ()
    """A setting, such as model.padding=same: another way to write --model.padding same. May be repeated."""
    data: Annotated[str, Option(name="data.name")] = "mnist"
    """Dataset that gives the size of the images: mnist, or a name from TensorFlow Datasets."""
    without_classifier: bool = False
    """Stop after the last convolution block."""


def explain_stack(arguments: StackArguments) -> Explanation:
    """Returns the layer table, and the stack of tensors as a picture.

    Raises:
        InputError: the network does not fit the images of the dataset.
    """
    from cnnjax.figures.geometry import draw_stack

    info = load_info(arguments.data)
    summary = summarize(arguments.model, info.image_shape, None if arguments.without_classifier else info.classes)
    title = f"from an image of {info.name} to its classes: {summary.parameters:,} parameters"
    if arguments.without_classifier:
        title = f"from an image of {info.name} to the last maps: {summary.parameters:,} parameters"
    figure = draw_stack(info.image_shape, summary.layers, title)
    values = {"image_shape": list(info.image_shape), **summary.to_dict()}
    return Explanation(str(summary), values, {"stack": figure})
