"""Picture files, decoded within limits of size and memory. No JAX here."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnjax.errors import InputError
from cnnjax.machine.files import read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 2**28
"""Bytes of the largest file that is read."""
MOST_PIXELS = 50_000_000
"""Pixels of the largest picture that is decoded."""
LONGEST_SIDE = 16_384
"""Pixels of the longest side that is decoded."""
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")


def open_picture(path: Path) -> "Image":
    """Returns a picture upright, in mode ``L``, ``LA``, ``RGB`` or ``RGBA``; of several frames the first.

    Raises:
        InputError: the file cannot be read, or it is not a whole picture, or a very large one. The message says what is
            wrong; the caller adds the name of the file.
    """
    from PIL import Image, ImageOps

    # From memory: given a file, Pillow would allocate as many bytes as a damaged length field asks for.
    content = io.BytesIO(read_bytes(path, MOST_BYTES))
    try:
        with Image.open(content, formats=FORMATS) as file:
            size = f"{file.width} x {file.height}"
            if file.width * file.height > MOST_PIXELS:
                raise InputError(f"is {size} pixels; must be at most {MOST_PIXELS:,} in all")
            if max(file.size) > LONGEST_SIDE:  # it may be made square
                raise InputError(f"is {size} pixels; must be at most {LONGEST_SIDE:,} on a side")
            picture: Image.Image = ImageOps.exif_transpose(file)
            return picture.convert(_choose_mode(picture)) if picture.mode[0] not in "IF" else _scale(picture)
    except InputError:
        raise
    except Exception:  # decoders raise nearly any error on damaged files
        legal = ", ".join(FORMATS[:-1]) + f" or {FORMATS[-1]}"
        raise InputError(f"cannot be read: it must be {legal}, and whole") from None


def _choose_mode(picture: "Image") -> str:
    if picture.mode == "P":
        palette = np.array(picture.getpalette() or [0, 0, 0]).reshape(-1, 3)
        is_grey = not (palette != palette[:, :1]).any()
    else:
        is_grey = picture.mode in ("1", "L", "LA", "La")
    has_opacity = "A" in picture.mode.upper() or "transparency" in picture.info
    return ("L" if is_grey else "RGB") + ("A" if has_opacity else "")


def _scale(picture: "Image") -> "Image":
    """Returns a picture of 16 bits per pixel, or of floats, with 8 bits per pixel."""
    from PIL import Image

    values = np.asarray(picture)
    pixels = values if picture.mode.startswith("F") else values.astype(np.int64) >> 8
    return Image.fromarray(np.nan_to_num(pixels).clip(0, 255).astype(np.uint8))
