"""From a configuration to a stored run: look it up in the store, check it, load the images, train, store the result.

`fit` trains one run. `fit_group` trains runs with the same static signature: a single run by `fit`, several in one
program. `fit_many` cuts any number of such runs into groups. A worker of a grid trains the groups that it is given.

The order of the steps matters: nothing is written before the configuration is known to fit the dataset, and training
starts only once the store is known to be writable.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnjax.data.dataset import Dataset, DatasetInfo
from cnnjax.data.loading import find_images, identify, keep_given_info, load_data, load_data_info, read_dataset
from cnnjax.errors import CnnjaxError, InputError, Interrupted, UnavailableError
from cnnjax.machine.backend import check_settings, jax_started
from cnnjax.machine.distributed import all_or_none, check_same, is_first, is_joined, named_losses
from cnnjax.machine.processes import deferred_signals, find_memory
from cnnjax.models.network import Layer
from cnnjax.models.own_module import ModuleConfig
from cnnjax.runs.checkpoints import Checkpoints
from cnnjax.runs.config import RunConfig, find_difference
from cnnjax.runs.history import Observer, Silence
from cnnjax.runs.provenance import collect_provenance
from cnnjax.runs.record import FINAL, Record, Run
from cnnjax.runs.splits import split_sizes
from cnnjax.runs.store import Store
from cnnjax.settings.checking import Count, check
from cnnjax.training.memory import check_memory, choose_at_once, fit_on_devices

if TYPE_CHECKING:
    from cnnjax.training.loop import Position, Prepared, TrainResult

ObserverOf = Callable[[RunConfig], Observer]
"""A function that makes the observer of a run."""


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
    """Trains the network of a run and stores the result; if the store already has a result, returns that one.

    On Ctrl-C, SIGTERM or SIGHUP, training stops at the end of the current piece of an epoch, after saving a checkpoint.
    If several processes have joined (`cnnjax.machine.distributed.join`), all of them call this function with the same
    arguments, and the first one writes.

    Args:
        config: the run.
        out: output folder with the store and the checkpoints; ``None`` writes nothing to disk.
        dataset: optional images, instead of those loaded by name: a `Dataset`, or ``((train images, train labels),
            (test images, test labels))``, images (n, height, width[, channels]) and labels (n,). Their content hash
            becomes part of the run's configuration and key, unless `config.data.name` alone stands for exactly these
            images.
        force: trains the run even if it is stored; the new result replaces the old one when it is complete.
        resume: continues from the newest checkpoint of this configuration.
        checkpoint_every: epochs between checkpoints; by default, a checkpoint is saved only on a signal.
        observer: receives progress and notes.
        devices: number of devices that share every batch, a divisor of `train.batch_size`: local devices, or all
            devices of several processes. Default: as many CPU devices as get 10 or more examples each, or one
            accelerator. ``jax.config.update("jax_num_cpu_devices", 2)``, before JAX starts, makes two devices of a CPU.

    Returns:
        The run: its record, parameters (float32), history (times in seconds) and test predictions.

    Raises:
        InputError: the configuration does not fit the dataset or the devices, or the dataset is not known.
        CorruptionError: the dataset or the store is damaged, or `resume` finds only damaged checkpoints.
        UnavailableError: disk space, memory, the network, a permission or an optional package is missing.
        Interrupted: a signal arrived; the message says what was saved.

    Example:
        >>> from cnnjax import DataConfig, TrainConfig
        >>> run = fit(RunConfig(train=TrainConfig(epochs=1), data=DataConfig(train_size=100)), out=None)
        >>> run.record.status
        'completed'
    """
    observer = observer or Silence()
    _check_network(config, "config")
    check(checkpoint_every, Count | None, "checkpoint_every")
    check(devices, Count | None, "devices")
    (config,), images = _identify_images([config], dataset)
    if out is None and (resume or checkpoint_every):
        raise InputError("out=None: keeps no checkpoints, so resume and checkpoint_every need an output folder")
    store = None if out is None else Store(out)
    with all_or_none():
        is_stored = config.key in _find_results([config], None if force else store)
    if is_joined():
        check_same(int(config.key[:7], 16), "the run", "all processes must be given the same run")
        check_same(is_stored, "whether the run is stored")
    if store and is_stored:
        observer.note(f"run {config.key[:12]} is already in {store.path}; --force, or force=True, runs it again")
        return store.load(config.key)
    start = time.perf_counter()
    with all_or_none():
        _size_layers(config, images.info if images else load_data_info(config.data))
    return _train_alone(config, store, images, start, resume, checkpoint_every, observer, devices)


@jax_started()
def _train_alone(
    config: RunConfig,
    store: Store | None,
    dataset: Dataset | None,
    start: float,
    resume: bool,
    checkpoint_every: int | None,
    observer: Observer,
    devices: int | None,
) -> Run:
    """Trains a run that is not stored, and stores the result."""
    with all_or_none():
        dataset = dataset or load_data(config.data)
        devices, provenance = _describe(config, dataset.info, devices)
    images_hash = provenance["dataset"]["sha256"]
    if is_joined():
        check_same(devices, "the number of devices", "all processes must be given the same number of devices")
        check_same(int(images_hash[:7], 16), "the hash of the images", "all processes must be given the same dataset")
        layers_hash = hashlib.sha256(provenance["convolutions"].encode()).hexdigest()
        must = "all processes must have the same oneDNN, or none (--no-fast-layers)"
        check_same(int(layers_hash[:7], 16), "the hash of what convolves", must)
    with all_or_none():
        prepared, layers, load_seconds = _prepare(config, dataset, store, devices, start)
    from cnnjax.training import loop

    checkpoints = _find_checkpoints(store, config, images_hash) if store else None
    with deferred_signals() as stop_signal, contextlib.closing(observer), _named_memory_errors():
        result = loop.train(
            prepared,
            observer=observer,
            checkpoints=checkpoints,
            checkpoint_every=checkpoint_every,
            resume=resume,
            stop_signal=stop_signal,
            saves=is_first(),
        )
        run = _add_scores(_make_run(config, layers, result, load_seconds, provenance), dataset, observer)
        if store and checkpoints and is_first():
            _keep(run, result.position, store, checkpoints)
        number = stop_signal()
        if number is not None:
            raise Interrupted(f"interrupted after the run {'was stored' if store else 'ended'}", number)
    return run


def _describe(config: RunConfig, info: DatasetInfo, devices: int | None) -> tuple[int, dict[str, Any]]:
    """Returns the number of devices of a run and its provenance, of which nothing depends on other processes."""
    check_settings()
    from cnnjax.machine.devices import describe_execution

    devices = choose_run_devices(config, info, devices)
    return devices, collect_provenance(config, info, describe_execution(devices))


def _prepare(
    config: RunConfig, dataset: Dataset, store: Store | None, devices: int, start: float
) -> tuple["Prepared", tuple[Layer, ...], float]:
    """Returns the prepared run, its layers, and the seconds from `start` until loading ended."""
    import jax

    from cnnjax.machine.devices import make_mesh
    from cnnjax.training import loop
    from cnnjax.training.own_functions import check_functions

    mesh = make_mesh(devices, config.train.batch_size)
    if is_joined() and not fit_on_devices(config, dataset.info, jax.local_device_count(), share=1.0):
        raise UnavailableError(
            f"data.name={config.data.name!r}: its images do not fit into the memory of this process, and joined "
            "processes are not fed in chunks; train without --coordinator, or on fewer or smaller images"
        )
    if jax.default_backend() == "cpu" and not is_joined():
        check_memory(config, dataset.info, find_memory())
    layers = _size_layers(config, dataset.info)
    check_functions(config.train, dataset.info)
    load_seconds = time.perf_counter() - start
    if store and is_first():
        store.create()
        _find_checkpoints(store, config).check_writable()
        keep_given_info(config.data, dataset.info)
    with _named_memory_errors():
        return loop.prepare(config, dataset, mesh), layers, load_seconds


def choose_run_devices(config: RunConfig, info: DatasetInfo, devices: int | None = None) -> int:
    """Returns the number of devices of a run.

    A module of the user gets several by default only where it has oneDNN's layers and its batches can be divided.

    Args:
        config: the run.
        info: its dataset.
        devices: the number that was asked for; ``None`` for the default.

    Raises:
        InputError: several devices are asked for, or the processes have several, and its batches cannot be divided.

    Example:
        >>> choose_run_devices(RunConfig(), load_data_info(RunConfig().data), devices=1)
        1
    """
    from cnnjax.layers.custom_calls import are_available
    from cnnjax.machine.devices import choose_devices

    chosen = devices or choose_devices(config.train.batch_size)
    if chosen == 1:
        return 1
    is_asked = devices is not None or is_joined() or not isinstance(config.model, ModuleConfig)
    if (is_asked or are_available()) and config.model.can_be_divided(info.image_shape, info.classes):
        return chosen
    if is_asked:
        raise InputError(
            f"devices={chosen}: must be 1, of one process, as shares of a batch give another result than the whole; of "
            "what your module computes of all examples together, nn.BatchNorm and nn.Dropout can be divided"
        )
    return 1


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


def fit_many(
    configs: Iterable[RunConfig],
    out: str | os.PathLike[str] | None = "runs",
    *,
    dataset: Dataset | Sequence[Any] | None = None,
    force: bool = False,
    at_once: int | None = None,
    make_observer: ObserverOf | None = None,
) -> list[Run]:
    """Trains runs with the same static signature and stores each as it ends; stored results are not computed again.

    Such runs may differ in the values that a compiled program takes as data: seed, learning rate, label smoothing and
    the patience of early stopping; momentum, weight decay and dropout rate, each zero in all runs or above zero in all;
    and, under a constant schedule without warmup, the number of epochs. Their programs are compiled once. On
    accelerators, where it is faster, several runs are trained at once in one program.

    After a signal, the same call continues. A run that was trained alone continues from the checkpoint saved on the
    signal, bit for bit. Runs in one program have no checkpoints; those that had not ended start again.

    Args:
        configs: the runs.
        out: output folder with the store; ``None`` writes nothing to disk.
        dataset: optional images, as for `cnnjax.fit`.
        force: trains the runs from the beginning, even if they are stored.
        at_once: number of runs in one program. Default: one on CPU; on an accelerator, as many as its memory holds, up
            to 64.
        make_observer: makes the observer of a run, which receives its progress.

    Returns:
        The runs in the order of `configs`.

    Raises:
        InputError: the runs do not share a static signature, or this process is one of several joined processes;
            otherwise as `cnnjax.fit`.
        CorruptionError, UnavailableError: as `cnnjax.fit`.
        Interrupted: a signal arrived; runs that had ended are stored, and the message says what else was saved.

    Example:
        >>> from cnnjax import DataConfig, TrainConfig
        >>> train, data = TrainConfig(epochs=1), DataConfig(train_size=100)
        >>> configs = [RunConfig(train=train, data=data, seed=seed) for seed in range(2)]
        >>> [run.record.status for run in fit_many(configs, out=None)]
        ['completed', 'completed']
    """
    configs = list(configs)
    _check_alike(configs)
    configs, images = _identify_images(configs, dataset)
    check(at_once, Count | None, "at_once")
    store = None if out is None else Store(out)
    stored = _find_results(configs, None if force else store)
    runs = {key: store.load(key) for key in stored} if store else {}
    waiting = [*{config.key: config for config in configs if config.key not in runs}.values()]
    if waiting:
        _size_layers(waiting[0], images.info if images else load_data_info(waiting[0].data))
        with jax_started():
            check_settings()
            images = images or load_data(waiting[0].data)
            if store:
                keep_given_info(waiting[0].data, images.info)
            for group in cut_runs(waiting, images.info, at_once):
                for run in fit_group(group, images, make_observer or (lambda config: Silence()), out, force=force):
                    runs[run.key] = run
    return [runs[config.key] for config in configs]


def _check_network(config: Any, where: str) -> None:
    if not isinstance(config, RunConfig):
        raise InputError(f"{where}: must be a RunConfig, not {type(config).__name__}")
    if config.trial:
        raise InputError(f"{where}: calls a trial function, which has no network to train; a study runs it")


def _check_alike(configs: Sequence[RunConfig]) -> None:
    for index, config in enumerate(configs):
        _check_network(config, f"configs[{index}]")
        difference = find_difference(config, configs[0])
        if difference:
            name, own, first = difference
            raise InputError(f"configs[{index}]: {name}={own!r} needs other programs than configs[0] with {first!r}")


def cut_runs(
    configs: Sequence[RunConfig], info: DatasetInfo, at_once: int | None = None
) -> Iterator[Sequence[RunConfig]]:
    """Cuts runs with the same static signature into groups, each to be trained in one program.

    Args:
        configs: the runs.
        info: their dataset.
        at_once: largest number of runs in a group. Default: `choose_at_once`.

    Raises:
        InputError: this process is one of several joined processes, or the images are fed in chunks to one run alone.
    """
    import jax

    if jax.process_count() > 1:
        raise InputError(f"fit_many: one of {jax.process_count()} processes; they train one run together, by fit")
    if at_once not in (None, 1) and not fit_on_devices(configs[0], info):
        raise InputError(f"at_once={at_once}: must be 1, as the images do not fit on the device")
    size = at_once or choose_at_once(configs[0], info)
    return (configs[start : start + size] for start in range(0, len(configs), size))


def fit_group(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    make_observer: ObserverOf,
    out: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
    devices: int | None = None,
) -> Iterator[Run]:
    """Trains runs with the same static signature: a single run by `fit`, several in one program on one device.

    Args:
        configs: the runs, at least one.
        dataset: their images.
        make_observer: makes the observer of a run.
        out: output folder with the store; ``None`` writes nothing to disk.
        force: trains a single run from the beginning, even if it is stored; several runs are always trained.
        devices: number of devices of a single run, as for `fit`; several runs use one.

    Yields:
        Each run when it has ended and been stored.

    Raises:
        UnavailableError: the device has too little memory; otherwise as `fit`.
        Interrupted: a signal arrived; the message says how many runs had ended.
    """
    store = None if out is None else Store(out)
    if len(configs) == 1:
        (config,) = configs
        resume = store is not None and not force and _find_checkpoints(store, config).exist()
        observer = make_observer(config)
        yield fit(config, out, dataset=dataset, force=force, resume=resume, observer=observer, devices=devices)
        return
    if store:
        store.create()
    ended = 0
    try:
        for run in _train_together(configs, dataset, make_observer):
            if store:
                store.add(run)
            ended += 1
            yield run
    except Interrupted as stop:
        stop.args = (f"{stop}; {ended} of {len(configs)} runs had ended{' and are stored' if store else ''}",)
        raise


def _train_together(configs: Sequence[RunConfig], dataset: Dataset, make_observer: ObserverOf) -> Iterator[Run]:
    """Trains runs with the same static signature in one program on one device, and yields each as it ends."""
    from cnnjax.training.loop import prepare_together, train_together
    from cnnjax.training.own_functions import check_functions

    start = time.perf_counter()
    provenance = collect_provenance(configs[0], dataset.info, f"{len(configs)} runs in one program", len(configs))
    layers = _size_layers(configs[0], dataset.info)
    check_functions(configs[0].train, dataset.info)
    observers = [make_observer(config) for config in configs]
    load_seconds = (time.perf_counter() - start) / len(configs)
    with contextlib.ExitStack() as stack:
        for observer in observers:
            stack.callback(observer.close)
        stop_signal = stack.enter_context(deferred_signals())
        stack.enter_context(_named_memory_errors("train fewer runs at once"))
        for index, result in train_together(prepare_together(configs, dataset), observers, stop_signal):
            yield _add_scores(
                _make_run(configs[index], layers, result, load_seconds, provenance), dataset, observers[index]
            )
        number = stop_signal()
        if number is not None:
            raise Interrupted("interrupted after these runs had ended", number)


def _identify_images(
    configs: list[RunConfig], dataset: Dataset | Sequence[Any] | None
) -> tuple[list[RunConfig], Dataset | None]:
    """Returns the runs with the identity of the given images in their `data`, and the images as a `Dataset`.

    Without given images, returns the runs as they are and ``None``. All runs must have the same `data`.
    """
    if not configs:
        return configs, None
    if dataset is None:
        found = {data: find_images(data) for data in {config.data for config in configs}}
        return [replace(config, data=found[config.data]) for config in configs], None
    images = read_dataset(dataset, configs[0].data.name)
    return [replace(config, data=identify(config.data, images)) for config in configs], images


def _find_results(configs: Sequence[RunConfig], store: Store | None) -> set[str]:
    """Returns the keys of those runs that the store has a result of; none without a store."""
    records = store.find_all(config.key for config in configs) if store else {}
    return {key for key, record in records.items() if record.status in FINAL}


def _size_layers(config: RunConfig, info: DatasetInfo) -> tuple[Layer, ...]:
    """Returns the layers of the network; raises `InputError` if the run does not fit the dataset.

    The sizes of the splits are checked if `info` tells the number of training examples.
    """
    if info.train_size is not None:
        split_sizes(config, info.train_size)
    return config.model.list_layers(info.image_shape, info.classes)


def _find_checkpoints(store: Store, config: RunConfig, images_hash: str | None = None) -> Checkpoints:
    """Returns the checkpoints of a run, in the folder of its store.

    Given the hash of the images, only checkpoints of training on these images are accepted.
    """
    return Checkpoints(store.path.parent / "checkpoints", config.key, images_hash)


def _make_run(
    config: RunConfig,
    layers: tuple[Layer, ...],
    result: "TrainResult",
    load_seconds: float,
    provenance: dict[str, Any],
) -> Run:
    """Returns the run with the result of its training, with its arrays on the host."""
    import jax

    state = result.position.state
    predictions = result.predictions
    if predictions is not None:
        predictions = predictions.astype(np.min_scalar_type(provenance["dataset"]["classes"] - 1))
    seconds = {"load": load_seconds, **result.seconds}
    diverged = result.diverged_at is not None
    if result.position.convolutions:  # of a resumed run, which may have had others before
        provenance = {**provenance, "convolutions": ", then ".join(result.position.convolutions)}
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
    collections = jax.tree.map(np.asarray, state.variables)
    return Run(record, collections.pop("params"), collections, predictions)


def _add_scores(run: Run, dataset: Dataset, observer: Observer) -> Run:
    """Returns a completed run with the metrics of the user in its record; any other run as it is."""
    if not run.record.config.train.metrics or run.record.status != "completed":
        return run
    from cnnjax.models.prediction import compute_logits
    from cnnjax.training.own_functions import compute_scores

    logits = compute_logits(run.rebuild(), dataset.test.images)
    scores = compute_scores(run.record.config.train, logits, dataset.test.labels, observer.note)
    return replace(run, record=replace(run.record, scores=scores))


@contextlib.contextmanager
def _named_memory_errors(advice: str = "use a smaller train.batch_size or network") -> Iterator[None]:
    """Turns JAX's out-of-memory errors into an `UnavailableError` that says what to change."""
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "Out of memory" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise UnavailableError(f"out of memory; {advice}: {reason}") from error
