"""The results of a grid for reading: its cells in tables, the cell to pick, and the comparison of all."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ablations.execution.arms import make_arms
from ablations.execution.topping_up import describe_other_plans
from ablations.study.grid import Cell, Grid, list_labels
from ablations.study.study import StudyConfig
from cnnjax.console.tables import Column, Document, Table, Value
from cnnjax.errors import InputError
from cnnjax.reports.arms import (
    ACCURACIES,
    Arm,
    Failure,
    complete_measure,
    count_origins,
    describe_invalid_arms,
    describe_lost_runs,
    describe_origins,
    place_measure,
)
from cnnjax.reports.findings import Findings, compare_stored_arms
from cnnjax.reports.plans import remark_on_stopping
from cnnjax.reports.rules import Rules
from cnnjax.reports.sentences import write_images, write_mean, write_mean_interval, write_scope
from cnnjax.runs.record import TRIAL_STATUSES, Record
from cnnjax.runs.store import Store
from cnnjax.settings.checking import choice, write_count
from cnnjax.settings.schema import shorten_paths, write_literal
from cnnjax.statistics.estimates import Estimate
from cnnjax.statistics.losses import is_at_chance
from cnnjax.statistics.measures import ACCURACY, Measure

MEANINGS = (
    "±: standard deviation over seeds; [low, high]: 95% t interval of the mean over seeds, of that cell alone{}",
    "whether two cells differ is a matter of their paired differences by seed, not of whether their intervals overlap",
)
COLLAPSED = (
    "means count runs that collapsed, too; a comparison has the runs that trained and the rate of collapses apart"
)
_ALWAYS_SHOWN = ("data.name", "train.epochs")
"""Settings of the base that the facts of a study always show."""
COMPARISON = "Cells are listed here, not compared: --baseline FACTOR=LABEL or --pairs says which differ."


@dataclass(frozen=True)
class Report:
    """The results of a study.

    Attributes:
        title: the question.
        grid: the expanded study.
        cells: the arms to show, in this order.
        remarks: further lines below the table.
        base: the settings of the study's base, by path, as they are typed.
    """

    title: str
    grid: Grid
    cells: tuple[Arm, ...]
    remarks: tuple[str, ...] = ()
    base: Mapping[str, str] = field(default_factory=dict)

    @property
    def measure(self) -> Measure:
        """The accuracy that the report shows: that on the test set, or the one that a function returns."""
        return place_measure(ACCURACY, self.cells)

    @property
    def origins(self) -> dict[str, dict[str, int]]:
        """The number of runs shown by every aspect of their provenance."""
        return count_origins(record for cell in self.cells for record in cell.records.values())

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The trials shown that failed or diverged."""
        return tuple(failure for cell in self.cells for failure in cell.failures)

    def to_document(self, pivot: tuple[str, str] | None = None) -> Document:
        """Returns the report as a document with one row per cell, or with tables of the two factors in `pivot`."""
        facts = describe_study(self.grid, self.base)
        tables = (
            make_pivot_tables(self.grid, self.cells, *pivot) if pivot else (make_result_table(self.grid, self.cells),)
        )
        images = f" and for {write_images(self.cells)}" if self.measure.split else ""
        meanings = (text.format(images) for text in MEANINGS)
        at_chance = count_at_chance(ACCURACY, self.cells)
        collapsed = [f"{write_count(at_chance, 'run')} at chance: {COLLAPSED}"] if at_chance else []
        return Document(self.title, facts, tables, (*meanings, *collapsed, *self._list_notes()), (COMPARISON,))

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as JSON values, unrounded."""
        seeds = self.grid.seeds
        keys = {cell.name: {str(seed): cell.seeded(seed).key for seed in seeds} for cell in self.grid.cells}
        return {
            "study": self.grid.name,
            "title": self.title,
            "seeds": list(self.grid.seeds),
            "base": dict(self.base),
            "factors": list(self.grid.factors),
            "confidence": 0.95,
            "scope": write_scope(self.measure, self.cells),
            "cells": [_cell_to_dict(cell, keys[cell.name]) for cell in self.cells],
            "failures": [asdict(failure) for failure in self.failures],
            "duplicates": [asdict(duplicate) for duplicate in self.grid.duplicates],
            "provenance": self.origins,
            "remarks": list(self.remarks),
        }

    def _list_notes(self) -> list[str]:
        hidden = len(self.grid.cells) - len(self.cells)
        return [
            *([f"{len(self.cells)} of {len(self.grid.cells)} cells are shown"] if hidden else []),
            *describe_lost_runs(self.cells),
            *(f"pruned: {cell.name}: {cell.pruned}" for cell in self.cells if cell.pruned),
            *describe_invalid_arms(self.cells),
            *list_duplicates(self.grid),
            *describe_origins(self.origins),
            *self.remarks,
        ]


def list_duplicates(grid: Grid) -> list[str]:
    """Returns a line for every cell that was left out as a duplicate."""
    return [f"duplicate: {each.name} runs what {each.kept} runs" for each in grid.duplicates]


def list_base(study: StudyConfig) -> dict[str, str]:
    """Returns the settings of a study's base, by path, as they are typed, without those that facts always show."""
    return {path: write_literal(value) for path, value in study.settings.items() if path not in _ALWAYS_SHOWN}


def describe_study(grid: Grid, base: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the facts of a study: its seeds, trials and datasets, and the settings of its base.

    Args:
        grid: the expanded study.
        base: settings of the study's base, by path, as they are typed.
    """
    networks = [cell.config for cell in grid.cells if not cell.config.trial]
    facts = {
        "dataset": _list_values(config.data.name for config in networks),
        "epochs": _list_values(config.train.epochs for config in networks),
    }
    return (
        f"study {grid.name}",
        f"seeds {_write_seeds(grid.seeds)}",
        f"{len(grid.trials)} trials",
        *(f"{name} {values}" for name, values in facts.items() if values),
        *(f"{path} {value}" for path, value in base.items()),
    )


def _cell_to_dict(cell: Arm, keys: Mapping[str, str]) -> dict[str, Any]:
    return {
        **cell.to_dict(),
        "accuracy": cell.accuracy and asdict(cell.accuracy),
        "val_accuracy": cell.val_accuracy and asdict(cell.val_accuracy),
        "keys": keys,
        "accuracies": {str(seed): accuracy for seed, accuracy in cell.accuracies.items()},
        "scores": {name: asdict(estimate) for name in cell.score_names if (estimate := cell.estimate(name))},
        "counts": dict(cell.counts),
        "pruned": cell.pruned,
        "train_seconds": cell.train_seconds,
        "total_seconds": cell.total_seconds,
    }


def _write_seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}..{seeds[-1]}"
    return " ".join(map(str, seeds))


def _list_values(values: Iterable[str | int]) -> str:
    return " ".join(map(str, dict.fromkeys(values)))


def compare_grid(
    grid: Grid,
    records: Mapping[str, Record],
    store: Store,
    baseline: Cell | None,
    rules: Rules,
    *,
    title: str,
    facts: Sequence[str],
    command: str,
    remarks: Sequence[str] = (),
    shown: Collection[str] | None = None,
) -> Findings:
    """Compares the cells of a grid as arms, by `cnnjax.reports.findings.compare_stored_arms`.

    Args:
        grid: the expanded study; all its cells are the family of the verdicts.
        records: the stored records by run key.
        store: the store that has the predictions.
        baseline: the cell that the others are compared with; ``None`` compares all pairs.
        rules: the rules of the comparison.
        title, facts, command, remarks: as in `Findings`.
        shown: names of the cells to show, the baseline among them; left out, all.
    """
    arms = make_arms(grid, records)
    if rules.looks:  # an arm has the seeds that its looks asked for
        arms = tuple(replace(arm, seeds=tuple(arm.records)) for arm in arms)
    most = rules.looks[-1] if rules.looks else None
    plans = describe_other_plans(grid.name, most, (known.name for known in store.list_grids()))
    stopped = [] if rules.at_any_time else remark_on_stopping({cell.seeded(0).key for cell in grid.cells}, store)
    return compare_stored_arms(
        arms,
        None if baseline is None else baseline.name,
        rules,
        store,
        title=title,
        facts=facts,
        command=command,
        seeds=grid.seeds,
        remarks=(*remarks, *([plans] if plans else []), *stopped),
        shown=shown,
    )


def make_result_table(grid: Grid, cells: Sequence[Arm]) -> Table:
    """Returns a table with one row per cell, rounded for reading, without empty columns; a count of 0 is empty."""
    columns: dict[Column, Callable[[Arm], Value]] = {
        Column(_head_means(ACCURACIES["validation"], cells), right=True): lambda cell: _write_spread(
            cell, cell.val_accuracy
        ),
        Column(_head_means(ACCURACY, cells), right=True): lambda cell: _write_spread(cell, cell.accuracy),
        Column("95% interval", right=True): lambda cell: write_mean_interval(cell.accuracy),
        **{Column(name, right=True): _read_spread(name) for name in _list_scores(cells)},
        Column("parameters", ",", True): lambda cell: cell.parameters,
        Column("FLOPs", ",", True): lambda cell: cell.flops,
        Column("train s", ".1f", True): lambda cell: cell.train_seconds,
        **{Column(status, ",", True): _read_count(status) for status in TRIAL_STATUSES},
    }
    values = {column: [read(cell) or None for cell in cells] for column, read in columns.items()}
    used = {column: entries for column, entries in values.items() if any(entry is not None for entry in entries)}
    labels = ([cell.labels[factor] for cell in cells] for factor in grid.factors)
    headings = shorten_paths(grid.factors).values()
    return Table((*map(Column, headings), *used), tuple(zip(*labels, *used.values(), strict=True)))


def count_at_chance(measure: Measure, cells: Sequence[Arm]) -> int:
    """Returns how many completed runs are not shown to do better than guessing, and so collapsed."""
    known = complete_measure(measure, cells)
    return sum(is_at_chance(score, known) for cell in cells for score in cell.scores(known).values())


def _head_means(measure: Measure, cells: Sequence[Arm]) -> str:
    """Returns the heading of means, which says whether runs that collapsed count in them."""
    title = place_measure(measure, cells).title
    return f"{title}, collapsed runs too" if count_at_chance(measure, cells) else title


def make_pivot_tables(grid: Grid, cells: Sequence[Arm], row: str, column: str) -> tuple[Table, ...]:
    """Returns tables of the accuracy, as mean and standard deviation, by two factors.

    Every combination of the other factors has a table of its own, so that each entry is one cell and nothing is
    averaged over. An entry that lacks seeds says so: ``(2 of 5)``.

    Args:
        grid: the grid of the cells.
        cells: the cells to show.
        row, column: the factors whose labels head the rows and the columns.

    Raises:
        InputError: one is not a factor of the study, or both are the same.
    """
    for factor in (row, column):
        choice(factor, grid.factors, "--pivot")
    if row == column:
        raise InputError(f"--pivot {row} {column}: must be two factors")
    short = shorten_paths(grid.factors)
    others = [factor for factor in grid.factors if factor not in (row, column)]
    groups: dict[tuple[str, ...], list[Arm]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell.labels[factor] for factor in others), []).append(cell)
    return tuple(
        _pivot(
            grid, group, row, column, [f"{short[factor]}={label}" for factor, label in zip(others, labels, strict=True)]
        )
        for labels, group in groups.items()
    )


def make_data_table(grid: Grid, cells: Sequence[Arm]) -> Table:
    """Returns a table with one row per cell and all numbers unrounded."""
    columns = list_columns(grid, cells)
    rows = (
        (*(cell.labels[factor] for factor in grid.factors), *(read(cell) for read in columns.values()))
        for cell in cells
    )
    return Table(tuple(map(Column, (*grid.factors, *columns))), tuple(rows))


def list_columns(grid: Grid, cells: Sequence[Arm]) -> dict[str, Callable[[Arm], Value]]:
    """Returns the functions that read the columns of the data table from a cell, by the name of the column."""
    return {
        "parameters": lambda cell: cell.parameters,
        "flops": lambda cell: cell.flops,
        "val_accuracy": lambda cell: cell.val_accuracy and cell.val_accuracy.mean,
        **_list_estimate_columns("accuracy", lambda cell: cell.accuracy),
        **{f"accuracy_seed_{seed}": _read_accuracy(seed) for seed in grid.seeds},
        **{
            column: read
            for name in _list_scores(cells)
            for column, read in _list_estimate_columns(name, _read_estimate(name)).items()
        },
        "train_seconds": lambda cell: cell.train_seconds,
        "total_seconds": lambda cell: cell.total_seconds,
        **{status: _read_count(status) for status in TRIAL_STATUSES},
        "problem": lambda cell: cell.problem,
    }


def _list_scores(cells: Iterable[Arm]) -> list[str]:
    return list(dict.fromkeys(name for cell in cells for name in cell.score_names))


def _list_estimate_columns(name: str, read: Callable[[Arm], Estimate | None]) -> dict[str, Callable[[Arm], Value]]:
    def read_part(part: str) -> Callable[[Arm], Value]:
        return lambda cell: getattr(read(cell), part, None)

    parts = {"": "mean", "_sd": "standard_deviation", "_low": "low", "_high": "high"}
    return {f"{name}{end}": read_part(part) for end, part in parts.items()}


def _read_estimate(name: str) -> Callable[[Arm], Estimate | None]:
    return lambda cell: cell.estimate(name)


def _read_spread(name: str) -> Callable[[Arm], Value]:
    return lambda cell: _write_spread(cell, cell.estimate(name), Measure(name, is_share=False))


def _read_accuracy(seed: int) -> Callable[[Arm], Value]:
    return lambda cell: cell.accuracies.get(seed)


def _read_count(status: str) -> Callable[[Arm], Value]:
    return lambda cell: cell.counts[status]


def _pivot(grid: Grid, cells: Sequence[Arm], row: str, column: str, others: list[str]) -> Table:
    entries = {(cell.labels[row], cell.labels[column]): _write_entry(cell) for cell in cells}
    short = shorten_paths(grid.factors)
    heads = [label for label in list_labels(grid, column) if any(label == found for _, found in entries)]
    rows = [label for label in list_labels(grid, row) if any(label == found for found, _ in entries)]
    return Table(
        (Column(short[row]), *(Column(head, right=True) for head in heads)),
        tuple((label, *(entries.get((label, head)) for head in heads)) for label in rows),
        ", ".join([f"{short[row]} by {short[column]}", *others]),
    )


def _write_entry(cell: Arm) -> str:
    scores = [f"{name} {_read_spread(name)(cell)}" for name in cell.score_names]
    counts = [f"{count} {status}" for status, count in cell.counts.items() if count]
    return _write_spread(cell, cell.accuracy) or ", ".join(scores or counts)


def _write_spread(cell: Arm, estimate: Estimate | None, measure: Measure = ACCURACY) -> str | None:
    if estimate is None:
        return None
    partly = f" ({estimate.n} of {len(cell.seeds)})" if estimate.n < len(cell.seeds) else ""
    return f"{write_mean(estimate, measure)}{partly}"


def sort_cells(
    cells: Sequence[Arm],
    column: str | None,
    grid: Grid,
    columns: Mapping[str, Callable[[Arm], Value]],
) -> tuple[Arm, ...]:
    """Returns the cells sorted by a column; cells without a value come last, and equal ones keep their order.

    Args:
        cells: the cells.
        column: the name of a factor, whose labels are ordered as in the study, or of a column of numbers; with ``-`` in
            front the order is reversed. ``None`` keeps the order.
        grid: the grid of the cells.
        columns: the functions that read the other columns from a cell, by name.

    Raises:
        InputError: there is no such column.
    """
    if column is None:
        return tuple(cells)
    name = column.removeprefix("-")
    choice(name, (*grid.factors, *columns), "--sort")
    levels = {label: index for index, label in enumerate(list_labels(grid, name))} if name in grid.factors else {}
    values = [levels[cell.labels[name]] if levels else columns[name](cell) for cell in cells]
    known = [(value, cell) for value, cell in zip(values, cells, strict=True) if value is not None]
    known.sort(key=lambda pair: pair[0], reverse=column.startswith("-"))
    without = [cell for value, cell in zip(values, cells, strict=True) if value is None]
    return (*(cell for _, cell in known), *without)


@dataclass(frozen=True)
class Pick:
    """The cell to pick: the best of all cells, which are ranked by validation accuracy.

    Attributes:
        ranked: the cells with all trials completed, the best first; of equal ones, the smaller network first.
        left_out: the number of cells without all trials completed.
    """

    ranked: tuple[Arm, ...]
    left_out: int

    @property
    def chosen(self) -> Arm:
        """The best cell."""
        return self.ranked[0]

    def to_document(self, grid: Grid, title: str, facts: Sequence[str]) -> Document:
        """Returns the ranked cells and the best of them as a document."""
        columns = (
            *map(Column, shorten_paths(grid.factors).values()),
            Column("parameters", ",", True),
            Column(_head_means(ACCURACIES["validation"], self.ranked)),
        )
        rows = tuple(
            (*(cell.labels[factor] for factor in grid.factors), cell.parameters, _write(cell.val_accuracy))
            for cell in self.ranked
        )
        accuracy = _known(self.chosen.accuracy)
        incomplete = write_count(self.left_out, "cell")
        notes = (
            f"picked by validation accuracy: {self.chosen.name}",
            f"its test accuracy: {_write(accuracy)}, over {write_count(accuracy.n, 'seed')}",
            *(
                [f"cannot be picked, because some of their trials are not completed: {incomplete}"]
                if self.left_out
                else []
            ),
        )
        return Document(title, tuple(facts), (Table(columns, rows),), notes)

    def to_dict(self) -> dict[str, Any]:
        """Returns the ranked cells as JSON values, with the test accuracy of the best cell alone."""
        accuracy = self.chosen.accuracy
        return {
            "chosen": self.chosen.name,
            "test_accuracy": accuracy and asdict(accuracy),
            "ranked": [{"cell": cell.name, **asdict(_known(cell.val_accuracy))} for cell in self.ranked],
            "left_out": self.left_out,
        }


def pick_cell(cells: Sequence[Arm]) -> Pick:
    """Ranks cells by their mean validation accuracy.

    Raises:
        InputError: no cell has a validation accuracy for every seed, or the cells have different validation examples.
    """
    if len({cell.labels.get("data.name") for cell in cells}) > 1:
        raise InputError("--select: the cells differ in data.name, so in the examples that would judge them")
    if len({cell.labels.get("train.validation_split") for cell in cells}) > 1:
        raise InputError(
            "--select: the cells differ in train.validation_split, so in the examples that would judge them"
        )
    if any(cell.config and cell.config.trial for cell in cells):
        raise InputError("--select: picks by validation accuracy, which a trial function has not; use --sort")
    if any(cell.accuracy for cell in cells) and not any(cell.val_accuracy for cell in cells):
        raise InputError(
            "--select: no run has validation examples; run the study with --set train.validation_split=0.1"
        )
    complete = [cell for cell in cells if cell.val_accuracy and cell.val_accuracy.n == len(cell.seeds)]
    if not complete:
        raise InputError(
            "--select: no cell has completed all its trials yet; `ablations.run` goes on, --retry-failed with failures"
        )
    ranked = sorted(complete, key=lambda cell: (-_known(cell.val_accuracy).mean, cell.parameters or 0))
    return Pick(tuple(ranked), len(cells) - len(ranked))


def _known(estimate: Estimate | None) -> Estimate:
    assert estimate is not None
    return estimate


def _write(estimate: Estimate | None) -> str:
    known = _known(estimate)
    return f"{known.mean:.4f} {write_mean_interval(known) or '(too few seeds for an interval)'}"
