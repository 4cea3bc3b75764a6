"""The documented rooms are the real ones: every module is listed, and imports point only to rooms above."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/architecture.md").read_text().split("```")[1]
LIBRARY = PAGE[PAGE.index("cnnjax/") : PAGE.index("experiments/")]
GRIDS = PAGE[PAGE.index("ablations/") : PAGE.index("tests/")]
ROOMS = {
    "cnnjax": re.findall(r"^  (\w+)", LIBRARY, re.MULTILINE),
    "ablations": re.findall(r"^  (\w+)", GRIDS, re.MULTILINE),
}


def _list_modules(package):
    return sorted(path for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py")


def _find_room(path):
    return path.relative_to(ROOT).with_suffix("").parts[1]


def _read_listed():
    """Returns the modules of the library on the page, as paths without their ending."""
    listed, folders = set(), []
    for indent, name, slash in re.findall(r"^( +)(\w+)(/?)", LIBRARY, re.MULTILINE):
        depth = len(indent) // 2
        folders = [(level, folder) for level, folder in folders if level < depth]
        path = "/".join([*(folder for _, folder in folders), name])
        if slash:
            folders.append((depth, name))
        else:
            listed.add(path)
    return listed


def test_every_module_of_the_library_is_on_the_page_and_every_one_on_the_page_exists():
    real = {str(path.relative_to(ROOT / "cnnjax").with_suffix("")) for path in _list_modules("cnnjax")}
    assert _read_listed() == real


def test_the_rooms_of_grids_are_on_the_page():
    rooms = {path.name for path in (ROOT / "ablations").iterdir() if (path / "__init__.py").exists()}
    modules = {
        path.stem for path in (ROOT / "ablations").glob("[!_]*.py") if "run_command(main)" not in path.read_text()
    }
    assert set(ROOMS["ablations"]) == rooms | modules


def test_the_folders_of_experiments_are_on_the_page():
    folders = {path.name for path in (ROOT / "experiments").iterdir() if (path / "__init__.py").exists()}
    assert (
        set(re.findall(r"^  (\w+)/", PAGE[PAGE.index("experiments/") : PAGE.index("ablations/")], re.MULTILINE))
        == folders
    )


@pytest.mark.parametrize("package", ROOMS)
def test_imports_point_only_to_rooms_above(package):
    rooms, wrong = ROOMS[package], []
    for path in _list_modules(package):
        own = _find_room(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if own in rooms and isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
                other = node.module.split(".")[1]
                if rooms.index(other) > rooms.index(own):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} imports {node.module}")
    assert not wrong


def test_each_package_imports_only_those_below_it():
    above = {"cnnjax": "ablations|experiments", "ablations": "experiments"}
    for package, others in above.items():
        for path in (ROOT / package).rglob("*.py"):
            assert not re.search(rf"^\s*(from|import) ({others})", path.read_text(), re.MULTILINE), path


def test_only_the_named_modules_import_jax_at_their_top():
    allowed = {"machine/compilation", "machine/devices", "inspection/activations"}
    allowed |= {"models/module", "models/adapter", "models/division", "models/prediction"}
    found = set()
    for path in _list_modules("cnnjax"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] in ("jax", "flax", "optax", "chex", "matplotlib") for name in names):
                found.add(str(path.relative_to(ROOT / "cnnjax").with_suffix("")))
    lazy = {"training/memory", "training/fit"}
    others = {name for name in found if not name.startswith(("layers/", "training/"))}
    assert others == allowed
    assert not found & lazy


def test_all_packages_are_installed():
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    roots = [ROOT / name for name in ("cnnjax", "ablations", "experiments")]
    real = {".".join(path.parent.relative_to(ROOT).parts) for root in roots for path in root.rglob("__init__.py")}
    assert declared == real
