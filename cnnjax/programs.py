"""The programs of a run, compiled for the shapes that occur: pieces of an epoch, its last batch, evaluations."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax.compilation import compile_program
from cnnjax.parts import count_fitting, count_parts
from cnnjax.sharding import replicate, run_on_all
from cnnjax.training import (
    EVALUATION_BATCH,
    Examples,
    Metrics,
    TrainState,
    evaluate,
    shuffle,
    train_epoch,
    train_last_batch,
)

PIECE = 50
"""Steps of a piece."""


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy, means over a split, and the predicted classes int32 (n,)."""

    loss: float
    accuracy: float
    predictions: np.ndarray


class Programs:
    """The programs of a run, compiled for the shapes that occur, or those of several runs at once.

    Args:
        state: before the first step; of several runs, their states stacked.
        splits: examples by ``train``, ``validation`` (if there are any) and ``test``.
        batch_size: examples a step.
        mesh: devices among which every batch is divided.
        runs: how many states are stacked; ``None`` for one that is not. Not with a mesh.
    """

    def __init__(
        self,
        state: TrainState,
        splits: dict[str, Examples],
        batch_size: int,
        mesh: Mesh | None = None,
        runs: int | None = None,
    ) -> None:
        assert mesh is None or runs is None
        self.batch_size, self.mesh, self.runs = batch_size, mesh, runs
        self.devices = mesh.size if mesh else 1
        examples = len(splits["train"].labels)
        self.shuffle = self._compile(shuffle, state, examples=examples, batch_size=batch_size)
        arguments = (state, self.zero(), splits["train"], self.shuffle(state))
        train = functools.partial(self._compile, donate=(0, 1), batch_size=batch_size)
        parts = self._count_parts(state, splits["train"], batch_size)
        self._train = {
            length: train(train_epoch, *arguments, steps=length, parts=parts)
            for length in set(_cut(0, examples // batch_size))
        }
        if examples % batch_size:
            rest = self._count_parts(state, splits["train"], examples % batch_size)
            self._train_last = train(train_last_batch, *arguments, parts=rest)
        evaluated = [split for name, split in splits.items() if name != "train"]
        self._evaluate = {
            len(split.labels): self._compile(evaluate, state, split, batch_size=self._choose_batch(state, split))
            for split in evaluated
        }

    def _compile(self, program: Callable[..., Any], *arguments: Any, **static: Any) -> Callable[..., Any]:
        if self.runs is not None:
            return compile_program(_run_each, *arguments, program=program, **static)
        if self.mesh is None:
            return compile_program(program, *arguments, **static)
        return compile_program(run_on_all, *arguments, program=program, mesh=self.mesh, **static)

    def zero(self) -> Metrics:
        """Returns the sums over no example, where a program wants them."""
        if self.runs is not None:
            return Metrics(*(jnp.zeros(self.runs, array.dtype) for array in Metrics.zero()))
        return replicate(Metrics.zero(), self.mesh)  # type: ignore[no-any-return]

    def remaining(self, steps_done: int, examples: int) -> list[Callable[..., tuple[TrainState, Metrics, jax.Array]]]:
        """Returns the training programs still to run in an epoch of which `steps_done` steps are done."""
        programs = [self._train[length] for length in _cut(steps_done, examples // self.batch_size)]
        return [*programs, self._train_last] if examples % self.batch_size else programs

    def evaluate(self, state: TrainState, split: Examples) -> Evaluation:
        """Evaluates the network on a split."""
        metrics, predictions = self._evaluate[len(split.labels)](state, split)
        loss, accuracy = metrics.means()
        return Evaluation(loss, accuracy, np.asarray(predictions))

    def evaluate_each(self, states: TrainState, split: Examples) -> list[Evaluation]:
        """Evaluates the networks of stacked states on a split."""
        metrics, predictions = jax.device_get(self._evaluate[len(split.labels)](states, split))
        means = [Metrics(*sums).means() for sums in zip(*metrics, strict=True)]
        return [Evaluation(loss, accuracy, own) for (loss, accuracy), own in zip(means, predictions, strict=True)]

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


def _run_each(*arguments: Any, program: Callable[..., Any], **static: Any) -> Any:
    """Runs the program of one run for each of those stacked in the arguments; the examples are the same for all."""
    axes = tuple(None if isinstance(argument, Examples) else 0 for argument in arguments)
    return jax.vmap(functools.partial(program, **static), in_axes=axes)(*arguments)


def _cut(start: int, stop: int) -> Sequence[int]:
    """Returns the lengths of the pieces, of `PIECE` steps but for the last, from step `start` of an epoch to `stop`."""
    return [min(PIECE, stop - first) for first in range(start, stop, PIECE)]
