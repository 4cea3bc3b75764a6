"""Reports what the store says of a study: accuracies with their intervals, and everything that went wrong.

The grid that was run last; a shipped study; a study in a file, best first, some of its cells; two factors against each
other; a file for a paper::

    python -m ablations.report --out runs
    python -m ablations.report padding
    python -m ablations.report my_study.toml --sort=-accuracy --filter 'model.padding=same'
    python -m ablations.report chapter --pivot model.padding model.strides
    python -m ablations.report padding --format latex --output padding.tex

Compared: every cell with one of them, all pairs, as one HTML page; the best by validation accuracy, and its test
accuracy::

    python -m ablations.report padding --baseline model.padding=valid
    python -m ablations.report pooling --pairs --format html --output pooling.html
    python -m ablations.report padding --set train.validation_split=0.1 --select

Where one cell equals the base of the study, the others are compared with it, unless they are sorted (``--sort``), set
against each other (``--pivot``) or picked from (``--select``). Without STUDY, the report is of the grid that was run
last, as it was run; with STUDY, options that it was run with (``--set``, ``--seeds``) are given again. The name of a
study that was run from a file is enough where its file is gone, for the store keeps what it ran.

CSV has one row a cell, with every column that ``--sort`` knows. The JSON object has ``study``, ``title``, ``seeds``,
``base`` (settings that all cells share and the study gives), ``factors``, ``confidence`` (of all intervals),
``cells``, ``failures`` (``cell``, ``seed``, ``status``, ``reason``,
``output``), ``duplicates`` (``name``, ``kept``), ``provenance`` (number of runs by value, by aspect) and ``remarks``.
A cell has ``name``, ``labels`` (by factor), ``problem`` (why it cannot exist, or null), ``parameters``, ``flops``,
``accuracy`` on the test set and ``val_accuracy`` (``n``, ``mean``, ``standard_deviation``, ``low``, ``high``; or
null), ``keys`` (of its runs) and
``accuracies`` by seed, ``counts`` (of trials by status), ``train_seconds`` (mean of the completed trials) and
``total_seconds`` (spent on all). With ``--baseline`` or ``--pairs`` CSV has one row a comparison, and the JSON object
what `cnnjax.reports.findings.Findings` holds.
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ablations.arguments import read_study
from ablations.language.choosing import choose_cell, read_choice
from ablations.language.expanding import expand
from ablations.language.grids import Cell, Grid
from ablations.language.reading import read_toml
from ablations.language.sources import find_study, list_shipped
from ablations.language.study import Study
from ablations.report_arguments import PROG, ReportArguments, parse, refuse_comparison, repeat_run
from ablations.reporting.comparing import compare_grid
from ablations.reporting.reports import Report, list_duplicates, list_facts, make_report
from ablations.reporting.result_tables import list_columns, make_data_table
from ablations.reporting.results import summarize_cells
from ablations.reporting.selection import select
from ablations.reporting.sorting import sort_cells
from ablations.running.topping_up import check_most, extend_seeds
from cnnjax.comparison import plan_looks
from cnnjax.config import RunConfig
from cnnjax.console import find_width, run_command, say
from cnnjax.errors import InputError
from cnnjax.outputs import check_output, replace_file
from cnnjax.records import Record
from cnnjax.reports.findings import Findings
from cnnjax.reports.writing import write_findings
from cnnjax.runs import Store, StoredGrid
from cnnjax.setting_paths import nest, write_literal
from cnnjax.tables import Document, write_csv, write_latex, write_markdown, write_terminal
from experiments.judging import read_rules

SHOWN_OF_BASE = ("data.name", "train.epochs")


@dataclass(frozen=True)
class Shown:
    """What is to be shown: a study, its grid with the cells that were asked for, and what is stored of it."""

    study: Study
    grid: Grid
    cells: tuple[Cell, ...]
    records: Mapping[str, Record]
    remarks: tuple[str, ...]
    base: Mapping[str, str]
    looks: tuple[int, ...]

    @property
    def part(self) -> Grid:
        """The grid with the cells that are shown."""
        return replace(self.grid, cells=self.cells)


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    arguments = parse(argv)
    output = arguments.output and _check_output(arguments.output, arguments.study)
    last = None if arguments.study or arguments.axis else _find_last(Store(arguments.out))
    arguments = arguments if last is None else repeat_run(arguments, last)
    shown = read_shown(arguments, last)
    baseline = _choose_baseline(shown, arguments)
    if baseline or arguments.pairs:
        findings = compare(shown, arguments, baseline, f"{PROG} {shlex.join(argv)}")
        width = find_width() if output is None else None
        text = write_findings(findings, arguments.format, width, arguments.figures, all_tests=arguments.all_tests)
    else:
        refuse_comparison(arguments)
        text = _write_selection(shown, arguments) if arguments.select else _write_report(shown, arguments)
    if output:
        replace_file(output, text + "\n", "--output")
    else:
        say(text, sys.stdout)
    return 0


def read_shown(arguments: ReportArguments, known: StoredGrid | None = None) -> Shown:
    """Returns the study that the arguments ask for, with what is stored of it.

    Args:
        arguments: as they were typed.
        known: the stored grid whose study it is; left out, the study is found by its name.

    Raises:
        InputError: the study or a filter is none, or nothing of it is stored.
        CorruptionError: the store cannot be read.
    """
    store = Store(arguments.out)
    grids = {grid.name: grid for grid in store.list_grids()}
    study = read_study(arguments, lambda name: _read_stored(known) if known else _find_study(name, grids))
    looks: tuple[int, ...] = ()
    if arguments.top_up is not None:
        check_most(expand(study, arguments.max_trials), arguments.top_up)
        looks = plan_looks(len(study.seeds), arguments.top_up)
        study = replace(study, seeds=extend_seeds(study.seeds, arguments.top_up))
    grid = expand(study, arguments.max_trials)
    is_shown = read_choice(arguments.filter, grid, "--filter")
    records = store.find_all(trial.key for trial in grid.trials)
    if not records:
        raise InputError(_say_nothing_stored(grid, grids, store, arguments.out))
    cells = tuple(cell for cell in grid.cells if is_shown(cell.labels))
    if not cells:
        raise InputError(f"--filter: leaves none of the {len(grid.cells)} cells")
    remarks = _remark(grid, None if arguments.top_up is not None else grids.get(grid.name))
    base = {path: write_literal(value) for path, value in study.settings.items() if path not in SHOWN_OF_BASE}
    return Shown(study, grid, cells, records, tuple(remarks), base, looks)


def read_report(arguments: ReportArguments, shown: Shown) -> Report:
    """Returns the report that the arguments ask for.

    Raises:
        InputError: the column to sort by is none.
    """
    results = summarize_cells(shown.part, shown.records)
    cells = sort_cells(results, arguments.sort, shown.grid, list_columns(shown.grid))
    return make_report(shown.study.title, shown.grid, cells, shown.records, shown.remarks, shown.base)


def compare(shown: Shown, arguments: ReportArguments, baseline: Cell | None, command: str) -> Findings:
    """Returns the comparison that the arguments ask for.

    Args:
        shown: what is compared.
        arguments: how.
        baseline: the cell that the others are compared with; ``None`` compares all pairs.
        command: that makes the report again.

    Raises:
        InputError: the baseline is none or has no result.
        CorruptionError: the store cannot be read.
    """
    return compare_grid(
        shown.grid,
        shown.records,
        Store(arguments.out),
        baseline,
        read_rules(arguments, shown.looks),
        title=shown.study.title,
        facts=list_facts(shown.grid, shown.base),
        command=command,
        remarks=(*list_duplicates(shown.grid), *shown.remarks),
        shown={cell.name for cell in shown.cells},
    )


def _find_study(name: str, grids: Mapping[str, StoredGrid]) -> Study:
    if name not in grids or name in list_shipped() or os.path.lexists(name):
        return find_study(name)
    if not grids[name].study:
        raise InputError(
            f"{name}: is a part of another grid, and has no report of its own; `status` tells how far it is"
        )
    return _read_stored(grids[name])


def _read_stored(grid: StoredGrid) -> Study:
    return read_toml(grid.study, grid.name, f"grid {grid.name} of the store")


def _find_last(store: Store) -> StoredGrid:
    """Returns the study that was run last; a look of a top-up and a rung of halving are parts of one."""
    whole = [grid for grid in store.list_grids() if grid.study]
    if not whole:
        raise InputError(f"{store.path}: no grid was run into it; name a STUDY, or run one with `ablations.run`")
    return whole[-1]


def _say_nothing_stored(grid: Grid, grids: Mapping[str, StoredGrid], store: Store, out: Path) -> str:
    last = [known for known in grids.values() if known.study]
    hint = f"; `{PROG} --out {shlex.quote(str(out))}` reports what ran last: {last[-1].command}" if last else ""
    return f"{store.path}: nothing is stored of the study {grid.name} with these settings and seeds{hint}"


def _choose_baseline(shown: Shown, arguments: ReportArguments) -> Cell | None:
    """Returns the cell that the others are compared with: as asked for, or the one that equals the study's base."""
    if arguments.baseline:
        return choose_cell(arguments.baseline, shown.part, "--baseline")
    lists_cells = arguments.pairs or arguments.select or arguments.sort or arguments.pivot
    if lists_cells or arguments.format in ("csv", "json") or len(shown.cells) < 2:
        return None
    if len({cell.config.data.name for cell in shown.cells}) > 1:
        return None
    base = RunConfig.from_dict(nest(shown.study.settings)).key
    cell = next((cell for cell in shown.cells if replace(cell.config, seed=0).key == base), None)
    has_result = cell and any(
        record.status == "completed"
        for seed in shown.grid.seeds
        if (record := shown.records.get(cell.seeded(seed).key))
    )
    return cell if has_result else None


def _remark(grid: Grid, known: StoredGrid | None) -> list[str]:
    if known and set(known.trials) != {trial.key for trial in grid.trials}:
        return [f"the store has a grid of this name with other trials, run by: {known.command}"]
    return []


def _write_report(shown: Shown, arguments: ReportArguments) -> str:
    report = read_report(arguments, shown)
    match arguments.format:
        case "json":
            return json.dumps(report.to_dict(), allow_nan=False)
        case "csv":
            return write_csv(make_data_table(report.grid, report.cells))
    return _write_document(report.to_document(arguments.pivot), arguments)


def _write_selection(shown: Shown, arguments: ReportArguments) -> str:
    selection = select(summarize_cells(shown.part, shown.records))
    if arguments.format == "json":
        return json.dumps(selection.to_dict(), allow_nan=False)
    facts = list_facts(shown.grid, shown.base)
    return _write_document(selection.to_document(shown.grid, shown.study.title, facts), arguments)


def _write_document(document: Document, arguments: ReportArguments) -> str:
    if arguments.format != "terminal":
        return write_markdown(document) if arguments.format == "markdown" else write_latex(document)
    return write_terminal(document, find_width() if arguments.output is None else None)


def _check_output(path: Path, study: str | None) -> Path:
    target = check_output(path, "--output", "; without --output the report goes to the standard output")
    if study and os.path.exists(study) and target.exists() and target.samefile(study):
        raise InputError(f"--output {path}: is the file of the study itself")
    return target


if __name__ == "__main__":
    run_command(main)
