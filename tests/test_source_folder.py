"""The folder of the user's source has what the trials need, at the places where nodes find the same source."""

import re
import sys
from collections import Counter

import pytest

from ablations.execution.source_folder import SourceFolder, gather_source
from ablations.study.grid import expand
from ablations.study.reading import read_dict
from cnnjax import InputError
from cnnjax.settings.references import read_source

TRIAL = "import helper\ndef trial(seed: int, rate: float = 1.0, norm=None):\n    return rate\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file of the user; the current folder is ``here``."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = {*sys.modules}

    def write_it(name, text=TRIAL):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return path

    yield write_it
    for name in {*sys.modules} - known:
        del sys.modules[name]


def gather(function, **factors):
    grid = {f"trial.{name}": levels for name, levels in factors.items()} or {"trial.rate": [1.0, 2.0]}
    base = {"trial.function": function}
    study = {"title": "?", "base": base, "sweep": {"grid": grid}, "seeds": 2}
    return gather_source(expand(read_dict(study, "mine", "study")))


def test_a_file_keeps_its_place_below_the_current_folder_with_what_it_imports(write, tmp_path):
    write("here/sub/mine.py")
    write("here/sub/helper.py", "x = 'ä'\r\n")
    write("here/sub/unused.py", "")
    folder = gather("sub/mine.py:trial")
    assert dict(folder.files) == {"sub/mine.py": TRIAL, "sub/helper.py": "x = 'ä'\r\n"}
    assert folder.roots == ()
    folder.write(tmp_path / "copy")
    assert (tmp_path / "copy/sub/helper.py").read_bytes() == "x = 'ä'\r\n".encode()


def test_a_copy_has_the_hash_of_the_source_wherever_its_modules_were_imported_from(write, tmp_path, monkeypatch):
    for root in ("here", "here/src", "elsewhere", "other"):
        monkeypatch.syspath_prepend(tmp_path / root)
    write("here/mine.py", "import inner.parts, outer.parts\n" + TRIAL)
    write("here/helper.py", "")
    names = ("inner", "outer", "third")
    for root, name in zip(("here/src", "elsewhere", "other"), names, strict=True):
        write(f"{root}/{name}/__init__.py", "from . import parts")
        write(f"{root}/{name}/parts.py", f"def {name}(x): return x")
    folder = gather("mine.py:trial", norm=[f"{name}.parts:{name}" for name in names])
    places = Counter(path.rpartition("/")[0].rpartition("/")[0] for path in folder.files)
    assert places == {"": 2, "src": 2, **dict.fromkeys(folder.roots[1:], 2)}
    assert folder.roots[0] == "src"
    references = ("mine.py:trial", *(f"{name}.parts:{name}" for name in names))
    hashes = {reference: read_source(reference, "here").sha256 for reference in references}
    folder.write(tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    roots = [str(tmp_path / "copy" / root) for root in ("", *folder.roots)]
    monkeypatch.setattr(sys, "path", [*roots, *(path for path in sys.path if str(tmp_path) not in path)])
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        monkeypatch.delitem(sys.modules, name)
    assert {reference: read_source(reference, "copy").sha256 for reference in references} == hashes


def test_installed_packages_and_this_one_are_not_copied(write):
    write("here/mine.py", TRIAL.removeprefix("import helper\n"))
    folder = gather("mine.py:trial", norm=["math:floor", "flax.linen:relu", "cnnjax.models.cnn:ModelConfig"])
    assert [*folder.files] == ["mine.py"]


def test_a_network_of_the_library_needs_no_files():
    study = {"title": "?", "base": {}, "sweep": {"grid": {"model.padding": ["same", "valid"]}}, "seeds": 1}
    assert gather_source(expand(read_dict(study, "mine", "study"))) == SourceFolder()


def test_a_file_above_the_current_folder_is_refused(write):
    path = write("mine.py", TRIAL.removeprefix("import helper\n"))
    with pytest.raises(InputError, match=re.escape(f"--address: {path} is not below the current folder")):
        gather("../mine.py:trial")
