"""The arguments of the report command, and which of them go together."""

import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

from ablations.arguments import StudyArguments
from cnnjax.errors import InputError
from cnnjax.outputs import check_folder
from cnnjax.reports.writing import Format
from cnnjax.runs import StoredGrid
from experiments.arguments import parse_arguments
from experiments.judging import JudgingArguments, read_rules, refuse_rules
from experiments.options import ADVANCED, Option

PROG, RUN = "python -m ablations.report", "python -m ablations.run"


@dataclass(frozen=True)
class ReportArguments(JudgingArguments, StudyArguments):
    """Reports what the store says of a study::

    python -m ablations.report padding
    python -m ablations.report padding --baseline model.padding=valid
    """

    out: Path = Path("runs")
    """Folder of the store."""
    format: Format = "terminal"
    """How the report is written; csv and json hold every number unrounded, html is a page with pictures."""
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
    all_tests: bool = False
    """Show every test of significance of a comparison, and the reason of every verdict, as csv and json do."""
    figures: Path | None = None
    """Folder for the pictures of a comparison, as PNG and SVG."""
    output: Path | None = None
    """File to write the report to; it is replaced as a whole."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


def parse(argv: list[str]) -> ReportArguments:
    """Returns the arguments.

    Raises:
        InputError: one is none, or two do not go together.
    """
    arguments = parse_arguments(ReportArguments, _join_sort(argv), PROG, ReportArguments())
    _check(arguments)
    return arguments


def refuse_comparison(arguments: ReportArguments) -> None:
    """Raises `InputError` where an option is of a comparison, and cells are listed or picked."""
    for option, given in (("--format html", arguments.format == "html"), ("--figures", arguments.figures is not None)):
        if given:
            raise InputError(f"{option}: shows a comparison; give --baseline FACTOR=LABEL or --pairs")
    refuse_rules(arguments, "--baseline or --pairs")


def repeat_run(arguments: ReportArguments, grid: StoredGrid) -> ReportArguments:
    """Returns the arguments for the report of a stored grid: where it was topped up, by the plan that it was run by."""
    arguments = replace(arguments, study=grid.name)
    words = shlex.split(grid.command)
    if words[:3] != RUN.split() or arguments.baseline or arguments.pairs or arguments.select:
        return arguments
    from ablations.run import RunArguments

    run = parse_arguments(RunArguments, words[3:], RUN, RunArguments())
    if run.top_up is None:
        return arguments
    rules = {field.name: getattr(run, field.name) for field in fields(JudgingArguments)}
    return replace(arguments, baseline=run.baseline, top_up=run.top_up, **rules)


def _check(arguments: ReportArguments) -> None:
    read_rules(arguments)
    if arguments.figures:
        check_folder(arguments.figures, "--figures")
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
    """Lets ``--sort -accuracy`` be typed, where the parser would take the column for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--sort" and word.startswith("-") and not word.startswith("--"):
            joined[-1] = f"--sort={word}"
        else:
            joined.append(word)
    return joined
