"""The notebook about a network of one's own, executed again."""

import ast
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")


@pytest.mark.slow
def test_the_notebook_runs_and_shows_the_layers_and_arms_that_it_shows_on_the_page(tmp_path):
    page = nbformat.read(Path(__file__).parent.parent / "docs/your_network.ipynb", as_version=4)
    shown = [_read_outputs(cell) for cell in page.cells if cell.cell_type == "code"]
    client = nbclient.NotebookClient(page, timeout=600, resources={"metadata": {"path": tmp_path}})
    again = [_read_outputs(cell) for cell in client.execute().cells if cell.cell_type == "code"]
    assert again[1] == shown[1]  # the layer table
    assert ast.literal_eval(again[4]).keys() == ast.literal_eval(shown[4]).keys()
    cells = re.findall(r"^(group|none) +(8|16) ", again[3], re.MULTILINE)
    assert cells == [("group", "8"), ("group", "16"), ("none", "8"), ("none", "16")]
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")


def _read_outputs(cell):
    """Returns what a cell of a notebook shows, as text."""
    return "".join(each.text if "text" in each else each.data["text/plain"] for each in cell.outputs)
