"""Several runs of one static signature trained as one program: their states stacked, every step taken by all of them.

A small network leaves an accelerator idle; many of them side by side do not. The runs share the images and the compiled
program and nothing else: each has its own parameters, its own numbers such as the learning rate, and its own order of
the images. A run that ends before the others, by early stopping, diverging or fewer epochs, has its result then; its
place in the program is computed in vain until the last one ends.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.architecture import list_layers
from cnnjax.config import RunConfig
from cnnjax.datasets import Dataset, DatasetInfo
from cnnjax.errors import Interrupted
from cnnjax.fitting import TrainResult, describe_epoch, describe_progress, take_splits
from cnnjax.history import EpochMetrics, Observer, stopped_early
from cnnjax.position import Position
from cnnjax.programs import Evaluation, Programs
from cnnjax.signatures import MOST_AT_ONCE
from cnnjax.training import EVALUATION_BATCH, Metrics, TrainState, make_state

MEMORY_SHARE = 0.6
"""Of the device's memory that runs may fill by `estimate_bytes`, which leaves out the images and XLA's workspace."""
UNKNOWN_MEMORY = 8 * 2**30
"""Bytes assumed of a device that does not tell."""


def choose_at_once(config: RunConfig, info: DatasetInfo) -> int:
    """Returns how many runs of a form one program should train.

    On CPU one, which is faster by itself (`docs/performance.md`); elsewhere as many as fit the memory, `MOST_AT_ONCE`
    at most.

    Args:
        config: one of the runs.
        info: of their dataset.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return 1
    memory = (device.memory_stats() or {}).get("bytes_limit", UNKNOWN_MEMORY)
    a_run = estimate_bytes(config, info.image_shape, info.classes)
    return min(max(int(MEMORY_SHARE * memory / a_run), 1), MOST_AT_ONCE)


def estimate_bytes(config: RunConfig, image_shape: tuple[int, ...], classes: int) -> int:
    """Returns about how many bytes a run holds at once, in training or evaluation, by convolutions of patches."""
    layers = list_layers(config.model, image_shape, classes)
    activations = sum(layer.activation_bytes for layer in layers)
    # Of each output, a convolution's patches hold as many numbers as it takes multiplications.
    patches = sum(4 * layer.flops // (2 * layer.output_shape[-1]) for layer in layers if layer.kind == "Conv")
    # In training: activations, their gradients and what is kept for the backward pass.
    images = max(config.train.batch_size * (3 * activations + 2 * patches), EVALUATION_BATCH * (activations + patches))
    # Parameters: with gradient, optimizer and a copy.
    return images + 24 * sum(layer.parameters for layer in layers)


def train_together(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    observers: Sequence[Observer],
    stop_signal: Callable[[], int | None] = lambda: None,
) -> Iterator[tuple[int, TrainResult]]:
    """Trains runs of one static signature to their ends, each evaluated on the test set at its own.

    Args:
        configs: the runs.
        dataset: their images.
        observers: one a run, told of its progress.
        stop_signal: is asked after every piece of an epoch; a signal number stops the runs.

    Yields:
        The index of a run, and its result, as soon as it has ended. Its times are shares of the wall time.

    Raises:
        Interrupted: `stop_signal` answered; runs that had not ended are lost.
    """
    group = _Group(configs, dataset, observers, stop_signal)
    while group.going:
        yield from group.train_epoch()


@dataclass
class _Member:
    """A run of the group: what it has done so far."""

    index: int
    config: RunConfig
    observer: Observer
    history: tuple[EpochMetrics, ...] = ()
    epoch_seconds: float = 0.0
    train_seconds: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether it has had its epochs, or stops early."""
        train = self.config.train
        return len(self.history) == train.epochs or stopped_early(self.history, train.early_stopping_patience)


class _Group:
    """The runs between two epochs; `going` are those that have not ended."""

    def __init__(
        self,
        configs: Sequence[RunConfig],
        dataset: Dataset,
        observers: Sequence[Observer],
        stop_signal: Callable[[], int | None],
    ) -> None:
        start = time.perf_counter()
        members = zip(configs, observers, strict=True)
        self.going = [_Member(index, config, observer) for index, (config, observer) in enumerate(members)]
        self.stop_signal = stop_signal
        self.splits = take_splits(configs[0], dataset)
        self.examples, self.steps_done = len(self.splits["train"].labels), 0
        batch_size = configs[0].train.batch_size
        steps = math.ceil(self.examples / batch_size)
        states = [
            make_state(config, dataset.image_shape, dataset.classes, steps * config.train.epochs) for config in configs
        ]
        self.state: TrainState = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        self.programs = Programs(self.state, self.splits, batch_size, runs=len(configs))
        self.compile_seconds = (time.perf_counter() - start) / len(configs)

    def train_epoch(self) -> Iterator[tuple[int, TrainResult]]:
        """Trains all runs for an epoch, and yields those that have ended."""
        order, metrics = self.programs.shuffle(self.state), self.programs.zero()
        for program in self.programs.remaining(0, self.examples):
            start = time.perf_counter()
            self.state, metrics, losses = program(self.state, metrics, self.splits["train"], order)
            broken = ~np.isfinite(losses)
            self._spend(time.perf_counter() - start)
            diverged = {i: self.steps_done + int(np.argmax(own)) + 1 for i, own in enumerate(broken) if own.any()}
            self.steps_done += broken.shape[1]
            yield from self._diverge({m.index: diverged[m.index] for m in self.going if m.index in diverged})
            if not self.going:
                return
            self._report(jax.device_get(metrics))
            number = self.stop_signal()
            if number is not None:
                raise Interrupted(f"interrupted after step {self.steps_done}", number)
        yield from self._end_epoch(jax.device_get(metrics))

    def _end_epoch(self, metrics: Metrics) -> Iterator[tuple[int, TrainResult]]:
        start = time.perf_counter()
        validations = self._evaluate("validation") if "validation" in self.splits else {}
        self._spend(time.perf_counter() - start)
        diverged = {}
        for member in self.going:
            own, validation = _take(metrics, member.index), validations.get(member.index)
            epoch = describe_epoch(len(member.history) + 1, own, validation, member.epoch_seconds)
            if not epoch.is_finite:
                diverged[member.index] = self.steps_done
                continue
            member.history, member.epoch_seconds = (*member.history, epoch), 0.0
            member.observer.end_epoch(epoch)
        yield from self._diverge(diverged)
        yield from self._conclude([member for member in self.going if member.is_over])

    def _diverge(self, steps: dict[int, int]) -> Iterator[tuple[int, TrainResult]]:
        """Ends the runs that have diverged, at the steps given by their indices."""
        for member in [member for member in self.going if member.index in steps]:
            yield self._end(member, steps[member.index], None, 0.0)

    def _conclude(self, members: Sequence[_Member]) -> Iterator[tuple[int, TrainResult]]:
        """Ends the runs that are over, with their test."""
        if not members:
            return
        start = time.perf_counter()
        tests = self._evaluate("test")
        seconds = (time.perf_counter() - start) / len(members)
        for member in members:
            yield self._end(member, None, tests[member.index], seconds)

    def _end(
        self, member: _Member, diverged_at: int | None, test: Evaluation | None, seconds: float
    ) -> tuple[int, TrainResult]:
        self.going.remove(member)
        state = jax.device_get(_take(self.state.replace(key=None), member.index))
        position = Position(state, history=member.history, train_seconds=member.train_seconds)
        shares = {"compile": self.compile_seconds, "train": member.train_seconds, "evaluate": seconds}
        return member.index, TrainResult.conclude(position, diverged_at, test, shares)

    def _evaluate(self, split: str) -> dict[int, Evaluation]:
        """Returns the evaluations of the runs that are going, by index."""
        results = self.programs.evaluate_each(self.state, self.splits[split])
        return {member.index: results[member.index] for member in self.going}

    def _spend(self, seconds: float) -> None:
        for member in self.going:
            member.epoch_seconds += seconds / len(self.going)
            member.train_seconds += seconds / len(self.going)

    def _report(self, metrics: Metrics) -> None:
        for member in self.going:
            own, done = _take(metrics, member.index), len(member.history)
            progress = describe_progress(member.config, done, own, self.examples, member.epoch_seconds)
            member.observer.advance(progress)


def _take(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda array: array[index], tree)
