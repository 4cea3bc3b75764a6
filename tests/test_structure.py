"""The documented structure is the real one: every module is listed, and imports point upwards in the list."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LISTED = re.findall(r"^  (\w+)(?:\.py|/) ", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
MODULES = sorted(path for path in (ROOT / "cnnjax").rglob("*.py") if path.name != "__init__.py")


def _name(path):
    return path.relative_to(ROOT / "cnnjax").parts[0].removesuffix(".py")


def test_every_module_is_listed_and_every_listed_one_exists():
    assert {_name(path) for path in MODULES} == set(LISTED)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_point_upwards_in_the_list(path):
    own = LISTED.index(_name(path))
    top_level = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
    imported = {node.module.split(".")[1] for node in top_level if (node.module or "").startswith("cnnjax.")}
    assert all(LISTED.index(name) <= own for name in imported)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_of_the_library_is_one_idea(path):
    assert len(path.read_text().splitlines()) <= 300
