"""Small grids, and executors that run nothing, for the tests of running."""

import dataclasses
import signal
from collections import deque

import numpy as np

from ablations.execution.work import Ended, Failed, Returned, Started
from ablations.study.grid import Cell, Grid
from cnnjax import DataConfig, ModelConfig, RunConfig, TrainConfig
from cnnjax.errors import Interrupted
from cnnjax.runs.history import EpochMetrics
from cnnjax.runs.record import Record, Run, pack_run

TINY = RunConfig(
    model=ModelConfig(filters=(), dense=(8,)),
    train=TrainConfig(epochs=1, learning_rate=0.1),
    data=DataConfig(train_size=500),
)


def tiny(seed=0, dense=(8,), dropout=0.0, **train):
    model = dataclasses.replace(TINY.model, dense=dense, dropout=dropout)
    return dataclasses.replace(TINY, seed=seed, model=model, train=dataclasses.replace(TINY.train, **train))


def make_grid(widths=(8, 16), seeds=(0, 1), problems=(), **train):
    """Returns a grid over the width of a dense network; `problems` are widths of cells that cannot exist."""
    cells = [Cell({"model.dense": str(width)}, tiny(dense=(width,), **train)) for width in widths]
    cells += [Cell({"model.dense": str(width)}, tiny(dense=(width,), **train), "too wide") for width in problems]
    return Grid("tiny", ("model.dense",), tuple(cells), tuple(seeds))


def make_packed(config, accuracy=0.9, status="completed"):
    """Returns a run of a configuration that nobody trained."""
    completed = status == "completed"
    validation = accuracy if config.train.validation_split else None
    history = tuple(EpochMetrics(e + 1, 0.5, 0.8, validation, validation, 0.1) for e in range(config.train.epochs))
    record = Record(
        config=config,
        status=status,
        reason=None if completed else "loss not finite at step 3",
        parameters=6370,
        flops=12704,
        test_loss=0.3 if completed else None,
        test_accuracy=accuracy if completed else None,
        history=history if completed else (),
        seconds={"load": 0.1, "compile": 0.2, "train": 0.3, "evaluate": 0.1, "total": 0.7},
        provenance={"python": "3.11"},
    )
    predictions = np.zeros(10, np.uint8) if completed else None
    return pack_run(Run(record, {"Dense_0": {"bias": np.zeros(4, np.float32)}}, {}, predictions))


def draw_runs(means):
    """Returns a function that makes runs as if trained: of known means by width, with a spread of 0.5 points."""

    def train(config):
        (width,) = config.model.dense
        accuracy = np.random.default_rng((config.seed, width)).normal(means[width], 0.005)
        return make_packed(config, float(np.rint(accuracy * 1e4) / 1e4))

    return train


def stop_after(trials, script=make_packed):
    """Returns a script that ends so many trials by `script`, and is interrupted at the next."""
    left = iter(range(trials))

    def stop(config):
        if next(left, None) is None:
            raise Interrupted("interrupted", signal.SIGTERM)
        return script(config)

    return stop


class ScriptedExecutor:
    """Ends every trial at once by what `script` makes of it; remembers what it was given."""

    def __init__(self, script=make_packed, slots=2, group_size=1):
        self.group_size, self.slots, self.script = group_size, slots, script
        self.given, self.closed = [], False
        self._queue = deque()

    def free_slots(self):
        return dict.fromkeys(range(self.slots - len(self._queue)), "")

    def submit(self, slot, group):
        self.given.append(group)
        self._queue.append(group)

    def poll(self, seconds):
        events = []
        for trial in self._queue.popleft():
            outcome = self.script(trial.config)
            if outcome == "return":
                events.append(Returned(trial))
                continue
            events += [Started(trial), Failed(trial, *outcome) if isinstance(outcome, tuple) else Ended(trial, outcome)]
        return events

    def close(self):
        self.closed = True


class Watcher:
    """Remembers what it is told."""

    def __init__(self):
        self.told = []

    def note(self, message):
        self.told.append(("note", message))

    def begin(self, work):
        self.told.append(("begin", len(work.waiting)))

    def start(self, trial):
        self.told.append(("start", trial.key))

    def advance(self, trial, progress):
        self.told.append(("advance", trial.key))

    def retry(self, trial, reason):
        self.told.append(("retry", trial.key))

    def end(self, trial, record):
        self.told.append(("end", trial.key))

    def close(self):
        self.told.append(("close", None))

    def count(self, kind):
        return sum(told[0] == kind for told in self.told)
