"""The arms of a comparison: a configuration with all its seeds, their results, and the origin of the results.

An accuracy is estimated from completed seeds alone. A run without a result is counted, and listed with its reason; it
never becomes a number. Origins are counted too, because two machines or two versions of a package may differ where the
arms do not.
"""

import functools
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from cnnjax.data.loading import find_info, load_data
from cnnjax.data.settings import DataConfig
from cnnjax.errors import CorruptionError, InputError, UnavailableError
from cnnjax.runs.config import RunConfig, split_sizes
from cnnjax.runs.record import FINAL, LOST, TRIAL_STATUSES, Record
from cnnjax.statistics import Outcomes
from cnnjax.statistics.estimates import Estimate, estimate_accuracy

Measure = Literal["test", "validation"]


@dataclass(frozen=True)
class Failure:
    """A run that has no accuracy: failed or diverged.

    Attributes:
        cell: the name of its arm.
        seed: the seed of the run.
        status: ``failed`` or ``diverged``.
        reason: why it has no accuracy.
        output: the last lines that it printed; ``None`` where there are none.
    """

    cell: str
    seed: int
    status: str
    reason: str | None
    output: str | None


@dataclass(frozen=True)
class Arm:
    """One configuration, run with several seeds.

    Attributes:
        name: its settings in short, such as ``model.padding=same``.
        labels: the label of its level, by factor.
        config: its configuration; the seed in it has no meaning.
        records: the stored runs by seed; a seed without a stored run is absent.
        seeds: the seeds that were planned.
        parameters, flops: the size of its network; ``None`` if the network cannot exist.
        problem: why the network cannot exist; ``None`` if it can.
    """

    name: str
    labels: Mapping[str, str]
    config: RunConfig
    records: Mapping[int, Record] = field(repr=False)
    seeds: tuple[int, ...]
    parameters: int | None
    flops: int | None
    problem: str | None = None

    @property
    def completed(self) -> dict[int, Record]:
        """The records of completed runs, by seed."""
        return {seed: record for seed, record in self.records.items() if record.status == "completed"}

    @property
    def ended(self) -> tuple[int, ...]:
        """The seeds whose runs completed or diverged."""
        return tuple(seed for seed, record in self.records.items() if record.status in FINAL)

    @property
    def counts(self) -> Counter[str]:
        """The number of seeds for each of `TRIAL_STATUSES`; without a record a seed is ``missing``, or ``invalid``."""
        counts = Counter(dict.fromkeys(TRIAL_STATUSES, 0))
        unknown = "invalid" if self.problem else "missing"
        counts.update(self.records[seed].status if seed in self.records else unknown for seed in self.seeds)
        return counts

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The runs that failed or diverged."""
        return tuple(
            Failure(self.name, seed, record.status, record.reason, record.output)
            for seed, record in self.records.items()
            if record.status in LOST
        )

    @property
    def pruned(self) -> str | None:
        """Why successive halving stopped its runs early; ``None`` if it did not."""
        return next((record.reason for record in self.records.values() if record.status == "pruned"), None)

    @property
    def train_seconds(self) -> float | None:
        """The mean training time of the completed runs in seconds; ``None`` without one."""
        times = [record.seconds["train"] for record in self.completed.values() if "train" in record.seconds]
        return statistics.fmean(times) if times else None

    @property
    def total_seconds(self) -> float:
        """The time spent on all its runs in seconds."""
        return sum(record.seconds.get("total", 0.0) for record in self.records.values())

    @functools.cached_property
    def accuracy(self) -> Estimate | None:
        """The mean test accuracy over the completed seeds with its 95% interval; ``None`` without one."""
        return self._estimate("test")

    @functools.cached_property
    def val_accuracy(self) -> Estimate | None:
        """The mean validation accuracy with its 95% interval; ``None`` without one."""
        return self._estimate("validation")

    def outcomes(self, measure: Measure) -> Outcomes:
        """Returns the accuracy of every completed run by seed, and ``None`` for a run that diverged or failed."""
        lost = {seed: None for seed, record in self.records.items() if record.status in LOST}
        return {**self.accuracies(measure), **lost}

    def accuracies(self, measure: Measure) -> dict[int, float]:
        """Returns the accuracy of completed runs by seed; on validation examples, that after the last epoch."""
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

    def to_dict(self) -> dict[str, Any]:
        """Returns the name, the labels and the size as JSON values."""
        return {
            "name": self.name,
            "labels": dict(self.labels),
            "problem": self.problem,
            "parameters": self.parameters,
            "flops": self.flops,
        }

    def _estimate(self, measure: Measure) -> Estimate | None:
        values = self.accuracies(measure)
        return (
            estimate_accuracy(values.values(), resolution=find_resolution([self.config], measure)) if values else None
        )


def describe_lost_runs(arms: Iterable[Arm], names: Mapping[str, str] | None = None) -> list[str]:
    """Returns a line for every run that failed or diverged.

    Args:
        arms: the arms of the runs.
        names: other names for the arms, by their own.
    """
    return [
        f"{lost.status}: {names[lost.cell] if names else lost.cell}, seed={lost.seed}: {lost.reason}"
        for arm in arms
        for lost in arm.failures
    ]


def describe_invalid_arms(arms: Iterable[Arm], names: Mapping[str, str] | None = None) -> list[str]:
    """Returns a line for every arm whose network cannot exist; `names` as in `describe_lost_runs`."""
    return [f"invalid: {names[arm.name] if names else arm.name}: {arm.problem}" for arm in arms if arm.problem]


def find_resolution(configs: Iterable[RunConfig], measure: Measure) -> float | None:
    """Returns the step between possible accuracies, 1 / images; ``None`` if runs have different numbers."""
    sizes = {_count_images(config, measure) for config in configs}
    size = sizes.pop()
    return 1 / size if size and not sizes else None


def find_chance(configs: Iterable[RunConfig]) -> float:
    """Returns the accuracy of always guessing the most frequent class; the lowest one if there are several datasets.

    Where the test images are not at hand, it is 1 / classes; of a function of the user, 0.
    """
    return min(0.0 if config.trial else _find_chance(config.data.whole) for config in configs)


@functools.cache
def _find_chance(data: DataConfig) -> float:
    info = find_info(data)
    if info.sha256 is not None:  # decoded before: a report never prepares a dataset
        try:
            labels = load_data(data).test.labels
        except (CorruptionError, InputError, UnavailableError):
            pass
        else:
            return int(np.bincount(labels).max()) / len(labels)
    return 1 / info.classes


def _count_images(config: RunConfig, measure: Measure) -> int | None:
    if config.trial:
        return None
    info = find_info(config.data.whole)
    if measure == "test":
        return info.test_size
    return split_sizes(config, info.train_size)[1] if info.train_size else None


UNKNOWN = "unknown"


def count_origins(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    """Counts runs by each aspect of their provenance: device, execution, commit, dataset and versions.

    Args:
        records: of any status; runs that never began to train have no provenance and are not counted.

    Returns:
        The number of runs by aspect and value: ``{"device": {"cpu (cpu)": 5}, ...}``.
    """
    counts: dict[str, Counter[str]] = {}
    for record in records:
        for aspect, value in _list_aspects(record.provenance).items():
            counts.setdefault(aspect, Counter())[value] += 1
    return {aspect: dict(values) for aspect, values in counts.items()}


def describe_origins(origins: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Returns a line with the aspects that all runs share, then a line for each aspect in which they differ."""
    same = [f"{aspect} {value}" for aspect, values in origins.items() for value in values if len(values) == 1]
    lines = [f"made with {', '.join(text for text in same if not text.endswith(f' {UNKNOWN}'))}"] if same else []
    for aspect, values in origins.items():
        if len(values) > 1:
            lines.append(f"mixed {aspect}: {', '.join(f'{value} ({runs} runs)' for value, runs in values.items())}")
    return lines


def _list_aspects(provenance: Mapping[str, Any]) -> dict[str, str]:
    if not provenance:
        return {}
    device, source, dataset = (provenance.get(name) or {} for name in ("device", "git", "dataset"))
    versions = {"python": provenance.get("python"), **(provenance.get("packages") or {})}
    commit = source.get("commit")
    aspects = {
        "device": device and f"{device.get('kind')} ({device.get('backend')})",
        "cpu_threads": device.get("cpu_threads"),
        "execution": provenance.get("execution"),
        "xla_flags": provenance.get("xla_flags"),
        "jax_settings": ", ".join(f"{name}={value}" for name, value in (provenance.get("jax_settings") or {}).items()),
        "commit": commit and commit[:12] + (" with changes" if source.get("dirty") else ""),
        f"dataset {dataset.get('name')}": dataset and f"{dataset.get('version')} {str(dataset.get('sha256'))[:12]}",
        **versions,
    }
    code = provenance.get("code")
    if code:
        aspects["code"] = f"{code.get('module')} {str(code.get('sha256'))[:12]}"
    for name, function in (provenance.get("functions") or {}).items():
        aspects[f"code of {name}"] = str(function.get("sha256"))[:12]
    return {aspect: str(value or UNKNOWN) for aspect, value in aspects.items()}
