"""Feeds programs with examples in chunks, from sets that do not fit on the devices.

Such examples stay on the host as a `Split`, usually of mapped files. A thread takes each chunk, in any order, and
copies it to the devices while the chunk before it is computed. `Examples` are on the devices already: they are one
chunk.
"""

import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import jax
import numpy as np

from cnnjax.data.dataset import Split
from cnnjax.machine.devices import place
from cnnjax.training.memory import CHUNK_BYTES
from cnnjax.training.step import Examples

Data = Examples | Split
"""Examples on the devices, or on the host, from where they are fed."""


def count_steps(data: Data, batch_size: int, most: int) -> int:
    """Returns how many steps a chunk has: the largest divisor of `most` with which it has at most `CHUNK_BYTES`, or 1.

    Example:
        >>> split = Split(np.zeros((3, 2**10, 2**10, 3), np.uint8), np.zeros(3, np.int32))
        >>> count_steps(split, batch_size=2, most=50)
        10
    """
    step = batch_size * math.prod(data.images.shape[1:])
    return next((steps for steps in range(most, 1, -1) if most % steps == 0 and steps * step <= CHUNK_BYTES), 1)


def describe_chunk(data: Data, size: int, sharding: jax.sharding.Sharding) -> Any:
    """Returns the `Examples` that a program is compiled for: those on the devices, or the shapes of a chunk."""
    if isinstance(data, Examples):
        return data

    def describe(array: np.ndarray) -> Any:
        return jax.ShapeDtypeStruct((size, *array.shape[1:]), array.dtype, sharding=sharding)

    return Examples(describe(data.images), describe(data.labels))


def feed(
    data: Data,
    order: np.ndarray | jax.Array,
    bounds: Sequence[int],
    sharding: jax.sharding.Sharding,
    sample: jax.Array | None = None,
) -> Iterator[Examples]:
    """Yields one chunk of examples after the other; for examples on the devices, always all of them.

    Args:
        data: the examples.
        order: numbers of examples, in the order in which they are taken.
        bounds: where in `order` the chunks begin, and where the last one ends.
        sharding: the devices to which a chunk is copied.
        sample: rows of the data by the numbers in `order`; ``None`` if these are the rows.
    """
    if isinstance(data, Examples):
        yield from [data] * (len(bounds) - 1)
        return

    def take(start: int, stop: int) -> Examples:
        rows = numbers[start:stop]
        places = np.argsort(rows)  # as files are read faster in their own order
        request(rows[places])
        images = np.empty((len(rows), *data.images.shape[1:]), np.uint8)
        images[places] = data.images[rows[places]]
        return Examples(place(images, sharding), place(data.labels[rows], sharding))

    numbers = np.asarray(order, np.int64)
    if sample is not None:
        numbers = np.asarray(sample, np.int64)[numbers]
    with _read_at_random(data.images) as request, ThreadPoolExecutor(1) as thread:
        coming = thread.submit(take, *bounds[:2])
        for start, stop in pairwise(bounds[1:]):
            ready, coming = coming, thread.submit(take, start, stop)
            yield ready.result()
        yield coming.result()


@contextmanager
def _read_at_random(images: np.ndarray) -> Iterator[Callable[[np.ndarray], None]]:
    """Yields a function that asks the system to read rows of a mapped file, all at once and nothing around them.

    Otherwise it reads row after row, each with up to megabytes around it: 700,000 images of 3 KiB, with memory for half
    of them, were taken at 2,000 images a second instead of 30,000.
    """
    file: Any = images
    while isinstance(file, np.ndarray):
        file = file.base
    if not isinstance(file, mmap.mmap):
        yield lambda rows: None
        return

    size, first = images[0].nbytes, images.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data

    def request(rows: np.ndarray) -> None:
        for start in (first + size * rows).tolist():
            before = start % mmap.PAGESIZE
            file.madvise(mmap.MADV_WILLNEED, start - before, before + size)

    file.madvise(mmap.MADV_RANDOM)
    try:
        yield request
    finally:
        file.madvise(mmap.MADV_NORMAL)
