"""A whole training run: compile, epochs with validation and early stopping, checkpoints, a final test.

An epoch is cut into pieces of at most `PIECE` steps so that progress can be shown, and a signal obeyed, between them;
the pieces are the same compiled program and the same arithmetic whether anybody watches or not. What must survive an
interruption is in `_Position`: everything else follows from the configuration.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.checkpoints import Checkpoints
from cnnjax.compilation import compile_program
from cnnjax.config import RunConfig, TrainConfig
from cnnjax.datasets import Dataset
from cnnjax.errors import InputError, Interrupted
from cnnjax.history import EpochMetrics, Observer, Progress, Silence, stopped_early
from cnnjax.splits import split_sizes
from cnnjax.training import Batch, Metrics, TrainState, evaluate, make_state, shuffle, train_epoch, train_rest

PIECE = 50


@dataclass(frozen=True)
class Fit:
    """What training produced.

    Attributes:
        status: ``completed``, or ``diverged`` where a loss was not finite.
        params: trainable parameters, nested dicts of float32 arrays.
        batch_stats: running statistics of batch normalisation, likewise.
        history: metrics of every whole epoch.
        test_loss, test_accuracy: on the test set; ``None`` for a diverged run.
        predictions: predicted class of every test example, (n,) uint8, or uint16 for more than 256 classes; ``None``
            for a diverged run.
        diverged_at: the step, from 1, whose loss was not finite.
        seconds: wall time of ``compile``, ``train`` (validation included) and ``evaluate``.
    """

    status: str
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    history: tuple[EpochMetrics, ...]
    test_loss: float | None
    test_accuracy: float | None
    predictions: np.ndarray | None
    diverged_at: int | None
    seconds: dict[str, float]


def fit(
    config: RunConfig,
    dataset: Dataset,
    *,
    observer: Observer | None = None,
    checkpoints: Checkpoints | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    stop_signal: Callable[[], int | None] = lambda: None,
) -> Fit:
    """Trains the network of `config` on `dataset`, then evaluates it once on the test set.

    Args:
        config: the run.
        dataset: the images.
        observer: is told of progress.
        checkpoints: where checkpoints go.
        checkpoint_every: epochs between checkpoints; ``None`` writes one only on a signal.
        resume: goes on from the newest checkpoint, bit for bit as if never interrupted.
        stop_signal: is asked after every piece of an epoch; a signal number stops the run.

    Raises:
        InputError: the configuration does not fit the dataset, or a checkpoint does not fit the configuration.
        Interrupted: `stop_signal` answered; a checkpoint was saved if `checkpoints` is given.
    """
    observer = observer or Silence()
    start = time.perf_counter()
    splits = _place_on_device(config, dataset)
    steps = config.train.epochs * math.ceil(len(splits["train"].labels) / config.train.batch_size)
    position = _Position(make_state(config, dataset.image_shape, dataset.classes, steps))
    programs = _Programs(position.state, splits, config.train.batch_size)
    compile_seconds = time.perf_counter() - start
    if resume and checkpoints:
        position = _resume(position, checkpoints, observer)
    loop = _Loop(config.train, splits, programs, observer, checkpoints, checkpoint_every, stop_signal)
    position, diverged_at = loop.run(position)
    start = time.perf_counter()
    test = programs.evaluate(position.state, splits["test"]) if diverged_at is None else None
    if test and not math.isfinite(test.loss):
        diverged_at, test = int(position.state.step), None
    return Fit(
        status="completed" if test else "diverged",
        params=jax.tree.map(np.asarray, position.state.params),
        batch_stats=jax.tree.map(np.asarray, position.state.batch_stats),
        history=position.history,
        test_loss=test.loss if test else None,
        test_accuracy=test.accuracy if test else None,
        predictions=test.predictions.astype(np.uint8 if dataset.classes <= 256 else np.uint16) if test else None,
        diverged_at=diverged_at,
        seconds={
            "compile": compile_seconds,
            "train": position.train_seconds,
            "evaluate": time.perf_counter() - start,
        },
    )


@dataclass(frozen=True)
class _Position:
    """Where a run is, between two pieces of an epoch; with the configuration, all that is needed to go on."""

    state: TrainState
    metrics: Metrics = dataclasses.field(default_factory=Metrics.zero)
    history: tuple[EpochMetrics, ...] = ()
    epoch_seconds: float = 0.0
    train_seconds: float = 0.0

    def advance(self, state: TrainState, metrics: Metrics, seconds: float) -> "_Position":
        return dataclasses.replace(
            self,
            state=state,
            metrics=metrics,
            epoch_seconds=self.epoch_seconds + seconds,
            train_seconds=self.train_seconds + seconds,
        )


@dataclass(frozen=True)
class _Evaluation:
    loss: float
    accuracy: float
    predictions: np.ndarray


class _Programs:
    """The programs of a run, compiled ahead of time for the shapes that occur."""

    def __init__(self, state: TrainState, splits: dict[str, Batch], batch_size: int) -> None:
        full, rest = divmod(len(splits["train"].labels), batch_size)
        self._lengths = [*[PIECE] * (full // PIECE), *([full % PIECE] if full % PIECE else []), *([0] if rest else [])]
        examples = full * batch_size + rest
        self.shuffle = compile_program(shuffle, state, examples=examples, batch_size=batch_size)
        arguments = (state, Metrics.zero(), splits["train"], self.shuffle(state))
        compile_training = functools.partial(compile_program, donate=(0, 1), batch_size=batch_size)
        self._train = {
            length: compile_training(train_epoch, *arguments, steps=length)
            if length
            else compile_training(train_rest, *arguments)
            for length in set(self._lengths)
        }
        evaluated = [split for name, split in splits.items() if name != "train"]
        self._evaluate = {len(split.labels): compile_program(evaluate, state, split) for split in evaluated}

    def remaining(self, steps_done: int) -> list[Callable[..., tuple[TrainState, Metrics, jax.Array]]]:
        """Returns the training programs still to run in an epoch of which `steps_done` steps are done."""
        starts = np.cumsum([0, *(max(length, 1) for length in self._lengths)])
        todo = [length for length, start in zip(self._lengths, starts, strict=False) if start >= steps_done]
        return [self._train[length] for length in todo]

    def evaluate(self, state: TrainState, split: Batch) -> _Evaluation:
        """Evaluates the network on a split."""
        metrics, predictions = self._evaluate[len(split.labels)](state, split)
        loss, accuracy = metrics.means()
        return _Evaluation(loss, accuracy, np.asarray(predictions))


@dataclass(frozen=True)
class _Loop:
    """The loop over epochs and their pieces."""

    config: TrainConfig
    splits: dict[str, Batch]
    programs: _Programs
    observer: Observer
    checkpoints: Checkpoints | None
    checkpoint_every: int | None
    stop_signal: Callable[[], int | None]

    def run(self, position: _Position) -> tuple[_Position, int | None]:
        """Trains to the end; returns the last position, and the step that diverged if one did."""
        patience = self.config.early_stopping_patience
        while len(position.history) < self.config.epochs and not stopped_early(position.history, patience):
            position, diverged_at = self._train_epoch(position)
            if diverged_at is not None:
                return position, diverged_at
        return position, None

    def _train_epoch(self, position: _Position) -> tuple[_Position, int | None]:
        examples = len(self.splits["train"].labels)
        order = self.programs.shuffle(position.state)
        steps_done = int(position.state.step) % math.ceil(examples / self.config.batch_size)
        for program in self.programs.remaining(steps_done):
            start, first = time.perf_counter(), int(position.state.step)
            state, metrics, losses = program(position.state, position.metrics, self.splits["train"], order)
            broken = np.flatnonzero(~np.isfinite(losses))
            position = position.advance(state, metrics, time.perf_counter() - start)
            if broken.size:
                return position, first + int(broken[0]) + 1
            self.observer.advance(self._progress(position))
            if int(metrics.seen) < examples:
                self._obey_signal(position)
        return self._end_epoch(position)

    def _end_epoch(self, position: _Position) -> tuple[_Position, int | None]:
        start = time.perf_counter()
        validation = self.splits.get("validation")
        result = self.programs.evaluate(position.state, validation) if validation else None
        position = position.advance(position.state, position.metrics, time.perf_counter() - start)
        epoch = EpochMetrics(
            len(position.history) + 1,
            *position.metrics.means(),
            result.loss if result else None,
            result.accuracy if result else None,
            position.epoch_seconds,
        )
        if not math.isfinite(epoch.loss) or (result and not math.isfinite(result.loss)):
            return position, int(position.state.step)
        position = dataclasses.replace(
            position, metrics=Metrics.zero(), history=(*position.history, epoch), epoch_seconds=0.0
        )
        self.observer.end_epoch(epoch)
        if self.checkpoints and self.checkpoint_every and epoch.epoch % self.checkpoint_every == 0:
            _save(position, self.checkpoints)
        self._obey_signal(position)
        return position, None

    def _obey_signal(self, position: _Position) -> None:
        number = self.stop_signal()
        if number is None:
            return
        step = int(position.state.step)
        saved = f"; saved {_save(position, self.checkpoints)}" if self.checkpoints else ""
        raise Interrupted(f"interrupted after step {step}{saved}", number)

    def _progress(self, position: _Position) -> Progress:
        loss, accuracy = position.metrics.means()
        return Progress(
            epoch=len(position.history) + 1,
            epochs=self.config.epochs,
            seen=int(position.metrics.seen),
            examples=len(self.splits["train"].labels),
            loss=loss,
            accuracy=accuracy,
            seconds=position.epoch_seconds,
        )


def _place_on_device(config: RunConfig, dataset: Dataset) -> dict[str, Batch]:
    size, validation = split_sizes(config, len(dataset.train))
    images, labels = dataset.train.images, dataset.train.labels
    splits = {"train": Batch(jnp.asarray(images[:size]), jnp.asarray(labels[:size]))}
    if validation:
        splits["validation"] = Batch(jnp.asarray(images[-validation:]), jnp.asarray(labels[-validation:]))
    splits["test"] = Batch(jnp.asarray(dataset.test.images), jnp.asarray(dataset.test.labels))
    return splits


def _save(position: _Position, checkpoints: Checkpoints) -> Path:
    progress = {
        "history": [dataclasses.asdict(epoch) for epoch in position.history],
        "epoch_seconds": position.epoch_seconds,
        "train_seconds": position.train_seconds,
    }
    return checkpoints.save(int(position.state.step), _name_arrays(position), progress)


def _resume(position: _Position, checkpoints: Checkpoints, observer: Observer) -> _Position:
    checkpoint = checkpoints.restore()
    if checkpoint is None:
        observer.note("no checkpoint of this configuration yet: starting from the beginning")
        return position
    for refused in checkpoint.skipped:
        observer.note(f"{refused}: using {checkpoint.path}, an older one")
    expected = _name_arrays(position)
    if {name: (array.shape, array.dtype) for name, array in checkpoint.arrays.items()} != {
        name: (array.shape, array.dtype) for name, array in expected.items()
    }:
        raise InputError(f"checkpoint {checkpoint.path} does not fit this network and optimizer")
    tree = jax.tree.structure(_arrays(position))
    restored = jax.tree.unflatten(tree, [jnp.asarray(checkpoint.arrays[name]) for name in expected])
    observer.note(f"resuming after step {int(restored['state'].step)} from {checkpoint.path}")
    return _Position(
        restored["state"].replace(key=position.state.key),
        restored["metrics"],
        tuple(EpochMetrics(**epoch) for epoch in checkpoint.progress["history"]),
        checkpoint.progress["epoch_seconds"],
        checkpoint.progress["train_seconds"],
    )


def _arrays(position: _Position) -> dict[str, Any]:
    # The random key follows from the seed.
    return {"state": position.state.replace(key=None), "metrics": position.metrics}


def _name_arrays(position: _Position) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(_arrays(position))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
