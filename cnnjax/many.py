"""Many runs by one call: those of a form in one program where that is faster, one after the other elsewhere."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from cnnjax.backend import check_settings, jax_started
from cnnjax.config import Count, RunConfig
from cnnjax.datasets import Dataset, DatasetInfo, identify, keep_given_info, load_data, load_data_info, read_dataset
from cnnjax.errors import InputError, Interrupted
from cnnjax.experiment import fit, make_run, named_memory_errors, size_layers
from cnnjax.history import Observer, Silence
from cnnjax.interrupts import deferred_signals
from cnnjax.records import FINAL, Run
from cnnjax.rules import check
from cnnjax.runs import Store
from cnnjax.signatures import find_difference

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
    program where that is faster, as it is on accelerators. There are no checkpoints: runs that had not ended start
    again.

    Args:
        configs: the runs.
        out: output folder with the store; ``None`` keeps nothing on disk.
        dataset: the images, where they are not to be loaded by name, as for `cnnjax.fit`.
        force: runs them again even if they are stored.
        at_once: runs in one program; ``None`` is one on CPU, and as many as fit the memory of an accelerator, up to 64.
        make_observer: makes the observer of a run, which is told of its progress.

    Returns:
        The runs in the order of `configs`.

    Raises:
        InputError: they do not share a static signature, or this process is one of several; otherwise as `cnnjax.fit`.
        CorruptionError, UnavailableError: as `cnnjax.fit`.
        Interrupted: a signal arrived; what had ended is stored.

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
                for run in _fit_chunk(chunk, images, store, make_observer):
                    runs[run.key] = run
    return [runs[config.key] for config in configs]


def cut_runs(
    configs: Sequence[RunConfig], info: DatasetInfo, at_once: int | None = None
) -> Iterator[Sequence[RunConfig]]:
    """Yields the runs, which share a static signature, in the groups that are to be trained in one program each."""
    import jax

    from cnnjax.memory import choose_at_once

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
    from cnnjax.fitting import prepare_together, train_together
    from cnnjax.provenance import collect_provenance

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
    configs: Sequence[RunConfig], dataset: Dataset, store: Store | None, make_observer: ObserverOf
) -> Iterator[Run]:
    if len(configs) == 1:
        (config,) = configs
        out = store.path.parent if store else None
        yield fit(config, out, dataset=dataset, force=True, observer=make_observer(config))
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
