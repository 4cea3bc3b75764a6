"""The main loop of a contestant's process: it reads requests from standard input, trains, and answers.

Answers are lines of JSON on standard output. The first one, after the first call of `Trainer.train`, has the device,
the steps of that call and the seconds that they took. Then every request is a number of steps, and its answer has the
seconds they took, the loss of the last batch, and the peak memory of the process in bytes. In a grid, a request is a
network with a seed, and its answer the test accuracy.
"""

import argparse
import functools
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from cnnjax.data.dataset import Dataset
from cnnjax.data.loading import load
from cnnjax.machine.processes import ONE_THREAD, take_stdout
from experiments.measure.contestants.networks import CLASSES, GREY, GRID, NETWORKS, Network, Precision, Shape

BATCH, RATE = 100, 0.01
"""Batch size, and learning rate of plain SGD, in all libraries."""
MNIST, NOISE = 60_000, 10_000
"""Number of training images: of MNIST, and of noise for networks that take images of another shape."""


@dataclass(frozen=True)
class Trainer:
    """A network being trained.

    Attributes:
        device: name of the device that it is trained on.
        parameters: number of parameters, with the statistics of batch normalisation.
        train: trains for a number of steps, waits for the result, and returns the loss of the last batch. The first
            call may compile.
        evaluate: returns the accuracy on the test images.
        least: the number of steps that one call makes at least; all numbers of steps are multiples of it.
    """

    device: str
    parameters: int
    train: Callable[[int], float]
    evaluate: Callable[[], float]
    least: int = 1


@dataclass(frozen=True)
class Options:
    """How a process trains.

    Attributes:
        precision: arithmetic of the layers; parameters are float32.
        single_thread: whether on one core with one thread; otherwise on all cores.
        channels_last: whether the channels of images come last in memory, for a library where they do not anyway.
        is_compiled: whether the network is compiled, by a library that does not anyway.
    """

    precision: Precision = "float32"
    single_thread: bool = False
    channels_last: bool = False
    is_compiled: bool = False


MakeTrainer = Callable[[Options, Network, int], Trainer]


def main(make_trainer: MakeTrainer) -> None:
    """Runs a contestant as its command line says.

    Args:
        make_trainer: makes a trainer from the options, the network and the seed.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int, help="core to run on, with one thread")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    work = parser.add_mutually_exclusive_group(required=True)
    work.add_argument("--network", choices=NETWORKS)
    work.add_argument("--grid", type=int, metavar="STEPS", help="steps of each trial of a grid")
    words = parser.parse_args()
    if words.core is not None:
        os.sched_setaffinity(0, {words.core})  # before any library counts the cores
        os.environ |= ONE_THREAD
    options = Options(words.precision, words.core is not None, words.channels_last, words.compiled)
    if words.grid:
        _run_trials(make_trainer, options, words.grid)
    else:
        _serve(make_trainer, options, NETWORKS[words.network])


@functools.cache
def load_dataset(image_shape: Shape) -> Dataset:
    """Returns MNIST if its images have this shape, otherwise noise: the time of a step does not depend on the images.

    Example:
        >>> load_dataset((8, 8, 3)).train.images.shape
        (10000, 8, 8, 3)
    """
    if image_shape == GREY:
        return load("mnist")
    random = np.random.default_rng(0)
    train, test = (
        (random.integers(256, size=(size, *image_shape), dtype=np.uint8), random.integers(CLASSES, size=size))
        for size in (NOISE, NOISE // 10)
    )
    return Dataset.from_arrays(train, test, name="noise")


@functools.cache
def load_images(image_shape: Shape, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of a split, float32 (n, height, width, channels) in [0, 1], and the labels, int32 (n,)."""
    split = getattr(load_dataset(image_shape), name)
    return split.images.astype(np.float32) / 255, split.labels


def _serve(make_trainer: MakeTrainer, options: Options, network: Network) -> None:
    answer = _take_stdout()
    trainer = make_trainer(options, network, 0)
    first = _time(trainer, trainer.least)
    answer(device=trainer.device, parameters=trainer.parameters, least=trainer.least, **first)
    for line in sys.stdin:
        measured = _time(trainer, int(line))
        answer(**measured, memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _time(trainer: Trainer, steps: int) -> dict[str, Any]:
    start = time.perf_counter()
    loss = trainer.train(steps)
    return {"seconds": time.perf_counter() - start, "loss": loss}


def _run_trials(make_trainer: MakeTrainer, options: Options, steps: int) -> None:
    answer = _take_stdout()
    for line in sys.stdin:
        request = json.loads(line)
        trainer = make_trainer(options, GRID[request["network"]], request["seed"])
        trainer.train(steps)
        answer(accuracy=trainer.evaluate())


def _take_stdout() -> Callable[..., None]:
    """Returns a function that prints an answer on standard output; libraries print on standard error from now on."""
    answers = take_stdout()
    return lambda **values: print(json.dumps(values), file=answers, flush=True)
