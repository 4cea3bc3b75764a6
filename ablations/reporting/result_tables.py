"""The results of a grid as tables: one for reading, one of two factors, and one of everything."""

from collections.abc import Callable, Sequence

from ablations.language.choosing import list_labels
from ablations.language.grids import Grid
from ablations.reporting.results import TRIAL_STATUSES, CellResult
from cnnjax.errors import InputError
from cnnjax.estimates import Estimate
from cnnjax.rules import choice
from cnnjax.setting_paths import shorten_paths
from cnnjax.tables import Column, Table, Value


def make_result_table(grid: Grid, cells: Sequence[CellResult]) -> Table:
    """Returns one row a cell, rounded for reading; columns without a value are left out, a count of 0 is none."""
    columns: dict[Column, Callable[[CellResult], Value]] = {
        Column("validation accuracy", right=True): lambda cell: _write_spread(cell, cell.val_accuracy),
        Column("test accuracy", right=True): lambda cell: _write_spread(cell, cell.accuracy),
        Column("95% interval", right=True): lambda cell: _write_interval(cell.accuracy),
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


def make_pivot_tables(grid: Grid, cells: Sequence[CellResult], row: str, column: str) -> tuple[Table, ...]:
    """Returns the accuracy, as mean and standard deviation, by two factors.

    Every combination of the other factors has a table of its own, so that each entry is one cell and nothing is
    averaged over. An entry that lacks seeds says so: ``(2 of 5)``.

    Args:
        grid: of the cells.
        cells: those to show.
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
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell.labels[factor] for factor in others), []).append(cell)
    return tuple(
        _pivot(
            grid, group, row, column, [f"{short[factor]}={label}" for factor, label in zip(others, labels, strict=True)]
        )
        for labels, group in groups.items()
    )


def make_data_table(grid: Grid, cells: Sequence[CellResult]) -> Table:
    """Returns one row a cell with everything that is known of it, unrounded."""
    columns = list_columns(grid)
    rows = (
        (*(cell.labels[factor] for factor in grid.factors), *(read(cell) for read in columns.values()))
        for cell in cells
    )
    return Table(tuple(map(Column, (*grid.factors, *columns))), tuple(rows))


def list_columns(grid: Grid) -> dict[str, Callable[[CellResult], Value]]:
    """Returns the columns of the data table behind the factors: by name, how each is read from a cell."""
    return {
        "parameters": lambda cell: cell.parameters,
        "flops": lambda cell: cell.flops,
        "val_accuracy": lambda cell: cell.val_accuracy and cell.val_accuracy.mean,
        "accuracy": lambda cell: cell.accuracy and cell.accuracy.mean,
        "accuracy_sd": lambda cell: cell.accuracy and cell.accuracy.standard_deviation,
        "accuracy_low": lambda cell: cell.accuracy and cell.accuracy.low,
        "accuracy_high": lambda cell: cell.accuracy and cell.accuracy.high,
        **{f"accuracy_seed_{seed}": _read_accuracy(seed) for seed in grid.seeds},
        "train_seconds": lambda cell: cell.train_seconds,
        "total_seconds": lambda cell: cell.total_seconds,
        **{status: _read_count(status) for status in TRIAL_STATUSES},
        "problem": lambda cell: cell.problem,
    }


def _read_accuracy(seed: int) -> Callable[[CellResult], Value]:
    return lambda cell: cell.accuracies.get(seed)


def _read_count(status: str) -> Callable[[CellResult], Value]:
    return lambda cell: cell.counts[status]


def _pivot(grid: Grid, cells: Sequence[CellResult], row: str, column: str, others: list[str]) -> Table:
    entries = {(cell.labels[row], cell.labels[column]): _write_entry(cell) for cell in cells}
    short = shorten_paths(grid.factors)
    heads = [label for label in list_labels(grid, column) if any(label == found for _, found in entries)]
    rows = [label for label in list_labels(grid, row) if any(label == found for found, _ in entries)]
    return Table(
        (Column(short[row]), *(Column(head, right=True) for head in heads)),
        tuple((label, *(entries.get((label, head)) for head in heads)) for label in rows),
        ", ".join([f"{short[row]} by {short[column]}", *others]),
    )


def _write_entry(cell: CellResult) -> str:
    return _write_spread(cell, cell.accuracy) or ", ".join(
        f"{count} {status}" for status, count in cell.counts.items() if count
    )


def _write_spread(cell: CellResult, estimate: Estimate | None) -> str | None:
    if estimate is None:
        return None
    spread = "" if estimate.standard_deviation is None else f" ± {estimate.standard_deviation:.4f}"
    partly = f" ({estimate.n} of {cell.trials})" if estimate.n < cell.trials else ""
    return f"{estimate.mean:.4f}{spread}{partly}"


def _write_interval(estimate: Estimate | None) -> str | None:
    return None if estimate is None or estimate.low is None else f"[{estimate.low:.4f}, {estimate.high:.4f}]"
