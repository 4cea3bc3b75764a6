"""Random changes of training images, drawn on the device for every example and epoch.

The random key of an image derives from the seed of the run, the epoch and the example. So runs with the same seed see
the same changed images, whatever their network and the size of their batches.
"""

from collections.abc import Callable

import dm_pix as pix
import jax
import jax.numpy as jnp

from cnnjax.runs.train_config import split_augmentation

Change = Callable[[jax.Array, jax.Array], jax.Array]
"""Maps a random key and an image, float32 (height, width, channels) in [0, 1], to an image of the same shape."""


def augment(images: jax.Array, keys: jax.Array, changes: tuple[str | Change, ...]) -> jax.Array:
    """Returns randomly changed images.

    Args:
        images: float32 (n, height, width, channels) in [0, 1].
        keys: random keys (n,).
        changes: names such as ``crop:4``, or functions of a key and an image, applied in this order.

    Returns:
        Images of the same shape, in [0, 1].

    Example:
        >>> keys = jax.random.split(jax.random.key(0), 2)
        >>> augment(jnp.zeros((2, 8, 8, 3)), keys, ("crop:2", "flip")).shape
        (2, 8, 8, 3)
    """

    def change(image: jax.Array, key: jax.Array) -> jax.Array:
        for index, by in enumerate(changes):
            own_key = jax.random.fold_in(key, index)
            if callable(by):
                image = by(own_key, image)
            else:
                kind, number = split_augmentation(by)
                image = CHANGES[kind](own_key, image, number)
        return jnp.clip(image, 0, 1)

    return jax.vmap(change)(images, keys)


def _crop(key: jax.Array, image: jax.Array, pixels: float) -> jax.Array:
    margin = int(pixels)
    padded = jnp.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    cropped: jax.Array = pix.random_crop(key, padded, image.shape)
    return cropped


def _cut_out(key: jax.Array, image: jax.Array, pixels: float) -> jax.Array:
    """Sets a square to 0, whose middle is anywhere in the image (DeVries and Taylor, 2017)."""
    height, width, _ = image.shape
    top, left = jax.random.randint(key, (2,), 0, jnp.array([height, width])) - int(pixels) // 2
    rows, columns = jnp.arange(height), jnp.arange(width)
    inside = jnp.outer((rows >= top) & (rows < top + int(pixels)), (columns >= left) & (columns < left + int(pixels)))
    return jnp.where(inside[..., None], 0, image)


def _rotate(key: jax.Array, image: jax.Array, degrees: float) -> jax.Array:
    angle = jnp.deg2rad(jax.random.uniform(key, (), minval=-degrees, maxval=degrees))
    rotated: jax.Array = pix.rotate(image, angle, mode="constant")
    return rotated


CHANGES: dict[str, Callable[[jax.Array, jax.Array, float], jax.Array]] = {
    "crop": _crop,
    "flip": lambda key, image, _: pix.random_flip_left_right(key, image),
    "cutout": _cut_out,
    "rotate": _rotate,
    "brightness": lambda key, image, most: pix.random_brightness(key, image, most),
    "contrast": lambda key, image, most: pix.random_contrast(key, image, 1 - most, 1 + most),
}
