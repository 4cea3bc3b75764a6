"""Terminal output of the commands: progress, one-line errors and exit codes. No JAX here.

A command's ``main`` returns its exit code or raises an error. `run_command` prints expected errors as one line on
stderr. A run continues even if its output can no longer be written (closed pipe, full disk).
"""

import contextlib
import errno
import io
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TextIO

from cnnjax.console.tables import align_right, count_columns, fold
from cnnjax.errors import CnnjaxError, UnavailableError, printable
from cnnjax.machine.processes import last_signal, raise_on_signals
from cnnjax.runs.history import EpochMetrics, Observer, Progress, Silence

if TYPE_CHECKING:
    from rich.console import Console

CENTURY = 100 * 365 * 86400.0
"""In seconds; longer times are shown as "more than 100 years"."""
LEAST_WIDTH, MOST_WIDTH = 40, 1000
"""Narrowest and widest output, in columns; a narrower terminal wraps the lines itself."""
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""Escape sequence printed in place of each control character."""
_lost: list[str] = []
"""Errors of output that could not be written, other than to a closed pipe."""


def run_command(main: Callable[[list[str]], int]) -> None:
    """Runs a command on ``sys.argv`` and exits with its exit code; with ``--debug``, errors show their traceback."""
    _open_streams()
    warnings.showwarning = lambda message, *_args, **_kwargs: say(f"warning: {message}", sys.stderr)
    raise_on_signals()
    try:
        code = main(sys.argv[1:])
        if _lost:
            raise UnavailableError(f"cannot write the output: {_lost[0]}")
    except (CnnjaxError, KeyboardInterrupt, OSError, MemoryError) as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        message, code = _explain(error)
        for line in getattr(error, "lines", ()):
            say(printable(line), sys.stderr)
        lines = printable(message, keep="\n")  # because a study's mistakes are listed one per line
        say(f"error: {lines}", sys.stderr)
        if isinstance(error, KeyboardInterrupt):
            # Threads of XLA that still compile would crash while Python ends.
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)
    sys.exit(code)


def say(text: str, stream: TextIO) -> None:
    """Prints `text`, and does not raise if the stream can no longer be written.

    A reader that closed its pipe is ignored; after any other write error, such as a full disk, the command ends with
    exit code 4. Control characters, which names of folders may contain, are printed as escapes. On a terminal, lines
    for stderr are wrapped to its width.
    """
    try:
        width = find_width(stream) if stream is sys.stderr else None
        lines = (_fold(line, width) for line in text.translate(_CONTROLS).split("\n"))
        print("\n".join(lines), file=stream, flush=True)
    except OSError as error:
        if error.errno != errno.EPIPE:
            _lost.append(f"{stream.name}: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fold(line: str, width: int | None) -> str:
    return (
        line
        if width is None or count_columns(line) <= width
        else "\n".join(fold(line, width, hang="  ", cut_words=False))
    )


def make_observer(quiet: bool) -> Observer:
    """Returns the observer that shows training: a bar on a terminal, else lines; only notes if `quiet`."""
    if quiet:
        return NoteObserver()
    return BarObserver() if sys.stdout.isatty() else LineObserver()


class NoteObserver(Silence):
    """Prints notes on stderr, and nothing else."""

    def note(self, message: str) -> None:
        """Prints one line on stderr."""
        say(message, sys.stderr)


class LineObserver(NoteObserver):
    """Prints one line per epoch."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def advance(self, progress: Progress) -> None:
        """Remembers the progress, whose rate is printed at the end of the epoch."""
        self._progress = progress

    def end_epoch(self, metrics: EpochMetrics) -> None:
        """Prints the metrics of the epoch."""
        progress = self._progress
        total, rate = (f"/{progress.epochs}", f", {_write_rate(progress)}") if progress else ("", "")
        named = zip(_HEADINGS[1:], _write_metrics(metrics)[1:], strict=True)
        values = ", ".join(f"{name} {cell}" for name, cell in named if cell)
        say(f"epoch {metrics.epoch}{total}: {values}{rate}", sys.stdout)


class BarObserver(NoteObserver):
    """Shows one progress bar per epoch, which stays on screen afterwards; nothing once the terminal has closed."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._rate = ""
        self._gone = False

    def note(self, message: str) -> None:
        """Ends the bar, and prints one line below it on stderr."""
        self.close()
        super().note(message)

    def advance(self, progress: Progress) -> None:
        """Moves the bar."""
        self._rate = _write_rate(progress)
        left = format_seconds(progress.seconds * (progress.examples - progress.seen) / max(progress.seen, 1))
        numbers = f"loss {progress.loss:.4f}  accuracy {progress.accuracy:.4f}  {self._rate}  {left}"
        with self._tolerant():
            if self._bar is None and not self._gone:
                self._start(progress)
            self._update(completed=progress.seen, numbers=numbers)

    def end_epoch(self, metrics: EpochMetrics) -> None:
        """Ends the bar; validation metrics replace the rate, because 80 columns cannot hold both."""
        numbers = f"loss {metrics.loss:.4f}  accuracy {metrics.accuracy:.4f}  {self._rate}"
        if metrics.val_loss is not None:
            loss, accuracy = f"{metrics.loss:.4f} (val {metrics.val_loss:.4f})", f"{metrics.accuracy:.4f}"
            numbers = f"loss {loss}  accuracy {accuracy} (val {metrics.val_accuracy:.4f})"
        with self._tolerant():
            self._update(numbers=numbers)
        self.close()

    def close(self) -> None:
        """Ends the bar, which stays on screen as it is."""
        with self._tolerant():
            if self._bar is not None:
                self._bar.stop()
        self._bar = None

    def _start(self, progress: Progress) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        terminal = open_terminal()
        bar = BarColumn(bar_width=10 if terminal.width < 110 else 40)
        columns = (TextColumn("{task.description}"), bar, TextColumn("{task.fields[numbers]}"))
        self._bar = Bar(*columns, console=terminal, redirect_stdout=False, redirect_stderr=False, auto_refresh=False)
        description = f"Epoch {progress.epoch}/{progress.epochs}"
        self._task = self._bar.add_task(description, total=progress.examples, numbers="")
        self._bar.start()

    def _update(self, **values: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, refresh=True, **values)

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        """Drops the bar for good if the terminal can no longer be written."""
        try:
            yield
        except OSError:
            self._bar, self._gone = None, True


def find_width(stream: TextIO | None = None) -> int | None:
    """Returns the width of output to `stream` (by default stdout), in columns; ``None`` if it is no terminal."""
    is_terminal = (stream or sys.stdout).isatty()
    return min(max(shutil.get_terminal_size().columns, LEAST_WIDTH), MOST_WIDTH) if is_terminal else None


def open_terminal() -> "Console":
    """Returns rich's console; its width follows the terminal, within `LEAST_WIDTH` and `MOST_WIDTH`."""
    from rich.console import Console

    width = find_width()
    return Console(width=width if width != shutil.get_terminal_size().columns else None)


def format_seconds(seconds: float) -> str:
    """Returns a duration as hours, minutes and seconds.

    Example:
        >>> format_seconds(750), format_seconds(176400)
        ('0:12:30', '2 days, 1:00:00')
    """
    if not seconds < CENTURY:
        return "more than 100 years"
    return str(timedelta(seconds=round(max(seconds, 0.0))))


def format_history(history: Sequence[EpochMetrics]) -> str:
    """Returns the metrics of all epochs as a plain-text table, without columns that have no values."""
    rows = [_HEADINGS, *(_write_metrics(metrics) for metrics in history)]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    return align_right(list(zip(*columns, strict=True)))


_HEADINGS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")


def _write_metrics(metrics: EpochMetrics) -> tuple[str, ...]:
    numbers = (metrics.loss, metrics.accuracy, metrics.val_loss, metrics.val_accuracy)
    return (str(metrics.epoch), *("" if n is None else f"{n:.4f}" for n in numbers), f"{metrics.seconds:.1f}")


def _write_rate(progress: Progress) -> str:
    return f"{progress.seen / max(progress.seconds, 1e-9):,.0f} images/s"


def _open_streams() -> None:
    """Opens a closed stdout or stderr on the null device, and lets both escape characters they cannot encode."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _explain(error: BaseException) -> tuple[str, int]:
    """Returns the message for an error, and the exit code."""
    if isinstance(error, CnnjaxError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 128 + last_signal()
    if isinstance(error, MemoryError):
        return "out of memory", 4
    assert isinstance(error, OSError)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}", 4
