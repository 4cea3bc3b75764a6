"""Reports what the store says of a study: accuracies with their intervals, and everything that went wrong.

A shipped study; a study in a file, best first, some of its cells; two factors against each other; a file for a paper::

    python -m ablations.report padding
    python -m ablations.report my_study.toml --sort=-accuracy --filter 'model.padding=same'
    python -m ablations.report chapter --pivot model.padding model.strides
    python -m ablations.report padding --format latex --output padding.tex

Where a study was run with options of its own (``--set``, ``--seeds``), they are given here again; the name of a study
that was run from a file is enough where its file is gone, for the store keeps what it ran.

CSV has one row a cell, with every column that ``--sort`` knows. The JSON object has ``study``, ``title``, ``seeds``,
``base`` (settings that all cells share and the study gives), ``factors``, ``confidence`` (of all intervals),
``cells``, ``failures`` (``cell``, ``seed``, ``status``, ``reason``,
``output``), ``duplicates`` (``name``, ``kept``), ``provenance`` (number of runs by value, by aspect) and ``remarks``.
A cell has ``name``, ``labels`` (by factor), ``problem`` (why it cannot exist, or null), ``parameters``, ``flops``,
``accuracy`` on the test set and ``val_accuracy`` (``n``, ``mean``, ``standard_deviation``, ``low``, ``high``; or
null), ``keys`` (of its runs) and
``accuracies`` by seed, ``counts`` (of trials by status), ``train_seconds`` (mean of the completed trials) and
``total_seconds`` (spent on all).
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from ablations.arguments import StudyArguments, read_study
from ablations.language.expanding import expand
from ablations.language.grids import Grid
from ablations.language.paths import write_literal
from ablations.language.reading import read_toml
from ablations.language.sources import find_study, list_shipped
from ablations.language.study import Study
from ablations.reporting.reports import Report, make_report
from ablations.reporting.result_tables import list_columns, make_data_table
from ablations.reporting.results import summarize_cells
from ablations.reporting.selecting import read_filters, sort_cells
from cnnjax.console import find_width, run_command, say
from cnnjax.errors import InputError
from cnnjax.outputs import check_output, replace_file
from cnnjax.runs import Store, StoredGrid
from cnnjax.tables import write_csv, write_latex, write_markdown, write_terminal
from experiments.arguments import parse_arguments

PROG = "python -m ablations.report"
SHOWN_OF_BASE = ("data.name", "train.epochs")
_TWO_FACTORS = PrimitiveConstructorSpec(
    nargs=2,
    metavar="ROWS COLUMNS",
    instance_from_str=tuple,
    is_instance=lambda value: True,
    str_from_instance=lambda value: list(value or ["none"]),
)


@dataclass(frozen=True)
class ReportArguments(StudyArguments):
    """Reports what the store says of a study."""

    out: Path = Path("runs")
    """Folder of the store."""
    format: Literal["terminal", "markdown", "csv", "latex", "json"] = "terminal"
    """How the report is written; csv and json hold every number unrounded."""
    sort: str | None = None
    """Factor or column that orders the cells; --sort=-accuracy begins with the highest. Left out, as in the study."""
    filter: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FACTOR=LABEL")] = ()
    """Show these cells alone, or with FACTOR!=LABEL all but these; may be given again."""
    pivot: Annotated[tuple[str, str] | None, _TWO_FACTORS] = None
    """Two factors: the labels of the first head the rows, those of the second the columns."""
    output: Path | None = None
    """File to write the report to; it is replaced as a whole."""
    debug: bool = False
    """Show the traceback of an error."""


def main(argv: list[str]) -> int:
    """Runs the command; returns 0, also where nothing is stored yet."""
    arguments = parse_arguments(ReportArguments, _join_sort(argv), PROG, ReportArguments())
    if arguments.pivot and arguments.format in ("csv", "json"):
        raise InputError(f"--pivot: makes tables to read; {arguments.format} has every cell in full without it")
    if arguments.pivot and arguments.sort:
        raise InputError(
            f"--sort {arguments.sort}: tables of two factors keep the study's order; give --sort or --pivot"
        )
    output = arguments.output and _check_output(arguments.output, arguments.study)
    text = _write(read_report(arguments), arguments)
    if output:
        replace_file(output, text + "\n", "--output")
    else:
        say(text, sys.stdout)
    return 0


def read_report(arguments: ReportArguments) -> Report:
    """Returns the report that the arguments ask for.

    Raises:
        InputError: the study, a filter, or the column to sort by is none.
        CorruptionError: the store cannot be read.
    """
    store = Store(arguments.out)
    grids = {grid.name: grid for grid in store.list_grids()}
    study = read_study(arguments, lambda name: _find_study(name, grids))
    grid = expand(study, arguments.max_trials)
    is_shown = read_filters(arguments.filter, grid)
    records = store.find_all(trial.key for trial in grid.trials)
    shown = [cell for cell in summarize_cells(grid, records) if is_shown(cell)]
    if not shown:
        raise InputError(f"--filter: leaves none of the {len(grid.cells)} cells")
    cells = sort_cells(shown, arguments.sort, grid, list_columns(grid))
    remarks = _remark(grid, len(records), grids.get(grid.name), store)
    base = {path: write_literal(value) for path, value in study.settings.items() if path not in SHOWN_OF_BASE}
    return make_report(study.title, grid, cells, records, remarks, base)


def _find_study(name: str, grids: Mapping[str, StoredGrid]) -> Study:
    if name not in grids or name in list_shipped() or os.path.lexists(name):
        return find_study(name)
    if not grids[name].study:
        raise InputError(f"{name}: is a rung of successive halving, which has no report; `status` tells how far it is")
    return read_toml(grids[name].study, name, f"grid {name} of the store")


def _remark(grid: Grid, stored: int, known: StoredGrid | None, store: Store) -> list[str]:
    remarks = []
    if not stored:
        remarks.append(f"nothing of this study is in {store.path}")
    if known and set(known.trials) != {trial.key for trial in grid.trials}:
        remarks.append(f"the store has a grid of this name with other trials, run by: {known.command}")
    return remarks


def _write(report: Report, arguments: ReportArguments) -> str:
    match arguments.format:
        case "json":
            return json.dumps(report.to_dict(), allow_nan=False)
        case "csv":
            return write_csv(make_data_table(report.grid, report.cells))
    document = report.to_document(arguments.pivot)
    if arguments.format != "terminal":
        return write_markdown(document) if arguments.format == "markdown" else write_latex(document)
    return write_terminal(document, find_width() if arguments.output is None else None)


def _join_sort(argv: list[str]) -> list[str]:
    """Lets ``--sort -accuracy`` be typed, where the parser would take the column for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--sort" and word.startswith("-") and not word.startswith("--"):
            joined[-1] = f"--sort={word}"
        else:
            joined.append(word)
    return joined


def _check_output(path: Path, study: str | None) -> Path:
    target = check_output(path, "--output")
    if study and os.path.exists(study) and target.exists() and target.samefile(study):
        raise InputError(f"--output {path}: is the file of the study itself")
    return target


if __name__ == "__main__":
    run_command(main)
