"""A grid compared: its cells against a baseline, or all with one another."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ablations.language.grids import Cell, Grid
from ablations.running.arms import make_arms
from ablations.running.topping_up import describe_other_plans
from cnnjax.records import Record
from cnnjax.reports.arms import find_chance, find_resolution
from cnnjax.reports.findings import Findings, Rules, find
from cnnjax.reports.origins import count_origins, describe_origins
from cnnjax.reports.predictions import look_at_images
from cnnjax.runs import Store

NOT_LOOKED_AT: tuple[str, ...] = ("several datasets: single images are not looked at",)


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
    """Returns what the results of a grid say of its cells.

    Args:
        grid: as it was planned: all its cells are the family that verdicts are for.
        records: what is stored of it, by run key.
        store: that has the predictions.
        baseline: the cell that the others are compared with; ``None`` compares all pairs.
        rules: by what they are judged.
        title, facts, command, remarks: as in `Findings`.
        shown: names of the cells to show, the baseline among them; left out, all.

    Raises:
        InputError: fewer than two cells are shown, the baseline has no result, or a rule is out of range.
        CorruptionError: the store cannot be read.
    """
    arms = make_arms(grid, records)
    if rules.looks:  # an arm has the seeds that its looks asked for
        arms = tuple(replace(arm, seeds=tuple(arm.records)) for arm in arms)
    base = None if baseline is None else baseline.name
    shown = {arm.name for arm in arms} if shown is None else shown
    images, notes = None, NOT_LOOKED_AT
    if len({cell.config.data.source for cell in grid.cells}) == 1:
        pictured = [arm for arm in arms if arm.name in shown]
        images, notes = look_at_images(pictured, base, store, grid.cells[0].config.data, rules.measure)
    plans = describe_other_plans(
        grid.name, rules.looks[-1] if rules.looks else None, (known.name for known in store.list_grids())
    )
    findings = find(
        arms,
        base,
        rules,
        title=title,
        facts=facts,
        command=command,
        resolution=find_resolution([cell.config for cell in grid.cells], rules.measure),
        chance=find_chance(cell.config for cell in grid.cells),
        seeds=grid.seeds,
        images=images,
        provenance=describe_origins(count_origins(record for arm in arms for record in arm.records.values())),
        remarks=(*remarks, *notes, *([plans] if plans else [])),
    )
    return findings.show(shown)
