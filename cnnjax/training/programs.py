"""The programs of training, compiled for the shapes that occur: pieces of an epoch, its last batch, evaluations.

One class for each way to execute them: a run on one device (`Programs`), a run whose batches are divided among devices
(`DividedPrograms`), and several runs of one static signature, their states stacked, in one program (`StackedPrograms`).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax.machine.compilation import compile_program
from cnnjax.machine.devices import replicate, run_on_all
from cnnjax.models.batches import EVALUATION_BATCH, count_fitting, count_parts
from cnnjax.training.step import Examples, Metrics, TrainState, evaluate, shuffle, train_epoch, train_last_batch

PIECE = 50
"""Steps of a piece."""


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy, means over a split, and the predicted classes int32 (n,)."""

    loss: float
    accuracy: float
    predictions: np.ndarray


class Programs:
    """The programs of one run on one device.

    Args:
        state: before the first step.
        splits: examples by ``train``, ``validation`` (if there are any) and ``test``.
        batch_size: examples a step.
    """

    devices = 1

    def __init__(self, state: TrainState, splits: dict[str, Examples], batch_size: int) -> None:
        self.batch_size = batch_size
        examples = len(splits["train"].labels)
        self.shuffle = self._compile(shuffle, state, examples=examples, batch_size=batch_size)
        arguments = (state, self.zero(), splits["train"], self.shuffle(state))
        train = functools.partial(self._compile, donate=(0, 1), batch_size=batch_size)
        lengths = set(_cut(0, examples // batch_size))  # none where a batch is larger than the examples
        parts = self._count_parts(state, splits["train"], batch_size) if lengths else 1
        self._train = {length: train(train_epoch, *arguments, steps=length, parts=parts) for length in lengths}
        if examples % batch_size:
            rest = self._count_parts(state, splits["train"], examples % batch_size)
            self._train_last = train(train_last_batch, *arguments, parts=rest)
        evaluated = [split for name, split in splits.items() if name != "train"]
        self._evaluate = {
            len(split.labels): self._compile(evaluate, state, split, batch_size=self._choose_batch(state, split))
            for split in evaluated
        }

    def _compile(self, program: Callable[..., Any], *arguments: Any, **static: Any) -> Callable[..., Any]:
        return compile_program(program, *arguments, **static)

    def zero(self) -> Metrics:
        """Returns zero metrics, placed like the arguments of the programs."""
        return Metrics.zero()

    def by_run(self, tree: Any) -> list[Any]:
        """Returns what the programs gave, such as metrics, as one tree for each run."""
        return [tree]

    def take(self, state: TrainState, index: int) -> TrainState:
        """Returns the state of the run with this index, without the random key."""
        del index
        return state.replace(key=None)

    def remaining(self, steps_done: int, examples: int) -> list[Callable[..., tuple[TrainState, Metrics, jax.Array]]]:
        """Returns the training programs still to run in an epoch of which `steps_done` steps are done."""
        programs = [self._train[length] for length in _cut(steps_done, examples // self.batch_size)]
        return [*programs, self._train_last] if examples % self.batch_size else programs

    def evaluate(self, state: TrainState, split: Examples) -> list[Evaluation]:
        """Evaluates the network of each run on a split."""
        evaluations = []
        for metrics, predictions in self.by_run(self._evaluate[len(split.labels)](state, split)):
            loss, accuracy = metrics.means()
            evaluations.append(Evaluation(loss, accuracy, np.asarray(predictions)))
        return evaluations

    def _count_parts(self, state: TrainState, data: Examples, examples: int) -> int:
        """Returns into how many parts a device cuts its share of so many examples; for CPUs only."""
        if jax.default_backend() != "cpu":
            return 1
        share = examples if examples % self.devices else examples // self.devices
        return count_parts(state.model.config, data.images.shape[1:], state.model.classes, share)

    def _choose_batch(self, state: TrainState, split: Examples) -> int:
        """Returns how many images are evaluated at once, equally many on each device; the last ones may be fewer."""
        share = max(EVALUATION_BATCH // self.devices, 1)
        if jax.default_backend() == "cpu":
            share = min(share, count_fitting(state.model.config, split.images.shape[1:], state.model.classes))
        whole = (size for size in range(share, share // 2, -1) if len(split.labels) % (size * self.devices) == 0)
        return next(whole, share) * self.devices


class DividedPrograms(Programs):
    """The programs of one run whose every batch is divided among the devices of a mesh.

    Args:
        state, splits, batch_size: as for `Programs`, on all devices of the mesh.
        mesh: the devices.
    """

    def __init__(self, state: TrainState, splits: dict[str, Examples], batch_size: int, mesh: Mesh) -> None:
        self.mesh, self.devices = mesh, mesh.size
        super().__init__(state, splits, batch_size)

    def _compile(self, program: Callable[..., Any], *arguments: Any, **static: Any) -> Callable[..., Any]:
        return compile_program(run_on_all, *arguments, program=program, mesh=self.mesh, **static)

    def zero(self) -> Metrics:
        """Returns zero metrics on all devices."""
        return replicate(Metrics.zero(), self.mesh)  # type: ignore[no-any-return]


class StackedPrograms(Programs):
    """The programs of several runs, whose states are stacked along a first axis, on one device.

    Args:
        state, splits, batch_size: as for `Programs`; every leaf of the state is (runs, ...).
        runs: how many.
    """

    def __init__(self, state: TrainState, splits: dict[str, Examples], batch_size: int, runs: int) -> None:
        self.runs = runs
        super().__init__(state, splits, batch_size)

    def _compile(self, program: Callable[..., Any], *arguments: Any, **static: Any) -> Callable[..., Any]:
        return compile_program(_run_each, *arguments, program=program, **static)

    def zero(self) -> Metrics:
        """Returns zero metrics of every run, each (runs,)."""
        return Metrics(*(jnp.zeros(self.runs, array.dtype) for array in Metrics.zero()))

    def by_run(self, tree: Any) -> list[Any]:
        """Returns a tree for each run, its arrays on the host."""
        tree = jax.device_get(tree)
        return [jax.tree.map(lambda array, index=index: array[index], tree) for index in range(self.runs)]

    def take(self, state: TrainState, index: int) -> TrainState:
        """Returns the state of one run, without the random key, its arrays on the host."""
        return jax.device_get(jax.tree.map(lambda array: array[index], state.replace(key=None)))  # type: ignore[no-any-return]


def _run_each(*arguments: Any, program: Callable[..., Any], **static: Any) -> Any:
    """Runs the program of one run for each of those stacked in the arguments; the examples are the same for all."""
    axes = tuple(None if isinstance(argument, Examples) else 0 for argument in arguments)
    return jax.vmap(functools.partial(program, **static), in_axes=axes)(*arguments)


def _cut(start: int, stop: int) -> Sequence[int]:
    """Returns the lengths of the pieces, of `PIECE` steps but for the last, from step `start` of an epoch to `stop`."""
    return [min(PIECE, stop - first) for first in range(start, stop, PIECE)]
