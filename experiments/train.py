"""Trains a convolutional network and stores the result.

The textbook network on MNIST for 5 epochs; a shorter training of about twelve seconds; another network; the layer table
of that network, without training::

    python -m experiments.train
    python -m experiments.train --train.epochs 1 --data.train-size 5000 --train.learning-rate 0.1
    python -m experiments.train --model.padding same --model.filters '[16,32,64]' --seed 1
    python -m experiments.train --model.padding same --model.filters '[16,32,64]' --summary-only
"""

import argparse
import contextlib
import json
import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cnnjax.console.arguments import ADVANCED, Assignments, Option, parse_arguments, read_config
from cnnjax.console.terminal import format_history, make_observer, run_command, say
from cnnjax.errors import CnnjaxError, InputError, Interrupted
from cnnjax.machine.distributed import check_processes, join
from cnnjax.machine.files import keep_programs, read_path
from cnnjax.machine.native import allow_fast_layers, prepare_layers
from cnnjax.machine.processes import check_cpu_devices, offer_cpu_devices, take_stdout
from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import Observer
from cnnjax.runs.summary import summarize
from cnnjax.runs.trackers import TrackerName, Tracking, check_trackers, make_trackers
from cnnjax.settings.checking import Count, check

if TYPE_CHECKING:
    from cnnjax.runs.record import Run

PROG = "python -m experiments.train"


@dataclass(frozen=True)
class TrainArguments:
    """Trains a convolutional network and stores the result::

        python -m experiments.train
        python -m experiments.train --model.padding same --train.epochs 2 --seed 1

    A setting of the convolution blocks is one value for all of them, or a list with one entry per block:
    --model.padding '[same, valid]'.
    """

    run: Annotated[RunConfig, Option(name="")] = field(default_factory=RunConfig)
    """The run."""
    set: Assignments = ()
    """A setting, such as model.padding=same: another way to write --model.padding same. May be repeated."""
    config: Path | None = None
    """A .toml or .json file with the run's configuration; the other options override its values."""
    out: Path = Path("runs")
    """Folder of the store and of the checkpoints."""
    force: bool = False
    """Train even if the result is stored already, and replace that result."""
    resume: bool = False
    """Continue from the newest checkpoint of this run."""
    checkpoint_every: int | None = None
    """Epochs between checkpoints; by default one is written only on Ctrl-C, SIGTERM or a closed terminal."""
    log: tuple[TrackerName, ...] = ()
    """Also log to TensorBoard, MLflow or Weights & Biases (offline), in a folder below --out. May be repeated."""
    summary_only: bool = False
    """Print the layer table without training."""
    without_classifier: Annotated[bool, ADVANCED] = False
    """End the layer table after the last convolution block."""
    quiet: bool = False
    """Print only the test accuracy."""
    json: bool = False
    """Print one JSON object and nothing else on stdout."""
    devices: Annotated[int | None, ADVANCED] = None
    """Devices of each process among which every batch is divided; by default the cores of a CPU, or one accelerator."""
    coordinator: Annotated[str | None, Option(metavar="HOST:PORT", advanced=True)] = None
    """Address of the first of several processes that train one run together, on one host or several."""
    num_processes: Annotated[int | None, ADVANCED] = None
    """Number of processes; start each with the same arguments, except --process-id."""
    process_id: Annotated[int | None, ADVANCED] = None
    """Index of this process, from 0; only process 0 writes and prints."""
    no_compilation_cache: Annotated[bool, ADVANCED] = False
    """Compile every program again, and keep none in the user's cache."""
    no_fast_layers: Annotated[bool, ADVANCED] = False
    """Do not use oneDNN's layers on CPU."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


def parse(argv: list[str]) -> TrainArguments:
    """Returns the arguments; values that are not given come from the file of ``--config``, or are the defaults.

    Raises:
        InputError: an option or the configuration file is not valid.
    """
    finder = argparse.ArgumentParser(prog=PROG, add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--config", action="append", default=[])
    try:
        files = finder.parse_known_args(argv)[0].config
    except argparse.ArgumentError as error:
        raise InputError(f"--config: {error.message}") from None
    if len(files) > 1:
        raise InputError(f"--config: given {len(files)} times, must be given once")
    default = TrainArguments(run=read_config(read_path(files[0], "--config"))) if files else TrainArguments()
    return parse_arguments(TrainArguments, argv, PROG, default)


def main(argv: list[str]) -> int:
    """Runs the command; returns 0, or 1 where the run diverged."""
    arguments = parse(argv)
    _check(arguments)
    from cnnjax.data.loading import find_images

    arguments = replace(arguments, run=replace(arguments.run, data=find_images(arguments.run.data)))
    is_first = not arguments.process_id
    silent = arguments.quiet or arguments.json or not is_first
    if is_first and (arguments.summary_only or not silent):
        summary = summarize(arguments.run, classes=None if arguments.without_classifier else "dataset")
        say(json.dumps(summary.to_dict()) if arguments.json else str(summary), sys.stdout)
    if arguments.summary_only:
        return 0
    trackers = make_trackers(arguments.log if is_first else (), arguments.out, arguments.run)
    with Tracking(make_observer(silent), trackers) as tracking:
        layers = None if _is_stored(arguments) else _prepare_layers(arguments)
        if layers and not silent:
            say(layers, sys.stdout)
        run = _train(arguments, tracking, argv)
        tracking.finish(run.record)
    return _show(arguments, run, silent) if is_first else int(run.record.status != "completed")


def _check(arguments: TrainArguments) -> None:
    check(arguments.checkpoint_every, Count | None, "--checkpoint-every")
    check(arguments.devices, Count | None, "--devices")
    if arguments.devices and arguments.run.train.batch_size % arguments.devices:
        batch = arguments.run.train.batch_size
        raise InputError(f"--devices={arguments.devices}: must divide train.batch_size={batch}")
    check_cpu_devices(arguments.devices)
    check_processes(arguments.coordinator, arguments.num_processes, arguments.process_id)
    check_trackers(() if arguments.process_id else arguments.log)


def _is_stored(arguments: TrainArguments) -> bool:
    from cnnjax.runs.record import FINAL
    from cnnjax.runs.store import Store

    with contextlib.suppress(CnnjaxError):  # which `fit` will raise, in all processes
        record = None if arguments.force else Store(arguments.out).find(arguments.run.key)
        return record is not None and record.status in FINAL
    return False


def _prepare_layers(arguments: TrainArguments) -> str | None:
    if arguments.no_fast_layers:
        allow_fast_layers(False)
    return prepare_layers()


def _train(arguments: TrainArguments, observer: Observer, argv: list[str]) -> "Run":
    """Starts JAX on the devices and processes of the arguments, and trains.

    If training is interrupted after a checkpoint, the error says how to resume.
    """
    keep_programs(not arguments.no_compilation_cache)
    offer_cpu_devices(arguments.devices)
    if arguments.coordinator is not None:
        assert arguments.num_processes is not None
        assert arguments.process_id is not None
        sys.stdout = take_stdout()  # because Gloo, which connects the processes, prints greetings
        address = (arguments.coordinator, arguments.num_processes, arguments.process_id)
        join(*address, arguments.devices, note=lambda message: say(message, sys.stderr))
    from cnnjax.training.fit import fit

    try:
        return fit(
            arguments.run,
            arguments.out,
            force=arguments.force,
            resume=arguments.resume,
            checkpoint_every=arguments.checkpoint_every,
            devices=None if arguments.coordinator else arguments.devices,
            observer=observer,
        )
    except Interrupted as stop:
        if stop.checkpoint:
            stop.args = (f"{stop}; resume with: {PROG} {_quote(argv)}",)
        raise


def _show(arguments: TrainArguments, run: "Run", silent: bool) -> int:
    """Prints the result in the form that the arguments ask for; returns the exit code."""
    record = run.record
    if arguments.json:
        say(json.dumps(record.to_dict(), allow_nan=False), sys.stdout)
    elif not silent:
        stored = f"Stored as {run.key[:12]} in {arguments.out / 'runs.sqlite'}"
        say(f"\n{format_history(record.history)}\n\n{stored}", sys.stdout)
    if record.status != "completed":
        say(f"{record.status}: {record.reason}", sys.stderr)
        return 1
    if not silent:
        for name, score in record.scores.items():
            say(f"{name}: {'not a finite number' if score is None else format(score, '.4f')}", sys.stdout)
    if not arguments.json:
        say(f"Test accuracy: {record.test_accuracy:.4f}", sys.stdout)
    return 0


def _quote(argv: list[str]) -> str:
    return shlex.join([*argv, *([] if "--resume" in argv else ["--resume"])])


if __name__ == "__main__":
    run_command(main)
