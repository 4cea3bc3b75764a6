"""Paths from users, and output folders that cannot be used: errors are reported before anything is trained."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cnnjax import DataConfig, InputError, ModelConfig, RunConfig, Store, TrainConfig, UnavailableError, fit, fit_many
from cnnjax.console.terminal import say
from cnnjax.machine.files import read_path
from cnnjax.runs.store import LONGEST_PATH
from cnnjax.training import loop
from experiments.train import main as train

CONFIG = RunConfig(ModelConfig(filters=(2,), kernel_size=3), TrainConfig(epochs=1), DataConfig(train_size=100))
OTHER = RunConfig(CONFIG.model, CONFIG.train, CONFIG.data, seed=1)
NOBODY = 65534


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("trained")

    monkeypatch.setattr(loop, "prepare", refuse)


def test_a_tilde_means_the_home_folder_in_every_path_option(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(CONFIG.to_toml())
    stored = fit(CONFIG, "~/runs")
    assert train(["--config=~/run.toml", "--out=~/runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == stored.key
    assert (tmp_path / "runs/runs.sqlite").exists()
    assert not (tmp_path / "~").exists()


OPTIONS = ["--model.filters", "[2]", "--model.kernel-size", "3", "--train.epochs", "1", "--data.train-size", "100"]


@pytest.mark.parametrize("value", ["", "a\0b", b"runs", 5, None])
def test_an_invalid_path_is_refused(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^--out=.*: must be a path"):
        read_path(value, "--out")
    assert [*tmp_path.iterdir()] == []


def test_an_empty_output_folder_writes_nothing(tmp_path, monkeypatch, no_training):
    monkeypatch.chdir(tmp_path)
    for run in (lambda: train(["--out", "", *OPTIONS]), lambda: fit(CONFIG, ""), lambda: fit_many([CONFIG], "")):
        with pytest.raises(InputError, match="must be a path, not an empty text"):
            run()
    assert [*tmp_path.iterdir()] == []


def test_the_longest_allowed_path_can_be_opened_and_a_longer_one_is_refused(tmp_path, no_training):
    folder = tmp_path
    while len(os.fsencode(folder / ("x" * 100) / "runs.sqlite")) < LONGEST_PATH - 2:
        folder = folder / ("x" * 100)
    left = LONGEST_PATH - len(os.fsencode(folder / "x" / "runs.sqlite")) + 1
    Store(folder / ("x" * left)).create()
    with pytest.raises(InputError, match=f"its path has {LONGEST_PATH + 1} bytes; SQLite opens at most {LONGEST_PATH}"):
        fit(CONFIG, folder / ("x" * (left + 1)))


def test_a_broken_link_in_place_of_a_folder_is_named(tmp_path, no_training):
    (tmp_path / "runs").symlink_to(tmp_path / "gone")
    with pytest.raises(UnavailableError, match=r"runs: it is a link to .*gone, which does not exist"):
        fit(CONFIG, tmp_path / "runs")


def test_a_folder_that_is_a_link_to_another_is_that_one(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "real")
    Store(tmp_path / "runs").create()
    assert (tmp_path / "real/runs.sqlite").is_file()


def test_a_store_that_is_a_link_is_not_written_through(tmp_path, no_training):
    Store(tmp_path / "elsewhere").create()
    before = (tmp_path / "elsewhere/runs.sqlite").read_bytes()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/runs.sqlite").symlink_to(tmp_path / "elsewhere/runs.sqlite")
    with pytest.raises(InputError, match="is a symbolic link"):
        fit(CONFIG, tmp_path / "runs")
    assert (tmp_path / "elsewhere/runs.sqlite").read_bytes() == before


def test_control_characters_in_a_name_are_printed_as_escapes(capsys):
    say("stored in a\x1b[31mb\x07\x9b\r\nand é名\t", sys.stdout)
    assert capsys.readouterr().out == "stored in a\\x1b[31mb\\x07\\x9b\\x0d\nand é名\t\n"


@pytest.fixture
def open_folder():
    """A folder that every user can reach, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


TRY = """
import os, psutil, sys  # before the user changes, who may not read this Python
import cnnjax.training.loop as loop
from cnnjax import RunConfig, Store, fit, fit_many
config = RunConfig.from_json(sys.argv[2])
from cnnjax.data.loading import load; load("mnist")
os.setgid({nobody}); os.setuid({nobody})
def refuse(*arguments, **options):
    raise SystemExit("trained")
loop.prepare = loop.prepare_together = refuse
assert len(Store(sys.argv[1]).find_all()) == 1
for run in (lambda: fit(config, sys.argv[1]), lambda: fit_many([config], sys.argv[1], at_once=1)):
    try:
        run()
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("protect", "message"), [("file", "runs.sqlite: "), ("folder", "runs"), ("checkpoints", "checkpoints: ")]
)
def test_a_store_that_cannot_be_written_is_noticed_before_training_and_still_read(open_folder, protect, message):
    out = open_folder / "runs"
    fit(CONFIG, out)
    (out / "checkpoints").mkdir()
    paths = {"file": out / "runs.sqlite", "folder": out, "checkpoints": out / "checkpoints"}
    for path in paths.values():
        os.chown(path, NOBODY, NOBODY)
    os.chown(paths[protect], 0, 0)
    paths[protect].chmod(0o755 if paths[protect].is_dir() else 0o644)
    command = [sys.executable, "-c", TRY.format(nobody=NOBODY), str(out), OTHER.to_json()]
    environment = {**os.environ, "HOME": str(open_folder), "CNNJAX_CACHE_DIR": str(open_folder / "cache")}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parent.parent)
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["UnavailableError"] * 2, result.stderr + result.stdout
    assert all(message in line for line in lines)
