"""The fault suite: commands killed at their writes go on, and a command that would not is found out."""

import re
import shutil
import sys

import pytest

from cnnjax.errors import UnavailableError
from experiments.measure.faults import kills
from experiments.measure.faults.disturbances import (
    SCENARIOS,
    Scenario,
    built_shim,
    crowd,
    disturb,
    write_protected,
)
from experiments.measure.reliability import main

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
POINTS = {"rows of a store": 20, "cached datasets": 10, "a report": 3, "a run with checkpoints": 3, "a grid": 3}

needs_shim = pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("gcc") or shutil.which("cc")), reason="needs Linux and a C compiler"
)


@pytest.fixture(scope="module")
def shim():
    with built_shim() as library:
        yield library


@needs_shim
def test_a_command_that_is_killed_at_its_writes_loses_nothing_and_goes_on(shim):
    tally = disturb(BY_NAME["rows of a store"], shim, 2)
    assert tally.faults == []
    assert tally.tried.total() == 2
    assert tally.operations > 20


@needs_shim
@pytest.mark.slow
@pytest.mark.parametrize("name", POINTS)
def test_every_command_that_writes_loses_nothing_and_goes_on(name, shim):
    tally = disturb(BY_NAME[name], shim, POINTS[name])
    assert tally.faults == []
    assert tally.tried.total() == POINTS[name]


def _read_letters(folder):
    path = folder / "letters"
    letters = path.read_text() if path.exists() else ""
    assert letters in ("", "ab"), "half of the letters"
    return {letters: True} if letters else {}


def _careless(program):
    return Scenario("careless", ("-c", program), _read_letters, lambda printed, found: set(printed.split()))


@needs_shim
@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("print('ab', flush=True); open('{folder}/letters', 'w').write('ab')", "before: after it ['ab'] is lost"),
        ("open('{folder}/letters', 'w').write('ab'); print('ab')", "torn: after it half of the letters"),
        ("open('{folder}/letters', 'x').write('ab'); print('ab')", "after: the same command again ends with 1"),
    ],
)
def test_a_command_that_is_careless_is_found_out(program, fault, shim):
    faults = disturb(_careless(program), shim).faults
    assert any(fault in found for found in faults), faults


@pytest.mark.slow
def test_sixteen_processes_on_one_store_lose_nothing():
    assert crowd() == []


@pytest.mark.slow
def test_what_may_not_be_written_is_said_in_one_line():
    try:
        assert write_protected() == []
    except PermissionError as error:
        pytest.skip(str(error))


def test_the_command_says_what_it_tried_and_ends_with_0(tmp_path, capsys):
    path = tmp_path / "reliability.md"
    assert main(["--inputs", "200", "--points", "0", "--markdown", str(path)]) == 0
    text = path.read_text()
    assert "200 damaged inputs" in text
    assert "0 faults were found." in text
    assert "0 faults were found." in capsys.readouterr().out


def test_a_fault_ends_the_command_with_1(monkeypatch, capsys):
    from experiments.measure import reliability
    from experiments.measure.faults.fuzzing import Tally

    broken = Tally("row", accepted=1)
    broken.escapes["IndexError: 'x' in runs.py, load"] = 2
    broken.examples["IndexError: 'x' in runs.py, load"] = 17
    monkeypatch.setattr(reliability, "fuzz_all", lambda *_: iter([broken]))
    assert main(["--points", "0"]) == 1
    assert "row: IndexError: 'x' in runs.py, load (2 times; of input 17)" in capsys.readouterr().out


def _only_print(monkeypatch):
    """Has a process in the place of the grid that prints the same results each time it starts, and stores nothing."""
    lines = "\n".join(f"[{i}/8] completed model.dense=[8], seed={i}: test accuracy 0.9000" for i in range(1, 4))
    program = f"import time; print({lines!r}, flush=True); time.sleep(1000)"
    monkeypatch.setattr(kills, "_make_command", lambda seeds: [sys.executable, "-c", program])


def test_a_result_that_was_printed_and_is_not_stored_is_found_out(monkeypatch):
    _only_print(monkeypatch)
    (fault,) = kills.kill_grid(1)
    assert re.search(r"\('8', '1'\): '0\.9000'.* were printed, and are stored as \[None", fault)


def test_a_result_that_is_trained_again_after_a_kill_is_found_out(monkeypatch):
    _only_print(monkeypatch)
    monkeypatch.setattr(kills, "_read_accuracies", lambda folder: {("8", str(i)): "0.9000" for i in range(1, 4)})
    (fault,) = kills.kill_grid(3)
    assert re.search(r"\('8', '1'\).* were stored and are trained again", fault)


def test_a_fault_of_a_killed_grid_ends_the_command_with_1(monkeypatch, capsys):
    from experiments.measure import reliability

    monkeypatch.setattr(reliability, "fuzz_all", lambda *_: iter([]))
    monkeypatch.setattr(reliability, "kill_grid", lambda number: ["a trial is lost"] * (number - 1))
    assert main(["--points", "0", "--kills", "1"]) == 0
    assert "kills of a grid at random moments (1)" in capsys.readouterr().out
    assert main(["--points", "0", "--kills", "2"]) == 1
    assert "kills of a grid at random moments (2): a trial is lost" in capsys.readouterr().out


def test_without_a_compiler_the_kills_are_left_out_and_that_is_said(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UnavailableError, match="needs Linux and a C compiler"), built_shim():
        pass
