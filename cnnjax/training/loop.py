"""The training loop: epochs, validation, early stopping, divergence, checkpoints and the final test.

The loop trains one run, or several runs with the same static signature in one program. The states of several runs are
stacked along a first axis, and each step updates all of them. The runs share the images and the compiled program; each
has its own parameters, hyperparameters (such as the learning rate) and data order. A run that ends before the others,
by early stopping, divergence or fewer epochs, gives its result at once. The program still computes its place in the
stack until the last run ends, and that output is ignored.

An epoch is trained in pieces of at most `PIECE` steps. Between pieces, progress is shown and signals are obeyed. The
programs and their arithmetic are the same with and without an observer. The configuration and a `Position` are all that
is needed to continue after any piece.
"""

import dataclasses
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax.data.dataset import Dataset
from cnnjax.errors import InputError, Interrupted, UnavailableError
from cnnjax.machine.devices import AXIS, place, replicate
from cnnjax.machine.distributed import agree, check_same, is_joined
from cnnjax.models.batches import EVALUATION_BATCH
from cnnjax.runs.checkpoints import Checkpoint, Checkpoints
from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import EpochMetrics, Observer, Progress, Silence, stopped_early
from cnnjax.runs.provenance import describe_convolutions
from cnnjax.runs.splits import draw_training, take_splits
from cnnjax.training.feeding import Data
from cnnjax.training.memory import fit_on_devices
from cnnjax.training.programs import DividedPrograms, Evaluation, Programs, StackedPrograms
from cnnjax.training.step import Examples, Metrics, TrainState, count_examples, make_state

_UNNAMED = re.compile("^state/(numbers|collections)/")


@dataclass(frozen=True)
class Position:
    """The progress of a run after some step: what a checkpoint saves.

    Attributes:
        state: the training state after that step.
        metrics: sums over the current epoch so far.
        history: metrics of the completed epochs.
        epoch_seconds: wall time of the current epoch so far.
        train_seconds: wall time of all training so far, with the time before an interruption.
        convolutions: what has convolved, such as ``oneDNN 3.2.0``; several if the run was resumed with another.
    """

    state: TrainState
    metrics: Metrics = dataclasses.field(default_factory=Metrics.zero)
    history: tuple[EpochMetrics, ...] = ()
    epoch_seconds: float = 0.0
    train_seconds: float = 0.0
    convolutions: tuple[str, ...] = ()

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays that a checkpoint saves, by path, such as ``state/params/Conv_0/kernel``.

        The leaves of ``state.numbers`` and ``state.collections`` are named without these words.
        """
        return {
            _UNNAMED.sub("state/", jax.tree_util.keystr(path, simple=True, separator="/")): np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(self._tree())
        }

    def progress(self) -> dict[str, Any]:
        """Returns the history, the times and what has convolved, which a checkpoint saves as JSON."""
        return {
            "history": [dataclasses.asdict(epoch) for epoch in self.history],
            "epoch_seconds": self.epoch_seconds,
            "train_seconds": self.train_seconds,
            "convolutions": list(self.convolutions),
        }

    def save(self, checkpoints: Checkpoints) -> Path:
        """Writes a checkpoint and returns its folder; raises `UnavailableError` if it cannot be written."""
        return checkpoints.save(int(self.state.step), self.arrays(), self.progress())

    def restore(self, checkpoint: Checkpoint) -> "Position":
        """Returns the position saved in `checkpoint`.

        The random key and the sample, which a checkpoint does not hold, and the devices of the arrays are those of this
        position. What convolves here comes last in `convolutions`.

        Raises:
            InputError: the arrays of the checkpoint have other names, shapes or dtypes than this position, as it is of
                another network or optimizer.
        """
        expected = {name: (array.shape, array.dtype) for name, array in self.arrays().items()}
        if {name: (array.shape, array.dtype) for name, array in checkpoint.arrays.items()} != expected:
            raise InputError(f"checkpoint {checkpoint.path} does not fit this network and optimizer")
        shardings, structure = jax.tree.flatten(jax.tree.map(lambda leaf: leaf.sharding, self._tree()))
        leaves = [place(checkpoint.arrays[name], sharding) for name, sharding in zip(expected, shardings, strict=True)]
        tree = jax.tree.unflatten(structure, leaves)
        return Position(
            tree["state"].replace(key=self.state.key, sample=self.state.sample),
            tree["metrics"],
            tuple(EpochMetrics(**epoch) for epoch in checkpoint.progress["history"]),
            checkpoint.progress["epoch_seconds"],
            checkpoint.progress["train_seconds"],
            # missing in checkpoints of older versions
            _extend(checkpoint.progress.get("convolutions", ()), self.convolutions),
        )

    def _tree(self) -> dict[str, Any]:
        return {"state": self.state.learned, "metrics": self.metrics}


def _extend(before: Sequence[str], now: Sequence[str]) -> tuple[str, ...]:
    return tuple(before) if [*before[-1:]] == [*now] else (*before, *now)


StopSignal = Callable[[], int | None]
"""Returns the number of a signal to stop, such as SIGINT, if one has arrived; otherwise ``None``."""


@dataclass(frozen=True)
class TrainResult:
    """The result of training one run.

    Attributes:
        position: after the last step, with the parameters and the history.
        diverged_at: the step, counted from 1, at which the loss was not finite; ``None`` for a completed run.
        test_loss, test_accuracy: on the test set; ``None`` for a diverged run.
        predictions: predicted class of every test example, int32 (n,); ``None`` for a diverged run.
        seconds: wall time of ``compile`` (with the copy of the examples to the device), ``train`` (with validation, and
            with the time before an interruption) and ``evaluate``. Several runs in one program share these times.
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
        """Returns the result of a run that has ended.

        Args:
            position: after the last step.
            diverged_at: the step, counted from 1, at which the loss was not finite.
            test: the evaluation on the test set. If its loss is not finite, the run has diverged at its last step.
            seconds: wall times by phase.
        """
        if test and diverged_at is None and not math.isfinite(test.loss):
            diverged_at = int(position.state.step)
        if test is None or diverged_at is not None:
            return cls(position, diverged_at, None, None, None, seconds)
        return cls(position, None, test.loss, test.accuracy, test.predictions, seconds)


@dataclass(frozen=True)
class Prepared:
    """One or several runs ready to train: their programs are compiled, and their examples on the devices if they fit.

    Attributes:
        configs: the runs.
        splits: the examples of ``train``, ``validation`` (if the run has any) and ``test``.
        state: before the first step; the states of several runs are stacked.
        programs: compiled for the shapes of these splits.
        compile_seconds: wall time of the preparation, nearly all of it compilation, divided by the number of runs.
    """

    configs: tuple[RunConfig, ...]
    splits: Mapping[str, Data]
    state: TrainState
    programs: Programs
    compile_seconds: float


def prepare(config: RunConfig, dataset: Dataset, mesh: Mesh | None = None) -> Prepared:
    """Copies the examples to the devices if they fit, makes the initial state and compiles the programs.

    Args:
        config: the run.
        dataset: its images.
        mesh: the devices that share every batch; ``None`` for one device.

    Raises:
        InputError: the configuration does not fit the dataset.
    """
    start = time.perf_counter()
    splits: Mapping[str, Data] = take_splits(config, dataset)
    # Processes that have joined do not agree on this here, where one of them may have failed before.
    if is_joined() or fit_on_devices(config, dataset.info, mesh.size if mesh else 1):
        splits = replicate(_copy_to_device(splits), mesh)
    state = replicate(_make_state(config, dataset, splits, AXIS if mesh else None), mesh)
    arguments = state, splits, config.train.batch_size
    programs = DividedPrograms(*arguments, mesh) if mesh else Programs(*arguments)
    return Prepared((config,), splits, state, programs, time.perf_counter() - start)


def prepare_together(configs: Sequence[RunConfig], dataset: Dataset) -> Prepared:
    """Does what `prepare` does, for several runs with the same static signature in one program on one device."""
    start = time.perf_counter()
    splits = _copy_to_device(take_splits(configs[0], dataset))
    states = [_make_state(config, dataset, splits) for config in configs]
    state: TrainState = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    programs = StackedPrograms(state, splits, configs[0].train.batch_size, len(configs))
    return Prepared(tuple(configs), splits, state, programs, (time.perf_counter() - start) / len(configs))


def train(
    prepared: Prepared,
    *,
    observer: Observer | None = None,
    checkpoints: Checkpoints | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    stop_signal: StopSignal = lambda: None,
    saves: bool = True,
) -> TrainResult:
    """Trains a prepared run to its end, then evaluates it once on the test set.

    Args:
        prepared: from `prepare`; its state is donated, so it cannot be used again.
        observer: receives progress and notes.
        checkpoints: the checkpoints of the run; ``None`` reads and writes none.
        checkpoint_every: epochs between checkpoints; ``None`` writes one only on a signal.
        resume: continues from the newest checkpoint; the result is bit for bit that of an uninterrupted run.
        stop_signal: called after every piece of an epoch; if it returns a number in any process, the run stops.
        saves: whether this process writes checkpoints; of several processes, only the first does.

    Raises:
        CorruptionError, InputError: there are checkpoints to resume from, but none is intact and of this run.
        Interrupted: a signal arrived; a checkpoint was saved if `checkpoints` is given.
    """
    observer = observer or Silence()
    used = (describe_convolutions(jax.default_backend()),)
    position = Position(prepared.state, prepared.programs.zero(), convolutions=used)
    if checkpoints:
        position = _find_start(position, checkpoints, observer, resume)
    if is_joined():
        check_same(int(position.state.step), "the step of the newest checkpoint")
    saver = _Saver(observer, checkpoints if saves else None, checkpoint_every)
    loop = _Loop(prepared, [_Member.at(position, prepared.configs[0], observer)], position, stop_signal, saver)
    ((_, result),) = loop.run()
    return result


def train_together(
    prepared: Prepared, observers: Sequence[Observer], stop_signal: StopSignal = lambda: None
) -> Iterator[tuple[int, TrainResult]]:
    """Trains several prepared runs to their ends, and evaluates each on the test set when it ends.

    Args:
        prepared: from `prepare_together`; its state is donated, so it cannot be used again.
        observers: one for each run; receives its progress.
        stop_signal: called after every piece of an epoch; if it returns a number, all runs stop.

    Yields:
        The index and the result of each run, as soon as it ends. Runs that are trained together share the wall time
        equally.

    Raises:
        Interrupted: a signal arrived; runs that had not ended are lost.
    """
    start = Position(prepared.state, prepared.programs.zero())
    runs = enumerate(zip(prepared.configs, observers, strict=True))
    members = [_Member.at(start, config, observer, index) for index, (config, observer) in runs]
    return _Loop(prepared, members, start, stop_signal).run()


def _copy_to_device(splits: Mapping[str, Data]) -> dict[str, Examples]:
    """Returns the examples on the default device."""
    return {name: Examples(jnp.asarray(split.images), jnp.asarray(split.labels)) for name, split in splits.items()}


def _make_state(config: RunConfig, dataset: Dataset, splits: Mapping[str, Data], axis: str | None = None) -> TrainState:
    rows = draw_training(config, len(dataset.train))
    examples = len(splits["train"].labels) if rows is None else len(rows)
    steps = config.train.epochs * math.ceil(examples / config.train.batch_size)
    normalization = None
    if config.train.normalize == "standard":
        normalization = measure_images(dataset.train.images, np.arange(examples) if rows is None else rows)
    return make_state(config, dataset.image_shape, dataset.classes, steps, axis, normalization, rows)


def measure_images(images: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the mean and the standard deviation of every channel, float64 (channels,), of pixels in [0, 1].

    Args:
        images: uint8 (n, height, width, channels).
        rows: the images that count, int (m,); one that repeats counts as often.

    Example:
        >>> images = np.uint8([[[[0], [255]]], [[[9], [9]]]])
        >>> {name: values.tolist() for name, values in measure_images(images, np.array([0])).items()}
        {'mean': [0.5], 'deviation': [0.5]}
    """
    counts = np.zeros((images.shape[3], 256), np.int64)
    for start in range(0, len(rows), EVALUATION_BATCH):  # which fit into memory
        block = images[rows[start : start + EVALUATION_BATCH]]
        counts += [np.bincount(block[..., channel].reshape(-1), minlength=256) for channel in range(len(counts))]
    shares = counts / counts[0].sum()
    levels = np.arange(256) / 255
    mean = shares @ levels
    deviation = np.sqrt((shares * (levels - mean[:, np.newaxis]) ** 2).sum(1))
    return {"mean": mean, "deviation": np.where(deviation > 0, deviation, 1.0)}


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
    *before, now = restored.convolutions
    if before:
        observer.note(
            f"convolutions were {before[-1]} up to the checkpoint and are {now} from here on; the result differs from "
            "that of an uninterrupted run as on another machine"
        )
    return restored


@dataclass(frozen=True)
class _Saver:
    """Saves the checkpoints of a run that is trained alone; does nothing if `checkpoints` is ``None``."""

    observer: Observer
    checkpoints: Checkpoints | None
    every: int | None

    def end_epoch(self, position: Position) -> None:
        """Saves a checkpoint if one is due after this epoch; if it cannot be written, notes a warning and goes on."""
        if self.checkpoints is None or not self.every or len(position.history) % self.every:
            return
        try:
            position.save(self.checkpoints)
        except UnavailableError as error:
            self.observer.note(f"warning: {error}; training goes on")

    def stop(self, position: Position, number: int, stopped: str) -> Interrupted:
        """Saves a checkpoint and returns the exception to raise on signal `number`; its message starts `stopped`."""
        if self.checkpoints is None:
            return Interrupted(stopped, number)
        try:
            path = position.save(self.checkpoints)
        except UnavailableError as error:
            return Interrupted(f"{stopped}; {error}", number)
        return Interrupted(f"{stopped}; saved {path}", number, path)


@dataclass
class _Member:
    """One of the runs that the loop trains, with its history and times so far."""

    index: int
    config: RunConfig
    observer: Observer
    history: tuple[EpochMetrics, ...]
    epoch_seconds: float
    train_seconds: float
    convolutions: tuple[str, ...]

    @classmethod
    def at(cls, position: Position, config: RunConfig, observer: Observer, index: int = 0) -> "_Member":
        """Returns the run with the history, the times and the convolutions of a position."""
        seconds = (position.epoch_seconds, position.train_seconds)
        return cls(index, config, observer, position.history, *seconds, position.convolutions)

    @property
    def is_finished(self) -> bool:
        """Whether the run has completed its last epoch or stops early."""
        train = self.config.train
        return len(self.history) == train.epochs or stopped_early(self.history, train.early_stopping_patience)


class _Loop:
    """The loop over epochs and their pieces; `active` holds the runs that have not ended."""

    def __init__(
        self,
        prepared: Prepared,
        members: list[_Member],
        start: Position,
        stop_signal: StopSignal,
        saver: _Saver | None = None,
    ) -> None:
        self.prepared, self.programs, self.splits = prepared, prepared.programs, prepared.splits
        self.active, self.stop_signal, self.saver = members, stop_signal, saver
        self.state, self.metrics = start.state, start.metrics
        self.steps_done = int(start.state.step.max())  # all runs have taken equally many
        self.examples = count_examples(start.state, self.splits["train"].labels)
        self.steps_an_epoch = math.ceil(self.examples / self.programs.batch_size)

    def run(self) -> Iterator[tuple[int, TrainResult]]:
        """Trains all runs to their ends; yields the index and the result of each when it ends."""
        yield from self._end_finished()
        while self.active:
            yield from self._train_epoch()

    def _train_epoch(self) -> Iterator[tuple[int, TrainResult]]:
        start, order = time.perf_counter(), self.programs.shuffle(self.state)
        steps_done = self.steps_done % self.steps_an_epoch
        for piece, data in self.programs.remaining(self.state, self.splits["train"], order, steps_done):
            self.state, self.metrics, losses = piece(self.state, self.metrics, data, order)
            broken = [np.flatnonzero(~np.isfinite(own)) for own in self.programs.by_run(losses)]
            self._add_time(time.perf_counter() - start)
            yield from self._diverge(
                {index: self.steps_done + int(steps[0]) + 1 for index, steps in enumerate(broken) if steps.size}
            )
            if not self.active:
                return
            self.steps_done += losses.shape[-1]
            self._report()
            if self.steps_done % self.steps_an_epoch:
                self._obey_signal()
            start = time.perf_counter()
        yield from self._end_epoch()

    def _end_epoch(self) -> Iterator[tuple[int, TrainResult]]:
        start = time.perf_counter()
        validations = self._evaluate("validation") if "validation" in self.splits else {}
        self._add_time(time.perf_counter() - start)
        metrics, self.metrics = self.programs.by_run(self.metrics), self.programs.zero()
        diverged = {}
        for member in self.active:
            validation = validations.get(member.index)
            val_loss, val_accuracy = (validation.loss, validation.accuracy) if validation else (None, None)
            loss, accuracy = metrics[member.index].means()
            number = len(member.history) + 1
            epoch = EpochMetrics(number, loss, accuracy, val_loss, val_accuracy, member.epoch_seconds)
            if not epoch.is_finite:
                diverged[member.index] = self.steps_done
                continue
            member.history, member.epoch_seconds = (*member.history, epoch), 0.0
            member.observer.end_epoch(epoch)
        yield from self._diverge(diverged)
        # On a signal, a run alone is saved before its test: resuming goes on from there. Runs in one program have no
        # checkpoints, so those that have ended give their results first.
        if self.saver and self.active:
            self._obey_signal()
            self.saver.end_epoch(self._locate(self.active[0]))
        yield from self._end_finished()
        if not self.saver and self.active:
            self._obey_signal()

    def _diverge(self, steps: dict[int, int]) -> Iterator[tuple[int, TrainResult]]:
        """Ends the runs that have diverged; `steps` maps their indices to the steps at which they diverged."""
        for member in [member for member in self.active if member.index in steps]:
            yield self._end(member, steps[member.index], None, 0.0)

    def _end_finished(self) -> Iterator[tuple[int, TrainResult]]:
        """Tests and ends the runs that have finished their epochs or stop early."""
        finished = [member for member in self.active if member.is_finished]
        if not finished:
            return
        start = time.perf_counter()
        tests = self._evaluate("test")
        seconds = (time.perf_counter() - start) / len(finished)
        for member in finished:
            yield self._end(member, None, tests[member.index], seconds)

    def _end(
        self, member: _Member, diverged_at: int | None, test: Evaluation | None, seconds: float
    ) -> tuple[int, TrainResult]:
        self.active.remove(member)
        shares = {"compile": self.prepared.compile_seconds, "train": member.train_seconds, "evaluate": seconds}
        return member.index, TrainResult.conclude(self._locate(member), diverged_at, test, shares)

    def _locate(self, member: _Member) -> Position:
        """Returns the current position of a run."""
        state = self.programs.take(self.state, member.index)
        metrics = self.programs.by_run(self.metrics)[member.index]
        seconds = (member.epoch_seconds, member.train_seconds)
        return Position(state, metrics, member.history, *seconds, member.convolutions)

    def _evaluate(self, split: str) -> dict[int, Evaluation]:
        """Returns the evaluations of the active runs on a split, by index."""
        results = self.programs.evaluate(self.state, self.splits[split])
        return {member.index: results[member.index] for member in self.active}

    def _add_time(self, seconds: float) -> None:
        for member in self.active:
            member.epoch_seconds += seconds / len(self.active)
            member.train_seconds += seconds / len(self.active)

    def _report(self) -> None:
        metrics = self.programs.by_run(self.metrics)
        for member in self.active:
            own = metrics[member.index]
            loss, accuracy = own.means()
            epoch, epochs = len(member.history) + 1, member.config.train.epochs
            progress = Progress(epoch, epochs, int(own.seen), self.examples, loss, accuracy, member.epoch_seconds)
            member.observer.advance(progress)

    def _obey_signal(self) -> None:
        number = self.stop_signal()
        if is_joined():
            number = agree(number or 0) or None
        if number is None:
            return
        stopped = f"interrupted after step {self.steps_done}"
        if self.saver:
            raise self.saver.stop(self._locate(self.active[0]), number, stopped)
        raise Interrupted(stopped, number)
