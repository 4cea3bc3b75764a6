"""Findings in every format."""

import json
from pathlib import Path
from typing import Literal, get_args

from cnnjax.reports.documents import make_document
from cnnjax.reports.findings import Findings
from cnnjax.reports.unrounded import make_data_table, to_dict
from cnnjax.tables import write_csv, write_latex, write_markdown, write_terminal

Format = Literal["terminal", "markdown", "latex", "csv", "json", "html"]
FORMATS: tuple[Format, ...] = get_args(Format)


def write_findings(
    findings: Findings,
    form: Format,
    width: int | None = None,
    figures: Path | None = None,
    *,
    all_tests: bool = False,
) -> str:
    """Returns the findings as text; where asked for, their pictures are saved too.

    Args:
        findings: what to write.
        form: how; ``csv`` and ``json`` hold every number unrounded, ``html`` is one page with all pictures in it.
        width: of the terminal, in columns; ``None`` gives every row one line.
        figures: folder for the pictures, as PNG and SVG.
        all_tests: with every test of significance and the reason of every verdict, as csv and json always have them.

    Raises:
        UnavailableError: the pictures cannot be saved.
    """
    if figures:
        from cnnjax.reports.pictures import save_pictures

        save_pictures(findings, figures)
    match form:
        case "html":
            from cnnjax.reports.html import write_html

            return write_html(findings, all_tests)
        case "json":
            return json.dumps(to_dict(findings), allow_nan=False)
        case "csv":
            return write_csv(make_data_table(findings))
        case "markdown":
            return write_markdown(make_document(findings, all_tests))
        case "latex":
            return write_latex(make_document(findings, all_tests))
        case "terminal":
            return write_terminal(make_document(findings, all_tests), width)
