"""The best cell by validation accuracy, and the test accuracy of that one alone.

The accuracy by which something was picked is too high for it: the pick favours luck. Test images had no part in it, so
the test accuracy is free of the luck with validation images, as long as it is not looked at to pick again; it is that
of the networks that were trained, which lucky seeds helped to be picked.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ablations.language.grids import Grid
from ablations.reporting.results import CellResult
from cnnjax.errors import InputError
from cnnjax.estimates import Estimate
from cnnjax.setting_paths import shorten_paths
from cnnjax.tables import Column, Document, Table


@dataclass(frozen=True)
class Selection:
    """Cells by validation accuracy.

    Attributes:
        ranked: the cells all of whose trials completed, best first; of equal ones the smaller network.
        left_out: how many cells lack a trial.
    """

    ranked: tuple[CellResult, ...]
    left_out: int

    @property
    def chosen(self) -> CellResult:
        """The best one."""
        return self.ranked[0]

    def to_document(self, grid: Grid, title: str, facts: Sequence[str]) -> Document:
        """Returns the selection for reading."""
        columns = (
            *map(Column, shorten_paths(grid.factors).values()),
            Column("parameters", ",", True),
            Column("validation accuracy"),
        )
        rows = tuple(
            (*(cell.labels[factor] for factor in grid.factors), cell.parameters, _write(cell.val_accuracy))
            for cell in self.ranked
        )
        notes = (
            f"picked by validation accuracy: {self.chosen.name}",
            f"its test accuracy: {_write(self.chosen.accuracy)}, over {_count(len(self.chosen.accuracies), 'seed')}",
            *(
                [f"not to be picked, for want of a completed trial: {_count(self.left_out, 'cell')}"]
                if self.left_out
                else []
            ),
        )
        return Document(title, tuple(facts), (Table(columns, rows),), notes)

    def to_dict(self) -> dict[str, Any]:
        """Returns the selection as JSON values: with the test accuracy of the chosen cell, and of no other."""
        accuracy = self.chosen.accuracy
        return {
            "chosen": self.chosen.name,
            "test_accuracy": accuracy and asdict(accuracy),
            "ranked": [{"cell": cell.name, **asdict(_known(cell.val_accuracy))} for cell in self.ranked],
            "left_out": self.left_out,
        }


def select(cells: Sequence[CellResult]) -> Selection:
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
    if not any(cell.val_accuracies for cell in cells) and any(cell.accuracies for cell in cells):
        raise InputError(
            "--select: no run has validation examples; run the study with --set train.validation_split=0.1"
        )
    complete = [cell for cell in cells if cell.val_accuracy and cell.val_accuracy.n == cell.trials]
    if not complete:
        raise InputError(
            "--select: no cell has completed all its trials yet; `ablations.run` goes on, --retry-failed with failures"
        )
    ranked = sorted(complete, key=lambda cell: (-_known(cell.val_accuracy).mean, cell.parameters or 0))
    return Selection(tuple(ranked), len(cells) - len(ranked))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _known(estimate: Estimate | None) -> Estimate:
    assert estimate is not None
    return estimate


def _write(estimate: Estimate | None) -> str:
    known = _known(estimate)
    interval = " (too few seeds for an interval)" if known.low is None else f" [{known.low:.4f}, {known.high:.4f}]"
    return f"{known.mean:.4f}{interval}"
