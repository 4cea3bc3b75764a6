"""A picture of the user's own, made into an image as the network knows them. No JAX here.

Its transparent pixels get a background, it is made as long as it is wide as the dataset's images are (bands in the
colour of its border fill what is missing), shrunk with antialiasing, and inverted where the dataset's images are light
on dark and it is dark on light. Whatever was done to it is said.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnjax.errors import InputError
from cnnjax.machine.files import read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 2**28
"""The largest file."""
MOST_PIXELS = 50_000_000
LONGEST_SIDE = 16_384
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_DARK, _LIGHT = 64, 191
"""Mean of a border that is dark, or light, of 255."""
_TYPICAL = 0.9
"""Share of a dataset's images whose border must be dark for it to be light on dark."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture as the network is given it, uint8 (height, width, channels), and what was done to it, a line each."""

    pixels: np.ndarray
    remarks: tuple[str, ...]


def read_photo(path: Path, image_shape: tuple[int, ...], examples: np.ndarray, invert: bool | None = None) -> Photo:
    """Reads a picture from a file.

    Args:
        path: of a PNG, JPEG, BMP, GIF or WebP file, of any size.
        image_shape: (height, width, channels) of the dataset.
        examples: images of the dataset, uint8 (n, height, width, channels), by which it is known whether they are light
            on dark.
        invert: whether light and dark are exchanged; ``None`` decides by the border.

    Raises:
        InputError: there is no such file, or it is not a picture, or a very large one.
    """
    height, width, channels = image_shape
    opened = _open(path)
    said = [f"{opened.width} x {opened.height} pixels, made {width} x {height}"]
    if channels in (1, 3) and opened.mode == "RGBA":
        opened, background = _fill_transparency(opened)
        said += [f"its transparent pixels were taken as {background}"] if background else []
    fitted = _widen(opened.convert(_MODES[channels]), width / height)
    if fitted.size != opened.size:
        said.append("bands were added at its sides to keep its proportions")
    from PIL.Image import Resampling

    pixels = np.asarray(fitted.resize((width, height), Resampling.LANCZOS)).reshape(image_shape)
    is_decided = invert is None
    if invert if invert is not None else needs_inversion(pixels, examples):
        pixels = _invert(pixels)
        reason = ": its border is on the other side of grey than the dataset's" if is_decided else ""
        said.append(f"light and dark were exchanged{reason}")
    else:
        said.append("light and dark were left as they are")
    return Photo(pixels, tuple(said))


def needs_inversion(pixels: np.ndarray, examples: np.ndarray) -> bool:
    """Whether a grey picture is dark on light where the dataset is light on dark, or the other way round.

    Args:
        pixels: of the picture, uint8 (height, width, channels).
        examples: of the dataset, uint8 (n, height, width, channels); where their borders vary, as those of photographs
            do, or where they have colours, nothing is inverted.
    """
    if pixels.shape[-1] > 2:
        return False
    own, others = _measure_border(pixels[np.newaxis])[0], _measure_border(examples)
    dark_ground, light_ground = np.mean(others < _DARK) >= _TYPICAL, np.mean(others > _LIGHT) >= _TYPICAL
    return bool((dark_ground and own > 127.5) or (light_ground and own < 127.5))


def _measure_border(images: np.ndarray) -> np.ndarray:
    """Returns the mean brightness of the outermost pixels of each image, float (n,)."""
    grey = images[..., 0]
    edges = (grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1])
    return np.concatenate(edges, 1).mean(1)  # type: ignore[no-any-return]


def _invert(pixels: np.ndarray) -> np.ndarray:
    inverted = 255 - pixels
    if pixels.shape[-1] in (2, 4):
        inverted[..., -1] = pixels[..., -1]
    return inverted


def _open(path: Path) -> "Image":
    """Returns the picture upright, in one of the modes L, RGB and RGBA."""
    from PIL import Image, ImageOps

    try:
        content = read_bytes(path, MOST_BYTES)
    except InputError as error:
        raise InputError(f"--image {path}: {error}") from None
    try:
        # From memory: Pillow allocates what a damaged file says the length of a piece is before it reads the piece.
        with Image.open(io.BytesIO(content), formats=FORMATS) as file:
            if file.width * file.height > MOST_PIXELS:
                size = f"{file.width} x {file.height}"
                raise InputError(f"--image {path}: is {size} pixels; must be at most {MOST_PIXELS:,} in all")
            if max(file.size) > LONGEST_SIDE:  # for it is made as wide as it is high
                size = f"{file.width} x {file.height}"
                raise InputError(f"--image {path}: is {size} pixels; must be at most {LONGEST_SIDE:,} on a side")
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16 bits a pixel
                return Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
            has_opacity = "A" in picture.mode or "transparency" in picture.info
            return picture.convert("RGBA" if has_opacity else "L" if picture.mode in ("1", "L") else "RGB")
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        legal = ", ".join(FORMATS[:-1]) + f" or {FORMATS[-1]}"
        raise InputError(f"--image {path}: cannot be read: it must be {legal}, and whole") from None


def _fill_transparency(picture: "Image") -> tuple["Image", str]:
    """Puts white behind a picture, or black behind one that is itself light; says which, or nothing if it is opaque."""
    from PIL import Image

    pixels = np.asarray(picture)
    opacity = pixels[..., 3].astype(np.float64)
    if opacity.min() == 255:
        return picture.convert("RGB"), ""
    brightness = float((pixels[..., :3].mean(-1) * opacity).sum() / max(opacity.sum(), 1))
    background = "black" if brightness > 127.5 else "white"
    behind = Image.new("RGBA", picture.size, background)
    return Image.alpha_composite(behind, picture).convert("RGB"), background


def _widen(picture: "Image", aspect: float) -> "Image":
    """Returns the picture in the middle of one that is `aspect` times as wide as it is high."""
    from PIL import Image

    width, height = max(picture.width, round(picture.height * aspect)), picture.height
    height = max(height, round(width / aspect))
    if (width, height) == picture.size:
        return picture
    pixels = np.asarray(picture).reshape(picture.height, picture.width, -1)
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground = tuple(int(value) for value in np.median(edges, 0))
    wide = Image.new(picture.mode, (width, height), ground if len(ground) > 1 else ground[0])
    wide.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    return wide
