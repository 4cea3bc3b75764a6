"""The findings as one page that loads nothing: text, pictures and tables in a single file.

Whatever a name or a reason contains, the page shows it as text. Tables and pictures are there without scripts; the one
script sorts tables and turns the page dark or light, and the page's own policy allows no other and no request at all.
"""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from cnnjax.errors import printable
from cnnjax.reports.documents import MEANINGS, list_losses, list_reasons, make_document
from cnnjax.reports.findings import Findings
from cnnjax.reports.inline_svg import inline_figure
from cnnjax.reports.pictures import draw_all
from cnnjax.tables import Column, Table, Value, split_code, write_value

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup
    from matplotlib.figure import Figure

_AFTER_TABLES = ("confusions", "hardest")


class PageCell(NamedTuple):
    """A cell of a table: its text, what it is sorted by where that is a number, and its class."""

    text: str
    number: float | None
    kind: str


class PageTable(NamedTuple):
    """A table of the page."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: list[list[PageCell]]


class PagePicture(NamedTuple):
    """A picture of the page."""

    name: str
    title: str
    caption: str
    svg: "Markup"


def write_html(findings: Findings, all_tests: bool = False) -> str:
    """Returns the findings as an HTML page.

    Args:
        findings: what to write.
        all_tests: with every test of significance in the tables.
    """
    from markupsafe import Markup

    drawn = draw_all(findings)
    pictures = [
        _prepare_picture(name, picture.title, picture.caption, picture.figure)
        for name, picture in drawn.items()
        if picture.figure is not None
    ]
    lacking = [f"not drawn: {each.title.lower()}: {each.caption}" for each in drawn.values() if each.figure is None]
    document = make_document(findings, all_tests)
    script = _read("report.js")
    return _load_template().render(
        findings=findings,
        split_code=split_code,
        summary=document.summary,
        before=[picture for picture in pictures if picture.name not in _AFTER_TABLES],
        after=[picture for picture in pictures if picture.name in _AFTER_TABLES],
        tables=[_prepare_table(number, table) for number, table in enumerate(document.tables, 1)],
        meanings=MEANINGS,
        reasons=list_reasons(findings),
        losses=list_losses(findings),
        lacking=lacking,
        style=Markup(_read("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@cache
def _load_template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value, keep="\n") if type(value) is str else value,
    )
    return environment.from_string(_read("report.html.jinja"))


def _read(name: str) -> str:
    return files("cnnjax.reports").joinpath(name).read_text("utf-8")


def _prepare_picture(name: str, title: str, caption: str, figure: "Figure") -> PagePicture:
    from markupsafe import Markup

    described = f"{title}: {caption.partition('. ')[0]}"
    return PagePicture(name, title, caption, Markup(inline_figure(figure, name, described)))


def _prepare_table(number: int, table: Table) -> PageTable:
    rows = [
        [
            _prepare_cell(column, value, (row, place) in table.bold)
            for place, (column, value) in enumerate(zip(table.columns, values, strict=True))
        ]
        for row, values in enumerate(table.rows)
    ]
    return PageTable(f"table-{number}", table.title, table.columns, rows)


def _prepare_cell(column: Column, value: Value, is_bold: bool) -> PageCell:
    number = value if isinstance(value, int | float) else None
    kind = "best" if is_bold else ""
    if column.heading == "verdict" and isinstance(value, str):
        kind = f"verdict {re.split('[ ;]', value)[0]}"
    return PageCell(write_value(value, column), number, kind)
