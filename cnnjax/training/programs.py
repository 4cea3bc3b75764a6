"""The compiled programs of training: a piece of an epoch, the smaller last batch, and evaluation.

There is one class for each mode of execution: one run on one device (`Programs`), one run whose batches are divided
among several devices (`DividedPrograms`), and several runs with the same static signature, stacked in one program
(`StackedPrograms`).
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax.data.dataset import Split
from cnnjax.machine.compilation import compile_program
from cnnjax.machine.devices import replicate, run_on_all
from cnnjax.models.batches import EVALUATION_BATCH, count_fitting, count_parts
from cnnjax.training.feeding import Data, count_steps, describe_chunk, feed
from cnnjax.training.step import (
    Examples,
    Metrics,
    TrainState,
    count_examples,
    evaluate,
    shuffle,
    train_epoch,
    train_last_batch,
)

PIECE = 50
"""Most steps in a piece of an epoch: one `lax.scan`, after which progress is shown and signals are obeyed.

A piece of large images has fewer steps, always a divisor of this, because a piece is a chunk when examples are fed.
"""
TrainPiece = Callable[[TrainState, Metrics, Examples, jax.Array], tuple[TrainState, Metrics, jax.Array]]
"""A program that trains on a piece of an epoch: `train_epoch` or `train_last_batch`."""


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

    def __init__(self, state: TrainState, splits: Mapping[str, Data], batch_size: int) -> None:
        self.batch_size, self._sharding = batch_size, state.step.sharding
        data = splits["train"]
        self._piece = count_steps(data, batch_size, PIECE) * batch_size
        examples = count_examples(state, data.labels)
        self.shuffle = self._compile(shuffle, state, examples=examples, batch_size=batch_size)
        order = self.shuffle(state)
        sizes = _list_sizes(self._cut_epoch(examples, 0))
        self._train = {size: self._compile_piece(state, data, order, size) for size in sizes}
        evaluated = [split for name, split in splits.items() if name != "train"]
        self._evaluate = {len(split.labels): self._compile_evaluation(state, split) for split in evaluated}

    def _compile(self, program: Callable[..., Any], *arguments: Any, **static: Any) -> Callable[..., Any]:
        return compile_program(program, *arguments, **static)

    def zero(self) -> Metrics:
        """Returns zero metrics, on the devices and in the shape that the programs take."""
        return Metrics.zero()

    def by_run(self, tree: Any) -> list[Any]:
        """Splits an output of the programs, such as metrics, into one tree per run."""
        return [tree]

    def take(self, state: TrainState, index: int) -> TrainState:
        """Returns what run `index` has learned."""
        del index
        return state.learned

    def remaining(
        self, state: TrainState, data: Data, order: jax.Array, steps_done: int
    ) -> Iterator[tuple[TrainPiece, Examples]]:
        """Yields the programs that complete an epoch, each with its training examples.

        Args:
            state: before these programs.
            data: all training examples.
            order: from `shuffle`.
            steps_done: number of steps of the epoch that are done.
        """
        bounds = self._cut_epoch(count_examples(state, data.labels), steps_done)
        chunks = feed(data, order, bounds, self._sharding, state.sample)
        for (start, stop), chunk in zip(pairwise(bounds), chunks, strict=True):
            yield self._train[stop - start], chunk

    def evaluate(self, state: TrainState, split: Data) -> list[Evaluation]:
        """Returns one evaluation per run on a split."""
        bounds, programs = self._evaluate[len(split.labels)]
        sums, predictions = self.zero(), []
        for chunk in feed(split, np.arange(len(split.labels)), bounds, self._sharding):
            sums, answers = programs[len(chunk.labels)](state, chunk, sums)
            predictions.append(answers)
        evaluations = []
        for metrics, answers in self.by_run((sums, np.concatenate(predictions, -1))):
            loss, accuracy = metrics.means()
            evaluations.append(Evaluation(loss, accuracy, answers))
        return evaluations

    def _compile_piece(self, state: TrainState, data: Data, order: jax.Array, size: int) -> TrainPiece:
        """Compiles the training on `size` examples: full batches, or the smaller last batch of an epoch."""
        full = {"steps": size // self.batch_size} if size >= self.batch_size else {}
        return self._compile(
            train_epoch if full else train_last_batch,
            *(state, self.zero(), describe_chunk(data, size, self._sharding), order),
            donate=(0, 1),
            batch_size=self.batch_size,
            parts=self._count_parts(state, data, min(size, self.batch_size)),
            fed=isinstance(data, Split),
            **full,
        )

    def _compile_evaluation(
        self, state: TrainState, split: Data
    ) -> tuple[list[int], dict[int, Callable[..., tuple[Metrics, jax.Array]]]]:
        """Returns where in a split the chunks of its evaluation begin and end, and a program for each size of them."""
        examples, batch = len(split.labels), self._choose_batch(state, split)
        most = count_steps(split, batch, PIECE) * batch if isinstance(split, Split) else examples
        bounds = [*range(0, examples, most), examples]
        chunks = {size: describe_chunk(split, size, self._sharding) for size in _list_sizes(bounds)}
        compile_for = functools.partial(self._compile, evaluate, state, batch_size=batch)
        return bounds, {size: compile_for(chunk, self.zero()) for size, chunk in chunks.items()}

    def _cut_epoch(self, examples: int, steps_done: int) -> list[int]:
        """Returns where in the order of an epoch the remaining pieces begin, and the number of examples."""
        full = examples // self.batch_size * self.batch_size
        return sorted({*range(steps_done * self.batch_size, full, self._piece), full, examples})

    def _count_parts(self, state: TrainState, data: Data, examples: int) -> int:
        """Returns the number of parts into which each device cuts its share of a batch; always 1 on accelerators."""
        if jax.default_backend() != "cpu":
            return 1
        share = examples if examples % self.devices else examples // self.devices
        return count_parts(state.model.config, data.images.shape[1:], state.model.classes, share)

    def _choose_batch(self, state: TrainState, split: Data) -> int:
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

    def __init__(self, state: TrainState, splits: Mapping[str, Data], batch_size: int, mesh: Mesh) -> None:
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

    def __init__(self, state: TrainState, splits: Mapping[str, Data], batch_size: int, runs: int) -> None:
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
        """Returns what run `index` has learned, with the arrays on the host."""
        return jax.device_get(jax.tree.map(lambda array: array[index], state.learned))  # type: ignore[no-any-return]


def _run_each(*arguments: Any, program: Callable[..., Any], **static: Any) -> Any:
    """Maps the program of one run over runs that are stacked in the arguments; all runs share the examples."""
    axes = tuple(None if isinstance(argument, Examples) else 0 for argument in arguments)
    return jax.vmap(functools.partial(program, **static), in_axes=axes)(*arguments)


def _list_sizes(bounds: list[int]) -> set[int]:
    return {stop - start for start, stop in pairwise(bounds)}
