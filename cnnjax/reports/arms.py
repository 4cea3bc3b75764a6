"""The arms of a comparison: a configuration with all its seeds, their results, and the origin of the results.

A result is the record of a stored run, or a score of another framework. Means are of completed seeds alone. A run
without a score is counted, and listed with its reason; it never becomes a number. Origins are counted too, because two
machines or two versions of a package may differ where the arms do not.
"""

import functools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from cnnjax.data.loading import find_info, load_data
from cnnjax.data.settings import DataConfig
from cnnjax.errors import CorruptionError, InputError, UnavailableError
from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import EpochMetrics
from cnnjax.runs.provenance import list_code
from cnnjax.runs.record import FINAL, LOST, TRIAL_STATUSES, Record
from cnnjax.runs.splits import count_available, split_sizes
from cnnjax.statistics import Measure, Outcomes, TrainingDraw
from cnnjax.statistics.estimates import Estimate, estimate_score
from cnnjax.statistics.measures import ACCURACY, LOSS

ACCURACIES = {"test": ACCURACY, "validation": replace(ACCURACY, split="validation")}
"""The accuracies that every run has, or every run with validation examples, by the value of ``--by``."""
EVALUATED = (*ACCURACIES, LOSS.name)
"""The values of ``--by`` for which a network needs no metric."""
UNSCORED = "unscored"
"""The status of a completed run without a value of the metric or score that arms are compared by."""
WITHOUT_SCORE = (*LOST, UNSCORED)
"""The statuses of a run that has ended without a score."""


@dataclass(frozen=True)
class Result:
    """The result of a run that is not stored, such as one of another framework; without what only a `Record` knows.

    Attributes:
        key: where it is from, such as ``line 3``.
        scores: the scores by name; empty for a lost run.
        status: ``completed``, ``diverged`` or ``failed``.
        reason: why the run is lost; ``None`` for a completed run.
    """

    key: str
    scores: Mapping[str, float]
    status: str = "completed"
    reason: str | None = None
    history: ClassVar[tuple[EpochMetrics, ...]] = ()
    seconds: ClassVar[Mapping[str, float]] = {}
    provenance: ClassVar[Mapping[str, Any]] = {}
    output: ClassVar[None] = None


def find_score(result: Record | Result, name: str) -> float | None:
    """Returns the score of a completed run that has this name; ``loss`` of a network is its test loss."""
    if name == LOSS.name and isinstance(result, Record) and not result.config.trial:
        return result.test_loss
    return result.scores.get(name)


def read_score(result: Record | Result, measure: Measure) -> float | None:
    """Returns the value of a measure of a completed run; ``None`` for one that it does not have.

    Raises:
        InputError: the value is not within the range of the measure.
    """
    if measure.is_accuracy and isinstance(result, Record) and not result.config.trial:
        if measure.split == "validation":
            return result.history[-1].val_accuracy if result.history else None
        return result.test_accuracy
    score = find_score(result, measure.name)
    if score is not None and measure.is_share and not 0 <= score <= 1:
        where = f"run {result.key[:12]}" if isinstance(result, Record) else result.key
        raise InputError(f"{where}: {measure.name} {score:g}: must be from 0 to 1, as the unit is percent and not own")
    return score


@dataclass(frozen=True)
class Failure:
    """A run that has ended without a score.

    Attributes:
        cell: the name of its arm.
        seed: the seed of the run.
        status: one of `WITHOUT_SCORE`.
        reason: why it has no score.
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
        config: its configuration, whose seed has no meaning; ``None`` for runs of another framework.
        records: the results of its runs by seed; a seed without a result is absent.
        seeds: the seeds that were planned.
        parameters, flops: the size of its network; ``None`` if it cannot exist, or the size is not known.
        problem: why the network cannot exist; ``None`` if it can.
    """

    name: str
    labels: Mapping[str, str]
    config: RunConfig | None
    records: Mapping[int, Record | Result] = field(repr=False)
    seeds: tuple[int, ...]
    parameters: int | None
    flops: int | None
    problem: str | None = None

    @property
    def completed(self) -> dict[int, Record | Result]:
        """The results of completed runs, by seed."""
        return {seed: record for seed, record in self.records.items() if record.status == "completed"}

    @property
    def ended(self) -> tuple[int, ...]:
        """The seeds whose runs have a result: completed or diverged."""
        return tuple(seed for seed, record in self.records.items() if record.status in (*FINAL, UNSCORED))

    @property
    def counts(self) -> Counter[str]:
        """The number of seeds for each of `TRIAL_STATUSES`; without a record a seed is ``missing``, or ``invalid``."""
        counts = Counter(dict.fromkeys(TRIAL_STATUSES, 0))
        unknown = "invalid" if self.problem else "missing"
        counts.update(self.records[seed].status if seed in self.records else unknown for seed in self.seeds)
        return counts

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The runs that have ended without a score."""
        return tuple(
            Failure(self.name, seed, record.status, record.reason, record.output)
            for seed, record in self.records.items()
            if record.status in WITHOUT_SCORE
        )

    @property
    def draws_training(self) -> bool:
        """Whether each of its seeds draws training images of its own."""
        return self.config is not None and self.config.data.resample != "none"

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
        return self._estimate(ACCURACIES["test"])

    @property
    def accuracies(self) -> dict[int, float]:
        """The test accuracies of the completed seeds; empty where a function returns none."""
        known = {seed: result for seed, result in self.completed.items() if isinstance(result, Record)}
        return {seed: record.test_accuracy for seed, record in known.items() if record.test_accuracy is not None}

    @functools.cached_property
    def val_accuracy(self) -> Estimate | None:
        """The mean validation accuracy with its 95% interval; ``None`` without one."""
        return self._estimate(ACCURACIES["validation"])

    @property
    def score_names(self) -> tuple[str, ...]:
        """The names of its scores apart from the accuracy: metrics of a network, or what a function returns."""
        names = dict.fromkeys(name for result in self.completed.values() for name in result.scores)
        return tuple(name for name in names if name != ACCURACY.name)

    def estimate(self, name: str) -> Estimate | None:
        """Returns the mean of a score over the completed seeds at which it is a finite number; ``None`` without one."""
        scores = [result.scores.get(name) for result in self.completed.values()]
        values = [score for score in scores if score is not None]
        return estimate_score(values, Measure(name, "", name == ACCURACY.name)) if values else None

    def judge(self, measure: Measure) -> "Arm":
        """Returns the arm as a measure sees it: a run without a value of this metric or score is `UNSCORED`.

        Raises:
            InputError: no completed run of the arm has a value.
        """
        if measure.is_accuracy and not (self.config and self.config.trial):
            return self
        unscored = [seed for seed, result in self.completed.items() if find_score(result, measure.name) is None]
        if unscored and len(unscored) == len(self.completed):
            raise InputError(f"metric {measure.name}: {self.name}: {self._explain_no_score(measure.name)}")
        reason = f"has no finite {measure.name}"
        lost = {seed: replace(self.records[seed], status=UNSCORED, reason=reason) for seed in unscored}
        return replace(self, records={**self.records, **lost})

    def _explain_no_score(self, name: str) -> str:
        if any(name in result.scores for result in self.completed.values()):
            return "is a finite number in none of its runs"
        evaluated = () if self.config is None or self.config.trial else EVALUATED
        known = dict.fromkeys((*evaluated, *(name for each in self.completed.values() for name in each.scores)))
        return f"none of its runs was evaluated by it; must be one of {', '.join(known)}"

    def outcomes(self, measure: Measure) -> Outcomes:
        """Returns the score of every completed run by seed; of a run without one not a number if it diverged.

        It is ``None`` for a run that is lost for another reason.
        """
        judged = self.judge(measure)
        lost = {
            seed: math.nan if record.status == "diverged" else None
            for seed, record in judged.records.items()
            if record.status in WITHOUT_SCORE
        }
        return {**judged.scores(measure), **lost}

    def scores(self, measure: Measure) -> dict[int, float]:
        """Returns the scores of completed runs by seed; on validation examples, that after the last epoch.

        Raises:
            InputError: as `read_score`.
        """
        scores = {seed: read_score(record, measure) for seed, record in self.completed.items()}
        return {seed: score for seed, score in scores.items() if score is not None}

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
        if self.config and self.config.trial:
            return self.estimate(place_measure(measure, [self]).name)
        values = self.scores(measure)
        if not values:
            return None
        resolution = find_resolution([self.config], measure.split) if self.config else None
        return estimate_score(values.values(), replace(measure, resolution=resolution))


def describe_lost_runs(arms: Iterable[Arm], names: Mapping[str, str] | None = None) -> list[str]:
    """Returns a line for every run that has ended without a score.

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


def place_measure(measure: Measure, arms: Iterable[Arm]) -> Measure:
    """Returns the measure; for functions of the user, which have no test examples, the score with its name alone."""
    if any(arm.config and arm.config.trial for arm in arms):
        return replace(measure, name=measure.title.removeprefix("test "), split="")
    return measure


def complete_measure(measure: Measure, arms: Sequence[Arm]) -> Measure:
    """Returns the accuracy of networks with its resolution and with what guessing reaches; others by `place_measure`.

    Guessing is to give the most frequent class of the test images; of several datasets, where it reaches least.

    Raises:
        InputError: test losses are to be compared, of networks that were trained by different losses.
    """
    measure = place_measure(measure, arms)
    configs = [arm.config for arm in arms if arm.config is not None and not arm.config.trial]
    losses = dict.fromkeys(config.train.loss for config in configs)
    if measure.name == LOSS.name and len(losses) > 1:
        raise InputError(f"by loss: arms must have the same train.loss, and have {' and '.join(losses)}")
    if not measure.is_accuracy or not configs:
        return measure
    chance = min(_find_chance(config.data.whole) for config in configs)
    return replace(measure, resolution=find_resolution(configs, measure.split), chance=chance)


def find_resolution(configs: Iterable[RunConfig], split: str) -> float | None:
    """Returns the step between possible accuracies, 1 / images; ``None`` if runs have different numbers."""
    sizes = {_count_images(config, split) for config in configs}
    size = sizes.pop()
    return 1 / size if size and not sizes else None


def find_training_draws(arms: Iterable[Arm]) -> dict[str, TrainingDraw]:
    """Returns how the seeds of an arm draw their training images, by its name, for arms that do and can exist."""
    draws = {}
    for arm in arms:
        if arm.config is None or not arm.draws_training or arm.problem:
            continue
        examples = find_info(arm.config.data.whole).train_size
        if examples:
            drawn, _ = split_sizes(arm.config, examples)
            is_bootstrap = arm.config.data.resample == "bootstrap"
            draws[arm.name] = TrainingDraw(drawn, count_available(arm.config, examples), is_bootstrap)
    return draws


@functools.cache
def _find_chance(data: DataConfig) -> float:
    """Returns the share of the most frequent class; where the test images are not at hand, 1 / classes."""
    info = find_info(data)
    if info.sha256 is not None:  # decoded before: a report never prepares a dataset
        try:
            labels = load_data(data).test.labels
        except (CorruptionError, InputError, UnavailableError):
            pass
        else:
            return int(np.bincount(labels).max()) / len(labels)
    return 1 / info.classes


def _count_images(config: RunConfig, split: str) -> int | None:
    if config.trial:
        return None
    info = find_info(config.data.whole)
    if split == "test":
        return info.test_size
    return split_sizes(config, info.train_size)[1] if info.train_size else None


UNKNOWN = "unknown"


def count_origins(records: Iterable[Record | Result]) -> dict[str, dict[str, int]]:
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
        "convolutions": provenance.get("convolutions"),
        "execution": provenance.get("execution"),
        "xla_flags": provenance.get("xla_flags"),
        "jax_settings": ", ".join(f"{name}={value}" for name, value in (provenance.get("jax_settings") or {}).items()),
        "commit": commit and commit[:12] + (" with changes" if source.get("dirty") else ""),
        f"dataset {dataset.get('name')}": dataset and f"{dataset.get('version')} {str(dataset.get('sha256'))[:12]}",
        **versions,
    }
    for name, code in list_code(provenance).items():
        package = f"{code.get('package')} {code.get('version')}"
        aspects[f"code of {name}"] = str(code["sha256"])[:12] if "sha256" in code else package
    return {aspect: str(value or UNKNOWN) for aspect, value in aspects.items()}
