"""A figure as SVG inside a page: without identifiers that others have, in the colours of the page."""

import io
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from cnnjax.figures.style import BLUE, INK, encode_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_LEFT_OUT = ("metadata", "style")
"""What matplotlib says of itself, and a style that would hold for the whole page."""


def inline_figure(figure: "Figure", name: str, description: str) -> str:
    """Returns a figure as an ``<svg>`` element for a page.

    Text and axes take the colour of the text around them, and blue is the page's ``--blue``, so that they are seen on a
    light and on a dark page.

    Args:
        figure: what to show.
        name: of the figure, unlike that of any other on the page; letters, digits and underscores.
        description: what is read aloud instead of it.
    """
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _LINK)
    root = ET.parse(io.BytesIO(encode_figure(figure, ".svg"))).getroot()
    _remove(root)
    used = {target for element in root.iter() for target in _list_targets(element)}
    for element in root.iter():
        _rewrite(element, name, used)
    width = float(root.get("width", "0pt").removesuffix("pt")) * 96 / 72
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-label", description)
    root.set("style", f"max-width: {width:.0f}px; min-width: {0.85 * width:.0f}px")
    return ET.tostring(root, encoding="unicode")


def _remove(parent: ET.Element) -> None:
    for child in list(parent):
        if child.tag.rpartition("}")[2] in _LEFT_OUT:
            parent.remove(child)
        else:
            _remove(child)


def _list_targets(element: ET.Element) -> list[str]:
    link = element.get(f"{{{_LINK}}}href", "")
    found = [target for value in element.attrib.values() for target in _REFERENCE.findall(value)]
    return [*found, *([link[1:]] if link.startswith("#") else [])]


def _rewrite(element: ET.Element, name: str, used: set[str]) -> None:
    """Makes identifiers those of this figure, drops those that nothing refers to, and lets the page colour the ink."""
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
