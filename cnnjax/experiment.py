"""One run from configuration to stored record: look it up, check it, load, train, store.

This is the one function behind a single run and a grid point. The order matters: nothing is written before the
configuration is known to fit the dataset, and the store is known to be writable before hours are spent.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cnnjax.architecture import Layer, list_layers
from cnnjax.backend import check_settings, jax_started
from cnnjax.checkpoints import Checkpoints
from cnnjax.config import Count, RunConfig
from cnnjax.datasets import Dataset, DatasetInfo, identify, keep_given_info, load_data, load_data_info, read_dataset
from cnnjax.distributed import all_or_none, check_same, is_first, is_joined, named_losses
from cnnjax.errors import CnnjaxError, InputError, Interrupted, UnavailableError
from cnnjax.history import Observer, Silence
from cnnjax.host_memory import check_memory, find_memory
from cnnjax.interrupts import deferred_signals
from cnnjax.records import FINAL, Record, Run
from cnnjax.rules import check
from cnnjax.runs import Store
from cnnjax.splits import split_sizes

if TYPE_CHECKING:
    from cnnjax.fitting import Prepared, TrainResult
    from cnnjax.position import Position


@named_losses()
def fit(
    config: RunConfig,
    out: str | os.PathLike[str] | None = "runs",
    *,
    dataset: Dataset | Sequence[Any] | None = None,
    force: bool = False,
    resume: bool = False,
    checkpoint_every: int | None = None,
    observer: Observer | None = None,
    devices: int | None = None,
) -> Run:
    """Trains the network of a run and stores the result; gives a run back that is stored already with a result.

    Ctrl-C, SIGTERM and SIGHUP are obeyed between pieces of an epoch, after a checkpoint has been saved. Where several
    processes have joined (`cnnjax.distributed.join`), all of them call this with the same arguments; the first one
    writes.

    Args:
        config: the run.
        out: output folder with the store and the checkpoints; ``None`` keeps nothing on disk.
        dataset: the images, where they are not to be loaded by name: a `Dataset`, or ``((train images, train labels),
            (test images, test labels))``. Unless `config.data.name` alone means exactly these, their content hash
            becomes part of the run's configuration and key.
        force: runs it again even if it is stored; the new result replaces the old one when it is complete.
        resume: goes on from the newest checkpoint of this configuration.
        checkpoint_every: epochs between checkpoints.
        observer: is told of progress.
        devices: among which every batch is divided, of whose number `train.batch_size` must be a multiple: local ones,
            or all of several processes. ``None`` takes all CPU devices that can have a fair share, or one accelerator.
            JAX makes several devices of a CPU where it is asked to before it starts, by
            ``jax.config.update("jax_num_cpu_devices", 2)``.

    Returns:
        The record, parameters, history and test predictions.

    Raises:
        InputError: the configuration does not fit the dataset or the devices, or the dataset is not known.
        CorruptionError: the dataset, the store or every checkpoint is damaged.
        UnavailableError: no disk space, network, permission or optional package.
        Interrupted: a signal arrived; the message says what was saved.

    Example:
        >>> from cnnjax import DataConfig, TrainConfig
        >>> run = fit(RunConfig(train=TrainConfig(epochs=1), data=DataConfig(train_size=100)), out=None)
        >>> run.record.status
        'completed'
    """
    observer = observer or Silence()
    if not isinstance(config, RunConfig):
        raise InputError(f"config: must be a RunConfig, not {type(config).__name__}")
    check(checkpoint_every, Count | None, "checkpoint_every")
    check(devices, Count | None, "devices")
    images = None if dataset is None else read_dataset(dataset, config.data.name)
    if images is not None:
        config = replace(config, data=identify(config.data, images))
    if out is None and (resume or checkpoint_every):
        raise InputError("out=None: keeps no checkpoints, so resume and checkpoint_every need an output folder")
    store = None if out is None else Store(out)
    with all_or_none():
        stored = store.find(config.key) if store and not force else None
    is_stored = bool(stored and stored.status in FINAL)
    if is_joined():
        check_same(int(config.key[:7], 16), "the run", "all processes must be given the same run")
        check_same(is_stored, "whether the run is stored")
    if store and is_stored:
        observer.note(f"run {config.key[:12]} is already in {store.path}; --force, or force=True, runs it again")
        return store.load(config.key)
    start = time.perf_counter()
    with all_or_none():
        size_layers(config, images.info if images else load_data_info(config.data))
    return _fit(config, store, images, start, resume, checkpoint_every, observer, devices)


@jax_started()
def _fit(
    config: RunConfig,
    store: Store | None,
    dataset: Dataset | None,
    start: float,
    resume: bool,
    checkpoint_every: int | None,
    observer: Observer,
    devices: int | None,
) -> Run:
    """Trains the network of a run, which fits its images, and stores the result."""
    with all_or_none():
        prepared, layers, provenance, load_seconds = _prepare(config, dataset, store, devices, start)
    images_hash = provenance["dataset"]["sha256"]
    if is_joined():
        check_same(int(images_hash[:7], 16), "the hash of the images", "all processes must be given the same dataset")
    from cnnjax import fitting

    checkpoints = Checkpoints(store.path.parent / "checkpoints", config.key, images_hash) if store else None
    with deferred_signals() as stop_signal, contextlib.closing(observer), named_memory_errors():
        result = fitting.train(
            prepared,
            observer=observer,
            checkpoints=checkpoints,
            checkpoint_every=checkpoint_every,
            resume=resume,
            stop_signal=stop_signal,
            saves=is_first(),
        )
        run = make_run(config, layers, result, load_seconds, provenance)
        if store and checkpoints and is_first():
            _keep(run, result.position, store, checkpoints)
        number = stop_signal()
        if number is not None:
            raise Interrupted(f"interrupted after the run {'was stored' if store else 'ended'}", number)
    return run


def _prepare(
    config: RunConfig, dataset: Dataset | None, store: Store | None, devices: int | None, start: float
) -> tuple["Prepared", tuple[Layer, ...], dict[str, Any], float]:
    """Returns the run ready to train, its layers, its provenance, and the seconds from `start` until it was loaded."""
    check_settings()
    import jax

    from cnnjax import fitting
    from cnnjax.provenance import collect_provenance
    from cnnjax.sharding import choose_devices, describe_execution, make_mesh

    dataset = dataset or load_data(config.data)
    devices = devices or choose_devices(config.train.batch_size)
    provenance = collect_provenance(dataset.info, describe_execution(devices))
    mesh = make_mesh(devices, config.train.batch_size)
    if jax.default_backend() == "cpu" and not is_joined():
        check_memory(config, dataset.info, find_memory())
    layers = size_layers(config, dataset.info)
    load_seconds = time.perf_counter() - start
    if store and is_first():
        store.create()
        Checkpoints(store.path.parent / "checkpoints", config.key).check_writable()
        keep_given_info(config.data, dataset.info)
    with named_memory_errors():
        return fitting.prepare(config, dataset, mesh), layers, provenance, load_seconds


def _keep(run: Run, position: "Position", store: Store, checkpoints: Checkpoints) -> None:
    try:
        store.add(run)
    except CnnjaxError as error:
        if run.record.status != "completed":
            raise
        try:
            saved = f"the trained network is in {position.save(checkpoints)}, and resuming stores it"
        except UnavailableError as second:
            saved = str(second)
        raise type(error)(f"{error}; {saved}") from error
    checkpoints.remove()


def size_layers(config: RunConfig, info: DatasetInfo) -> tuple[Layer, ...]:
    """Returns the layers of the network, once it is known to fit the dataset as far as `info` tells."""
    if info.train_size is not None:
        split_sizes(config, info.train_size)
    return list_layers(config.model, info.image_shape, info.classes)


@contextlib.contextmanager
def named_memory_errors(advice: str = "use a smaller train.batch_size or network") -> Iterator[None]:
    """Turns the error of a device that has too little memory into one that says what to change."""
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "Out of memory" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise UnavailableError(f"out of memory; {advice}: {reason}") from error


def make_run(
    config: RunConfig,
    layers: tuple[Layer, ...],
    result: "TrainResult",
    load_seconds: float,
    provenance: dict[str, Any],
) -> Run:
    """Returns the run that a result makes, its arrays on the host."""
    import jax
    import numpy as np

    state = result.position.state
    predictions = result.predictions
    if predictions is not None:
        predictions = predictions.astype(np.min_scalar_type(provenance["dataset"]["classes"] - 1))
    seconds = {"load": load_seconds, **result.seconds}
    diverged = result.diverged_at is not None
    record = Record(
        config=config,
        status="diverged" if diverged else "completed",
        reason=f"loss not finite at step {result.diverged_at}" if diverged else None,
        parameters=sum(layer.parameters for layer in layers),
        flops=sum(layer.flops for layer in layers),
        test_loss=result.test_loss,
        test_accuracy=result.test_accuracy,
        history=result.position.history,
        seconds={**seconds, "total": sum(seconds.values())},
        provenance=provenance,
    )
    params, batch_stats = jax.tree.map(np.asarray, (state.params, state.batch_stats))
    return Run(record, params, batch_stats, predictions)
