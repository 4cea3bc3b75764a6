"""The inside of a contestant's process: it gets ready, then trains as many steps as each line of its input asks for.

Answers are lines of JSON on standard output: first the device and the seconds spent on the first step, then for every
request the seconds it took, the loss of its last batch, and the most memory the process has used so far.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cnnjax.datasets import load
from cnnjax.processors import ONE_THREAD

BATCH, RATE = 100, 0.01
"""Of the recipe: examples a step, and the learning rate of plain SGD."""


@dataclass(frozen=True)
class Trainer:
    """A network being trained.

    Attributes:
        device: that trains it, in words.
        train: takes that many steps, waits for them, and returns the loss of the last batch.
    """

    device: str
    train: Callable[[int], float]


def read_options() -> tuple[int | None, list[str]]:
    """Returns the core to stay on, if any, and the other arguments; stays on it, with one thread."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int)
    options, rest = parser.parse_known_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})  # before any library counts the cores
        os.environ |= ONE_THREAD
    return options.core, rest


def load_training_images() -> tuple[np.ndarray, np.ndarray]:
    """Returns the images, float32 (n, 28, 28, 1) in [0, 1], and the labels, int32 (n,)."""
    train = load("mnist").train
    return train.images.astype(np.float32) / 255, train.labels


def serve(trainer: Trainer) -> None:
    """Answers requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    trainer.train(1)
    answer(device=trainer.device)
    for line in sys.stdin:
        start = time.perf_counter()
        loss = trainer.train(int(line))
        seconds = time.perf_counter() - start
        answer(seconds=seconds, loss=loss, memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
