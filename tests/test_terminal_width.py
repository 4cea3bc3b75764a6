"""Output on a terminal of 80 columns: no line is longer, and no word is broken."""

import fcntl
import importlib
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from ablations.arguments import StudyArguments, read_study
from ablations.study.grid import expand
from cnnjax.runs.store import Store, StoredGrid
from grid_helpers import make_packed

ROOT = Path(__file__).parent.parent
COLUMNS = 80
STUDY = """
title = "Do padding and the size of the kernel matter for a network of two layers, and which of them matters more?"
seeds = 3
[base]
model.filters = [2, 2]
train.epochs = 1
[sweep.grid]
model.padding = ["valid", "same"]
model.kernel_size = [3, [5, 3], 29]
model.pool = ["max", "avg"]
"""
FIRST = ["--baseline", "model.padding=valid", "--baseline", "model.kernel_size=3", "--baseline", "model.pool=max"]
COMMANDS = {
    "report": ["ablations.report"],
    "report of all cells": ["ablations.report", "--sort", "model.padding"],
    "report with a baseline": ["ablations.report", *FIRST],
    "report with all tests": ["ablations.report", *FIRST, "--all-tests"],
    "report of pairs": ["ablations.report", "--pairs"],
    "pivot": ["ablations.report", "--pivot", "model.kernel_size", "model.padding"],
    "compare": ["experiments.compare", "--a", "model.padding=same", "--b", "model.padding=valid",
                "--set", "model.kernel_size=3", "--set", "model.pool=max"],
    "plan": ["ablations.plan", "study.toml"],
    "status": ["ablations.status"],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("w")
    (folder / "study.toml").write_text(STUDY)
    study = read_study(StudyArguments(study=str(folder / "study.toml")))
    grid, store = expand(study), Store(folder / "runs")
    keys = {trial.key: trial.name for trial in grid.trials}
    store.add_grid(StoredGrid("study", study.to_toml(), "run it", "2026-01-01T00:00:00+00:00", keys))
    trials = [trial for trial in grid.trials if not trial.cell.problem]
    store.add_all(
        make_packed(trial.config, 0.9 + place % 7 / 500, "diverged" if place % 11 == 0 else "completed")
        for place, trial in enumerate(trials)
    )
    return folder


def show(folder, arguments):
    """Returns what a command prints on a terminal of 80 columns."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("COLUMNS", None)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0, b"".join(parts)
    return b"".join(parts).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_output_fits_80_columns_and_breaks_no_word(folder, name, monkeypatch, capsys):
    module, *words = COMMANDS[name]
    monkeypatch.chdir(folder)
    assert importlib.import_module(module).main(words) == 0
    whole, shown = capsys.readouterr().out, show(folder, COMMANDS[name])
    assert max(map(len, shown.splitlines())) <= COLUMNS
    words = {word for word in whole.split() if len(word) <= 60 and set(word) != {"-"}}
    assert words <= set(shown.split())
    assert len(words) > 20
