"""From a configuration to a stored run: look it up, check it, load, train, store.

`fit` trains one run and `fit_many` several; trials of grids go the same way. The order matters: nothing is written
before the configuration is known to fit the dataset, and the store is known to be writable before hours are spent.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnjax.data.dataset import Dataset, DatasetInfo
from cnnjax.data.loading import identify, keep_given_info, load_data, load_data_info, read_dataset
from cnnjax.errors import CnnjaxError, InputError, Interrupted, UnavailableError
from cnnjax.machine.backend import check_settings, jax_started
from cnnjax.machine.distributed import all_or_none, check_same, is_first, is_joined, named_losses
from cnnjax.machine.processes import deferred_signals, find_memory
from cnnjax.models.network import Layer
from cnnjax.runs.checkpoints import Checkpoints
from cnnjax.runs.config import RunConfig, find_difference, split_sizes
from cnnjax.runs.history import Observer, Silence
from cnnjax.runs.provenance import collect_provenance
from cnnjax.runs.record import FINAL, Record, Run
from cnnjax.runs.store import Store
from cnnjax.settings.checking import Count, check
from cnnjax.training.memory import check_memory, choose_at_once

if TYPE_CHECKING:
    from cnnjax.training.loop import Position, Prepared, TrainResult


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
    processes have joined (`cnnjax.machine.distributed.join`), all of them call this with the same arguments; the first
    one writes.

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
    from cnnjax.training import loop

    checkpoints = find_checkpoints(store, config, images_hash) if store else None
    with deferred_signals() as stop_signal, contextlib.closing(observer), named_memory_errors():
        result = loop.train(
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

    from cnnjax.machine.devices import choose_devices, describe_execution, make_mesh
    from cnnjax.training import loop

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
        find_checkpoints(store, config).check_writable()
        keep_given_info(config.data, dataset.info)
    with named_memory_errors():
        return loop.prepare(config, dataset, mesh), layers, provenance, load_seconds


def find_checkpoints(store: Store, config: RunConfig, images_hash: str | None = None) -> Checkpoints:
    """Returns the checkpoints of a run, beside its store; given the hash of the images, those trained on them alone."""
    return Checkpoints(store.path.parent / "checkpoints", config.key, images_hash)


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
    return config.model.list_layers(info.image_shape, info.classes)


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


ObserverOf = Callable[[RunConfig], Observer]


def fit_many(
    configs: Iterable[RunConfig],
    out: str | os.PathLike[str] | None = "runs",
    *,
    dataset: Dataset | Sequence[Any] | None = None,
    force: bool = False,
    at_once: int | None = None,
    make_observer: ObserverOf | None = None,
) -> list[Run]:
    """Trains runs that share a static signature and stores each as it ends; what is stored already is not run again.

    Such runs differ in what is data to a compiled program: seed, learning rate, label smoothing, early stopping, and,
    where each is above zero in all of them or zero in all, momentum, weight decay and dropout rate; under a constant
    schedule without warmup also the number of epochs. They are compiled once, and trained several at once in one
    program where that is faster, as it is on accelerators.

    After a signal the same call goes on. A run that is trained alone goes on from the checkpoint that the signal saved,
    bit for bit; runs of one program have no checkpoints, and those that had not ended start again.

    Args:
        configs: the runs.
        out: output folder with the store; ``None`` keeps nothing on disk.
        dataset: the images, where they are not to be loaded by name, as for `cnnjax.fit`.
        force: runs them again, from the beginning, even if they are stored.
        at_once: runs in one program; ``None`` is one on CPU, and as many as fit the memory of an accelerator, up to 64.
        make_observer: makes the observer of a run, which is told of its progress.

    Returns:
        The runs in the order of `configs`.

    Raises:
        InputError: they do not share a static signature, or this process is one of several; otherwise as `cnnjax.fit`.
        CorruptionError, UnavailableError: as `cnnjax.fit`.
        Interrupted: a signal arrived; what had ended is stored, and the message says what was saved of the rest.

    Example:
        >>> from cnnjax import DataConfig, TrainConfig
        >>> train, data = TrainConfig(epochs=1), DataConfig(train_size=100)
        >>> configs = [RunConfig(train=train, data=data, seed=seed) for seed in range(2)]
        >>> [run.record.status for run in fit_many(configs, out=None)]
        ['completed', 'completed']
    """
    configs = list(configs)
    _check_alike(configs)
    images = None
    if dataset is not None and configs:
        images = read_dataset(dataset, configs[0].data.name)
        configs = [replace(config, data=identify(config.data, images)) for config in configs]
    check(at_once, Count | None, "at_once")
    make_observer = make_observer or (lambda config: Silence())
    store = None if out is None else Store(out)
    runs: dict[str, Run] = {}
    if store and not force:
        outcomes = store.list_outcomes()
        done = {c.key for c in configs if c.key in outcomes and outcomes[c.key].status in FINAL}
        runs = {key: store.load(key) for key in done}
    waiting = [*{config.key: config for config in configs if config.key not in runs}.values()]
    if waiting:
        size_layers(waiting[0], images.info if images else load_data_info(waiting[0].data))
        with jax_started():
            check_settings()
            images = images or load_data(waiting[0].data)
            if store:
                keep_given_info(waiting[0].data, images.info)
            for chunk in cut_runs(waiting, images.info, at_once):
                for run in _fit_chunk(chunk, images, store, force, make_observer):
                    runs[run.key] = run
    return [runs[config.key] for config in configs]


def cut_runs(
    configs: Sequence[RunConfig], info: DatasetInfo, at_once: int | None = None
) -> Iterator[Sequence[RunConfig]]:
    """Yields the runs, which share a static signature, in the groups that are to be trained in one program each."""
    import jax

    if jax.process_count() > 1:
        raise InputError(f"fit_many: one of {jax.process_count()} processes; they train one run together, by fit")
    size = at_once or choose_at_once(configs[0], info)
    return (configs[start : start + size] for start in range(0, len(configs), size))


def iterate_chunk(configs: Sequence[RunConfig], dataset: Dataset, make_observer: ObserverOf) -> Iterator[Run]:
    """Trains runs of one static signature in one program on one device, and yields each as it ends.

    Raises:
        UnavailableError: the device has too little memory.
        Interrupted: a signal arrived.
    """
    from cnnjax.training.loop import prepare_together, train_together

    start = time.perf_counter()
    provenance = collect_provenance(dataset.info, f"{len(configs)} runs in one program", len(configs))
    layers = size_layers(configs[0], dataset.info)
    observers = [make_observer(config) for config in configs]
    load_seconds = (time.perf_counter() - start) / len(configs)
    with contextlib.ExitStack() as stack:
        for observer in observers:
            stack.callback(observer.close)
        stop_signal = stack.enter_context(deferred_signals())
        stack.enter_context(named_memory_errors("train fewer runs at once"))
        for index, result in train_together(prepare_together(configs, dataset), observers, stop_signal):
            yield make_run(configs[index], layers, result, load_seconds, provenance)
        number = stop_signal()
        if number is not None:
            raise Interrupted("interrupted after these runs had ended", number)


def _check_alike(configs: Sequence[RunConfig]) -> None:
    for index, config in enumerate(configs):
        if not isinstance(config, RunConfig):
            raise InputError(f"configs[{index}]: must be a RunConfig, not {type(config).__name__}")
        difference = find_difference(config, configs[0])
        if difference:
            name, own, first = difference
            raise InputError(f"configs[{index}]: {name}={own!r} needs other programs than configs[0] with {first!r}")


def _fit_chunk(
    configs: Sequence[RunConfig], dataset: Dataset, store: Store | None, force: bool, make_observer: ObserverOf
) -> Iterator[Run]:
    if len(configs) == 1:
        (config,) = configs
        out = store.path.parent if store else None
        resume = store is not None and not force and find_checkpoints(store, config).exist()
        yield fit(config, out, dataset=dataset, force=force, resume=resume, observer=make_observer(config))
        return
    if store:
        store.create()
    ended = 0
    try:
        for run in iterate_chunk(configs, dataset, make_observer):
            if store:
                store.add(run)
            ended += 1
            yield run
    except Interrupted as stop:
        stop.args = (f"{stop}; {ended} of {len(configs)} runs had ended{' and are stored' if store else ''}",)
        raise
