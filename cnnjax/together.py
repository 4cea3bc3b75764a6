"""Several runs of one static signature trained as one program: their states stacked, every step taken by all of them.

A small network leaves an accelerator idle; many of them side by side do not. The runs share the images and the compiled
program and nothing else: each has its own parameters, its own numbers such as the learning rate, and its own order of
the images. A run that has ended, early or by diverging, is set aside while the others go on.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
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
from cnnjax.training import Metrics, TrainState, make_state

MEMORY_SHARE = 0.6
UNKNOWN_MEMORY = 8 * 2**30


def choose_at_once(config: RunConfig, info: DatasetInfo) -> int:
    """Returns how many runs of a form one program should train: one on CPU, as many as fit the memory elsewhere.

    On CPU a run is faster by itself (`docs/performance.md`).

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
    """Returns about how many bytes the training of a run holds at once, its convolutions being products of patches."""
    layers = list_layers(config.model, image_shape, classes)
    activations = sum(layer.activation_bytes for layer in layers)
    # Of each output, a convolution's patches hold as many numbers as it takes multiplications.
    patches = sum(4 * layer.flops // (2 * layer.output_shape[-1]) for layer in layers if layer.kind == "Conv")
    # Activations with their gradients and what is kept for the backward pass; parameters with gradient and optimizer.
    return config.train.batch_size * (3 * activations + 2 * patches) + 24 * sum(layer.parameters for layer in layers)


def train_together(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    observers: Sequence[Observer],
    stop_signal: Callable[[], int | None] = lambda: None,
) -> list[TrainResult]:
    """Trains runs of one static signature to their ends, then evaluates them on the test set.

    Args:
        configs: the runs.
        dataset: their images.
        observers: one a run, told of its progress.
        stop_signal: is asked after every piece of an epoch; a signal number stops the runs.

    Returns:
        The results in the order of `configs`, whose times are shares: every run's part of the wall time.

    Raises:
        Interrupted: `stop_signal` answered; nothing of these runs is kept.
    """
    group = _Group(configs, dataset, observers, stop_signal)
    while group.going:
        group.train_epoch()
    return group.evaluate()


@dataclass
class _Member:
    """A run of the group: what it has done so far."""

    index: int
    config: RunConfig
    observer: Observer
    history: tuple[EpochMetrics, ...] = ()
    epoch_seconds: float = 0.0
    train_seconds: float = 0.0
    diverged_at: int | None = None
    has_ended: bool = False


class _Group:
    """The runs between two pieces of an epoch."""

    def __init__(
        self,
        configs: Sequence[RunConfig],
        dataset: Dataset,
        observers: Sequence[Observer],
        stop_signal: Callable[[], int | None],
    ) -> None:
        start = time.perf_counter()
        self.members = [
            _Member(i, config, observer) for i, (config, observer) in enumerate(zip(configs, observers, strict=True))
        ]
        self.stop_signal = stop_signal
        self.splits = take_splits(configs[0], dataset)
        self.examples, self.steps_done = len(self.splits["train"].labels), 0
        steps = math.ceil(self.examples / configs[0].train.batch_size)
        states = [
            make_state(config, dataset.image_shape, dataset.classes, steps * config.train.epochs) for config in configs
        ]
        self.state: TrainState = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        self.programs = Programs(self.state, self.splits, configs[0].train.batch_size, runs=len(configs))
        self.ended: TrainState | None = None
        self.compile_seconds = time.perf_counter() - start

    @property
    def going(self) -> list[_Member]:
        """The members that still train."""
        return [member for member in self.members if not member.has_ended]

    def train_epoch(self) -> None:
        """Trains all members for an epoch, and evaluates them on the validation examples."""
        order, metrics = self.programs.shuffle(self.state), self.programs.zero()
        for program in self.programs.remaining(0, self.examples):
            start = time.perf_counter()
            self.state, metrics, losses = program(self.state, metrics, self.splits["train"], order)
            broken = ~np.isfinite(losses)
            self._spend(time.perf_counter() - start)
            first = {i: self.steps_done + int(np.argmax(own)) + 1 for i, own in enumerate(broken) if own.any()}
            self._set_aside([member for member in self.going if member.index in first], first)
            self.steps_done += broken.shape[1]
            if not self.going:
                return
            sums = jax.device_get(metrics)
            for member in self.going:
                own = _take(sums, member.index)
                member.observer.advance(
                    describe_progress(member.config, len(member.history), own, self.examples, member.epoch_seconds)
                )
            number = self.stop_signal()
            if number is not None:
                raise Interrupted(f"interrupted after step {self.steps_done}", number)
        self._end_epoch(metrics)

    def evaluate(self) -> list[TrainResult]:
        """Returns the results, with those of the test set."""
        start = time.perf_counter()
        assert self.ended is not None
        state = self.ended.replace(key=self.state.key)
        tests = self.programs.evaluate_each(state, self.splits["test"])
        seconds = (time.perf_counter() - start) / len(self.members)
        host = jax.device_get(self.ended)
        return [
            self._make_result(member, test, _take(host, member.index), seconds)
            for member, test in zip(self.members, tests, strict=True)
        ]

    def _end_epoch(self, metrics: Metrics) -> None:
        start = time.perf_counter()
        validation = self.splits.get("validation")
        results: Sequence[Evaluation | None] = [None] * len(self.members)
        if validation:
            results = self.programs.evaluate_each(self.state, validation)
        self._spend(time.perf_counter() - start)
        over, broken = [], []
        for member in self.going:
            own = _take(metrics, member.index)
            epoch = describe_epoch(len(member.history) + 1, own, results[member.index], member.epoch_seconds)
            if not epoch.is_finite:
                broken.append(member)
                continue
            member.history, member.epoch_seconds = (*member.history, epoch), 0.0
            member.observer.end_epoch(epoch)
            train = member.config.train
            if len(member.history) == train.epochs or stopped_early(member.history, train.early_stopping_patience):
                over.append(member)
        self._set_aside(over)
        self._set_aside(broken, {member.index: self.steps_done for member in broken})

    def _set_aside(self, members: Sequence[_Member], diverged_at: Mapping[int, int] | None = None) -> None:
        """Keeps the state of members that have ended as it is now, for the others go on changing all of it."""
        if not members:
            return
        chosen = np.isin(np.arange(len(self.members)), [member.index for member in members])

        def keep(now: jax.Array, kept: jax.Array) -> jax.Array:
            return jnp.where(chosen.reshape(-1, *(1,) * (now.ndim - 1)), now, kept)

        now = self.state.replace(key=None)
        self.ended = jax.tree.map(keep, now, now if self.ended is None else self.ended)
        for member in members:
            member.has_ended, member.diverged_at = True, (diverged_at or {}).get(member.index)

    def _spend(self, seconds: float) -> None:
        for member in self.going:
            member.epoch_seconds += seconds / len(self.going)
            member.train_seconds += seconds / len(self.going)

    def _make_result(self, member: _Member, test: Evaluation, state: TrainState, seconds: float) -> TrainResult:
        position = Position(state, history=member.history, train_seconds=member.train_seconds)
        shares = {
            "compile": self.compile_seconds / len(self.members),
            "train": member.train_seconds,
            "evaluate": seconds,
        }
        return TrainResult.conclude(position, member.diverged_at, test, shares)


def _take(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda array: array[index], tree)
