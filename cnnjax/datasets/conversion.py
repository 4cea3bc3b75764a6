"""Arrays as people have them, taken as what they plainly are: uint8 images and int32 labels.

Whole numbers in 0..255 are pixels whatever their dtype, and so are floats in [0, 1] that are multiples of 1/255. Images
without channels are grey. What would have to be guessed, such as images that were normalised, is refused.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnjax.errors import InputError

_MOST_CHANNELS = 4
_CLOSE = 1e-3
"""Distance of a pixel from a whole number that rounding explains; of float16, which is coarser, `_ROUNDING` of 255."""
_ROUNDING = float(np.finfo(np.float16).eps)


def read_images(value: Any) -> NDArray[np.uint8]:
    """Returns images as uint8 (n, height, width, channels); those that are it already are not copied.

    Raises:
        InputError: another shape, or values that are no pixels.
    """
    images = _read_array(value, "images")
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or not 1 <= images.shape[3] <= _MOST_CHANNELS:
        raise InputError(
            f"images are {images.dtype} {images.shape}; they must be (n, height, width), or with 1 to {_MOST_CHANNELS} "
            "channels (n, height, width, channels)"
        )
    if images.dtype == np.uint8 or images.size == 0:
        return images.astype(np.uint8, copy=False)
    low, high = images.min(), images.max()
    scaled = images * np.float32(255) if images.dtype.kind == "f" and high <= 1 else images
    pixels = np.round(scaled) if images.dtype.kind == "f" else scaled
    close = 255 * _ROUNDING if images.dtype == np.float16 else _CLOSE
    if images.dtype.kind not in "iuf" or not (low >= 0 and high <= 255) or np.abs(scaled - pixels).max() > close:
        raise InputError(
            f"images are {images.dtype} in [{low}, {high}]; they must be whole numbers in 0..255, "
            "or multiples of 1/255 in [0, 1]"
        )
    return pixels.astype(np.uint8)


def read_labels(value: Any) -> NDArray[np.int32]:
    """Returns labels as int32 (n,); those that are it already are not copied.

    Raises:
        InputError: another shape, no integers, or integers that int32 does not hold.
    """
    labels = _read_array(value, "labels")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        raise InputError(f"labels are {labels.dtype} {labels.shape}; they must be (n,): one class number an image")
    if labels.ndim != 1 or (labels.dtype.kind not in "iu" and labels.size):
        raise InputError(f"labels are {labels.dtype} {labels.shape}; they must be integers (n,)")
    limits = np.iinfo(np.int32)
    if labels.size and not (labels.min() >= limits.min and labels.max() <= limits.max):
        raise InputError(f"labels are in [{labels.min()}, {labels.max()}]; they must be in 0..{limits.max}")
    return labels.astype(np.int32, copy=False)


def _read_array(value: Any, what: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = value if isinstance(value, np.ndarray) else np.asarray(value)  # a memmap stays one
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{what} are no array of numbers: {error}") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what} are {array.dtype} {array.shape}; they must be numbers")
    return array
