"""The order in which cells are shown."""

from collections.abc import Callable, Mapping, Sequence

from ablations.language.choosing import list_labels
from ablations.language.grids import Grid
from ablations.reporting.results import CellResult
from cnnjax.rules import choice
from cnnjax.tables import Value


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
