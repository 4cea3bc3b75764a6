"""Observers of a running grid: a live view, a line per trial, only failures, or experiment trackers."""

import contextlib
import importlib
import io
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from ablations.execution.costs import training_flops
from ablations.execution.work import Work
from ablations.study.grid import Trial
from cnnjax.console.terminal import NoteObserver, format_seconds, open_terminal, say
from cnnjax.runs.history import Progress
from cnnjax.runs.record import FINAL, Record
from cnnjax.runs.trackers import Tracking, check_trackers, make_trackers
from cnnjax.settings.schema import shorten_paths

REFRESH_SECONDS = 0.2
"""Shortest time between two updates of the live view for progress."""
NOTEBOOK_WIDTH = 100
"""Width of the live view in a notebook, in columns."""


class GridObserver(Protocol):
    """Receives the events of a grid."""

    def note(self, message: str) -> None:
        """Called before the first trial, with a line of how trials are computed."""

    def begin(self, work: Work) -> None:
        """Called first, with the trials that are stored and those that will be run."""

    def start(self, trial: Trial) -> None:
        """Called when a trial has started."""

    def advance(self, trial: Trial, progress: Progress) -> None:
        """Called with the progress of a running trial."""

    def retry(self, trial: Trial, reason: str) -> None:
        """Called when a trial has failed and will be run again."""

    def end(self, trial: Trial, record: Record) -> None:
        """Called when a trial has ended and its result is stored."""

    def close(self) -> None:
        """Called when the grid has ended."""


def make_grid_observer(quiet: bool) -> GridObserver:
    """Returns an observer: only failures if `quiet`, else a live view on a terminal or in a notebook, else lines."""
    if quiet:
        return FailureObserver()
    if getattr(_find_shell(), "kernel", None):
        return GridNotebookObserver()
    return GridLiveObserver() if sys.stdout.isatty() else GridLineObserver()


def _find_shell() -> Any:
    """Returns the shell of IPython that this process runs; it has a ``kernel`` in a notebook."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


class FailureObserver:
    """Shows only failures, on stderr; counts the trials for observers that show more."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.running: dict[str, tuple[Trial, Progress | None]] = {}
        self._begun = time.monotonic()
        self._ended = 0
        self._cost = self._cost_ended = 0.0

    def note(self, message: str) -> None:
        """Ignores the message."""

    def begin(self, work: Work) -> None:
        """Counts the trials."""
        self.counts = work.counts
        self._begun = time.monotonic()
        self._cost = sum(training_flops(trial.config) for trial in work.waiting)
        self._cost_ended, self._ended = 0.0, 0

    def start(self, trial: Trial) -> None:
        """Adds the trial to the running trials."""
        self.running[trial.key] = (trial, None)

    def advance(self, trial: Trial, progress: Progress) -> None:
        """Keeps the progress."""
        self.running[trial.key] = (trial, progress)

    def retry(self, trial: Trial, reason: str) -> None:
        """Shows the reason."""
        self.running.pop(trial.key, None)
        self.show_failure(f"retrying {trial.name}: {reason}")

    def end(self, trial: Trial, record: Record) -> None:
        """Counts the trial, and shows a failure."""
        self.running.pop(trial.key, None)
        self.counts["waiting"] -= 1
        self.counts[record.status] += 1
        self._ended += 1
        self._cost_ended += training_flops(trial.config)
        if record.status == "failed":
            self.show_failure(f"failed {trial.name}: {record.reason}")

    def close(self) -> None:
        """Does nothing."""

    def show_failure(self, text: str) -> None:
        """Shows a line on stderr."""
        say(text, sys.stderr)

    def estimate_rest(self) -> str:
        """Returns the time left at the speed so far, such as ``0:12:30``; ``-`` if the speed is not known yet."""
        done = self._cost_ended + sum(
            _share(progress) * training_flops(t.config) for t, progress in self.running.values()
        )
        if not done:
            return "-"
        return format_seconds((time.monotonic() - self._begun) * (self._cost - done) / done)

    def describe_speed(self) -> str:
        """Returns the rate and the time left, as far as known, such as ``40 trials/h, 0:12:30 left``."""
        left = self.estimate_rest()
        rate = f"{self._ended * 3600 / (time.monotonic() - self._begun):,.0f} trials/h" if self._ended else ""
        return ", ".join(filter(None, (rate, f"{left} left" if left != "-" and self.counts["waiting"] else "")))

    def describe_counts(self) -> str:
        """Returns the counts in one line."""
        total = sum(self.counts.values())
        named = [f"{count} {status}" for status, count in self.counts.items() if count and status != "waiting"]
        return f"{total - self.counts['waiting']}/{total} trials: {', '.join(named) or 'none yet'}"


class GridLineObserver(FailureObserver):
    """Shows a line per trial."""

    def note(self, message: str) -> None:
        """Shows the message."""
        say(message, sys.stdout)

    def begin(self, work: Work) -> None:
        """Shows the counts."""
        super().begin(work)
        say(f"{self.describe_counts()}; {self.counts['waiting']} to run", sys.stdout)

    def end(self, trial: Trial, record: Record) -> None:
        """Shows the result."""
        super().end(trial, record)
        total = sum(self.counts.values())
        result = _describe_scores(record) if record.status == "completed" else record.reason
        spent = f" in {record.seconds['total']:.1f} s" if "total" in record.seconds else ""
        line = f"[{total - self.counts['waiting']}/{total}] {record.status} {trial.name}: {result}{spent}"
        say(f"{line}; ETA {self.estimate_rest()}", sys.stdout)


class GridLiveObserver(FailureObserver):
    """Shows a progress bar, the counts, the rate, the time left and the running trials.

    The view stays on the terminal when the grid has ended. A running trial is named by those factors alone that vary in
    the grid, so that a narrow terminal does not cut them off.
    """

    def __init__(self) -> None:
        super().__init__()
        self._live: Any = None
        self._refreshed = 0.0
        self._varying: dict[str, str] = {}

    def note(self, message: str) -> None:
        """Shows the message, above the view."""
        say(message, sys.stdout)

    def begin(self, work: Work) -> None:
        """Starts the view."""
        super().begin(work)
        self._varying = _find_varying(work.waiting)
        with self._tolerant():
            self._live = self._open()
            self._live.start()

    def start(self, trial: Trial) -> None:
        """Shows the trial."""
        super().start(trial)
        self._refresh()

    def advance(self, trial: Trial, progress: Progress) -> None:
        """Shows the progress."""
        super().advance(trial, progress)
        self._refresh(REFRESH_SECONDS)

    def end(self, trial: Trial, record: Record) -> None:
        """Counts the trial."""
        super().end(trial, record)
        self._refresh()

    def close(self) -> None:
        """Ends the view, and leaves it on the terminal."""
        self.running.clear()
        self._refresh()
        with self._tolerant():
            if self._live:
                self._live.stop()
        self._live = None

    def show_failure(self, text: str) -> None:
        """Shows a line above the view."""
        with self._tolerant():
            if self._live:
                self._live.console.print(text, style="red", markup=False, highlight=False)

    def _open(self) -> Any:
        from rich.live import Live

        return Live(
            self._render(), console=open_terminal(), auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )

    def _refresh(self, at_most_every: float = 0.0) -> None:
        if self._live and time.monotonic() - self._refreshed >= at_most_every:
            self._refreshed = time.monotonic()
            with self._tolerant():
                self._live.update(self._render(), refresh=True)

    def _render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        total = sum(self.counts.values())
        heading = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(total, 1), completed=total - self.counts["waiting"], width=20)
        heading.add_row(bar, Text(self.describe_counts()))
        trials = Table.grid(padding=(0, 2))
        for trial, progress in self.running.values():
            name = Text(f"  {self._name(trial)}", overflow="ellipsis", no_wrap=True)
            trials.add_row(name, Text(_describe(progress), no_wrap=True))
        is_starting = self.counts["waiting"] and not self.running
        return Group(heading, Text("  workers are starting" if is_starting else self.describe_speed()), trials)

    def _name(self, trial: Trial) -> str:
        labels = [f"{short}={trial.cell.labels[factor]}" for factor, short in self._varying.items()]
        return ", ".join([*labels, f"seed={trial.config.seed}"])

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        """Ends the view if the terminal has been closed, so that the grid goes on without it."""
        try:
            yield
        except OSError:
            self._live = None


class GridNotebookObserver(GridLiveObserver):
    """Shows the live view in the output of a notebook's cell; failures are on stderr, as without a view."""

    def show_failure(self, text: str) -> None:
        """Shows a line on stderr."""
        FailureObserver.show_failure(self, text)

    def _open(self) -> Any:
        return _CellOutput()


class _CellOutput:
    """An output of a notebook's cell that is replaced as a whole, with the methods of `rich.live.Live`."""

    def start(self) -> None:
        display: Any = importlib.import_module("IPython.display").display
        self._output = display({"text/plain": ""}, raw=True, display_id=True)

    def update(self, view: Any, refresh: bool) -> None:
        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=NOTEBOOK_WIDTH, color_system=None, force_jupyter=False).print(view)
        self._output.update({"text/plain": text.getvalue()}, raw=True)

    def stop(self) -> None:
        """Leaves the output as it is."""


def _find_varying(trials: Sequence[Trial]) -> dict[str, str]:
    """Returns the factors that vary among these trials, with their short names."""
    labels = [trial.cell.labels for trial in trials]
    factors = list(labels[0]) if labels else []
    return shorten_paths([factor for factor in factors if len({each[factor] for each in labels}) > 1])


def _describe(progress: Progress | None) -> str:
    if progress is None:
        return "compiling"
    share = 100 * progress.seen / progress.examples
    return f"epoch {progress.epoch}/{progress.epochs} {share:3.0f}%  accuracy {progress.accuracy:.4f}"


def _describe_scores(record: Record) -> str:
    if record.config.trial:
        return ", ".join(f"{name} {score:.4g}" for name, score in record.scores.items())
    return f"test accuracy {record.test_accuracy:.4f}"


def _share(progress: Progress | None) -> float:
    return 0.0 if progress is None else (progress.epoch - 1 + progress.seen / progress.examples) / progress.epochs


class TrackedGridObserver:
    """Passes all events on to another observer, and passes the trials that have ended to trackers."""

    def __init__(self, shown: GridObserver, names: Iterable[str], folder: str | os.PathLike[str]) -> None:
        """Takes the other observer, the names of the trackers, and the output folder.

        Raises:
            InputError, UnavailableError: as `cnnjax.runs.trackers.check_trackers`.
        """
        self._names = tuple(names)
        check_trackers(self._names)
        self._shown, self._folder = shown, folder

    def note(self, message: str) -> None:
        """Passes it on."""
        self._shown.note(message)

    def begin(self, work: Work) -> None:
        """Passes it on."""
        self._shown.begin(work)

    def start(self, trial: Trial) -> None:
        """Passes it on."""
        self._shown.start(trial)

    def advance(self, trial: Trial, progress: Progress) -> None:
        """Passes it on."""
        self._shown.advance(trial, progress)

    def retry(self, trial: Trial, reason: str) -> None:
        """Passes it on."""
        self._shown.retry(trial, reason)

    def end(self, trial: Trial, record: Record) -> None:
        """Passes it on, and has the trackers write the run if it has a result; a tracker that fails is dropped."""
        self._shown.end(trial, record)
        if record.status not in FINAL:
            return
        with Tracking(NoteObserver(), make_trackers(self._names, self._folder, trial.config)) as tracking:
            tracking.finish(record)
        self._names = tracking.names

    def close(self) -> None:
        """Passes it on."""
        self._shown.close()
