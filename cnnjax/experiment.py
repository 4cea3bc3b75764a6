"""One run from configuration to stored record: look it up, check it, load, train, store.

This is the one function behind a single run and a grid point. The order matters: nothing is written before the
configuration is known to fit the dataset, and the store is known to be writable before hours are spent.
"""

import os
import time
from pathlib import Path

from cnnjax.architecture import list_layers
from cnnjax.checkpoints import Checkpoints
from cnnjax.config import RunConfig
from cnnjax.datasets import load, load_info
from cnnjax.errors import InputError
from cnnjax.history import Observer, Silence
from cnnjax.interrupts import deferred_signals
from cnnjax.runs import Record, Run, Store
from cnnjax.splits import split_sizes


def fit(
    config: RunConfig,
    out: str | os.PathLike[str] | None = "runs",
    *,
    force: bool = False,
    resume: bool = False,
    checkpoint_every: int | None = None,
    observer: Observer | None = None,
) -> Run:
    """Trains the network of a run and stores the result; a run that is stored already is given back as it is.

    Ctrl-C and SIGTERM are obeyed between pieces of an epoch, after a checkpoint has been saved.

    Args:
        config: the run.
        out: output folder with the store and the checkpoints; ``None`` keeps nothing on disk.
        force: runs it again even if it is stored; the new result replaces the old one when it is complete.
        resume: goes on from the newest checkpoint of this configuration.
        checkpoint_every: epochs between checkpoints.
        observer: is told of progress.

    Returns:
        The record, parameters, history and test predictions.

    Raises:
        InputError: the configuration does not fit the dataset, or the dataset is not known.
        CorruptionError: the dataset, the store or every checkpoint is damaged.
        UnavailableError: no disk space, network, permission or optional package.
        Interrupted: a signal arrived; the message says what was saved.

    Example:
        >>> run = fit(RunConfig(), out="runs")  # doctest: +SKIP
        >>> run.record.test_accuracy  # doctest: +SKIP
    """
    start = time.perf_counter()
    observer = observer or Silence()
    if checkpoint_every is not None and checkpoint_every < 1:
        raise InputError(f"checkpoint_every={checkpoint_every}: must be >= 1")
    store = None if out is None else Store(out)
    if store and not force and store.find(config.key):
        observer.note(f"run {config.key[:12]} is already in {store.path}; force runs it again")
        return store.load(config.key)
    parameters, flops = _check(config)
    if store:
        store.create()
    from cnnjax import fitting
    from cnnjax.provenance import collect_provenance

    dataset = load(config.data.name, manual_dir=config.data.manual_dir)
    loaded = time.perf_counter()
    checkpoints = None if out is None else Checkpoints(Path(out) / "checkpoints", config.key)
    with deferred_signals(lambda: observer.note("stopping at the next pause; again stops at once")) as stop_signal:
        result = fitting.fit(
            config,
            dataset,
            observer=observer,
            checkpoints=checkpoints,
            checkpoint_every=checkpoint_every,
            resume=resume,
            stop_signal=stop_signal,
        )
        record = Record(
            config=config,
            status=result.status,
            reason=None if result.diverged_at is None else f"loss not finite at step {result.diverged_at}",
            parameters=parameters,
            flops=flops,
            test_loss=result.test_loss,
            test_accuracy=result.test_accuracy,
            history=result.history,
            seconds={"load": loaded - start, **result.seconds, "total": time.perf_counter() - start},
            provenance=collect_provenance(dataset.info),
        )
        run = Run(record, result.params, result.batch_stats, result.predictions)
        if store:
            store.add(run)
    if checkpoints:
        checkpoints.remove()
    return run


def _check(config: RunConfig) -> tuple[int, int]:
    info = load_info(config.data.name, manual_dir=config.data.manual_dir)
    split_sizes(config, info.train_size)
    layers = list_layers(config.model, info.image_shape, info.classes)
    return sum(layer.parameters for layer in layers), sum(layer.flops for layer in layers)
