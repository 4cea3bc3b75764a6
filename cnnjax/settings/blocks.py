"""Settings of convolution blocks: one value for all blocks, or a list with one entry per block.

An entry is the value for one block. A window or stride is an integer (square) or a pair ``[height, width]``. A padding
is ``valid``, ``same``, a number of pixels on every side, or ``[[top, bottom], [left, right]]``. A list always has one
entry per block, so for two blocks a rectangular window is written ``[[5, 3], [5, 3]]``. `expand` returns the entry of
every block in full form. `collapse` returns the shortest value for given entries, so that equal networks have equal
configurations.
"""

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

from cnnjax.errors import InputError
from cnnjax.settings.checking import Reader, choice, near_match, plural, show

Size: TypeAlias = int | tuple[int, int]
Pair: TypeAlias = tuple[int, int]
Pixels: TypeAlias = tuple[Pair, Pair]
Padding: TypeAlias = Literal["valid", "same"] | int | Pixels
Activation: TypeAlias = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "linear"]
Pool: TypeAlias = Literal["max", "avg", "none"]
Groups: TypeAlias = int | Literal["depthwise"]

Entry = TypeVar("Entry")
_LARGEST = 2**16
"""Largest window, stride or padding, in pixels."""


def expand(value: Any, count: int, read: Callable[[Any, str], Entry], where: str) -> tuple[Entry, ...]:
    """Returns the entries of all blocks in full form.

    Args:
        value: one value for all blocks, or a list with one entry per block.
        count: number of blocks.
        read: checks an entry and returns its full form; it takes the entry and its name for messages.
        where: name of the setting, such as ``model.padding``, for messages.

    Raises:
        InputError: the list has not one entry per block, or an entry is not legal.

    Example:
        >>> expand(5, 2, read_window, "model.kernel_size")
        ((5, 5), (5, 5))
    """
    if not isinstance(value, list | tuple):
        return (read(value, where),) * count
    if len(value) != count:
        raise InputError(
            f"{where}={show(value)}: a list has one entry per block, but it has {len(value)} for {count} "
            f"{plural('block', count)} of model.filters"
        )
    return tuple(read(entry, f"{where}[{index}]") for index, entry in enumerate(value))


def per_block(read: Callable[[Any, str], Any]) -> Reader:
    """Returns the reader of a setting that has one value for all blocks, or a list with any number of entries.

    Every entry is checked by `read`, which is that of `expand`, and returned in its shortest form.
    """

    def read_entries(value: Any, where: str) -> Any:
        if not isinstance(value, list | tuple):
            return _shorten(read(value, where))
        return tuple(_shorten(read(entry, f"{where}[{index}]")) for index, entry in enumerate(value))

    return Reader(read_entries)


def collapse(entries: Sequence[Any]) -> Any:
    """Returns the shortest value that `expand` turns into `entries`.

    Example:
        >>> collapse([(5, 5), (5, 5)]), collapse([(5, 3), (5, 5)])
        (5, ((5, 3), 5))
    """
    short = tuple(_shorten(entry) for entry in entries)
    if len(set(short)) == 1 and not isinstance(short[0], tuple):
        return short[0]
    return short


def read_window(entry: Any, where: str) -> Pair:
    """Reads a window or stride as ``(height, width)``, each at least 1."""
    return _read_pair(entry, where, 1)


def read_padding(entry: Any, where: str) -> Literal["valid", "same"] | Pixels:
    """Reads a padding as ``valid``, ``same`` or ``((top, bottom), (left, right))``; zero pixels are ``valid``."""
    if isinstance(entry, str) and entry in ("valid", "same"):
        return entry  # type: ignore[return-value]
    if _is_integer(entry):
        rows = columns = _read_pair(entry, where, 0)
    elif isinstance(entry, list | tuple) and len(entry) == 2 and all(isinstance(e, list | tuple) for e in entry):
        rows, columns = (_read_pair(e, where, 0) for e in entry)
    else:
        raise InputError(
            f"{where}={show(entry)}: must be valid, same, a number of pixels, or [[top, bottom], [left, right]]"
            f"{near_match(entry, ('valid', 'same'))}"
        )
    return "valid" if (rows, columns) == ((0, 0), (0, 0)) else (rows, columns)


def read_activation(entry: Any, where: str) -> str:
    """Reads the name of an activation."""
    return choice(entry, get_args(Activation), where)  # type: ignore[no-any-return]


def read_pool(entry: Any, where: str) -> str:
    """Reads the name of a pooling."""
    return choice(entry, get_args(Pool), where)  # type: ignore[no-any-return]


def read_groups(entry: Any, where: str) -> Groups:
    """Reads a number of groups of channels, or ``depthwise``: one group per input channel."""
    if entry == "depthwise":
        return "depthwise"
    if not _is_integer(entry) or not 1 <= entry <= _LARGEST:
        raise InputError(
            f"{where}={show(entry)}: must be depthwise, or an integer >= 1 and <= {_LARGEST}"
            f"{near_match(entry, ('depthwise',))}"
        )
    return int(entry)


Sizes: TypeAlias = Annotated[Size | tuple[Size, ...], per_block(read_window)]
Paddings: TypeAlias = Annotated[Padding | tuple[Padding, ...], per_block(read_padding)]
Activations: TypeAlias = Annotated[Activation | tuple[Activation, ...], per_block(read_activation)]
Pools: TypeAlias = Annotated[Pool | tuple[Pool, ...], per_block(read_pool)]
GroupCounts: TypeAlias = Annotated[Groups | tuple[Groups, ...], per_block(read_groups)]


def dilate(window: Pair, dilation: Pair) -> Pair:
    """Returns the height and width that a window spans if its positions are `dilation` pixels apart.

    Example:
        >>> dilate((3, 5), (2, 1))
        (5, 5)
    """
    rows, columns = ((size - 1) * gap + 1 for size, gap in zip(window, dilation, strict=True))
    return (rows, columns)


def pad_pixels(padding: str | Pixels, size: Pair, window: Pair, strides: Pair) -> Pixels:
    """Returns the padding in pixels, ``((top, bottom), (left, right))``, of an image of `size` (height, width).

    ``same`` gives ``ceil(size / stride)`` outputs; if the padding is odd, the extra pixel is at the bottom or right, as
    in TensorFlow.

    Example:
        >>> pad_pixels("same", size=(28, 28), window=(5, 2), strides=(1, 1))
        ((2, 2), (0, 1))
    """
    if padding == "valid":
        return ((0, 0), (0, 0))
    if padding == "same":
        rows, columns = (_same_pixels(s, w, t) for s, w, t in zip(size, window, strides, strict=True))
        return (rows, columns)
    assert not isinstance(padding, str)
    return padding


def _same_pixels(size: int, window: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(size / stride) - 1) * stride + window - size, 0)
    return (total // 2, total - total // 2)


def _read_pair(entry: Any, where: str, low: int) -> Pair:
    pair = (entry, entry) if _is_integer(entry) else entry
    is_pair = isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_is_integer, pair))
    if not is_pair or not all(low <= size <= _LARGEST for size in pair):
        legal = f"an integer >= {low} and <= {_LARGEST}"
        raise InputError(f"{where}={show(entry)}: must be {legal}, or a pair of them in a list per block")
    return (int(pair[0]), int(pair[1]))


def _shorten(entry: Any) -> Any:
    if isinstance(entry, tuple):
        first, second = (_shorten(part) for part in entry)
        return first if first == second and not isinstance(first, tuple) else entry
    return entry


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
