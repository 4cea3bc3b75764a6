"""Terminal output: a progress bar on a terminal, lines elsewhere, and one line for an error."""

import os
import re
import signal
import sys
import warnings

import pytest

from cnnjax import InputError
from cnnjax.console import terminal
from cnnjax.console.terminal import BarObserver, LineObserver, NoteObserver, format_history, make_observer, say
from cnnjax.runs.history import EpochMetrics, Progress
from terminals import run_in_terminal


@pytest.fixture(autouse=True)
def _own_process(monkeypatch):
    """Keeps what a command changes in its process away from the other tests."""
    monkeypatch.setattr(terminal, "raise_on_signals", lambda: None)
    monkeypatch.setattr(terminal, "last_signal", lambda: signal.SIGINT)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


PROGRESS = Progress(epoch=2, epochs=5, seen=500, examples=1000, loss=0.25, accuracy=0.9, seconds=2.0)
EPOCH = EpochMetrics(2, 0.25, 0.9, None, None, 4.0)
VALIDATED = EpochMetrics(3, 0.2, 0.95, 0.3, 0.92, 4.0)


def test_without_a_terminal_one_line_per_epoch_is_printed(capsys):
    observer = make_observer(quiet=False)
    assert isinstance(observer, LineObserver)
    observer.advance(PROGRESS)
    observer.end_epoch(EPOCH)
    observer.end_epoch(VALIDATED)
    assert capsys.readouterr().out == (
        "epoch 2/5: loss 0.2500, accuracy 0.9000, seconds 4.0, 250 images/s\n"
        "epoch 3/5: loss 0.2000, accuracy 0.9500, val_loss 0.3000, val_accuracy 0.9200, seconds 4.0, 250 images/s\n"
    )


def test_quiet_prints_only_notes_and_only_on_stderr(capsys):
    observer = make_observer(quiet=True)
    assert type(observer) is NoteObserver
    observer.advance(PROGRESS)
    observer.end_epoch(EPOCH)
    observer.note("look here")
    assert capsys.readouterr() == ("", "look here\n")


def test_the_history_table_leaves_out_empty_columns():
    assert format_history([EPOCH]) == "epoch    loss  accuracy  seconds\n    2  0.2500    0.9000      4.0"
    assert format_history([EPOCH, VALIDATED]).splitlines() == [
        "epoch    loss  accuracy  val_loss  val_accuracy  seconds",
        "    2  0.2500    0.9000                              4.0",
        "    3  0.2000    0.9500    0.3000        0.9200      4.0",
    ]


@pytest.mark.parametrize("columns", [80, 140])
def test_the_bar_shows_all_its_numbers_and_gives_the_cursor_back(columns):
    script = (
        "from cnnjax.console.terminal import BarObserver; from cnnjax.runs.history import *\n"
        "bar = BarObserver()\n"
        "bar.advance(Progress(2, 5, 500, 1000, 0.25, 0.9, 2.0))\n"
        "bar.note('a note of more than eighty characters ' + 'x' * 80)\n"
        "bar.advance(Progress(2, 5, 1000, 1000, 0.25, 0.9, 2.0))\n"
        "bar.end_epoch(EpochMetrics(2, 0.25, 0.9, 0.5, 0.8, 4.0))\n"
        "bar.advance(Progress(3, 5, 500, 1000, 0.25, 0.9, 2.0))\n"
        "bar.close()\n"
    )
    code, text = run_in_terminal("-c", script, columns=columns)
    assert code == 0
    assert re.search(r"Epoch 2/5 .*loss 0\.2500  accuracy 0\.9000  250 images/s  0:00:02", text)
    assert re.search(r"Epoch 2/5 .*loss 0\.2500 \(val 0\.5000\)  accuracy 0\.9000 \(val 0\.8000\)", text)
    assert re.search(r"a note of more than eighty characters\s+x{80}", text)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") > 0


def test_a_stream_that_cannot_be_written_raises_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        say("lost", stream)
        say("lost again", stream)
        assert not stream.closed


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (MemoryError(), 4, "error: out of memory\n"),
        (OSError(28, "No space left on device", "/x"), 4, "error: /x: No space left on device\n"),
        (InputError("no \x1b[31mcolour\r here"), 2, "error: no \\x1b[31mcolour\\r here\n"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(error, code, line, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program"])

    def main(argv):
        raise error

    monkeypatch.setattr("os._exit", sys.exit)  # which ends a process that was interrupted
    with pytest.raises(SystemExit) as end:
        terminal.run_command(main)
    assert end.value.code == code
    assert capsys.readouterr().err == line


def test_an_unexpected_error_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program"])

    def main(argv):
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        terminal.run_command(main)


def test_the_bar_can_be_closed_twice():
    bar = BarObserver()
    bar.close()
    bar.close()
    assert bar._bar is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (-3, "0:00:00"),
        (90061.4, "1 day, 1:01:01"),
        (1e300, "more than 100 years"),
        (float("inf"), "more than 100 years"),
        (float("nan"), "more than 100 years"),
    ],
)
def test_any_duration_can_be_formatted(seconds, text):
    assert terminal.format_seconds(seconds) == text
