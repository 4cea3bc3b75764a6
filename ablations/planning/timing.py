"""How long a run takes, learned from runs that were timed.

Training takes ``images * (start + slope * FLOPs)`` seconds: so much an image whatever the network, and so much an
operation. A network that was timed itself is taken at its own speed.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablations.running.costs import count_images, find_size
from cnnjax.config import RunConfig
from cnnjax.records import Record
from cnnjax.signatures import static_signature


@dataclass(frozen=True)
class Line:
    """Seconds as a function of the FLOPs of one image's forward pass: ``start + slope * flops``."""

    start: float
    slope: float

    def at(self, flops: float) -> float:
        """Returns the seconds at so many FLOPs."""
        return self.start + self.slope * flops


@dataclass(frozen=True)
class Timing:
    """What the parts of a run take on one worker.

    Attributes:
        basis: what was timed, in words.
        train: seconds an image seen in training.
        evaluate: seconds of the final test.
        load: seconds before anything is compiled.
        compile: seconds of the first run of a program.
        known_train: seconds an image by static signature, of those that were timed.
        known_compile: seconds of compilation, likewise.
    """

    basis: str
    train: Line
    evaluate: Line
    load: float
    compile: float
    known_train: Mapping[str, float]
    known_compile: Mapping[str, float]

    def run_seconds(self, config: RunConfig) -> float:
        """Returns how long a run takes whose programs are compiled already."""
        flops = find_size(config)[1]
        an_image = self.known_train.get(static_signature(config), self.train.at(flops))
        return self.load + count_images(config) * an_image + self.evaluate.at(flops)

    def compile_seconds(self, config: RunConfig) -> float:
        """Returns how long the programs of a run take to compile."""
        return self.known_compile.get(static_signature(config), self.compile)


def learn_timing(timed: Sequence[Record], basis: str) -> Timing:
    """Returns what runs took.

    Args:
        timed: records that satisfy `is_timed`, at least one, of one device in one mode.
        basis: what they are, in words.
    """
    seconds = [record.seconds for record in timed]
    by_signature: dict[str, list[Record]] = {}
    for record in timed:
        by_signature.setdefault(static_signature(record.config), []).append(record)
    # A worker compiles for the first run of a signature alone; the others take next to nothing.
    compiling = {name: max(map(_compile_seconds, runs)) for name, runs in by_signature.items()}
    return Timing(
        basis=basis,
        train=fit_line([(_flops(record), _train_seconds(record)) for record in timed]),
        evaluate=fit_line([(_flops(record), record.seconds["evaluate"]) for record in timed]),
        # The first run of a process imports and decodes; it is not the median one, nor the lower of two.
        load=statistics.median_low(each["load"] for each in seconds),
        compile=statistics.median(compiling.values()),
        known_train={name: statistics.fmean(map(_train_seconds, runs)) for name, runs in by_signature.items()},
        known_compile=compiling,
    )


def is_timed(record: Record) -> bool:
    """Whether a record says how long each part of a run took."""
    parts = (record.seconds.get(part) or 0.0 for part in ("load", "compile", "train", "evaluate"))
    return record.status == "completed" and bool(record.flops) and all(part > 0 for part in parts)


def fit_line(points: Sequence[tuple[float, float]]) -> Line:
    """Fits a line that falls nowhere below zero, by non-negative least squares of its relative errors.

    Points of one network leave the slope open; the line then goes through the origin.

    Args:
        points: FLOPs and seconds, all > 0, at least one.
    """
    import numpy as np

    flops, seconds = np.array(points, float).T
    scale = flops.mean()
    if (flops == scale).all():
        return Line(0.0, float(seconds.mean() / scale))
    from scipy.optimize import nnls

    relative = np.column_stack([np.ones_like(flops), flops / scale]) / seconds[:, None]
    (start, slope), _ = nnls(relative, np.ones_like(flops))
    return Line(float(start), float(slope / scale))


def _compile_seconds(record: Record) -> float:
    """Returns what the program of a run took to compile, of which the run has a share."""
    return record.seconds["compile"] * (record.provenance.get("at_once") or 1)


def _flops(record: Record) -> int:
    assert record.flops is not None
    return record.flops


def _train_seconds(record: Record) -> float:
    """Returns the seconds an image seen in training; a run may have stopped early."""
    epochs = len(record.history) / record.config.train.epochs
    return record.seconds["train"] / (count_images(record.config) * epochs)
