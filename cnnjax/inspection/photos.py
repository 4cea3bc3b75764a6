"""Converts a picture of the user's own into an image like those of the dataset. No JAX here.

Transparent pixels get a background. Bands in the colour of the border bring the picture to the aspect ratio of the
dataset. It is resized with antialiasing, and inverted if the dataset is light on dark and the picture dark on light.
Every change is listed for the user.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnjax.data.pictures import open_picture
from cnnjax.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's mode for a number of channels."""
_DARK, _LIGHT = 64, 191
"""A border is dark if its mean brightness (0 to 255) is below the first, light if it is above the second."""
_TYPICAL = 0.9
"""Share of a dataset's images that must have a dark border for the dataset to count as light on dark."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture as the network receives it.

    Attributes:
        pixels: uint8 (height, width, channels).
        remarks: what was done to the picture, one line each.
    """

    pixels: np.ndarray
    remarks: tuple[str, ...]


def read_photo(path: Path, image_shape: tuple[int, ...], examples: np.ndarray, invert: bool | None = None) -> Photo:
    """Reads a picture from a file and converts it to the shape of the dataset's images.

    Args:
        path: a PNG, JPEG, BMP, GIF, WebP or TIFF file.
        image_shape: (height, width, channels) of the dataset.
        examples: images of the dataset, uint8 (n, height, width, channels), to tell whether they are light on dark.
        invert: whether to exchange light and dark; ``None`` decides by `needs_inversion`.

    Raises:
        InputError: the file does not exist, is no picture, or is too large.
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
    """Whether a grey picture is dark on light and the dataset light on dark, or the other way round.

    Always false for colour images, and for a dataset whose borders vary from image to image, as photographs' do.

    Args:
        pixels: the picture, uint8 (height, width, channels).
        examples: images of the dataset, uint8 (n, height, width, channels).

    Example:
        >>> white, black = np.full((4, 4, 1), 255, np.uint8), np.zeros((4, 4, 1), np.uint8)
        >>> needs_inversion(white, black[np.newaxis]), needs_inversion(black, black[np.newaxis])
        (True, False)
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
    try:
        picture = open_picture(path)
    except InputError as error:
        raise InputError(f"--image {path}: {error}") from None
    return picture.convert("RGBA") if picture.mode == "LA" else picture


def _fill_transparency(picture: "Image") -> tuple["Image", str]:
    """Returns the picture on a background, and the name of its colour ("" if the picture is opaque).

    The background is black if the visible pixels are light, else white.
    """
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
    """Returns the picture with bands at its sides, so that its width is `aspect` times its height."""
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
