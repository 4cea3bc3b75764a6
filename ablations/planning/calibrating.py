"""A short measurement in place of a history: the cheapest and the dearest network of a grid, trained for a moment.

They run as the grid's trials would, in a worker process on one core or device, and nothing is stored.
"""

import contextlib
from dataclasses import replace

from ablations.language.grids import Grid, Trial
from ablations.running.costs import count_images, find_size, training_flops
from ablations.running.events import Ended, Executor, Failed, Returned
from ablations.running.local import LocalExecutor
from ablations.running.slots import Slot
from cnnjax.config import RunConfig
from cnnjax.errors import UnavailableError
from cnnjax.records import Record

LEAST_IMAGES = 2000
FLOPS = 1.5e11
"""Of training, a few seconds of one core; on fewer images than `LEAST_IMAGES` the first steps would tell."""
POLL_SECONDS = 1.0


def calibrate(grid: Grid, slot: Slot) -> list[Record]:
    """Trains the networks of fewest and of most FLOPs for a few seconds each.

    Args:
        grid: of the study, with a cell that can be trained; its datasets are prepared.
        slot: where to run.

    Raises:
        UnavailableError: no worker can start, or a network could not be trained.
    """
    cells = sorted((cell for cell in grid.cells if not cell.problem), key=lambda cell: find_size(cell.config)[1])
    configs = dict.fromkeys(shorten(cell.config) for cell in (cells[0], cells[-1]))
    executor = LocalExecutor([slot])
    with contextlib.closing(executor):
        return [_run(executor, slot.number, Trial(cells[0], config)) for config in configs]


def shorten(config: RunConfig) -> RunConfig:
    """Returns the run with one epoch of few images, the fewer the dearer they are, and nothing to validate."""
    # The learning rate costs no time, and one so small lets no network diverge.
    train = replace(config.train, epochs=1, validation_split=0.0, early_stopping_patience=None, learning_rate=1e-6)
    short = replace(config, train=train)
    affordable = round(FLOPS * count_images(short) / training_flops(short))
    images = min(max(affordable, LEAST_IMAGES, train.batch_size), count_images(short))
    return replace(short, data=replace(config.data, train_size=images))


def _run(executor: Executor, slot: int, trial: Trial) -> Record:
    executor.submit(slot, (trial,))
    while True:
        for event in executor.poll(POLL_SECONDS):
            match event:
                case Ended(_, run):
                    return run.record
                case Failed(_, reason, _):
                    raise UnavailableError(f"--calibrate: {reason}")
                case Returned():
                    executor.submit(slot, (trial,))
