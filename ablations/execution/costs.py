"""The cost of a trial, computed from its configuration: parameters, FLOPs, images and memory."""

from collections.abc import Iterable

from ablations.study.grid import Trial
from cnnjax.data.loading import find_info
from cnnjax.errors import UnavailableError
from cnnjax.runs.config import RunConfig
from cnnjax.runs.splits import split_sizes
from cnnjax.runs.summary import summarize
from cnnjax.training.memory import check_memory

TRAIN_SIZE_UNKNOWN = 50_000
"""Assumed number of training examples of a dataset that has not been prepared."""


def find_size(config: RunConfig) -> tuple[int, int] | None:
    """Returns the number of parameters of a run's network, and the FLOPs of its forward pass on one image.

    Returns ``None`` for a function of the user, of which neither is known.
    """
    if config.trial:
        return None
    summary = summarize(config)
    return summary.parameters, summary.flops


def count_images(config: RunConfig) -> int:
    """Returns the number of images seen in training: training examples times epochs."""
    size = find_info(config.data.whole).train_size
    examples = split_sizes(config, size)[0] if size else config.data.train_size or TRAIN_SIZE_UNKNOWN
    return examples * config.train.epochs


def training_flops(config: RunConfig) -> float:
    """Returns the FLOPs of a run's training; the backward pass costs twice as much as the forward pass.

    All calls of a function of the user are taken to cost the same, 1.
    """
    if config.trial:
        return 1.0
    return 3.0 * summarize(config).flops * count_images(config)


def check_memory_of(trials: Iterable[Trial], memory: float) -> None:
    """Raises `UnavailableError` if cells of these trials need more than `memory` bytes; the message lists the cells."""
    problems = []
    for cell in {trial.cell.config.key: trial.cell for trial in trials if not trial.config.trial}.values():
        try:
            check_memory(cell.config, find_info(cell.config.data.whole), memory)
        except UnavailableError as error:
            problems.append(f"cell {cell.name}: {error}")
    if problems:
        raise UnavailableError("\n  ".join(problems))
