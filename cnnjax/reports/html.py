"""The findings as one page that loads nothing: text, pictures and tables in a single file.

Whatever a name or a reason contains, the page shows it as text. Tables and pictures are there without scripts; the one
script sorts tables and turns the page dark or light, and the page's own policy allows no other and no request at all.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from cnnjax.errors import printable
from cnnjax.reports.documents import MEANINGS, list_losses, list_reasons, make_document
from cnnjax.reports.findings import Findings
from cnnjax.reports.inline_svg import inline_figure
from cnnjax.reports.pictures import Picture, draw_all
from cnnjax.reports.summary import WORDS
from cnnjax.tables import Column, Table, Value

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

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
    """A picture of the page; `svg` is ``None`` where there is nothing to draw."""

    name: str
    title: str
    caption: str
    svg: "Markup | None"


def write_html(findings: Findings) -> str:
    """Returns the findings as an HTML page.

    Args:
        findings: what to write.
    """
    from markupsafe import Markup

    pictures = [_prepare_picture(name, picture) for name, picture in draw_all(findings).items()]
    document = make_document(findings)
    script = _read("report.js")
    return _load_template().render(
        findings=findings,
        summary=document.summary,
        before=[picture for picture in pictures if picture.name not in _AFTER_TABLES],
        after=[picture for picture in pictures if picture.name in _AFTER_TABLES],
        tables=[_prepare_table(number, table) for number, table in enumerate(document.tables, 1)],
        meanings=MEANINGS,
        reasons=list_reasons(findings),
        losses=list_losses(findings),
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


def _prepare_picture(name: str, picture: Picture) -> PagePicture:
    from markupsafe import Markup

    if picture.figure is None:
        return PagePicture(name, picture.title, picture.caption, None)
    described = f"{picture.title}: {picture.caption.partition('. ')[0]}"
    return PagePicture(name, picture.title, picture.caption, Markup(inline_figure(picture.figure, name, described)))


def _prepare_table(number: int, table: Table) -> PageTable:
    rows = [
        [_prepare_cell(column, value) for column, value in zip(table.columns, row, strict=True)] for row in table.rows
    ]
    title = table.title or ("arms" if number == 1 else table.columns[-1].heading)
    return PageTable(f"table-{number}", title[:1].upper() + title[1:], table.columns, rows)


def _prepare_cell(column: Column, value: Value) -> PageCell:
    if value is None:
        return PageCell("", None, "")
    if isinstance(value, str):
        return PageCell(value, None, f"verdict {value}" if value in WORDS and column.heading == "verdict" else "")
    return PageCell(format(value, column.format), value, "")
