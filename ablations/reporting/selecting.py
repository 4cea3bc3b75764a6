"""Which cells of a grid are shown, and in which order."""

import re
from collections.abc import Callable, Mapping, Sequence

from ablations.language.grids import Grid
from ablations.reporting.results import CellResult
from cnnjax.errors import InputError
from cnnjax.rules import choice, near_match
from cnnjax.tables import Value

Condition = Callable[[CellResult], bool]
_CONDITION = re.compile(r"\s*([^=!]*?)\s*(!?=)\s*(.*?)\s*", re.DOTALL)


def read_filters(texts: Sequence[str], grid: Grid) -> Condition:
    """Returns the test for the cells that ``factor=label`` and ``factor!=label`` leave.

    Labels of one factor joined by ``=`` are alternatives; everything else must hold together.

    Raises:
        InputError: a text of another form, an unknown factor, or a label that the factor does not have.
    """
    wanted: dict[str, set[str]] = {}
    unwanted: set[tuple[str, str]] = set()
    for text in texts:
        factor, sign, label = _read_condition(text, grid)
        if sign == "=":
            wanted.setdefault(factor, set()).add(label)
        else:
            unwanted.add((factor, label))
    return lambda cell: (
        all(cell.labels[factor] in labels for factor, labels in wanted.items())
        and unwanted.isdisjoint(cell.labels.items())
    )


def sort_cells(
    cells: Sequence[CellResult],
    column: str | None,
    grid: Grid,
    columns: Mapping[str, Callable[[CellResult], Value]],
) -> tuple[CellResult, ...]:
    """Returns the cells ordered by a column; those without a value come last, equal ones keep their order.

    Args:
        cells: to sort.
        column: name of a factor, whose labels are ordered as in the study, or of a column of numbers; with ``-`` in
            front the order is reversed. ``None`` keeps the order.
        grid: of the cells.
        columns: how the value of every other column is read from a cell.

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


def list_labels(grid: Grid, factor: str) -> list[str]:
    """Returns the labels that a factor has in a grid, in the order they first appear."""
    return list(dict.fromkeys(cell.labels[factor] for cell in grid.cells))


def _read_condition(text: str, grid: Grid) -> tuple[str, str, str]:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise InputError(f"--filter {text!r}: must be factor=label or factor!=label{near_match(text, grid.factors)}")
    factor, sign, label = match.groups()
    choice(factor, grid.factors, "--filter")
    return factor, sign, choice(label, list_labels(grid, factor), f"--filter {factor}")
