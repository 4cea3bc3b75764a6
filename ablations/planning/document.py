"""A plan for reading: a row a cell, and below it a line for everything else."""

from collections.abc import Iterable, Iterator

from ablations.planning.plans import CellPlan, Plan
from ablations.planning.sensitivity import ALPHA, POWER, Sensitivity
from ablations.running.costs import TRAIN_SIZE_UNKNOWN
from cnnjax.comparison.verdicts import LEAST_SEEDS
from cnnjax.console import format_seconds
from cnnjax.setting_paths import shorten_paths
from cnnjax.tables import Column, Document, Table

MOST_ROWS = 50
MOST_LINES = 10


def describe_plan(plan: Plan, complete: bool = False) -> Document:
    """Returns the plan as a document.

    Args:
        plan: any.
        complete: with every cell and duplicate; otherwise `MOST_ROWS` and `MOST_LINES` of them, and how many more.
    """
    grid, counts = plan.grid, plan.counts
    cells, seeds = len(grid.cells), len(grid.seeds)
    facts = (
        f"study {grid.name}",
        f"{_count(cells, 'cell')} x {_count(seeds, 'seed')} = {_count(cells * seeds, 'trial')}",
        *(f"{count:,} {_NAMES.get(status, status)}" for status, count in counts.items() if count),
    )
    shown = plan.cells if complete else plan.cells[:MOST_ROWS]
    return Document(plan.title, facts, (_make_table(plan, shown),), tuple(_list_notes(plan, complete)))


def _make_table(plan: Plan, cells: Iterable[CellPlan]) -> Table:
    numbers = (*(Column(name, ",", True) for name in ("parameters", "FLOPs")), Column("s a trial", ",.1f", True))
    columns = (*map(Column, shorten_paths(plan.grid.factors).values()), *numbers, Column("trials"))
    return Table(columns, tuple(_make_row(plan, cell) for cell in cells))


def _make_row(plan: Plan, cell: CellPlan) -> tuple[str | int | float | None, ...]:
    size = cell.size
    return (
        *(cell.cell.labels[factor] for factor in plan.grid.factors),
        *((size.parameters, size.flops) if size else (None, None)),
        cell.seconds,
        ", ".join(f"{count} {_NAMES.get(status, status)}" for status, count in cell.counts.items() if count),
    )


def _list_notes(plan: Plan, complete: bool) -> Iterator[str]:
    most = None if complete else MOST_LINES
    hidden = 0 if complete else len(plan.cells) - MOST_ROWS
    if hidden > 0:
        yield f"... and {_count(hidden, 'more cell')}; --all shows them"
    yield from _cut(
        [f"invalid: {cell.cell.name}: {cell.cell.problem}" for cell in plan.cells if cell.cell.problem], most
    )
    yield from _cut([f"duplicate: {each.name} runs what {each.kept} runs" for each in plan.grid.duplicates], most)
    for name in plan.unknown_datasets:
        yield f"{name} is not prepared: {TRAIN_SIZE_UNKNOWN:,} training examples are assumed"
    yield f"to compile: {_count(plan.programs, 'program')}"
    yield f"estimated time here: {_write_time(plan)}"
    yield _write_sensitivity(plan.sensitivity)


def _cut(lines: list[str], most: int | None) -> list[str]:
    hidden = 0 if most is None else len(lines) - most
    return [*lines[:most], f"... and {hidden:,} more; --all shows them"] if hidden > 0 else lines


def _write_time(plan: Plan) -> str:
    if plan.forecast is None:
        return "not known, for no networks of such sizes were timed here; --calibrate measures it in about 30 s"
    if not plan.counts["waiting"]:
        return "none, there is nothing to run"
    wall, work = (format_seconds(seconds) for seconds in (plan.forecast.wall, plan.forecast.work))
    return f"{wall} on {_count(plan.workers, 'worker')} ({work} of work), from {plan.basis}"


def _write_sensitivity(sensitivity: Sensitivity) -> str:
    if not sensitivity.comparisons:
        return "one cell: nothing to compare"
    spread = f"standard deviation over seeds {sensitivity.standard_deviation:.4f}, {sensitivity.basis}"
    if sensitivity.difference is None:
        return f"with fewer than {LEAST_SEEDS} seeds no comparison is decided ({spread})"
    count = sensitivity.comparisons
    if count > 1:
        which = f"each of the {count} comparisons with a baseline, which together err with {ALPHA:.0%} at most"
    else:
        which = f"the comparison of the two cells, at a level of {ALPHA:.0%}"
    return (
        f"with {sensitivity.seeds} seeds a true difference of {100 * sensitivity.difference:.2f} points of accuracy is "
        f"found with {POWER:.0%} probability in {which} ({spread}; arms taken as uncorrelated, which overstates it "
        "where seeds agree)"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


_NAMES = {"waiting": "to run"}
