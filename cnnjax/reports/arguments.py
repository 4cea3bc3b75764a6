"""The options of commands that compare: how arms are judged, and the format and file of the report."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from cnnjax.console.tables import Document, write_csv, write_latex, write_markdown, write_terminal
from cnnjax.console.terminal import find_width, say
from cnnjax.errors import InputError
from cnnjax.machine.files import check_folder, check_output, replace_file
from cnnjax.reports.documents import make_data_table, make_document, to_dict
from cnnjax.reports.findings import Findings
from cnnjax.reports.rules import Rules, Unit, make_rules


@dataclass(frozen=True)
class JudgingArguments:
    """How arms are judged."""

    by: str = "test"
    """What is compared: test or validation, the accuracy on the test set, or after the last epoch on validation
    examples; loss, the test loss; or the name of a metric that the runs were evaluated by."""
    unit: Unit = "percent"
    """Of a metric or score: percent, from 0 to 1 like an accuracy, its differences in percentage points; or own, any
    number."""
    lower_is_better: bool = False
    """Of a metric or score: lower is better, as of a loss."""
    chance: float | None = None
    """Of a metric or score: what guessing reaches, which a lost run counts as in the worst case."""
    alpha: float = 0.05
    """Probability of any false claim of a difference among all comparisons, and likewise of equivalence."""
    margin: float | None = None
    """Smaller differences count as none: in percentage points, by default 0.2, or in the own unit."""
    power: float = 0.8
    """Probability with which the seeds that are planned decide."""


def read_rules(arguments: JudgingArguments, looks: tuple[int, ...] = (), score: str | None = None) -> Rules:
    """Returns the rules that the arguments ask for, by `make_rules`, whose errors name options.

    Args:
        arguments: the arguments as typed.
        looks, score: as in `make_rules`.
    """
    judging = {field.name: getattr(arguments, field.name) for field in fields(JudgingArguments)}
    return make_rules(**judging, score=score, looks=looks, called=name_option)


def name_option(field: str) -> str:
    """Returns the option of a field: ``--lower-is-better``."""
    return f"--{field.replace('_', '-')}"


def refuse_rules(arguments: JudgingArguments, needed: str) -> None:
    """Raises `InputError` if a rule is given without the options `needed`, so that nothing is judged."""
    refuse_options(arguments, [field.name for field in fields(JudgingArguments)], f"judges a comparison; give {needed}")


def refuse_options(arguments: JudgingArguments, names: Iterable[str], why: str) -> None:
    """Raises `InputError`, which says why, if one of these options is given."""
    defaults = type(arguments)()
    for name in names:
        value: Any = getattr(arguments, name)
        if value != getattr(defaults, name):
            words = [] if value is True else value if isinstance(value, tuple) else [value]
            raise InputError(f"{' '.join(map(str, (name_option(name), *words)))}: {why}")


Format = Literal["terminal", "markdown", "latex", "csv", "json", "html"]
FORMATS: tuple[Format, ...] = get_args(Format)


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
