"""The time of a run, predicted from stored runs or from a calibration.

Training takes ``images * (start + slope * FLOPs)`` seconds, with a constant time per image and a time per operation. A
network that has been timed is predicted at its measured speed.
"""

import contextlib
import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ablations.execution.costs import count_images, training_flops
from ablations.execution.local import LocalExecutor, Slot
from ablations.execution.work import Ended, Executor, Failed, Returned
from ablations.study.grid import Grid, Trial
from cnnjax.errors import UnavailableError
from cnnjax.runs.config import RunConfig, static_signature
from cnnjax.runs.record import Record
from cnnjax.runs.store import Store
from cnnjax.runs.summary import summarize
from cnnjax.settings.checking import write_count

MOST = 500
"""Stored runs that are read at most; reading takes a second per thousand, and more add little."""
FARTHEST = 4.0
"""Largest ratio of FLOPs over which measured times are extrapolated.

On one core an operation of a network of 36,000 FLOPs took 75 times as long as one of a network of 21 million; between
networks a factor of 4 apart, up to four times as long.
"""
LEAST_IMAGES = 2000
FLOPS = 1.5e11
"""FLOPs of the training of a calibration, a few seconds on one core; with too few images the first steps dominate."""
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Line:
    """Seconds as a function of the FLOPs of one image's forward pass: ``start + slope * flops``."""

    start: float
    slope: float

    def at(self, flops: float) -> float:
        """Returns the seconds for a number of FLOPs."""
        return self.start + self.slope * flops


@dataclass(frozen=True)
class Timing:
    """The times of the parts of a run on one worker.

    Attributes:
        basis: the timed runs, in words.
        train: seconds per image of training.
        evaluate: seconds of the final test.
        load: seconds before compilation.
        compile: seconds of compilation.
        known_train: measured seconds per image of training, by static signature.
        known_compile: measured seconds of compilation, by static signature.
    """

    basis: str
    train: Line
    evaluate: Line
    load: float
    compile: float
    known_train: Mapping[str, float]
    known_compile: Mapping[str, float]

    def run_seconds(self, config: RunConfig) -> float:
        """Returns the time of a run whose programs are compiled already."""
        flops = summarize(config).flops
        per_image = self.known_train.get(static_signature(config), self.train.at(flops))
        return self.load + count_images(config) * per_image + self.evaluate.at(flops)

    def compile_seconds(self, config: RunConfig) -> float:
        """Returns the time to compile the programs of a run."""
        return self.known_compile.get(static_signature(config), self.compile)


def read_precedents(grid: Grid, store: Store, statuses: Mapping[str, str]) -> dict[str, Record]:
    """Returns up to `MOST` completed runs of a store by run key, those of a grid first.

    Args:
        grid: the expanded study.
        store: a store, which need not exist.
        statuses: the status of every run in the store, by run key, oldest first.
    """
    own = dict.fromkeys(trial.key for trial in grid.trials)
    others = (key for key in reversed([*statuses]) if key not in own)
    completed = (key for key in itertools.chain(own, others) if statuses.get(key) == "completed")
    return store.find_all([*itertools.islice(completed, MOST)])


def find_timing(grid: Grid, records: Iterable[Record], has_accelerators: bool, source: str) -> Timing | None:
    """Returns the timing of this device, from runs on the datasets of a grid.

    It is ``None`` if there are no such runs, or if a network of the grid is too unlike all timed ones.

    Args:
        grid: the expanded study.
        records: runs, oldest first.
        has_accelerators: assumes that this device is that of the newest run, instead of the CPU.
        source: where the records are from, in words.
    """
    sources = {cell.config.data.source for cell in grid.cells}
    timed = [record for record in records if is_timed(record) and record.config.data.source in sources]
    device = _find_device(timed[-1]) if timed and has_accelerators else ("cpu", "cpu")
    here = [record for record in timed if _find_device(record) == device]
    alike = [record for record in here if device[0] != "cpu" or _read_device(record).get("cpu_threads") == 1]
    chosen = alike or here
    if not chosen or not _are_near(grid, chosen):
        return None
    remark = "" if alike else ", which had more cores than the one of a worker"
    return learn_timing(chosen, f"{write_count(len(chosen), 'run')} in {source}{remark}")


def _find_device(record: Record) -> tuple[str | None, str | None]:
    device = _read_device(record)
    return device.get("backend"), device.get("kind")


def _read_device(record: Record) -> Mapping[str, Any]:
    return record.provenance.get("device") or {}


def _are_near(grid: Grid, timed: Sequence[Record]) -> bool:
    """Whether the FLOPs of every network of a grid are within a factor of `FARTHEST` of the timed ones."""
    known = [summarize(record.config).flops for record in timed]
    own = [summarize(cell.config).flops for cell in grid.cells if not cell.problem]
    return all(min(known) / FARTHEST <= flops <= max(known) * FARTHEST for flops in own)


def is_timed(record: Record) -> bool:
    """Whether a record has the time of every part of its run."""
    parts = (record.seconds.get(part) or 0.0 for part in ("load", "compile", "train", "evaluate"))
    return record.status == "completed" and bool(record.flops) and all(part > 0 for part in parts)


def learn_timing(timed: Sequence[Record], basis: str) -> Timing:
    """Returns the timing that runs imply.

    Args:
        timed: records that satisfy `is_timed`, at least one, from one device in one mode.
        basis: what they are, in words.
    """
    seconds = [record.seconds for record in timed]
    by_signature: dict[str, list[Record]] = {}
    for record in timed:
        by_signature.setdefault(static_signature(record.config), []).append(record)
    # Only the first run of a signature in a worker compiles.
    compiling = {name: max(map(_compile_seconds, runs)) for name, runs in by_signature.items()}
    return Timing(
        basis=basis,
        train=fit_line([(_flops(record), _train_seconds(record)) for record in timed]),
        evaluate=fit_line([(_flops(record), record.seconds["evaluate"]) for record in timed]),
        # The first run of a process imports and decodes; the lower median leaves it out, even of two.
        load=statistics.median_low(each["load"] for each in seconds),
        compile=statistics.median(compiling.values()),
        known_train={name: statistics.fmean(map(_train_seconds, runs)) for name, runs in by_signature.items()},
        known_compile=compiling,
    )


def fit_line(points: Sequence[tuple[float, float]]) -> Line:
    """Fits a line with a start and a slope >= 0, by least squares of the relative errors.

    If all points have the same FLOPs, the line goes through the origin.

    Args:
        points: FLOPs and seconds, all > 0, at least one.
    """
    flops, seconds = np.array(points, float).T
    scale = flops.mean()
    if (flops == scale).all():
        return Line(0.0, float(seconds.mean() / scale))
    from scipy.optimize import nnls

    relative = np.column_stack([np.ones_like(flops), flops / scale]) / seconds[:, None]
    (start, slope), _ = nnls(relative, np.ones_like(flops))
    return Line(float(start), float(slope / scale))


def _flops(record: Record) -> int:
    assert record.flops is not None
    return record.flops


def _train_seconds(record: Record) -> float:
    """Returns the seconds per image of training, also of a run that stopped early."""
    epochs = len(record.history) / record.config.train.epochs
    return record.seconds["train"] / (count_images(record.config) * epochs)


def _compile_seconds(record: Record) -> float:
    """Returns the time to compile the program of a run, which is recorded in equal shares for the runs of a program."""
    return record.seconds["compile"] * (record.provenance.get("at_once") or 1)


def calibrate(grid: Grid, slot: Slot) -> list[Record]:
    """Trains the networks with the fewest and the most FLOPs for a few seconds each.

    Args:
        grid: the expanded study, with a cell that can exist and with prepared datasets.
        slot: where to train.

    Raises:
        UnavailableError: no worker can start, or a network cannot be trained.
    """
    cells = sorted((cell for cell in grid.cells if not cell.problem), key=lambda cell: summarize(cell.config).flops)
    configs = dict.fromkeys(shorten(cell.config) for cell in (cells[0], cells[-1]))
    executor = LocalExecutor([slot])
    with contextlib.closing(executor):
        return [_run(executor, slot.number, Trial(cells[0], config)) for config in configs]


def shorten(config: RunConfig) -> RunConfig:
    """Returns the run cut to one epoch of a few images, the fewer the more FLOPs, without validation."""
    # A tiny learning rate keeps every network from diverging.
    train = replace(config.train, epochs=1, validation_split=0.0, early_stopping_patience=None, learning_rate=1e-6)
    short = replace(config, train=train)
    affordable = round(FLOPS * count_images(short) / training_flops(short))
    images = min(max(affordable, LEAST_IMAGES, train.batch_size), count_images(short))
    return replace(short, data=replace(config.data, train_size=images))


def _run(executor: Executor, slot: int, trial: Trial) -> Record:
    executor.submit(slot, (trial,))
    while True:
        for event in executor.poll(POLL_SECONDS):
            match event:
                case Ended(_, run):
                    return run.record
                case Failed(_, reason, _):
                    raise UnavailableError(f"--calibrate: {reason}")
                case Returned():
                    executor.submit(slot, (trial,))
