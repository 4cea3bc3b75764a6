"""The cells of a grid as arms of a comparison."""

from collections.abc import Mapping

from ablations.language.grids import Cell, Grid
from ablations.running.costs import find_size
from cnnjax.datasets import load_info
from cnnjax.records import Record
from cnnjax.reports.arms import Arm, Measure
from cnnjax.splits import split_sizes


def make_arms(grid: Grid, records: Mapping[str, Record]) -> tuple[Arm, ...]:
    """Returns an arm for every cell.

    Args:
        grid: of the study.
        records: what is stored, by run key; records of other runs are left aside.
    """
    return tuple(_make_arm(cell, grid.seeds, records) for cell in grid.cells)


def find_resolution(grid: Grid, measure: Measure) -> float | None:
    """Returns the step of the accuracies, one over the images they are of; ``None`` where cells differ in these."""
    sizes = {_count_images(cell, measure) for cell in grid.cells}
    size = sizes.pop()
    return 1 / size if size and not sizes else None


def _make_arm(cell: Cell, seeds: tuple[int, ...], records: Mapping[str, Record]) -> Arm:
    found = {seed: records.get(cell.seeded(seed).key) for seed in seeds}
    stored = {seed: record for seed, record in found.items() if record is not None}
    parameters, flops = find_size(cell.config) if cell.problem is None else (None, None)
    reasons = [record.reason for record in stored.values() if record.status == "invalid"]
    problem = cell.problem or next(iter(reasons), None)
    return Arm(cell.name, cell.labels, stored, seeds, parameters, flops, problem)


def _count_images(cell: Cell, measure: Measure) -> int | None:
    data = cell.config.data
    info = load_info(data.name, manual_dir=data.manual_dir)
    if measure == "test":
        return info.test_size
    return split_sizes(cell.config, info.train_size)[1] if info.train_size else None
