"""The compiled programs of training: a piece of an epoch, the smaller last batch, and evaluation.

There is one class for each mode of execution: one run on one device (`Programs`), one run whose batches are divided
among several devices (`DividedPrograms`), and several runs with the same static signature, stacked in one program
(`StackedPrograms`).
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
"""Most steps in a piece of an epoch: one `lax.scan`, after which progress is shown and signals are obeyed."""


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and accuracy over a split of n examples, and the predicted classes int32 (n,)."""

    loss: float
    accuracy: float
    predictions: np.ndarray


class Programs:
    """The programs of one run on one device.

    Args:
        state: before the first step.
        splits: the examples of ``train``, ``validation`` (if the run has any) and ``test``.
        batch_size: examples per step.
    """

    devices = 1

    def __init__(self, state: TrainState, splits: dict[str, Examples], batch_size: int) -> None:
        self.batch_size = batch_size
        examples = len(splits["train"].labels)
        self.shuffle = self._compile(shuffle, state, examples=examples, batch_size=batch_size)
        arguments = (state, self.zero(), splits["train"], self.shuffle(state))
        train = functools.partial(self._compile, donate=(0, 1), batch_size=batch_size)
        lengths = set(_cut(0, examples // batch_size))  # empty if the batch is larger than the training set
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
        """Returns zero metrics, on the devices and in the shape that the programs take."""
        return Metrics.zero()

    def by_run(self, tree: Any) -> list[Any]:
        """Splits an output of the programs, such as metrics, into one tree per run."""
        return [tree]

    def take(self, state: TrainState, index: int) -> TrainState:
        """Returns the state of run `index`, without its random key."""
        del index
        return state.replace(key=None)

    def remaining(self, steps_done: int, examples: int) -> list[Callable[..., tuple[TrainState, Metrics, jax.Array]]]:
        """Returns the training programs that complete an epoch, of which `steps_done` steps are done."""
        programs = [self._train[length] for length in _cut(steps_done, examples // self.batch_size)]
        return [*programs, self._train_last] if examples % self.batch_size else programs

    def evaluate(self, state: TrainState, split: Examples) -> list[Evaluation]:
        """Returns one evaluation per run on a split."""
        evaluations = []
        for metrics, predictions in self.by_run(self._evaluate[len(split.labels)](state, split)):
            loss, accuracy = metrics.means()
            evaluations.append(Evaluation(loss, accuracy, np.asarray(predictions)))
        return evaluations

    def _count_parts(self, state: TrainState, data: Examples, examples: int) -> int:
        """Returns the number of parts into which each device cuts its share of a batch; always 1 on accelerators."""
        if jax.default_backend() != "cpu":
            return 1
        share = examples if examples % self.devices else examples // self.devices
        return count_parts(state.model.config, data.images.shape[1:], state.model.classes, share)

    def _choose_batch(self, state: TrainState, split: Examples) -> int:
        """Returns the batch size of an evaluation, the same number of images for each device.

        On CPU the share of a device fits its cores' caches: with 64 and 128 filters and padding `same`, 10,000 images
        then take 3.0 s instead of 4.3. A size that divides the split, down to half, leaves no smaller last batch, which
        would have to be compiled too and which several devices could not share.
        """
        share = max(EVALUATION_BATCH // self.devices, 1)
        if jax.default_backend() == "cpu":
            share = min(share, count_fitting(state.model.config, split.images.shape[1:], state.model.classes))
        divisors = (size for size in range(share, share // 2, -1) if len(split.labels) % (size * self.devices) == 0)
        return next(divisors, share) * self.devices


class DividedPrograms(Programs):
    """The programs of one run whose batches are divided among the devices of a mesh.

    Args:
        state, splits, batch_size: as for `Programs`; the arrays are replicated on all devices of the mesh.
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
    """The programs of several runs on one device, with their states stacked along a first axis.

    Args:
        state, splits, batch_size: as for `Programs`; every leaf of the state has the shape (runs, ...).
        runs: number of runs.
    """

    def __init__(self, state: TrainState, splits: dict[str, Examples], batch_size: int, runs: int) -> None:
        self.runs = runs
        super().__init__(state, splits, batch_size)

    def _compile(self, program: Callable[..., Any], *arguments: Any, **static: Any) -> Callable[..., Any]:
        return compile_program(_run_each, *arguments, program=program, **static)

    def zero(self) -> Metrics:
        """Returns zero metrics, arrays (runs,)."""
        return Metrics(*(jnp.zeros(self.runs, array.dtype) for array in Metrics.zero()))

    def by_run(self, tree: Any) -> list[Any]:
        """Splits an output along its first axis into one tree per run, with the arrays on the host."""
        tree = jax.device_get(tree)
        return [jax.tree.map(lambda array, index=index: array[index], tree) for index in range(self.runs)]

    def take(self, state: TrainState, index: int) -> TrainState:
        """Returns the state of run `index`, without its random key, with the arrays on the host."""
        return jax.device_get(jax.tree.map(lambda array: array[index], state.replace(key=None)))  # type: ignore[no-any-return]


def _run_each(*arguments: Any, program: Callable[..., Any], **static: Any) -> Any:
    """Maps the program of one run over runs that are stacked in the arguments; all runs share the examples."""
    axes = tuple(None if isinstance(argument, Examples) else 0 for argument in arguments)
    return jax.vmap(functools.partial(program, **static), in_axes=axes)(*arguments)


def _cut(start: int, stop: int) -> Sequence[int]:
    """Returns the numbers of steps of the pieces from step `start` of an epoch to `stop`: `PIECE`, or fewer at last."""
    return [min(PIECE, stop - first) for first in range(start, stop, PIECE)]
