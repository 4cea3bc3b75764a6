"""The findings as one HTML page, which holds its figures, styles and script."""

import base64
import hashlib
import io
import re
import xml.etree.ElementTree as ET
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from cnnjax.console.tables import Column, Table, Value, split_code, write_value
from cnnjax.errors import printable
from cnnjax.figures.style import BLUE, INK, encode_figure
from cnnjax.reports.documents import (
    NEW_IMAGES,
    NEW_TRAINING,
    OTHER_DATASETS,
    list_losses,
    list_meanings,
    list_reasons,
    make_document,
)
from cnnjax.reports.findings import Findings
from cnnjax.reports.pictures import draw_all

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup
    from matplotlib.figure import Figure

_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_LEFT_OUT = ("metadata", "style")
"""Elements to leave out: what matplotlib says about itself, and a style that would apply to the whole page."""


def inline_figure(figure: "Figure", name: str, description: str) -> str:
    """Returns a figure as an ``<svg>`` element for a page.

    Text and axes take the colour of the surrounding text, and blue is the page's ``--blue``, so that the figure can be
    read on a light and on a dark page.

    Args:
        figure: the figure.
        name: an identifier that no other figure of the page has; letters, digits and underscores.
        description: the text that screen readers read instead of the figure.
    """
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _LINK)
    root = ET.parse(io.BytesIO(encode_figure(figure, ".svg"))).getroot()
    _drop_left_out(root)
    used = {target for element in root.iter() for target in _list_references(element)}
    for element in root.iter():
        _rewrite(element, name, used)
    width = float(root.get("width", "0pt").removesuffix("pt")) * 96 / 72
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-label", description)
    root.set("style", f"max-width: {width:.0f}px; min-width: {0.85 * width:.0f}px")
    return ET.tostring(root, encoding="unicode")


def _drop_left_out(parent: ET.Element) -> None:
    for child in list(parent):
        if child.tag.rpartition("}")[2] in _LEFT_OUT:
            parent.remove(child)
        else:
            _drop_left_out(child)


def _list_references(element: ET.Element) -> list[str]:
    link = element.get(f"{{{_LINK}}}href", "")
    found = [target for value in element.attrib.values() for target in _REFERENCE.findall(value)]
    return [*found, *([link[1:]] if link.startswith("#") else [])]


def _rewrite(element: ET.Element, name: str, used: set[str]) -> None:
    """Prefixes identifiers with the name of the figure, drops unused ones, and uses the colours of the page."""
    for attribute, value in list(element.attrib.items()):
        if attribute == "id":
            if value in used:
                element.set("id", f"{name}-{value}")
            else:
                del element.attrib["id"]
        elif attribute == f"{{{_LINK}}}href" and value.startswith("#"):
            element.set(attribute, f"#{name}-{value[1:]}")
        else:
            coloured = value.replace(INK, "currentColor").replace(BLUE.lower(), "var(--blue)")
            element.set(attribute, _REFERENCE.sub(rf"url(#{name}-\1)", coloured))


_AFTER_TABLES = ("confusions", "hardest")
"""Pictures that stand below the tables."""


class PageCell(NamedTuple):
    """A cell of a table: its text, the number to sort it by if there is one, and its CSS class."""

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
        findings: the findings of a comparison.
        all_tests: adds every test of significance to the tables.
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
        meanings=list_meanings(findings),
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
    if column.heading in ("verdict", NEW_IMAGES, NEW_TRAINING, OTHER_DATASETS) and isinstance(value, str):
        kind = f"verdict {re.split('[ ;]', value)[0]}"
    return PageCell(write_value(value, column), number, kind)
