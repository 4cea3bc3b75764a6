"""A window sliding over a numbered image: no run, no JAX."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cnnjax.blocks import Padding, Size, read_padding, read_window
from cnnjax.errors import InputError
from experiments.explanations.pictures import Explanation, PictureArguments, align, blamed
from experiments.options import Option

if TYPE_CHECKING:
    from cnnjax.inspection.sliding import Sliding

LARGEST = 64
MOST_LISTED = 36
"""Windows whose pixels are listed as text."""


@dataclass(frozen=True)
class WindowArguments(PictureArguments):
    """Shows a window sliding over a numbered image: every output has the letter of the window that made it::

    python -m experiments.explain window --size 5 --kernel-size 3 --strides 2

    A list is a height and a width: --size '[5, 7]'.
    """

    size: Size = 5
    """Of the image, in pixels."""
    kernel_size: Annotated[Size, Option(aliases=("--kernel",))] = 3
    """Of the window."""
    strides: Size = 1
    """Steps of the window."""
    padding: Padding = "valid"
    """valid, same, pixels on every side, or [[top, bottom], [left, right]]."""


def explain_window(arguments: WindowArguments) -> Explanation:
    """Returns the window at all its places, as letters and as a picture."""
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
    from cnnjax.figures.sliding import draw_window
    from cnnjax.inspection.sliding import slide

    with blamed(f"--kernel-size={arguments.kernel_size}"):
        sliding = slide(size, kernel_size, strides, padding)
    return Explanation(_write(sliding), _list_values(sliding), {"window": draw_window(sliding)})


def _list_values(sliding: "Sliding") -> dict[str, Any]:
    places = [(row, column) for row in range(sliding.output[0]) for column in range(sliding.output[1])]
    windows = {sliding.letters[row][column]: sliding.see((row, column)).tolist() for row, column in places}
    return {"output_shape": [*sliding.output], "letters": sliding.letters, "windows": windows}


def _write(sliding: "Sliding") -> str:
    image = align([[str(value) for value in row] for row in sliding.padded.tolist()])
    parts = [sliding.describe(), image, align(sliding.letters)]
    windows = _list_values(sliding)["windows"]
    if len(windows) <= MOST_LISTED:
        lines = ([name, *(" ".join(map(str, row)) for row in seen)] for name, seen in windows.items())
        parts.append("\n".join(f"{name}: {' / '.join(rows)}" for name, *rows in lines))
    return "\n\n".join(parts)
