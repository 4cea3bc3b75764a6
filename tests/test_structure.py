"""The documented structure is the real one: every module is listed, and imports point upwards in the list."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = (ROOT / "docs/architecture.md").read_text().split("```")[1]
LIBRARY, GRIDS = (
    part.partition("\n  ")[2] for part in re.findall(r"^(?:cnnjax|ablations)/.*\n(?:  .*\n)+", HOUSE, re.M)
)
LISTED = {
    "cnnjax": re.findall(r"^ *(\w+)(?:\.py|/) ", LIBRARY, re.MULTILINE),
    "ablations": re.findall(r"^ *(\w+)/ ", GRIDS, re.MULTILINE),
}
MODULES = sorted(p for package in LISTED for p in (ROOT / package).rglob("*.py") if p.name != "__init__.py")
IN_GROUPS = [path for path in MODULES if path.parent != ROOT / "ablations"]


def _place(path):
    package, name, *_ = path.relative_to(ROOT).parts
    return package, name.removesuffix(".py")


@pytest.mark.parametrize("package", LISTED)
def test_every_module_is_listed_and_every_listed_one_exists(package):
    assert {name for owner, name in map(_place, IN_GROUPS) if owner == package} == set(LISTED[package])


@pytest.mark.parametrize("path", IN_GROUPS, ids=lambda path: path.stem)
def test_imports_point_upwards_in_the_list(path):
    package, name = _place(path)
    listed = LISTED[package]
    top_level = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
    imported = {node.module.split(".")[1] for node in top_level if (node.module or "").startswith(f"{package}.")}
    assert all(listed.index(other) <= listed.index(name) for other in imported)


def test_the_library_knows_nothing_of_the_commands_over_it():
    for path in (ROOT / "cnnjax").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) (ablations|experiments)", path.read_text(), re.MULTILINE), path
