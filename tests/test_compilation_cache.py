"""Compiled programs are kept in the user's cache, unless the user says otherwise."""

import json
import os
import subprocess
import sys

import pytest

from cnnjax.errors import UnavailableError
from cnnjax.machine.files import cache_root, keep_programs

NETWORK = ["--model.filters", "[]", "--model.dense", "[8]", "--train.epochs", "1", "--data.train-size", "500"]


@pytest.fixture
def _no_settings(monkeypatch):
    # What `keep_programs` sets is taken back after the test, for monkeypatch has noted these as they were.
    for name in [
        "JAX_COMPILATION_CACHE_DIR",
        "JAX_ENABLE_COMPILATION_CACHE",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES",
    ]:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_the_cache_folder_follows_cnnjax_cache_dir_then_xdg_cache_home_then_home(monkeypatch, tmp_path):
    monkeypatch.setenv("CNNJAX_CACHE_DIR", str(tmp_path / "ours"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "ours"
    monkeypatch.delenv("CNNJAX_CACHE_DIR")
    assert cache_root() == tmp_path / "shared" / "cnnjax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == tmp_path / "home" / ".cache" / "cnnjax"


@pytest.mark.usefixtures("_no_settings")
def test_a_compilation_cache_set_by_the_user_is_kept(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    keep_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/elsewhere"
    assert "JAX_ENABLE_COMPILATION_CACHE" not in os.environ
    keep_programs(False)
    assert os.environ["JAX_ENABLE_COMPILATION_CACHE"] == "false"


@pytest.mark.usefixtures("_no_settings")
def test_a_program_cut_off_by_a_full_disk_is_removed(monkeypatch, tmp_path):
    monkeypatch.setenv("CNNJAX_CACHE_DIR", str(tmp_path))
    (tmp_path / "programs").mkdir()
    empty, whole = tmp_path / "programs/empty", tmp_path / "programs/whole"
    empty.write_bytes(b"")
    whole.write_bytes(b"program")
    keep_programs()
    assert [*(tmp_path / "programs").iterdir()] == [whole]


def test_without_a_home_folder_the_error_asks_for_cnnjax_cache_dir(monkeypatch):
    for name in ("CNNJAX_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user without a name
    with pytest.raises(UnavailableError, match="CNNJAX_CACHE_DIR names another"):
        cache_root()


def train(folder, *options):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    words = [sys.executable, "-m", "experiments.train", *NETWORK, "--json", "--force", "--out", str(folder / "runs")]
    environment["CNNJAX_CACHE_DIR"] = str(folder)
    result = subprocess.run([*words, *options], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout), result.stderr


def test_a_second_process_compiles_nothing_and_trains_the_same_and_a_damaged_program_is_compiled_anew(tmp_path):
    first, _ = train(tmp_path, "--no-compilation-cache")
    assert not (tmp_path / "programs").exists()
    second, _ = train(tmp_path)
    programs = {path.name for path in (tmp_path / "programs").glob("*-cache")}
    assert len(programs) > 3
    third, told = train(tmp_path)
    assert "compilation cache" not in told
    assert {path.name for path in (tmp_path / "programs").glob("*-cache")} == programs
    for path in (tmp_path / "programs").glob("*-cache"):
        path.write_bytes(b"damaged")
    fourth, told = train(tmp_path)
    assert "compilation cache" in told
    assert first["test_loss"] == second["test_loss"] == third["test_loss"] == fourth["test_loss"]


@pytest.mark.usefixtures("_no_settings")
def test_nothing_is_kept_where_the_user_has_no_home(monkeypatch):
    monkeypatch.setattr("pathlib.Path.expanduser", _fail)
    for name in ("CNNJAX_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    keep_programs()
    assert os.environ["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def _fail(path):
    raise RuntimeError("Could not determine home directory.")
