"""Measures training on images that are fed in chunks: its speed, and the memory that it needs for a large set.

The images are random, in a mapped file. The commands: 20,000 images in memory and in chunks; the same with a small
network; a million images, 3 GB, in chunks alone::

    python -m experiments.measure.feeding
    python -m experiments.measure.feeding --model.filters '[8]'
    python -m experiments.measure.feeding --model.filters '[8]' --images 1000000 --repeats 1 --chunks-only
"""

import statistics
import sys
import threading
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import psutil

from cnnjax.console.arguments import ADVANCED, parse_arguments
from cnnjax.console.terminal import run_command, say
from cnnjax.data.cache import make_array
from cnnjax.data.dataset import Dataset
from cnnjax.data.settings import DataConfig
from cnnjax.models.cnn import ModelConfig
from cnnjax.runs.config import RunConfig
from cnnjax.runs.train_config import TrainConfig
from cnnjax.settings.checking import Count, check
from cnnjax.training import memory
from cnnjax.training.fit import fit

PROG = "python -m experiments.measure.feeding"
SHAPE, CLASSES, TESTED = (32, 32, 3), 10, 1000


@dataclass(frozen=True)
class FeedingArguments:
    """Measures training on images that are fed in chunks::

    python -m experiments.measure.feeding
    python -m experiments.measure.feeding --images 1000000 --chunks-only
    """

    images: int = 20_000
    """Number of training images, each of 32 x 32 colour pixels."""
    repeats: int = 3
    """Number of runs; the median is shown."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Settings of the network."""
    chunks_only: bool = False
    """Do not train with the images in memory."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


class MemoryWatch:
    """Notes the largest memory of this process, in bytes, without mapped files, while the context lasts."""

    def __enter__(self) -> "MemoryWatch":
        self.peak, self._end = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._end.wait(0.05):
            used = process.memory_info()
            self.peak = max(self.peak, used.rss - used.shared)


def make_images(count: int) -> Dataset:
    """Returns a dataset of random images in a mapped file."""
    random, total = np.random.default_rng(0), count + TESTED
    images, labels = make_array((total, *SHAPE)), random.integers(0, CLASSES, total)
    for start in range(0, total, TESTED):
        block = images[start : start + TESTED]
        block[:] = random.integers(0, 256, block.shape, np.uint8)
    names = [*map(str, range(CLASSES))]
    return Dataset.from_arrays((images[:count], labels[:count]), (images[count:], labels[count:]), names, "random")


def measure_run(dataset: Dataset, model: ModelConfig, share: float) -> tuple[float, int]:
    """Trains a network for one epoch; returns the images per second, and the largest memory in bytes.

    Args:
        dataset: the images.
        model: settings of the network.
        share: largest share of the memory for images that stay on the device.
    """
    memory.IMAGE_SHARE = share
    config = RunConfig(model, TrainConfig(epochs=1), DataConfig("random"))
    with MemoryWatch() as watch:
        record = fit(config, None, dataset=dataset).record
    return len(dataset.train) / record.seconds["train"], watch.peak


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    arguments = parse_arguments(FeedingArguments, argv, PROG, FeedingArguments())
    check(arguments.images, Count, "--images")
    check(arguments.repeats, Count, "--repeats")
    dataset = make_images(arguments.images)
    say(f"{dataset.train.images.nbytes / 2**20:,.0f} MiB of training images", sys.stdout)
    shares = {"in chunks": 0.0} if arguments.chunks_only else {"in memory": 1.0, "in chunks": 0.0}
    runs = [(name, measure_run(dataset, arguments.model, shares[name])) for name in [*shares] * arguments.repeats]
    for name in shares:
        rate, peak = map(statistics.median, zip(*(run for kind, run in runs if kind == name), strict=True))
        say(f"{name}: {rate:,.0f} images a second, {peak / 2**20:,.0f} MiB besides mapped files", sys.stdout)
    return 0


if __name__ == "__main__":
    run_command(main)
