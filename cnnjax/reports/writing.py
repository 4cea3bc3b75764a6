"""Findings written in every format: text, Markdown, LaTeX, CSV, JSON and one HTML page."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cnnjax.console.tables import Column, Document, Table, write_csv, write_latex, write_markdown, write_terminal
from cnnjax.console.terminal import find_width, say
from cnnjax.errors import InputError
from cnnjax.machine.files import check_folder, check_output, replace_file
from cnnjax.reports.arms import Measure
from cnnjax.reports.documents import make_document
from cnnjax.reports.findings import ArmResult, Findings, Rules
from cnnjax.reports.sentences import write_scope, write_summary
from cnnjax.settings.checking import Interval, check

Format = Literal["terminal", "markdown", "latex", "csv", "json", "html"]
FORMATS: tuple[Format, ...] = get_args(Format)


def write_findings(findings: Findings, form: Format, width: int | None = None, *, all_tests: bool = False) -> str:
    """Returns the findings as text.

    Args:
        findings: the findings of a comparison.
        form: the format; ``csv`` and ``json`` hold every number unrounded, ``html`` is a page with all pictures.
        width: the columns of the terminal; ``None`` puts every row on one line.
        all_tests: adds every test of significance and the reason of every verdict, which csv and json always have.
    """
    match form:
        case "html":
            from cnnjax.reports.page import write_html

            return write_html(findings, all_tests)
        case "json":
            return json.dumps(to_dict(findings), allow_nan=False)
        case "csv":
            return write_csv(make_data_table(findings))
    return write_document(make_document(findings, all_tests), form, width)


def make_data_table(findings: Findings) -> Table:
    """Returns a table with one row per comparison: all numbers unrounded, and the accuracies of both arms by seed."""
    seeds = sorted({seed for each in findings.arms for seed in each.accuracies})
    columns = (
        *("first", "second", "pairs", "difference", "low", "high", "level", "adjusted_p", "t_p", "sign_flip_p"),
        *(
            "wilcoxon_p",
            "equivalence_p",
            "effect_size",
            "correlation",
            "wins",
            "probability_of_improvement",
            "verdict",
            "label",
            "survives_losses",
            "seeds_needed",
            "equivalence_low",
            "equivalence_high",
            *("first_completed", "first_lost", "second_completed", "second_lost", "scope"),
        ),
        *(f"{side}_seed_{seed}" for side in ("first", "second") for seed in seeds),
    )
    accuracies = {each.arm.name: each.accuracies for each in findings.arms}
    rows = (
        (
            *(each.first, each.second, each.comparison.n, each.comparison.mean, each.low, each.high, each.level),
            *(each.adjusted_p, each.comparison.t_p, each.comparison.sign_flip_p, each.comparison.wilcoxon_p),
            *(each.equivalence_p, each.comparison.effect_size, each.comparison.correlation, each.comparison.wins),
            *(each.comparison.probability_of_improvement, each.verdict.word, each.verdict.label),
            *(each.verdict.survives_losses, each.verdict.seeds_needed, each.equivalence_low, each.equivalence_high),
            *(each.first_runs.completed, each.first_runs.lost, each.second_runs.completed, each.second_runs.lost),
            write_scope(findings),
            *(accuracies[name].get(seed) for name in (each.first, each.second) for seed in seeds),
        )
        for each in findings.contrasts
    )
    return Table(tuple(map(Column, columns)), tuple(rows))


def to_dict(findings: Findings) -> dict[str, Any]:
    """Returns the findings as JSON values, unrounded; without the images."""
    images = findings.images
    return {
        "title": findings.title,
        "facts": list(findings.facts),
        "command": findings.command,
        "rules": dataclasses.asdict(findings.rules),
        "factors": list(findings.factors),
        "base": findings.base,
        "scope": write_scope(findings),
        "uncompared": dict(findings.uncompared),
        "arms": [_arm_to_dict(each) for each in findings.arms],
        "contrasts": [dataclasses.asdict(each) for each in findings.contrasts],
        "shares": [dataclasses.asdict(each) for each in findings.shares],
        "effects": [dataclasses.asdict(each) for each in findings.effects],
        "interactions": [dataclasses.asdict(each) for each in findings.interactions],
        "at_equal_size": [dataclasses.asdict(each) for each in findings.at_equal_size],
        "ranks": findings.ranks and {"arms": list(findings.ranks[0]), **dataclasses.asdict(findings.ranks[1])},
        "noise": images and {name: dataclasses.asdict(noise) for name, noise in images.noise.items()},
        "mcnemar": images and {name: _by_seed(values) for name, values in images.mcnemar.items()},
        "summary": list(write_summary(findings)),
        "provenance": list(findings.provenance),
        "remarks": list(findings.remarks),
    }


def _arm_to_dict(each: ArmResult) -> dict[str, Any]:
    arm = each.arm
    return {
        "name": arm.name,
        "labels": dict(arm.labels),
        "problem": arm.problem,
        "parameters": arm.parameters,
        "flops": arm.flops,
        "estimate": each.estimate and dataclasses.asdict(each.estimate),
        "interquartile_mean": each.interquartile_mean,
        "on_front": each.on_front,
        "accuracies": _by_seed(each.accuracies),
        "keys": {str(seed): record.key for seed, record in arm.records.items()},
        "counts": {status: runs for status, runs in arm.counts.items() if runs},
    }


def _by_seed(values: Mapping[int, float]) -> dict[str, float]:
    return {str(seed): value for seed, value in values.items()}


def write_document(document: Document, form: Format, width: int | None = None) -> str:
    """Returns a document as text.

    Args:
        document: the document.
        form: ``terminal``, ``markdown`` or ``latex``.
        width: the columns of the terminal; ``None`` puts every row on one line.
    """
    match form:
        case "markdown":
            return write_markdown(document)
        case "latex":
            return write_latex(document)
        case "terminal":
            return write_terminal(document, width)
    raise ValueError(f"{form}: no document is written in it")


@dataclass(frozen=True)
class WritingArguments:
    """How the report is written."""

    format: Format = "terminal"
    """The kind of text; csv and json hold every number unrounded, html is a page with pictures."""
    all_tests: bool = False
    """Show every test of significance of a comparison and the reason of every verdict, as csv and json always do."""
    figures: Path | None = None
    """Folder for the pictures of a comparison, as PNG and SVG."""
    output: Path | None = None
    """File to write the report to; it is replaced as a whole."""

    def check_writable(self) -> None:
        """Raises `InputError` or `UnavailableError` where a file or folder cannot be written."""
        if self.figures:
            check_folder(self.figures, "--figures")
        if self.output:
            check_output(self.output, "--output", "; without --output the report goes to the standard output")

    def write(self, found: Findings | Document | str) -> None:
        """Writes the report to the file, or shows it; saves the pictures of findings if there is a folder for them.

        Args:
            found: findings, a document, or a text in the format that was asked for.

        Raises:
            UnavailableError: the file or a picture cannot be written.
        """
        width = find_width() if self.output is None else None
        if isinstance(found, Findings):
            if self.figures:
                from cnnjax.reports.pictures import save_pictures

                save_pictures(found, self.figures)
            text = write_findings(found, self.format, width, all_tests=self.all_tests)
        else:
            text = found if isinstance(found, str) else write_document(found, self.format, width)
        if self.output:
            replace_file(self.output.resolve(), f"{text}\n", "--output")
        else:
            say(text, sys.stdout)


@dataclass(frozen=True)
class JudgingArguments:
    """How arms are judged."""

    by: Measure = "test"
    """The accuracy that is compared: on the test set, or after the last epoch on validation examples."""
    alpha: float = 0.05
    """Probability of any false claim of a difference among all comparisons, and likewise of equivalence."""
    margin: float = 0.2
    """Percentage points of accuracy below which a difference makes none."""
    power: float = 0.8
    """Probability with which the seeds that are planned decide."""


def read_rules(arguments: JudgingArguments, looks: tuple[int, ...] = ()) -> Rules:
    """Returns the rules that the arguments ask for.

    Raises:
        InputError: an argument is out of range.
    """
    check(arguments.alpha, Annotated[float, Interval(0.0001, 0.5, open_high=True)], "--alpha")
    check(arguments.margin, Annotated[float, Interval(0, 100, open_low=True, open_high=True)], "--margin")
    if not arguments.alpha < arguments.power < 1:
        raise InputError(f"--power {arguments.power}: must be > --alpha ({arguments.alpha}) and < 1")
    return Rules(arguments.alpha, arguments.margin / 100, arguments.power, arguments.by, looks)


def refuse_rules(arguments: JudgingArguments, needed: str) -> None:
    """Raises `InputError` if a rule is given without the options `needed`, so that nothing is judged."""
    for field in fields(JudgingArguments):
        value = getattr(arguments, field.name)
        if value != field.default:
            raise InputError(f"--{field.name} {value}: judges a comparison; give {needed}")
