"""Trackers receive what the store has, exactly once, and a tracker that fails does not affect the run."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from collections import Counter
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

import ablations.execution.watching
import cnnjax.runs.trackers
from ablations.execution.coordinator import run_grid
from ablations.execution.watching import TrackedGridObserver
from cnnjax import InputError, Store, UnavailableError, fit
from cnnjax.errors import Interrupted
from cnnjax.runs.history import Silence
from cnnjax.runs.record import Record
from cnnjax.runs.trackers import TRACKERS, Tracking, check_trackers
from cnnjax.runs.trackers.tracking import flatten, list_metrics, list_origins, list_results, list_settings
from experiments import train
from grid_helpers import ScriptedExecutor, Watcher, make_grid, make_packed, tiny
from tracker_readers import READERS

ROOT = Path(__file__).parent.parent


class Fake(Silence):
    """Remembers what it is told, and raises where `breaks` says."""

    def __init__(self, breaks="", store=None):
        self.breaks, self.store, self.told, self.records = breaks, store, [], []

    def note(self, message):
        self._hear("note", message)

    def advance(self, progress):
        self._hear("advance", progress)

    def end_epoch(self, metrics):
        self._hear("end_epoch", metrics)

    def finish(self, record):
        self.records.append(record)
        self._hear("finish", self.store.find(record.key) if self.store else record)

    def close(self):
        self._hear("close", None)

    def list_told(self, kind):
        return [what for told, what in self.told if told == kind]

    def _hear(self, kind, what):
        self.told.append((kind, what))
        if kind == self.breaks:
            raise OSError(28, "No space left\non device")


class Notes(Silence):
    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


def fit_with(trackers, folder, config, shown=None):
    with Tracking(shown or Silence(), trackers) as tracking:
        run = fit(config, folder, observer=tracking)
        tracking.finish(run.record)
    return run


def test_every_tracker_has_an_extra_of_its_name():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(TRACKERS) <= set(extras)


def test_a_tracker_receives_every_epoch_and_then_the_stored_record(tmp_path):
    fake = Fake(store=Store(tmp_path))
    run = fit_with({"fake": fake}, tmp_path, tiny(epochs=2))
    assert fake.list_told("end_epoch") == [*run.history]
    assert fake.list_told("finish") == [run.record]
    assert [kind for kind, _ in fake.told if kind != "advance"] == ["end_epoch", "end_epoch", "finish", "close"]


def test_a_tracker_receives_a_stored_run_as_a_record_without_epochs(tmp_path):
    first = fit(tiny(), tmp_path)
    fake = Fake()
    fit_with({"fake": fake}, tmp_path, tiny())
    assert (fake.list_told("end_epoch"), fake.records) == ([], [first.record])


@pytest.mark.parametrize("hook", ["advance", "end_epoch", "finish", "close"])
def test_a_tracker_that_fails_is_dropped_with_one_note_and_changes_nothing(hook, tmp_path):
    broken, whole, notes = Fake(hook), Fake(), Notes()
    run = fit_with({"broken": broken, "whole": whole}, tmp_path, tiny(), notes)
    assert notes.notes == [
        "warning: broken: [Errno 28] No space left; nothing more is written there, and the run goes on"
    ]
    assert len(broken.list_told(hook)) == (2 if hook == "close" else 1)
    assert whole.list_told("end_epoch") == [*run.history]
    assert Store(tmp_path).find(run.key) == run.record
    assert dataclasses.replace(run.record, history=(), seconds={}) == dataclasses.replace(
        fit(tiny(), None).record, history=(), seconds={}
    )


def test_a_dropped_tracker_is_closed_once():
    broken = Fake("end_epoch")
    with Tracking(Silence(), {"broken": broken}) as tracking:
        tracking.end_epoch(make_packed(tiny()).record.history[0])
        assert tracking.names == ()
    assert broken.told[1:] == [("close", None)]


def test_what_stops_a_run_closes_its_trackers_without_a_record():
    fake, stop = Fake(), Interrupted("interrupted after step 3", signal.SIGINT)
    with pytest.raises(Interrupted, match="after step 3"), Tracking(Silence(), {"fake": fake}):
        raise stop
    assert fake.told == [("close", None)]


def test_output_and_warnings_of_a_tracker_are_hidden(capsys):
    class Chatty(Fake):
        def _hear(self, kind, what):
            print("chat", kind)
            print("chat", kind, file=sys.stderr)
            warnings.warn("chat", stacklevel=1)

    with Tracking(Silence(), {"chatty": Chatty()}) as tracking:
        tracking.note("hello")
        tracking.finish(make_packed(tiny()).record)
    assert capsys.readouterr() == ("", "")


def test_tracker_values_have_the_names_of_the_store_and_nothing_is_nested():
    config = tiny(epochs=2, validation_split=0.1)
    record = make_packed(config).record
    settings = list_settings(config)
    assert settings["train.learning_rate"] == 0.1
    assert settings["model.dense"] == "[8]"
    assert settings["data.manual_dir"] == "none"
    assert settings["seed"] == 0
    assert list_metrics(record.history[0]) == {
        "loss": 0.5, "accuracy": 0.8, "val_loss": 0.9, "val_accuracy": 0.9, "seconds": 0.1
    }  # fmt: skip
    assert list_results(record)["test_accuracy"] == record.test_accuracy
    assert list_results(record)["seconds.total"] == record.seconds["total"]
    assert list_origins(record)["provenance.python"] == "3.11"
    assert all(isinstance(value, str | bool | int | float) for value in (settings | list_origins(record)).values())


def test_a_diverged_run_has_no_test_numbers_but_a_reason():
    record = make_packed(tiny(), status="diverged").record
    assert {"test_loss", "test_accuracy"}.isdisjoint(list_results(record))
    assert list_origins(record)["reason"] == "loss not finite at step 3"


def test_flat_names_are_dotted_paths():
    assert flatten({"a": {"b": {"c": 1}}, "d": None, "e": [1, None]}) == {"a.b.c": 1, "d": "none", "e": "[1, null]"}


@pytest.mark.parametrize("found", [None, ModuleSpec("wandb", None)], ids=["nothing", "a folder of that name"])
def test_a_missing_package_is_one_line_naming_its_extra_before_anything_is_written(found, tmp_path, monkeypatch):
    monkeypatch.setattr(cnnjax.runs.trackers.importlib.util, "find_spec", lambda name: found)
    with pytest.raises(UnavailableError, match=r"^--log wandb: needs the package wandb: pip install -e '\.\[wandb\]'$"):
        train.main(["--log", "wandb", "--json", "--out", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()


def test_an_unknown_tracker_is_refused_with_the_legal_names():
    with pytest.raises(InputError, match="--log='comet': must be one of"):
        train.main(["--log", "comet"])
    with pytest.raises(InputError, match=r"--log='tensorbord': must be one of .*; did you mean 'tensorboard'\?"):
        check_trackers(["tensorbord"])


def run_grid_with(names, fakes, folder, monkeypatch, script=make_packed):
    def make(wanted, out, config):
        return {name: fakes.setdefault((name, config.key), Fake("finish" * (name == "broken"))) for name in wanted}

    monkeypatch.setattr(ablations.execution.watching, "check_trackers", lambda names: None)
    monkeypatch.setattr(ablations.execution.watching, "make_trackers", make)
    grid, store, watcher = make_grid(), Store(folder), Watcher()
    store.create()
    observer = TrackedGridObserver(watcher, names, folder)
    assert sum(run_grid(grid, store, ScriptedExecutor(script), observer).counts.values()) == len(grid.trials)
    return grid, watcher


def test_a_grid_passes_every_stored_trial_with_a_result_to_trackers_once(tmp_path, monkeypatch):
    fakes = {}
    grid, watcher = run_grid_with(["fake"], fakes, tmp_path, monkeypatch)
    stored = Store(tmp_path).find_all()
    assert {fake.records[0].key: fake.records[0] for fake in fakes.values()} == stored
    assert all([kind for kind, _ in fake.told] == ["finish", "close"] for fake in fakes.values())
    assert Counter(kind for kind, _ in watcher.told) == Counter(begin=1, start=4, end=4, close=1)
    assert len(stored) == len(grid.trials) == 4


def test_a_grid_passes_no_failure_to_trackers(tmp_path, monkeypatch):
    fakes = {}
    run_grid_with(["fake"], fakes, tmp_path, monkeypatch, script=lambda config: ("it crashed",))
    assert fakes == {}


def test_a_tracker_that_fails_in_a_grid_receives_no_further_trial(tmp_path, monkeypatch, capsys):
    fakes = {}
    run_grid_with(["broken", "fake"], fakes, tmp_path, monkeypatch)
    assert Counter(name for name, _ in fakes) == Counter(broken=1, fake=4)
    assert capsys.readouterr().err.count("warning: broken: ") == 1


PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
SMALL = ["--train.epochs", "3", "--data.train-size", "450", "--model.filters", "[2]"]
SMALL += ["--train.validation-split", "0.1", "--devices", "1"]


@pytest.fixture(params=TRACKERS)
def tool(request):
    pytest.importorskip(PACKAGES[request.param])
    if request.param == "tensorboard":
        pytest.importorskip("tensorboard")
    return request.param


def command(*arguments, folder):
    words = [sys.executable, "-m", "experiments.train", *SMALL, "--out", folder, *arguments]
    return [*map(str, words)]


def type_in(*arguments, folder):
    return subprocess.run(
        command(*arguments, folder=folder), capture_output=True, text=True, cwd=ROOT, timeout=300, env=offline()
    )


def offline():
    """Returns an environment in which every attempt at the network fails at once."""
    dead = "http://127.0.0.1:9"
    return {**os.environ, "HTTP_PROXY": dead, "HTTPS_PROXY": dead, "http_proxy": dead, "https_proxy": dead}


def expected_points(record):
    """Returns the points of a stored run, as a tool is to have them."""
    epochs = [(name, epoch.epoch, value) for epoch in record.history for name, value in list_metrics(epoch).items()]
    return sorted(epochs + [(name, len(record.history), value) for name, value in list_results(record).items()])


def assert_tool_has(tool, run, record, timed_before=()):
    """Asserts that what a tool has of a run is what the store has, each point once.

    Args:
        tool: Its name.
        run: What the tool has.
        record: The stored run.
        timed_before: Points of epochs that were trained twice. The tool may keep the seconds of their first training.
    """
    words = list_origins(record)
    seconds = {point[:2]: point[2] for point in timed_before if point[0] == "seconds"}
    wanted = sorted((name, step, seconds.get((name, step), value)) for name, step, value in expected_points(record))
    points = run.points
    if tool == "wandb":  # whose results are in the summary
        results = list_results(record)
        assert {name: run.words[name] for name in results} == pytest.approx(results)
        points = points + [(name, len(record.history), run.words[name]) for name in results]
    assert [point[:2] for point in sorted(points)] == [point[:2] for point in wanted]
    assert [point[2] for point in sorted(points)] == pytest.approx([point[2] for point in wanted], rel=1e-6)
    assert {name: str(run.words[name]) for name in words} == {name: str(value) for name, value in words.items()}
    settings = list_settings(record.config)
    assert {name: plain(run.settings[name]) for name in settings} == {n: plain(value) for n, value in settings.items()}


def plain(value):
    """Returns a number as it is written, for TensorBoard makes 5.0 of 5, and MLflow a word of either."""
    try:
        return float(str(value))
    except ValueError:
        return str(value)


def only_record(folder):
    (record,) = Store(folder).find_all().values()
    return record


@pytest.mark.slow
@pytest.mark.parametrize("form", ["--json", "--quiet"])
def test_a_tool_has_what_the_store_has_and_the_output_is_as_without_it(tool, form, tmp_path):
    logged = type_in("--log", tool, form, folder=tmp_path)
    assert (logged.returncode, logged.stderr) == (0, "")
    record = only_record(tmp_path)
    if form == "--json":
        assert json.loads(logged.stdout)["key"] == record.key
    assert logged.stdout.count("\n") == 1
    (run,) = READERS[tool](tmp_path)
    assert_tool_has(tool, run, record)
    assert run.status in {"", "FINISHED", "0"}


@pytest.mark.slow
def test_a_run_stored_before_is_logged_once_from_the_store(tool, tmp_path):
    assert type_in("--quiet", folder=tmp_path).returncode == 0
    for _ in range(2):
        assert type_in("--quiet", "--log", tool, "--log", tool, folder=tmp_path).returncode == 0
        (run,) = READERS[tool](tmp_path)
        assert_tool_has(tool, run, only_record(tmp_path))


@pytest.mark.slow
def test_a_run_trained_again_is_logged_again(tool, tmp_path):
    for _ in range(2):
        assert type_in("--quiet", "--force", "--log", tool, folder=tmp_path).returncode == 0
    runs = READERS[tool](tmp_path)
    assert len(runs) == (1 if tool == "tensorboard" else 2)
    assert_tool_has(tool, runs[-1], only_record(tmp_path))


@pytest.mark.slow
def test_a_diverged_run_is_logged_with_its_reason(tool, tmp_path):
    result = type_in("--quiet", "--train.learning-rate", "1e30", "--log", tool, folder=tmp_path)
    assert result.returncode == 1
    assert result.stderr == f"diverged: {only_record(tmp_path).reason}\n"
    (run,) = READERS[tool](tmp_path)
    assert_tool_has(tool, run, only_record(tmp_path))
    assert run.status in {"", "FAILED", "1"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_stopped_and_resumed_has_every_epoch_once(tool, number, tmp_path):
    long = ["--train.epochs", "200", "--checkpoint-every", "4", "--log", tool, "--quiet"]
    process = subprocess.Popen(
        command(*long, folder=tmp_path), stderr=subprocess.PIPE, text=True, cwd=ROOT, env=offline()
    )
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("checkpoints/*/*/manifest.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), errors
    assert "warning" not in errors
    (stopped,) = READERS[tool](tmp_path)
    assert max((point[1] for point in stopped.points), default=0) < 200
    assert stopped.points or (tool, number) == ("wandb", signal.SIGKILL)  # which writes in blocks
    if tool == "mlflow":
        assert stopped.status == ("KILLED" if number == signal.SIGINT else "RUNNING")
    assert type_in(*long, "--resume", folder=tmp_path).returncode == 0
    runs = READERS[tool](tmp_path)
    assert len(runs) == (2 if tool == "wandb" else 1)
    assert_tool_has(tool, runs[-1], only_record(tmp_path), stopped.points if tool == "mlflow" else ())


TELL_FROM_EPOCH_3 = """
import json, sys
from cnnjax.runs.history import Silence
from cnnjax.runs.trackers import Tracking, make_trackers
from grid_helpers import make_packed, tiny
record = make_packed(tiny(epochs=4)).record
with Tracking(Silence(), make_trackers([sys.argv[1]], sys.argv[2], record.config)) as tracking:
    for epoch in record.history[2:]:
        tracking.end_epoch(epoch)
    tracking.finish(record)
print(json.dumps(record.to_dict()))
"""


@pytest.mark.slow
def test_a_run_resumed_with_a_tool_that_it_began_without_has_its_first_epochs_too(tool, tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", TELL_FROM_EPOCH_3, tool, str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT / "tests", timeout=300, env=offline(), check=True,
    )  # fmt: skip
    record = Record.from_dict(json.loads(result.stdout))
    (run,) = READERS[tool](tmp_path)
    assert_tool_has(tool, run, record)


@pytest.mark.slow
def test_a_tool_that_cannot_write_adds_a_line_and_the_run_goes_on(tool, tmp_path):
    (tmp_path / tool).write_text("in the way")
    result = type_in("--quiet", "--log", tool, folder=tmp_path)
    assert result.returncode == 0
    assert result.stderr.startswith(f"warning: {tool}: ")
    assert result.stderr.endswith("; nothing more is written there, and the run goes on\n")
    assert result.stderr.count("\n") == 1
    assert only_record(tmp_path).status == "completed"


@pytest.mark.slow
def test_a_grid_logs_each_of_its_trials(tool, tmp_path):
    words = "--axis model.dense=[8],[16] --seeds 2 --set model.filters=[] --set data.train_size=300"
    words = [*words.split(), "--set", "train.epochs=2", "--workers", "1", "--log", tool, "--quiet"]
    line = [sys.executable, "-m", "ablations.run", *words, "--out", str(tmp_path)]
    result = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=300, env=offline())
    assert (result.returncode, result.stderr) == (0, "")
    records = Store(tmp_path).find_all()
    runs = {run.words["key"]: run for run in READERS[tool](tmp_path)}
    assert runs.keys() == records.keys()
    for key, record in records.items():
        assert_tool_has(tool, runs[key], record)
