"""The main loop of a contestant's process: it reads requests from standard input, trains, and answers.

Answers are lines of JSON on standard output. The first one names the device, after the first step. Then every request
is a number of steps, and its answer has the seconds they took, the loss of the last batch, and the peak memory of the
process in bytes. In a grid, a request is a network with a seed, and its answer the test accuracy.
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

import numpy as np

from cnnjax.data.loading import load
from cnnjax.machine.processes import ONE_THREAD, take_stdout
from experiments.measure.contestants import TEXTBOOK, Architecture

BATCH, RATE = 100, 0.01
"""Batch size, and learning rate of plain SGD, in all libraries."""


@dataclass(frozen=True)
class Trainer:
    """A network being trained.

    Attributes:
        device: name of the device that it is trained on.
        train: trains for a number of steps, waits for the result, and returns the loss of the last batch.
        evaluate: returns the accuracy on the test images.
    """

    device: str
    train: Callable[[int], float]
    evaluate: Callable[[], float]


@dataclass(frozen=True)
class Options:
    """How a process trains: on one core with one thread, or on all cores; and whether channels come last."""

    single_thread: bool
    channels_last: bool


MakeTrainer = Callable[[Options, Architecture, int], Trainer]


def main(make_trainer: MakeTrainer) -> None:
    """Runs a contestant as its command line says.

    Args:
        make_trainer: makes a trainer from the options, the network and the seed.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int, help="core to run on, with one thread")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--grid", type=int, metavar="STEPS", help="steps of each trial of a grid")
    words = parser.parse_args()
    if words.core is not None:
        os.sched_setaffinity(0, {words.core})  # before any library counts the cores
        os.environ |= ONE_THREAD
    options = Options(words.core is not None, words.channels_last)
    if words.grid:
        _run_trials(make_trainer, options, words.grid)
    else:
        _serve(make_trainer(options, TEXTBOOK, 0))


@functools.cache
def load_images(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of a split, float32 (n, 28, 28, 1) in [0, 1], and the labels, int32 (n,)."""
    split = getattr(load("mnist"), name)
    return split.images.astype(np.float32) / 255, split.labels


def _serve(trainer: Trainer) -> None:
    answer = _take_stdout()
    trainer.train(1)
    answer(device=trainer.device)
    for line in sys.stdin:
        start = time.perf_counter()
        loss = trainer.train(int(line))
        seconds = time.perf_counter() - start
        answer(seconds=seconds, loss=loss, memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _run_trials(make_trainer: MakeTrainer, options: Options, steps: int) -> None:
    answer = _take_stdout()
    for line in sys.stdin:
        request = json.loads(line)
        network = Architecture(tuple(request["filters"]), request["window"], request["padding"])
        trainer = make_trainer(options, network, request["seed"])
        trainer.train(steps)
        answer(accuracy=trainer.evaluate())


def _take_stdout() -> Callable[..., None]:
    """Returns a function that prints an answer on standard output; libraries print on standard error from now on."""
    answers = take_stdout()
    return lambda **values: print(json.dumps(values), file=answers, flush=True)
