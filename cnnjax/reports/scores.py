"""Results of other frameworks: scores from a CSV file, a data frame or a mapping, compared like stored runs."""

import contextlib
import csv
import hashlib
import io
import math
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data.dataset import name_classes
from cnnjax.errors import InputError
from cnnjax.machine.files import read_path, read_text
from cnnjax.reports.arms import Arm, Result
from cnnjax.reports.comparison import Comparison
from cnnjax.reports.findings import DATASET, Findings, compare_arms, name_design
from cnnjax.reports.images import ImageFindings, compare_predictions
from cnnjax.reports.rules import Rules, Unit, make_rules
from cnnjax.runs.record import LOST
from cnnjax.settings.checking import check, choice, show

_SMALLEST, _LARGEST = 1e-100, 1e100
"""Sizes between which the squares of scores are finite and not 0."""
_MOST_CLASSES = 2000
"""Most classes of which confusions are looked at."""
Row = tuple[str, Mapping[str, Any]]
"""Where a row is, such as ``line 3``, and its values by column."""


@dataclass(frozen=True)
class Columns:
    """The names of the columns of a table of scores.

    Attributes:
        arm: the columns that tell arms apart; several are the factors of a study.
        seed, score: the columns of the seed and of the score.
        status: the column that says which runs were lost; ``None`` is ``status``, if there is one.
    """

    arm: tuple[str, ...] = ("arm",)
    seed: str = "seed"
    score: str = "score"
    status: str | None = None

    def find(self, names: Sequence[str]) -> "Columns":
        """Returns the columns of a table with these names; raises `InputError` if it lacks one."""
        known = replace(self, status="status") if self.status is None and "status" in names else self
        kinds = (*(("arm", name) for name in known.arm), ("seed", known.seed), ("score", known.score))
        for kind, name in (*kinds, *([("status", known.status)] if known.status is not None else [])):
            choice(name, names, f"column {kind}")
        return known


def read_scores(path: Path, columns: Columns) -> tuple[tuple[Arm, ...], str]:
    """Reads scores from a CSV file, whose first line has the names of the columns.

    Args:
        path: the file, with the delimiter of which its first line has most: a comma, a semicolon or a tab.
        columns: the names of the columns; others are ignored.

    Returns:
        The arms, and a line that identifies the file.

    Raises:
        InputError: the file cannot be read, lacks a column, or has a line that is not valid.
    """
    try:
        text = read_text(path)
        names, rows = _parse_csv(text)
        arms = collect_arms(rows, columns.find(names))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return arms, f"scores of {path.name}, SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _parse_csv(text: str) -> tuple[list[str], list[Row]]:
    """Returns the names of the columns, and the other lines."""
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, [value.strip() for value in values]) for values in reader if values]
    except csv.Error as error:
        raise InputError(f"line {reader.line_num}: not valid CSV: {error}") from None
    if not lines:
        raise InputError("is empty; must begin with a line of column names")
    (_, names), *others = lines
    if len(set(names)) < len(names):
        raise InputError(f"line 1: has a column twice: {', '.join(names)}")
    for number, values in others:
        if len(values) != len(names):
            raise InputError(f"line {number}: must have {len(names)} values, one for each column; has {len(values)}")
    return names, [(f"line {number}", dict(zip(names, values, strict=True))) for number, values in others]


def collect_arms(rows: Iterable[Row], columns: Columns) -> tuple[Arm, ...]:
    """Returns the arms of a table of scores; every arm is taken to be planned with all seeds of the table.

    Args:
        rows: the rows.
        columns: the names of the columns, from `Columns.find`.

    Raises:
        InputError: a value is not valid, an arm has a seed twice, or there are fewer than two arms.
    """
    found: dict[tuple[str, ...], dict[int, Result]] = {}
    for where, row in rows:
        labels = tuple(_read_label(row[name], f"{where}: {name}") for name in columns.arm)
        seed, results = _read_seed(row[columns.seed], f"{where}: {columns.seed}"), found.setdefault(labels, {})
        if seed in results:
            raise InputError(f"{where}: {', '.join(labels)} has seed {seed} twice, first in {results[seed].key}")
        results[seed] = _read_result(row, columns, where)
    if len(found) < 2:
        raise InputError(f"must have at least two arms to compare; has {len(found)}")
    seeds = tuple(sorted({seed for results in found.values() for seed in results}))
    return tuple(_make_arm(columns.arm, labels, results, seeds) for labels, results in found.items())


def _make_arm(
    factors: tuple[str, ...], labels: tuple[str, ...], results: Mapping[int, Result], seeds: tuple[int, ...]
) -> Arm:
    by_factor = dict(zip(factors, labels, strict=True)) if len(factors) > 1 else {}
    name = ", ".join(f"{factor}={label}" for factor, label in by_factor.items()) or labels[0]
    return Arm(name, by_factor, None, results, seeds, None, None)


def _is_empty(value: Any) -> bool:
    return value is None or str(value).strip().lower() in ("", "nan", "na", "<na>")


def _read_label(value: Any, where: str) -> str:
    if _is_empty(value):
        raise InputError(f"{where}: is empty; must be the label of an arm")
    if not isinstance(value, str | numbers.Number | np.generic):
        raise InputError(f"{where} {show(value)}: must be a string or a number, the label of an arm")
    return str(value).strip()


def _read_seed(value: Any, where: str) -> int:
    with contextlib.suppress(ValueError):
        return int(str(value))  # exactly, also above 2**53
    seed = _read_number(value, where, "a whole number")
    if not seed.is_integer():
        raise InputError(f"{where} {show(value)}: must be a whole number")
    return int(seed)


def _read_result(row: Mapping[str, Any], columns: Columns, where: str) -> Result:
    given = None if columns.status is None else row[columns.status]
    status = "completed" if _is_empty(given) else choice(given, ("completed", *LOST), f"{where}: {columns.status}")
    if status in LOST:
        return Result(where, {}, status, f"as {where} says")
    score = _read_number(row[columns.score], f"{where}: {columns.score}", "a number such as 0.97, or empty if lost")
    if score and math.isfinite(score) and not _SMALLEST <= abs(score) <= _LARGEST:
        raise InputError(
            f"{where}: {columns.score} {score:g}: must be 0, or from {_SMALLEST:g} to {_LARGEST:g} in size"
        )
    if math.isfinite(score):
        return Result(where, {columns.score: score})
    return Result(where, {}, "failed", f"{where} has no finite {columns.score}")


def _read_number(value: Any, where: str, legal: str) -> float:
    """Returns a number; ``nan`` for an empty value."""
    try:
        return math.nan if _is_empty(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where} {show(value)}: must be {legal}") from None


def compare_scores(
    arms: Sequence[Arm],
    baseline: str | None,
    rules: Rules,
    *,
    origin: str = "",
    command: str = "",
    images: ImageFindings | None = None,
) -> Findings:
    """Compares arms that are not stored.

    Args:
        arms: at least two.
        baseline: the name of the arm that the others are compared with, without the dataset if there are several;
            ``None`` compares all pairs.
        rules: the rules of the comparison.
        origin: a line about where the scores are from.
        command, images: as in `Findings`.

    Raises:
        InputError: there is no such baseline, it has no result, or a score is not within the range of the measure.
    """
    names = [arm.name for arm in arms]
    if baseline is not None:
        designs = {name_design(arm): arm.name for arm in reversed(arms) if DATASET in arm.labels}
        baseline = designs.get(choice(baseline, (*names, *designs), "baseline"), baseline)
    first, second = sorted(names[:2], key=lambda name: name == baseline)
    return compare_arms(
        arms,
        baseline,
        rules,
        title=f"Is {first} better than {second}?" if len(arms) == 2 else f"How do {len(arms)} arms compare?",
        facts=(f"{len(arms)} arms", f"{len(arms[0].seeds)} seeds", f"score {rules.measure.name}"),
        command=command,
        images=images,
        provenance=[origin] if origin else [],
    )


def compare(
    scores: Any,
    *,
    arm: str | Sequence[str] = "arm",
    seed: str = "seed",
    score: str = "score",
    status: str | None = None,
    labels: Sequence[int] | np.ndarray | None = None,
    baseline: str | None = None,
    unit: Unit = "percent",
    lower_is_better: bool = False,
    chance: float | None = None,
    margin: float | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
) -> Comparison:
    """Compares arms by their scores, which any framework may have made, with the verdicts and reports of stored runs.

    Args:
        scores: a data frame, as of pandas or polars; the path of a CSV file; or a mapping of arms to mappings of seeds
            to scores, where a list has the seeds 0, 1, 2 and so on. An empty score, ``None`` or ``nan`` is a lost run.
        arm: the column that tells arms apart, of a data frame or file; several columns are the factors of a study.
        seed: the column of the seeds. Runs of equal seeds are compared; a seed that one of two arms lacks is left out.
        score: the column of the scores, or the name of the scores of a mapping.
        status: the column that says ``completed``, ``diverged`` or ``failed``; by default ``status``, if there is one.
        labels: the true classes of test examples, int (n,). The values of a mapping are then no scores but the
            predicted classes, int (n,), of which the accuracy is compared.
        baseline: the arm that the others are compared with; by default all pairs are compared.
        unit: ``percent`` for scores from 0 to 1, written in % and percentage points; ``own`` for any numbers.
        lower_is_better: whether a lower score is better, as of a loss.
        chance: the score of guessing, which a lost run counts as in the worst case.
        margin: smaller differences count as none: in percentage points, by default 0.2, or in the own unit of the
            scores, where it must be given.
        alpha: the probability of any false claim of a difference, and likewise of equivalence.
        power: the probability with which the seeds that are planned decide.

    Raises:
        InputError: an argument or a score is not valid, or there are fewer than two arms.

    Example:
        >>> scores = {"valid": [0.970, 0.971, 0.968, 0.969], "same": [0.980, 0.982, 0.979, 0.978]}
        >>> compare(scores, baseline="valid").contrasts["same"].verdict.word
        'better'
        >>> losses = {"adam": {0: 0.371, 1: 0.380, 2: 0.362}, "sgd": {0: 0.412, 1: 0.419, 2: 0.405}}
        >>> found = compare(losses, score="loss", unit="own", lower_is_better=True, margin=0.01)
        >>> found.contrasts["adam", "sgd"].verdict.label
        'better'
    """
    columns = _read_columns(arm, seed, score, status)
    _refuse_unused(scores, columns, labels is not None)
    rules = make_rules(
        score=score if labels is None else "accuracy",
        unit=unit,
        lower_is_better=lower_is_better,
        chance=chance,
        alpha=alpha,
        margin=margin,
        power=power,
    )
    images = None
    if labels is not None:
        scores, rules, images = _score_predictions(
            _read_mapping(scores), _read_classes(labels, "labels"), baseline, rules
        )
    arms, origin = _read_arms(scores, replace(columns, score=rules.measure.name))
    return Comparison(compare_scores(arms, baseline, rules, origin=origin, images=images))


def _read_columns(arm: Any, seed: Any, score: Any, status: Any) -> Columns:
    named = (arm,) if isinstance(arm, str) else check(arm, str | tuple[str, ...], "arm")
    if not named:
        raise InputError("arm=[]: must be the name of a column, or a list of at least one")
    return Columns(named, check(seed, str, "seed"), check(score, str, "score"), check(status, str | None, "status"))


def _refuse_unused(scores: Any, columns: Columns, are_predictions: bool) -> None:
    """Raises `InputError` for an argument that would have no effect on scores of this kind."""
    is_mapping = isinstance(scores, Mapping)
    if are_predictions and not is_mapping:
        raise InputError("labels: need scores to be a mapping of arms to mappings of seeds to predicted classes")
    names = (*(["arm", "seed", "status"] if is_mapping else []), *(["score"] if are_predictions else []))
    if is_mapping and columns.score in ("arm", "seed", "status"):
        raise InputError(f"score={columns.score!r}: is the name of another column; must be such as 'f1'")
    for name in names:
        if getattr(columns, name) != getattr(Columns(), name):
            why = "the accuracy is compared" if name == "score" else "a mapping has no columns"
            raise InputError(f"{name}={show(getattr(columns, name))}: has no effect, as {why}; leave it out")


def _read_arms(scores: Any, columns: Columns) -> tuple[tuple[Arm, ...], str]:
    """Returns the arms of a mapping, a file or a data frame, and a line about where they are from."""
    if isinstance(scores, Mapping):
        rows = (
            (f"scores[{name!r}][{seed}]", {"arm": name, "seed": seed, columns.score: value})
            for name, by_seed in _read_mapping(scores).items()
            for seed, value in by_seed.items()
        )
        return collect_arms(rows, columns), ""
    if isinstance(scores, str | os.PathLike):
        return read_scores(read_path(scores, "scores"), columns)
    if not hasattr(scores, "columns"):
        raise InputError(f"scores: must be a data frame, a path or a mapping, not {type(scores).__name__}")
    names = [str(name) for name in scores.columns]
    table = zip(*(scores[name] for name in scores.columns), strict=True)
    lines = ((f"row {number}", dict(zip(names, values, strict=True))) for number, values in enumerate(table))
    return collect_arms(lines, columns.find(names)), ""


def _read_mapping(scores: Mapping[Any, Any]) -> dict[str, dict[int, Any]]:
    """Returns the values of each arm by seed; the places in a list are its seeds."""
    nested: dict[str, dict[int, Any]] = {}
    for name, values in scores.items():
        is_text_or_number = isinstance(values, str | bytes) or getattr(values, "ndim", 1) == 0
        if is_text_or_number or not isinstance(values, Mapping | Sequence | np.ndarray):
            raise InputError(
                f"scores[{name!r}]={show(values)}: must be a mapping of seeds to scores, or a list of scores"
            )
        pairs = values.items() if isinstance(values, Mapping) else enumerate(values)
        label = _read_label(name, "scores: arm")
        by_seed = nested.setdefault(label, {})
        if by_seed:
            raise InputError(f"scores[{name!r}]: there are two arms called {label}")
        for seed, value in pairs:
            number = _read_seed(seed, f"scores[{name!r}]: seed")
            if number in by_seed:
                raise InputError(f"scores[{name!r}]: has seed {number} twice")
            by_seed[number] = value
        if not by_seed:
            raise InputError(f"scores[{name!r}]: has no scores; must have at least one")
    return nested


def _score_predictions(
    nested: Mapping[str, Mapping[int, Any]], labels: np.ndarray, baseline: str | None, rules: Rules
) -> tuple[dict[str, dict[int, Any]], Rules, ImageFindings | None]:
    """Returns the accuracies of predictions, the rules for them, and what single examples show."""
    predictions: dict[str, dict[int, np.ndarray]] = {}
    for name, by_seed in nested.items():
        for seed, value in by_seed.items():
            if value is not None:
                each = _read_classes(value, f"scores[{name!r}][{seed}]", labels.shape)
                predictions.setdefault(name, {})[seed] = each
    accuracies = {
        name: {
            seed: np.mean(predictions[name][seed] == labels) if value is not None else None
            for seed, value in by_seed.items()
        }
        for name, by_seed in nested.items()
    }
    measure = rules.measure
    chance = float(np.bincount(labels).max() / labels.size) if measure.chance is None else measure.chance
    rules = replace(rules, measure=replace(measure, resolution=1 / labels.size, chance=chance))
    if not predictions:
        return accuracies, rules, None
    highest = max(int(each.max()) for by_seed in predictions.values() for each in (labels, *by_seed.values()))
    if highest >= _MOST_CLASSES:
        return accuracies, rules, None
    return accuracies, rules, compare_predictions(predictions, labels, baseline, name_classes((), highest + 1))


def _read_classes(value: Any, where: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Returns classes as an array, of this shape or of one dimension."""
    try:
        classes = np.asarray(value)
    except ValueError:
        raise InputError(f"{where}: must be classes, whole numbers >= 0; is lists of unequal lengths") from None
    shape = (classes.size,) if shape is None else shape
    if classes.shape != shape or not classes.size or classes.dtype.kind not in "iu" or classes.min() < 0:
        found = f"{classes.dtype} {classes.shape}"
        raise InputError(f"{where}: must be classes, whole numbers >= 0 of shape {shape}; is {found}")
    return classes
