"""A whole training run: compile, epochs with validation and early stopping, checkpoints, a final test.

An epoch is cut into pieces of at most `PIECE` steps so that progress can be shown, and a signal obeyed, between them;
the pieces are the same compiled program and the same arithmetic whether anybody watches or not.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax.checkpoints import Checkpoints
from cnnjax.config import RunConfig
from cnnjax.datasets import Dataset
from cnnjax.distributed import agree, check_same, is_joined
from cnnjax.errors import Interrupted, UnavailableError
from cnnjax.history import EpochMetrics, Observer, Progress, Silence, stopped_early
from cnnjax.position import Position
from cnnjax.programs import Evaluation, Programs
from cnnjax.sharding import AXIS, replicate
from cnnjax.splits import split_sizes
from cnnjax.training import Examples, Metrics, make_state


@dataclass(frozen=True)
class TrainResult:
    """What training produced.

    Attributes:
        position: after the last step, with the parameters and the history.
        diverged_at: the step, from 1, whose loss was not finite; ``None`` for a completed run.
        test_loss, test_accuracy: on the test set; ``None`` for a diverged run.
        predictions: predicted class of every test example, int32 (n,); ``None`` for a diverged run.
        seconds: wall time of ``compile`` (with the copy of the examples to the device), ``train`` (with validation,
            over all sessions of a resumed run) and ``evaluate``.
    """

    position: Position
    diverged_at: int | None
    test_loss: float | None
    test_accuracy: float | None
    predictions: np.ndarray | None
    seconds: dict[str, float]

    @classmethod
    def conclude(
        cls, position: Position, diverged_at: int | None, test: Evaluation | None, seconds: dict[str, float]
    ) -> "TrainResult":
        """Returns the result of a run with this test; where its loss is not finite, the run has diverged there."""
        if test and diverged_at is None and not math.isfinite(test.loss):
            diverged_at = int(position.state.step)
        if test is None or diverged_at is not None:
            return cls(position, diverged_at, None, None, None, seconds)
        return cls(position, None, test.loss, test.accuracy, test.predictions, seconds)


@dataclass(frozen=True)
class Prepared:
    """A run ready to train: its examples on the device, its programs compiled.

    Attributes:
        config: the run.
        splits: examples by ``train``, ``validation`` (if there are any) and ``test``.
        position: before the first step.
        programs: compiled for the shapes that occur.
        compile_seconds: wall time of the preparation, nearly all of it compilation.
    """

    config: RunConfig
    splits: dict[str, Examples]
    position: Position
    programs: Programs
    compile_seconds: float


def prepare(config: RunConfig, dataset: Dataset, mesh: Mesh | None = None) -> Prepared:
    """Puts the examples on the devices, makes the first state and compiles the programs.

    Args:
        config: the run.
        dataset: its images.
        mesh: devices among which every batch is divided.

    Raises:
        InputError: the configuration does not fit the dataset.
    """
    start = time.perf_counter()
    splits = replicate(take_splits(config, dataset), mesh)
    steps = config.train.epochs * math.ceil(len(splits["train"].labels) / config.train.batch_size)
    state = make_state(config, dataset.image_shape, dataset.classes, steps, AXIS if mesh else None)
    state = replicate(state, mesh)
    programs = Programs(state, splits, config.train.batch_size, mesh)
    return Prepared(config, splits, Position(state, programs.zero()), programs, time.perf_counter() - start)


def train(
    prepared: Prepared,
    *,
    observer: Observer | None = None,
    checkpoints: Checkpoints | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    stop_signal: Callable[[], int | None] = lambda: None,
    saves: bool = True,
) -> TrainResult:
    """Trains a prepared run to its end, then evaluates it once on the test set.

    Args:
        prepared: from `prepare`; its state is used up.
        observer: is told of progress.
        checkpoints: where checkpoints go.
        checkpoint_every: epochs between checkpoints; ``None`` writes one only on a signal.
        resume: goes on from the newest checkpoint, bit for bit as if never interrupted.
        stop_signal: is asked after every piece of an epoch; a signal number, in any process, stops the run.
        saves: whether checkpoints are written, as they are by one of several processes.

    Raises:
        CorruptionError, InputError: there are checkpoints to resume from, but none that is whole and of this run.
        Interrupted: `stop_signal` answered; a checkpoint was saved if `checkpoints` is given.
    """
    observer = observer or Silence()
    position = prepared.position
    if checkpoints:
        position = _find_start(position, checkpoints, observer, resume)
    if is_joined():
        check_same(int(position.state.step), "the step of the newest checkpoint")
    loop = _Loop(prepared, observer, checkpoints if saves else None, checkpoint_every, stop_signal)
    position, diverged_at = loop.run(position)
    start = time.perf_counter()
    test = prepared.programs.evaluate(position.state, prepared.splits["test"]) if diverged_at is None else None
    seconds = {
        "compile": prepared.compile_seconds,
        "train": position.train_seconds,
        "evaluate": time.perf_counter() - start,
    }
    return TrainResult.conclude(position, diverged_at, test, seconds)


def describe_epoch(epoch: int, metrics: Metrics, validation: Evaluation | None, seconds: float) -> EpochMetrics:
    """Returns the metrics of a whole epoch, `epoch` counting from 1."""
    loss, accuracy = (validation.loss, validation.accuracy) if validation else (None, None)
    return EpochMetrics(epoch, *metrics.means(), loss, accuracy, seconds)


def describe_progress(config: RunConfig, epochs_done: int, metrics: Metrics, examples: int, seconds: float) -> Progress:
    """Returns where a run is that has seen some of the `examples` of an epoch, `metrics` being their sums."""
    loss, accuracy = metrics.means()
    return Progress(epochs_done + 1, config.train.epochs, int(metrics.seen), examples, loss, accuracy, seconds)


@dataclass(frozen=True)
class _Loop:
    """The loop over epochs and their pieces."""

    prepared: Prepared
    observer: Observer
    checkpoints: Checkpoints | None
    checkpoint_every: int | None
    stop_signal: Callable[[], int | None]

    def run(self, position: Position) -> tuple[Position, int | None]:
        """Trains to the end; returns the last position, and the step that diverged if one did."""
        train = self.prepared.config.train
        patience = train.early_stopping_patience
        while len(position.history) < train.epochs and not stopped_early(position.history, patience):
            position, diverged_at = self._train_epoch(position)
            if diverged_at is not None:
                return position, diverged_at
        return position, None

    def _train_epoch(self, position: Position) -> tuple[Position, int | None]:
        data, programs = self.prepared.splits["train"], self.prepared.programs
        examples = len(data.labels)
        order = programs.shuffle(position.state)
        steps_done = int(position.state.step) % math.ceil(examples / programs.batch_size)
        for program in programs.remaining(steps_done, examples):
            start, first = time.perf_counter(), int(position.state.step)
            state, metrics, losses = program(position.state, position.metrics, data, order)
            broken = np.flatnonzero(~np.isfinite(losses))
            position = replace(position, state=state, metrics=metrics).spend(time.perf_counter() - start)
            if broken.size:
                return position, first + int(broken[0]) + 1
            self.observer.advance(self._progress(position))
            if int(metrics.seen) < examples:
                self._obey_signal(position)
        return self._end_epoch(position)

    def _end_epoch(self, position: Position) -> tuple[Position, int | None]:
        start = time.perf_counter()
        validation = self.prepared.splits.get("validation")
        result = self.prepared.programs.evaluate(position.state, validation) if validation else None
        position = position.spend(time.perf_counter() - start)
        epoch = describe_epoch(len(position.history) + 1, position.metrics, result, position.epoch_seconds)
        if not epoch.is_finite:
            return position, int(position.state.step)
        position = replace(
            position,
            metrics=self.prepared.programs.zero(),
            history=(*position.history, epoch),
            epoch_seconds=0.0,
        )
        self.observer.end_epoch(epoch)
        self._obey_signal(position)
        if self.checkpoint_every and epoch.epoch % self.checkpoint_every == 0:
            self._save_or_tell(position)
        return position, None

    def _save_or_tell(self, position: Position) -> None:
        if self.checkpoints is None:
            return
        try:
            position.save(self.checkpoints)
        except UnavailableError as error:
            self.observer.note(f"warning: {error}; training goes on")

    def _obey_signal(self, position: Position) -> None:
        number = self.stop_signal()
        if is_joined():
            number = agree(number or 0) or None
        if number is None:
            return
        stopped = f"interrupted after step {int(position.state.step)}"
        if self.checkpoints is None:
            raise Interrupted(stopped, number)
        try:
            path = position.save(self.checkpoints)
        except UnavailableError as error:
            raise Interrupted(f"{stopped}; {error}", number) from error
        raise Interrupted(f"{stopped}; saved {path}", number, path)

    def _progress(self, position: Position) -> Progress:
        examples = len(self.prepared.splits["train"].labels)
        return describe_progress(
            self.prepared.config, len(position.history), position.metrics, examples, position.epoch_seconds
        )


def take_splits(config: RunConfig, dataset: Dataset) -> dict[str, Examples]:
    """Returns the examples of a run by ``train``, ``validation`` (if there are any) and ``test``, on the device."""
    size, validation = split_sizes(config, len(dataset.train))
    images, labels = dataset.train.images, dataset.train.labels
    splits = {"train": Examples(jnp.asarray(images[:size]), jnp.asarray(labels[:size]))}
    if validation:
        splits["validation"] = Examples(jnp.asarray(images[-validation:]), jnp.asarray(labels[-validation:]))
    splits["test"] = Examples(jnp.asarray(dataset.test.images), jnp.asarray(dataset.test.labels))
    return splits


def _find_start(position: Position, checkpoints: Checkpoints, observer: Observer, resume: bool) -> Position:
    if not resume:
        if checkpoints.exist():
            observer.note(f"starting over; --resume would go on from the checkpoints in {checkpoints.folder}")
        return position
    checkpoint = checkpoints.restore()
    if checkpoint is None:
        observer.note("no checkpoint of this configuration yet: starting from the beginning")
        return position
    for refused in checkpoint.skipped:
        observer.note(f"{refused}: using {checkpoint.path}, an older one")
    restored = position.restore(checkpoint)
    observer.note(f"resuming after step {int(restored.state.step)} from {checkpoint.path}")
    return restored
