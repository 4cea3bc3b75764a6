"""Reports what the store says of a study: compares its cells, lists them, or picks one by validation accuracy.

The last study that was run; a baseline of one's choice; one page with pictures; every number::

    python -m ablations.report
    python -m ablations.report padding --baseline model.padding=valid
    python -m ablations.report padding --format html --output padding.html
    python -m ablations.report padding --format csv --output padding.csv
"""

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

from ablations.arguments import StudyArguments, read_study
from ablations.execution.arms import make_arms
from ablations.execution.topping_up import check_most, extend_seeds
from ablations.results import (
    Report,
    compare_grid,
    describe_study,
    list_base,
    list_columns,
    list_duplicates,
    make_data_table,
    pick_cell,
    sort_cells,
)
from ablations.study.grid import Cell, Grid, choose_cell, expand, find_base_cell, read_choice
from ablations.study.reading import find_study, list_shipped, read_toml
from ablations.study.study import StudyConfig
from cnnjax.console.arguments import ADVANCED, Option, parse_arguments
from cnnjax.console.tables import Document, write_csv
from cnnjax.console.terminal import run_command
from cnnjax.errors import InputError
from cnnjax.reports.arguments import JudgingArguments, WritingArguments, read_rules, refuse_rules
from cnnjax.reports.findings import DATASET, Findings
from cnnjax.reports.plans import SequentialPlan, describe_plan, find_plans, refuse_other_rules
from cnnjax.runs.record import Record
from cnnjax.runs.store import Store, StoredGrid
from cnnjax.statistics import plan_looks

PROG, RUN = "python -m ablations.report", "python -m ablations.run"


@dataclass(frozen=True)
class ReportArguments(JudgingArguments, WritingArguments, StudyArguments):
    """Reports what the store says of a study::

    python -m ablations.report padding
    python -m ablations.report padding --baseline model.padding=valid
    """

    out: Path = Path("runs")
    """Folder of the store."""
    baseline: Annotated[tuple[str, ...], Option(metavar="FACTOR=LABEL")] = ()
    """Compare every cell with this one; given again until one cell is left."""
    pairs: bool = False
    """Compare all pairs of cells."""
    select: bool = False
    """Pick the cell with the best validation accuracy, and report the test accuracy of that one alone."""
    top_up: int | None = None
    """With --baseline, the --top-up that the study was run with: how many seeds a cell may have come to."""
    sort: str | None = None
    """Factor or column that orders the cells; --sort=-accuracy begins with the highest. Left out, as in the study."""
    filter: Annotated[tuple[str, ...], Option(metavar="FACTOR=LABEL")] = ()
    """Show these cells alone, or with FACTOR!=LABEL all but these; may be given again. Verdicts stay those of the whole
    study."""
    pivot: Annotated[tuple[str, str] | None, Option(metavar="ROWS COLUMNS")] = None
    """Two factors: the labels of the first head the rows, those of the second the columns."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


def parse(argv: list[str]) -> ReportArguments:
    """Returns the arguments.

    Raises:
        InputError: an argument is not legal, or two do not go together.
    """
    arguments = parse_arguments(ReportArguments, _join_sort(argv), PROG, ReportArguments())
    _check_options(arguments)
    return arguments


def refuse_comparison_options(arguments: ReportArguments) -> None:
    """Raises `InputError` if an option belongs to a comparison, while cells are listed or picked."""
    for option, given in (("--format html", arguments.format == "html"), ("--figures", arguments.figures is not None)):
        if given:
            raise InputError(f"{option}: shows a comparison; give --baseline FACTOR=LABEL or --pairs")
    refuse_rules(arguments, "--baseline or --pairs")


def repeat_run(arguments: ReportArguments, grid: StoredGrid) -> ReportArguments:
    """Returns the arguments for a stored grid: if it was topped up, with the baseline and rules of that plan."""
    arguments = replace(arguments, study=grid.name)
    words = shlex.split(grid.command)
    if words[:3] != RUN.split() or arguments.baseline or arguments.pairs or arguments.select:
        return arguments
    from ablations.run import RunArguments

    run = parse_arguments(RunArguments, words[3:], RUN, RunArguments())
    if run.top_up is None and run.until_decided is None:
        return arguments
    rules = {field.name: getattr(run, field.name) for field in fields(JudgingArguments)}
    return replace(arguments, baseline=run.baseline, top_up=run.top_up, **rules)


def _check_options(arguments: ReportArguments) -> None:
    read_rules(arguments)
    kinds = {"--baseline": bool(arguments.baseline), "--pairs": arguments.pairs, "--select": arguments.select}
    chosen = [option for option, given in kinds.items() if given]
    if len(chosen) > 1:
        raise InputError(f"{chosen[0]} and {chosen[1]}: give one of {', '.join(kinds)}")
    if chosen and (arguments.pivot or arguments.sort):
        option = "--pivot" if arguments.pivot else "--sort"
        raise InputError(f"{option}: arranges a plain report; leave it out with {chosen[0]}")
    if arguments.top_up is not None and not arguments.baseline:
        raise InputError(f"--top-up {arguments.top_up}: needs --baseline")
    if arguments.pivot and arguments.format in ("csv", "json"):
        raise InputError(f"--pivot: makes tables to read; {arguments.format} has every cell in full without it")
    if arguments.pivot and arguments.sort:
        raise InputError(
            f"--sort {arguments.sort}: tables of two factors keep the study's order; give --sort or --pivot"
        )
    if arguments.select and arguments.format == "csv":
        raise InputError("--format csv: has every cell; --select reports one; leave one of them out")


def _join_sort(argv: list[str]) -> list[str]:
    """Rewrites ``--sort -accuracy`` as ``--sort=-accuracy``; the parser would take the column for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--sort" and word.startswith("-") and not word.startswith("--"):
            joined[-1] = f"--sort={word}"
        else:
            joined.append(word)
    return joined


@dataclass(frozen=True)
class Shown:
    """A study with its grid, the cells to show, and the stored records."""

    study: StudyConfig
    grid: Grid
    cells: tuple[Cell, ...]
    records: Mapping[str, Record]
    remarks: tuple[str, ...]
    base: Mapping[str, str]
    looks: tuple[int, ...]
    plan: SequentialPlan | None

    @property
    def part(self) -> Grid:
        """The grid reduced to the cells that are shown."""
        return replace(self.grid, cells=self.cells)


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    arguments = parse(argv)
    arguments.check_writable()
    _refuse_to_replace_study(arguments.output, arguments.study)
    last = None if arguments.study or arguments.axis else _find_last(Store(arguments.out))
    arguments = arguments if last is None else repeat_run(arguments, last)
    shown = read_shown(arguments, last)
    baseline = _choose_baseline(shown, arguments)
    if baseline or arguments.pairs:
        arguments.write(compare_shown(shown, arguments, baseline, f"{PROG} {shlex.join(argv)}"))
    else:
        refuse_comparison_options(arguments)
        arguments.write(_pick(shown, arguments) if arguments.select else _list_cells(shown, arguments))
    return 0


def read_shown(arguments: ReportArguments, known: StoredGrid | None = None) -> Shown:
    """Returns the study that the arguments ask for, with its stored records.

    Args:
        arguments: the arguments as typed.
        known: the stored grid that has the study; left out, the study is found by its name.

    Raises:
        InputError: the study does not exist, a filter is not legal, or nothing of the study is stored.
        CorruptionError: the store cannot be read.
    """
    store = Store(arguments.out)
    grids = {grid.name: grid for grid in store.list_grids()}
    study = read_study(arguments, lambda name: _read_stored(known) if known else _find_study(name, grids))
    plan = _find_plan(expand(study, arguments.max_trials), store)
    looks: tuple[int, ...] = ()
    if plan:
        _check_plan(arguments, study, plan)
        looks = plan.rules.looks
        study = replace(study, seeds=plan.seeds)
    elif arguments.top_up is not None:
        check_most(expand(study, arguments.max_trials), arguments.top_up, f"--top-up {arguments.top_up}")
        looks = plan_looks(len(study.seeds), arguments.top_up)
        study = replace(study, seeds=extend_seeds(study.seeds, arguments.top_up))
    grid = expand(study, arguments.max_trials)
    is_shown = read_choice(arguments.filter, grid, "--filter")
    records = store.find_all(trial.key for trial in grid.trials)
    if not records and known and not arguments.set:
        raise InputError(
            f"{store.path}: the runs of the study {known.name} are of other code or images than there are now; "
            "the command that made them runs it anew"
        )
    if not records:
        raise InputError(_say_nothing_stored(grid, grids, store, arguments.out))
    cells = tuple(cell for cell in grid.cells if is_shown(cell.labels))
    if not cells:
        raise InputError(f"--filter: leaves none of the {len(grid.cells)} cells")
    remarks = _remark_on_other_trials(grid, None if looks else grids.get(grid.name))
    if plan:
        remarks.append(f"the verdicts are those of its plan: {describe_plan(plan)}")
    return Shown(study, grid, cells, records, tuple(remarks), list_base(study), looks, plan)


def read_report(arguments: ReportArguments, shown: Shown) -> Report:
    """Returns the report that the arguments ask for.

    Raises:
        InputError: there is no such column to sort by.
    """
    results = make_arms(shown.part, shown.records)
    cells = sort_cells(results, arguments.sort, shown.grid, list_columns(shown.grid, results))
    return Report(shown.study.title, shown.grid, cells, shown.remarks, shown.base)


def compare_shown(shown: Shown, arguments: ReportArguments, baseline: Cell | None, command: str) -> Findings:
    """Returns the comparison that the arguments ask for.

    Args:
        shown: the study.
        arguments: the arguments as typed.
        baseline: the cell that the others are compared with; ``None`` compares all pairs.
        command: the command that makes the report again.

    Raises:
        InputError: the baseline has no result.
        CorruptionError: the store cannot be read.
    """
    return compare_grid(
        shown.grid,
        shown.records,
        Store(arguments.out),
        baseline,
        replace(shown.plan.rules, power=arguments.power) if shown.plan else read_rules(arguments, shown.looks),
        title=shown.study.title,
        facts=describe_study(shown.grid, shown.base),
        command=command,
        remarks=(*list_duplicates(shown.grid), *shown.remarks),
        shown={cell.name for cell in shown.cells},
    )


def _find_plan(grid: Grid, store: Store) -> SequentialPlan | None:
    """Returns the stored plan by which the arms of a grid are run until they are decided; ``None`` without one."""
    keys = {cell.seeded(0).key for cell in grid.cells if cell.problem is None}
    return next((plan for plan in find_plans(keys, store) if plan.is_of(keys)), None)


def _check_plan(arguments: ReportArguments, study: StudyConfig, plan: SequentialPlan) -> None:
    """Raises `InputError` if the arguments ask for another judgement than that of a stored plan."""
    holds = f"{describe_plan(plan)}, which holds"
    if arguments.pairs:
        raise InputError(f"--pairs: {holds}; only comparisons with its baseline can be made")
    if arguments.top_up is not None:
        raise InputError(f"--top-up {arguments.top_up}: {holds}; leave the option out")
    if arguments.seeds is not None and study.seeds not in (plan.seeds, plan.seeds[: plan.first]):
        raise InputError(f"--seeds {arguments.seeds}: {holds}; leave the option out")
    if arguments.baseline:
        cell = choose_cell(arguments.baseline, expand(study, arguments.max_trials), "--baseline")
        if cell.seeded(0).key != plan.arms[plan.baseline]:
            raise InputError(f"--baseline {' '.join(arguments.baseline)}: {holds}; must be its baseline")
    refuse_other_rules(arguments, read_rules(arguments), plan)


def _find_study(name: str, grids: Mapping[str, StoredGrid]) -> StudyConfig:
    if name not in grids or name in list_shipped() or os.path.lexists(name):
        return find_study(name)
    if not grids[name].study:
        raise InputError(
            f"{name}: is a part of another grid, and has no report of its own; `status` tells how far it is"
        )
    return _read_stored(grids[name])


def _read_stored(grid: StoredGrid) -> StudyConfig:
    return read_toml(grid.study, grid.name, f"grid {grid.name} of the store")


def _find_last(store: Store) -> StoredGrid:
    """Returns the grid of the study that was run last, not one of a look of a top-up or a rung of halving."""
    whole = [grid for grid in store.list_grids() if grid.study]
    if not whole:
        raise InputError(f"{store.path}: no grid was run into it; name a STUDY, or run one with `ablations.run`")
    return whole[-1]


def _say_nothing_stored(grid: Grid, grids: Mapping[str, StoredGrid], store: Store, out: Path) -> str:
    last = [known for known in grids.values() if known.study]
    hint = f"; `{PROG} --out {shlex.quote(str(out))}` reports what ran last: {last[-1].command}" if last else ""
    return f"{store.path}: nothing is stored of the study {grid.name} with these settings and seeds{hint}"


def _choose_baseline(shown: Shown, arguments: ReportArguments) -> Cell | None:
    """Returns the cell to compare with: that of the plan, the one asked for, or the one that equals the base."""
    lists_cells = arguments.pairs or arguments.select or arguments.sort or arguments.pivot
    if shown.plan and not lists_cells and len(shown.cells) > 1:
        key = shown.plan.arms[shown.plan.baseline]
        return next((cell for cell in shown.cells if cell.seeded(0).key == key), None)
    if arguments.baseline:
        return choose_cell(arguments.baseline, shown.part, "--baseline", apart_from=DATASET)
    if lists_cells or arguments.format in ("csv", "json") or len(shown.cells) < 2:
        return None
    if len({cell.config.data.name for cell in shown.cells}) > 1:
        return None
    cell = find_base_cell(shown.study, shown.cells)
    score = read_rules(arguments).measure.name
    has_result = cell and any(
        record.status == "completed" and (not record.config.trial or score in record.scores)
        for seed in shown.grid.seeds
        if (record := shown.records.get(cell.seeded(seed).key))
    )
    return cell if has_result else None


def _remark_on_other_trials(grid: Grid, known: StoredGrid | None) -> list[str]:
    if known and set(known.trials) != {trial.key for trial in grid.trials}:
        return [f"the store has a grid of this name with other trials, run by: {known.command}"]
    return []


def _list_cells(shown: Shown, arguments: ReportArguments) -> Document | str:
    report = read_report(arguments, shown)
    match arguments.format:
        case "json":
            return json.dumps(report.to_dict(), allow_nan=False)
        case "csv":
            return write_csv(make_data_table(report.grid, report.cells))
    return report.to_document(arguments.pivot)


def _pick(shown: Shown, arguments: ReportArguments) -> Document | str:
    pick = pick_cell(make_arms(shown.part, shown.records))
    if arguments.format == "json":
        return json.dumps(pick.to_dict(), allow_nan=False)
    return pick.to_document(shown.grid, shown.study.title, describe_study(shown.grid, shown.base))


def _refuse_to_replace_study(output: Path | None, study: str | None) -> None:
    """Raises `InputError` if the report would replace the file of the study."""
    if output and study and os.path.exists(study) and output.exists() and output.samefile(study):
        raise InputError(f"--output {output}: is the file of the study itself")


if __name__ == "__main__":
    run_command(main)
