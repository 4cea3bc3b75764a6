"""An arm of a comparison: one configuration with all its seeds, and what became of them."""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnnjax.comparison import Outcomes
from cnnjax.config import DataConfig, RunConfig
from cnnjax.datasets import DatasetInfo, load_data, load_data_info
from cnnjax.errors import CorruptionError, InputError, UnavailableError
from cnnjax.records import FINAL, Record
from cnnjax.splits import split_sizes

Measure = Literal["test", "validation"]
LOST = ("diverged", "failed")
"""The statuses of a run that ended without an accuracy."""


@dataclass(frozen=True)
class Arm:
    """One configuration, run with several seeds.

    Attributes:
        name: such as ``model.padding=same``.
        labels: of its level of every factor.
        records: what is stored, by seed; seeds with nothing stored are absent.
        seeds: that were to be run.
        parameters, flops: of its network; ``None`` where it cannot exist.
        problem: why it cannot; ``None`` where it can.
    """

    name: str
    labels: Mapping[str, str]
    records: Mapping[int, Record]
    seeds: tuple[int, ...]
    parameters: int | None
    flops: int | None
    problem: str | None = None

    @property
    def completed(self) -> dict[int, Record]:
        """The records that have a result and an accuracy, by seed."""
        return {seed: record for seed, record in self.records.items() if record.status == "completed"}

    @property
    def ended(self) -> tuple[int, ...]:
        """The seeds with a result, be it that the run diverged."""
        return tuple(seed for seed, record in self.records.items() if record.status in FINAL)

    @property
    def counts(self) -> Counter[str]:
        """Number of seeds by status; ``missing`` where nothing is stored."""
        found = (self.records.get(seed) for seed in self.seeds)
        return Counter("missing" if record is None else record.status for record in found)

    def outcomes(self, measure: Measure) -> Outcomes:
        """Returns by seed the accuracy of every completed run, and ``None`` for every one that diverged or failed."""
        lost = {seed: None for seed, record in self.records.items() if record.status in LOST}
        return {**self.measure(measure), **lost}

    def measure(self, measure: Measure) -> dict[int, float]:
        """Returns the accuracy of every completed run by seed: on test, or after the last epoch on validation."""
        if measure == "test":
            return {
                seed: record.test_accuracy
                for seed, record in self.completed.items()
                if record.test_accuracy is not None
            }
        return {
            seed: record.history[-1].val_accuracy
            for seed, record in self.completed.items()
            if record.history and record.history[-1].val_accuracy is not None
        }


def find_resolution(configs: Iterable[RunConfig], measure: Measure) -> float | None:
    """Returns the step of the accuracies, one over the images they are of; ``None`` where arms differ in these."""
    sizes = {_count_images(config, measure) for config in configs}
    size = sizes.pop()
    return 1 / size if size and not sizes else None


def find_chance(configs: Iterable[RunConfig]) -> float:
    """Returns the accuracy of guessing, the least of several datasets: the share of the most frequent class.

    It is that of the test images; where these are not at hand, one over the number of classes.
    """
    return min(_find_chance(config.data.whole) for config in configs)


@functools.cache
def _find_chance(data: DataConfig) -> float:
    info = _find_info(data)
    if info.sha256 is not None:  # decoded before: a report never prepares a dataset
        try:
            labels = load_data(data).test.labels
        except (CorruptionError, InputError, UnavailableError):
            pass
        else:
            return int(np.bincount(labels).max()) / len(labels)
    return 1 / info.classes


def _count_images(config: RunConfig, measure: Measure) -> int | None:
    info = _find_info(config.data.whole)
    if measure == "test":
        return info.test_size
    return split_sizes(config, info.train_size)[1] if info.train_size else None


@functools.cache
def _find_info(data: DataConfig) -> DatasetInfo:
    return load_data_info(data)
