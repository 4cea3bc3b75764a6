"""Layers use oneDNN where it can be had and is wanted; commands say so in a line, and records say what was used."""

import functools
import json
import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

from ablations.execution.ray_cluster import _choose_environment
from ablations.python import Study
from cnnjax import DataConfig, ModelConfig, RunConfig, TrainConfig, fit
from cnnjax.errors import InputError, UnavailableError
from cnnjax.layers import custom_calls
from cnnjax.machine import native
from cnnjax.machine.compilation import compile_program
from cnnjax.machine.native import allow_fast_layers, are_fast_layers_wanted, prepare_layers
from cnnjax.runs.store import Store

SMALL = ["--model.filters", "[2]", "--train.epochs", "1", "--data.train-size", "200", "--devices", "1"]
GRID = ["--axis", "model.dense=[4],[8]", "--seeds", "2", "--set", "model.filters=[]", "--set", "data.train_size=200"]
GRID += ["--set", "train.epochs=1"]


@pytest.fixture
def missing(monkeypatch):
    """A machine on which the layers cannot be compiled."""

    def compile_library(source):
        raise UnavailableError("there is no C++ compiler; install g++")

    for module in (native, custom_calls):
        monkeypatch.setattr(module, "compile_library", compile_library)
    monkeypatch.setattr(custom_calls, "_load", functools.cache(custom_calls._load.__wrapped__))
    monkeypatch.setattr(native, "may_have_accelerators", lambda: False)


def run(module, *words, **variables):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **variables}
    command = [sys.executable, "-m", module, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def list_told(text):
    return [line for line in text.splitlines() if line.startswith("convolutions: ")]


def train():
    config = RunConfig(ModelConfig(filters=(2,)), TrainConfig(epochs=1), DataConfig(train_size=200))
    return fit(config, out=None).record.provenance["convolutions"]


def test_the_record_says_which_convolutions_were_used():
    used = train()
    assert used == (custom_calls.describe() or "cnnjax")
    assert used.startswith("oneDNN ") == custom_calls.are_available() == (not custom_calls.explain_missing())
    allow_fast_layers(False)
    assert train() == "cnnjax"
    assert not custom_calls.are_available()


def test_programs_compiled_with_fast_layers_are_not_used_without():
    def double(x):
        return 2 * x

    with_them = compile_program(double, jnp.zeros(2))
    allow_fast_layers(False)
    without = compile_program(double, jnp.zeros(2))
    assert without is not with_them
    allow_fast_layers()
    assert compile_program(double, jnp.zeros(2)) is with_them


@pytest.mark.usefixtures("missing")
def test_what_is_missing_is_told_once_and_child_processes_do_not_look_for_it():
    reason = "there is no C++ compiler; install g++"
    assert prepare_layers() == f"convolutions: cnnjax's own; those of oneDNN would be faster: {reason}"
    assert os.environ["CNNJAX_FAST_LAYERS"] == "0"
    assert train() == "cnnjax"


@pytest.mark.usefixtures("missing")
def test_in_python_a_run_goes_on_without_what_is_missing():
    assert custom_calls.describe() is None
    assert train() == "cnnjax"
    assert "there is no C++ compiler" in custom_calls.explain_missing()


@pytest.mark.usefixtures("missing")
@pytest.mark.parametrize("content", [b"no library", None])
def test_a_library_that_cannot_be_loaded_ends_no_run(content, tmp_path, monkeypatch):
    library = tmp_path / "library.so"
    if content:
        library.write_bytes(content)
    monkeypatch.setattr(custom_calls, "compile_library", lambda source: library)
    assert train() == "cnnjax"
    assert str(library) in custom_calls.explain_missing()


@pytest.mark.usefixtures("missing")
def test_the_line_says_onednn_only_if_the_library_can_be_loaded(tmp_path, monkeypatch):
    library = tmp_path / "library.so"
    library.write_bytes(b"no library")
    monkeypatch.setattr(native, "compile_library", lambda source: library)
    line = prepare_layers()
    assert line.startswith("convolutions: cnnjax's own; those of oneDNN would be faster: the compiled layers cannot be")
    assert "\n" not in line
    assert os.environ["CNNJAX_FAST_LAYERS"] == "0"


@pytest.mark.usefixtures("missing")
def test_where_there_may_be_accelerators_nothing_is_compiled_or_told(monkeypatch):
    monkeypatch.setattr(native, "may_have_accelerators", lambda: True)
    assert prepare_layers() is None
    assert are_fast_layers_wanted()


def test_a_switch_that_is_neither_0_nor_1_is_refused_before_anything_is_written(monkeypatch, tmp_path):
    monkeypatch.setenv("CNNJAX_FAST_LAYERS", "no")
    with pytest.raises(InputError, match="CNNJAX_FAST_LAYERS='no': must be 0 or 1"):
        prepare_layers()
    result = run("experiments.train", *SMALL, "--out", tmp_path / "runs")
    assert result.returncode == 2
    assert not (tmp_path / "runs").exists()


def test_nodes_of_a_cluster_follow_the_switch():
    allow_fast_layers(False)
    assert ("CNNJAX_FAST_LAYERS", "0") in _choose_environment("CPU")


def test_train_says_which_convolutions_it_uses_and_not_for_a_stored_run(tmp_path):
    words = ["experiments.train", *SMALL, "--out", tmp_path]
    first, again = run(*words), run(*words)
    (line,) = list_told(first.stdout)
    (record,) = Store(tmp_path).find_all().values()
    assert record.provenance["convolutions"].startswith("oneDNN ") == (line == "convolutions: oneDNN")
    assert not list_told(again.stdout + again.stderr)
    off = run(*words, "--force", "--no-fast-layers", "--json")
    assert json.loads(off.stdout)["provenance"]["convolutions"] == "cnnjax"
    assert off.stderr == ""


def test_a_grid_says_once_what_its_workers_lack(tmp_path):
    result = run("ablations.run", *GRID, "--out", tmp_path, CXX="no-such-compiler")
    assert result.returncode == 0, result.stderr
    (line,) = list_told(result.stdout)
    assert line.startswith("convolutions: cnnjax's own; those of oneDNN would be faster: ")
    assert not list_told(result.stderr)
    records = Store(tmp_path).find_all().values()
    assert [record.provenance["convolutions"] for record in records] == ["cnnjax"] * 4


@pytest.mark.usefixtures("missing")
def test_a_study_in_python_says_once_what_its_workers_lack(tmp_path, capsys):
    grid = {"dense": [[4], [8]]}
    study = Study(data=DataConfig(train_size=200), base={"filters": [], "epochs": 1}, grid=grid, seeds=1)
    study.run(tmp_path, workers=1)
    (line,) = list_told(capsys.readouterr().out)
    assert line.startswith("convolutions: cnnjax's own; those of oneDNN would be faster: ")
    records = Store(tmp_path).find_all().values()
    assert [record.provenance["convolutions"] for record in records] == ["cnnjax"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("module", ["ablations.run", "experiments.compare"])
def test_every_command_that_trains_can_do_without_fast_layers(module, tmp_path):
    pair = ["--a", "model.dense=[4]", "--b", "model.dense=[8]", "--run"]
    words = GRID if module == "ablations.run" else [*pair, *GRID[2:]]
    result = run(module, *words, "--out", tmp_path, "--no-fast-layers")
    assert result.returncode == 0, result.stderr
    assert list_told(result.stdout + result.stderr) == ["convolutions: cnnjax's own, as fast layers are turned off"]
    assert {record.provenance["convolutions"] for record in Store(tmp_path).find_all().values()} == {"cnnjax"}
