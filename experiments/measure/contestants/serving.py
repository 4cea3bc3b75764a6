"""The inside of a contestant's process: it trains as it is asked to, on standard input.

Answers are lines of JSON on standard output: first the device and the seconds spent on the first step, then for every
request the seconds it took, the loss of its last batch, and the most memory the process has used so far. Of a grid a
request is a network with a seed, and the answer its test accuracy.
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
from experiments.measure.contestants import TEXTBOOK, Network

BATCH, RATE = 100, 0.01
"""Of the recipe: examples a step, and the learning rate of plain SGD."""


@dataclass(frozen=True)
class Trainer:
    """A network being trained.

    Attributes:
        device: that trains it, in words.
        train: takes that many steps, waits for them, and returns the loss of the last batch.
        evaluate: returns the accuracy on the test images.
    """

    device: str
    train: Callable[[int], float]
    evaluate: Callable[[], float]


@dataclass(frozen=True)
class Options:
    """How a process is to train: on one core with one thread, or with all there is; and in which layout."""

    single_thread: bool
    channels_last: bool


MakeTrainer = Callable[[Options, Network, int], Trainer]


def main(make_trainer: MakeTrainer) -> None:
    """Does what the command line asks of a contestant.

    Args:
        make_trainer: makes a trainer from the options, the network and the seed.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int, help="the only one to run on, with one thread")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--grid", type=int, metavar="STEPS", help="of each trial that is asked for")
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
        network = Network(tuple(request["filters"]), request["window"], request["padding"])
        trainer = make_trainer(options, network, request["seed"])
        trainer.train(steps)
        answer(accuracy=trainer.evaluate())


def _take_stdout() -> Callable[..., None]:
    """Returns what prints an answer; whatever libraries print goes to standard error."""
    answers = take_stdout()
    return lambda **values: print(json.dumps(values), file=answers, flush=True)
