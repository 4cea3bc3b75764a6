"""What a study found: its results with all that a reader must know to judge them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ablations.execution.arms import make_arms
from ablations.execution.topping_up import describe_other_plans
from ablations.results.tables import make_pivot_tables, make_result_table
from ablations.study.grid import Cell, Grid
from cnnjax.console.tables import Document
from cnnjax.reports.arms import Arm, Failure, count_origins, describe_origins
from cnnjax.reports.findings import Findings, Rules, compare
from cnnjax.runs.record import Record
from cnnjax.runs.store import Store

INTERPRETATION = (
    "±: standard deviation over seeds; [low, high]: 95% t interval of the mean over seeds, of that cell alone and for "
    "these training and test images",
    "whether two cells differ is a matter of their paired differences by seed, not of whether their intervals overlap",
)
COMPARISON = "Cells are listed here, not compared: --baseline FACTOR=LABEL or --pairs says which differ."


@dataclass(frozen=True)
class Report:
    """The results of a study.

    Attributes:
        title: the question.
        grid: all that was to be run.
        cells: the results that are shown, in their order.
        remarks: what else is to be said below the table.
        base: the settings that the study's cells share and that are not defaults, by path, as they are typed.
    """

    title: str
    grid: Grid
    cells: tuple[Arm, ...]
    remarks: tuple[str, ...] = ()
    base: Mapping[str, str] = field(default_factory=dict)

    @property
    def origins(self) -> dict[str, dict[str, int]]:
        """The number of runs shown by every aspect of their provenance."""
        return count_origins(record for cell in self.cells for record in cell.records.values())

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The trials shown that failed or diverged."""
        return tuple(failure for cell in self.cells for failure in cell.failures)

    def to_document(self, pivot: tuple[str, str] | None = None) -> Document:
        """Returns the report for reading; with two factors to `pivot`, their tables in place of the row a cell."""
        facts = list_facts(self.grid, self.base)
        tables = (
            make_pivot_tables(self.grid, self.cells, *pivot) if pivot else (make_result_table(self.grid, self.cells),)
        )
        return Document(self.title, facts, tables, (*INTERPRETATION, *self._list_notes()), (COMPARISON,))

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
            "scope": "over seeds, for one training and one test set",
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
            *(f"{each.status}: {each.cell}, seed={each.seed}: {each.reason}" for each in self.failures),
            *(f"pruned: {cell.name}: {cell.pruned}" for cell in self.cells if cell.pruned),
            *(f"invalid: {cell.name}: {cell.problem}" for cell in self.cells if cell.problem),
            *list_duplicates(self.grid),
            *describe_origins(self.origins),
            *self.remarks,
        ]


def list_duplicates(grid: Grid) -> list[str]:
    """Returns a line for every cell that was folded away."""
    return [f"duplicate: {each.name} runs what {each.kept} runs" for each in grid.duplicates]


def list_facts(grid: Grid, base: Mapping[str, str]) -> tuple[str, ...]:
    """Returns what all runs of a study have in common, as short texts.

    Args:
        grid: of the study.
        base: settings that its cells share and that are not defaults, by path, as they are typed.
    """
    return (
        f"study {grid.name}",
        f"seeds {_write_seeds(grid.seeds)}",
        f"{len(grid.trials)} trials",
        f"dataset {_list_values(cell.config.data.name for cell in grid.cells)}",
        f"epochs {_list_values(cell.config.train.epochs for cell in grid.cells)}",
        *(f"{path} {value}" for path, value in base.items()),
    )


def _cell_to_dict(cell: Arm, keys: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": cell.name,
        "labels": dict(cell.labels),
        "problem": cell.problem,
        "parameters": cell.parameters,
        "flops": cell.flops,
        "accuracy": cell.accuracy and asdict(cell.accuracy),
        "val_accuracy": cell.val_accuracy and asdict(cell.val_accuracy),
        "keys": keys,
        "accuracies": {str(seed): accuracy for seed, accuracy in cell.measure("test").items()},
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
    """Returns what the results of a grid say of its cells, as `cnnjax.reports.findings.compare` does of arms.

    Args:
        grid: as it was planned: all its cells are the family that verdicts are for.
        records: what is stored of it, by run key.
        store: that has the predictions.
        baseline: the cell that the others are compared with; ``None`` compares all pairs.
        rules: by what they are judged.
        title, facts, command, remarks: as in `Findings`.
        shown: names of the cells to show, the baseline among them; left out, all.
    """
    arms = make_arms(grid, records)
    if rules.looks:  # an arm has the seeds that its looks asked for
        arms = tuple(replace(arm, seeds=tuple(arm.records)) for arm in arms)
    most = rules.looks[-1] if rules.looks else None
    plans = describe_other_plans(grid.name, most, (known.name for known in store.list_grids()))
    return compare(
        arms,
        None if baseline is None else baseline.name,
        rules,
        store,
        title=title,
        facts=facts,
        command=command,
        seeds=grid.seeds,
        remarks=(*remarks, *([plans] if plans else [])),
        shown=shown,
    )
