"""A grid compared: its cells against a baseline, or all with one another."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ablations.language.grids import Cell, Grid
from ablations.running.arms import find_resolution, make_arms
from cnnjax.datasets import load
from cnnjax.errors import CorruptionError, UnavailableError
from cnnjax.records import Record
from cnnjax.reports.arms import Arm
from cnnjax.reports.findings import Findings, Rules, find
from cnnjax.reports.origins import count_origins, describe_origins
from cnnjax.reports.predictions import ImageFindings, find_in_images
from cnnjax.runs import Store


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
) -> Findings:
    """Returns what the results of a grid say of its cells.

    Args:
        grid: with the cells to compare.
        records: what is stored of it, by run key.
        store: that has the predictions.
        baseline: the cell that the others are compared with; ``None`` compares all pairs.
        rules: by what they are judged.
        title, facts, command, remarks: as in `Findings`.

    Raises:
        InputError: the baseline has no result, or a rule is out of range.
        CorruptionError: the store cannot be read.
    """
    arms = make_arms(grid, records)
    if rules.looks:  # an arm has the seeds that its looks asked for
        arms = tuple(replace(arm, seeds=tuple(arm.records)) for arm in arms)
    images, notes = _look_at_images(arms, baseline, grid, store)
    return find(
        arms,
        None if baseline is None else baseline.name,
        rules,
        title=title,
        facts=facts,
        command=command,
        resolution=find_resolution(grid, rules.measure),
        images=images,
        provenance=describe_origins(count_origins(record for arm in arms for record in arm.records.values())),
        remarks=(*remarks, *notes),
    )


def _look_at_images(
    arms: Sequence[Arm], baseline: Cell | None, grid: Grid, store: Store
) -> tuple[ImageFindings | None, list[str]]:
    """Returns what single images tell, and why where they tell nothing."""
    datasets = {(cell.config.data.name, cell.config.data.manual_dir) for cell in grid.cells}
    if len(datasets) > 1:
        return None, ["several datasets: single images are not looked at"]
    name, manual_dir = datasets.pop()
    try:
        dataset = load(name, manual_dir=manual_dir)
    except (UnavailableError, CorruptionError) as error:
        return None, [f"single images are not looked at: {error}"]
    images = find_in_images(arms, None if baseline is None else baseline.name, store, dataset)
    return images, [] if images else ["single images are not looked at: no run was tested on these images"]
