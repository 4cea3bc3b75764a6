"""Damaged inputs, read one after another within limits of time and memory, and what came of them counted."""

import logging
import os
import random
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from cnnjax.errors import CnnjaxError
from experiments.faults.readers import READERS

LONGEST_SECONDS = 10
"""That reading one input may take."""
MOST_MEMORY = 2 * 2**30
"""Bytes by which reading may grow the process."""
CHUNK = 2_000
_MEMORY = "/dev/shm"  # where files take no disk


@dataclass
class Tally:
    """What came of damaged inputs.

    Attributes:
        reader: which read them.
        accepted, refused: how many were taken, and how many were refused by an error of the product's own.
        slowest: seconds of the input that took longest.
        escapes: for every other error, the place it came from with the seed of one such input, and how often.
    """

    reader: str
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    escapes: Counter[str] = field(default_factory=Counter)

    @property
    def inputs(self) -> int:
        """How many were read."""
        return self.accepted + self.refused + self.escapes.total()

    def add(self, other: "Tally") -> None:
        """Adds what came of others."""
        self.accepted, self.refused = self.accepted + other.accepted, self.refused + other.refused
        self.slowest = max(self.slowest, other.slowest)
        self.escapes += other.escapes


def fuzz_reader(reader: str, seeds: range) -> Tally:
    """Reads one damaged input for each of the seeds, in this process."""
    tally = Tally(reader)
    with tempfile.TemporaryDirectory(dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None) as folder, _quiet():
        read = READERS[reader][0](Path(folder))
        for seed in seeds:
            start = time.perf_counter()
            try:
                with _limited_time():
                    read(random.Random(f"{reader} {seed}"))
                tally.accepted += 1
            except CnnjaxError:
                tally.refused += 1
            except (Exception, _TooLong) as error:
                tally.escapes[f"{_describe(error)}"] += 1
            tally.slowest = max(tally.slowest, time.perf_counter() - start)
    return tally


def fuzz_all(inputs: int, processes: int, first_seed: int = 0) -> Iterator[Tally]:
    """Yields, for every reader, what came of its share of so many inputs, read in processes of limited memory."""
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_limit_memory) as pool:
        for reader, (_, share) in READERS.items():
            seeds = range(first_seed, first_seed + max(round(inputs * share), 1))
            chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
            total = Tally(reader)
            for tally in pool.map(fuzz_reader, [reader] * len(chunks), chunks):
                total.add(tally)
            yield total


class _TooLong(BaseException):
    """Reading an input takes longer than it may."""


@contextmanager
def _limited_time() -> Iterator[None]:
    def end(*_: Any) -> None:
        raise _TooLong(f"longer than {LONGEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _limit_memory() -> None:
    import jax  # noqa: F401

    import cnnjax.checkpoints  # noqa: F401 - what the readers import counts as there before

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_MEMORY,) * 2)


def _describe(error: BaseException) -> str:
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "/experiments/faults/" not in frame.filename
    ]
    ours = [frame for frame in frames if "site-packages" not in frame.filename and "/lib/python" not in frame.filename]
    where = f" in {Path(ours[-1].filename).name}, {ours[-1].name}" if ours else ""
    return f"{type(error).__name__}: {str(error)[:80]!r}{where}"
