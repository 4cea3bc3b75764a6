"""The cells of a grid as arms of a comparison."""

from collections.abc import Mapping

from ablations.execution.costs import find_size
from ablations.study.grid import Cell, Grid
from cnnjax.reports.arms import Arm
from cnnjax.runs.record import Record


def make_arms(grid: Grid, records: Mapping[str, Record]) -> tuple[Arm, ...]:
    """Returns an arm for every cell.

    Args:
        grid: the cells and their seeds.
        records: the stored records by run key; records of runs outside the grid are ignored.
    """
    return tuple(_make_arm(cell, grid.seeds, records) for cell in grid.cells)


def _make_arm(cell: Cell, seeds: tuple[int, ...], records: Mapping[str, Record]) -> Arm:
    found = {seed: records.get(cell.seeded(seed).key) for seed in seeds}
    stored = {seed: record for seed, record in found.items() if record is not None}
    parameters, flops = (find_size(cell.config) if cell.problem is None else None) or (None, None)
    reasons = [record.reason for record in stored.values() if record.status == "invalid"]
    problem = cell.problem or next(iter(reasons), None)
    return Arm(cell.name, cell.labels, cell.config, stored, seeds, parameters, flops, problem)
