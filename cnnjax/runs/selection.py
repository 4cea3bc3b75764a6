"""Finds two arms in a store that differ in given settings alone, to compare them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cnnjax.data.loading import find_images
from cnnjax.data.settings import CHOOSING, READING, DataConfig
from cnnjax.errors import InputError
from cnnjax.models.own_module import WHERE
from cnnjax.runs import trial_function
from cnnjax.runs.config import RunConfig
from cnnjax.runs.record import Record
from cnnjax.runs.store import Store
from cnnjax.settings.code import list_assigned
from cnnjax.settings.schema import Schema, flatten, freeze, nest, read_literal, split_assignment, write_literal

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Selectors:
    """The settings that choose the two arms of a comparison.

    Attributes:
        a, b: the settings in which the arms differ, by path. A setting given for one arm has its default in the other.
        shared: settings that both arms have in common, by path.
    """

    a: Settings
    b: Settings
    shared: Settings

    def __getitem__(self, side: str) -> Settings:
        return self.a if side == "a" else self.b

    def name(self, side: str) -> str:
        """Returns the settings of arm ``a`` or ``b`` as a user types them, such as ``model.padding=same``."""
        return ", ".join(f"{path}={write_literal(value)}" for path, value in self[side].items())


def read_selectors(a: Sequence[str], b: Sequence[str], shared: Sequence[str]) -> Selectors:
    """Reads the settings given with ``--a``, ``--b`` and ``--set``, and the user's own images if these name any.

    Raises:
        UnavailableError: the user's own images cannot be kept in the cache.
        InputError: a setting is not valid, ``--a`` or ``--b`` is missing, both mean the same configuration, or a
            setting is given both to an arm and with ``--set``.

    Example:
        >>> selectors = read_selectors(["model.padding=same"], ["model.padding=valid"], shared=["train.epochs=3"])
        >>> selectors.name("a"), dict(selectors.shared)
        ('model.padding=same', {'train.epochs': 3})
    """
    given = {"--a": a, "--b": b, "--set": shared}
    seeds = "arms are paired by seed; the seeds are given with --seeds"
    schema = _read_schema([*a, *b, *shared])
    read = {option: schema.read_settings(texts, option, seeds) for option, texts in given.items()}
    for option in ("--a", "--b"):
        if not read[option]:
            raise InputError(f"{option}: must be given, such as {option} model.padding=same")
    paths = dict.fromkeys([*read["--a"], *read["--b"]])
    for option in ("--a", "--b"):
        wrong = next((path for path in read[option] if path.startswith("data.") and path not in CHOOSING), None)
        if wrong:
            raise InputError(f"{option} {wrong}: both arms must be tested on the same images; give it with --set")
    twice = next((path for path in paths if path in read["--set"]), None)
    if twice:
        raise InputError(f"--set {twice}: is a setting of --a or --b, and cannot be the same for both")
    defaults = schema.list_defaults()
    for path in paths:
        lacking = [option for option in ("--a", "--b") if path not in read[option]]
        if lacking and path not in defaults:
            raise InputError(f"{lacking[0]} {path}: must be given too, as it has no default")
    first, second = ({path: {**defaults, **read[option]}[path] for path in paths} for option in ("--a", "--b"))
    selectors = Selectors(first, second, _find_images(read["--set"]))
    if configure(selectors, "a", RunConfig()) == configure(selectors, "b", RunConfig()):
        raise InputError("--a and --b: mean the same configuration; must differ")
    return selectors


def read_where(texts: Sequence[str], option: str, store: Store) -> dict[str, Any]:
    """Reads settings that choose stored runs, such as ``model.padding=same``; returns their values by path.

    They may be fields of a module of the user that a stored run has; the module is not imported.

    Raises:
        InputError: a setting is not valid, is given twice, or is the seed.
    """
    schema = RunConfig.schema()
    others = [text for text in texts if text.partition("=")[0].strip() not in schema.paths]
    stored = {path for record in store.find_all().values() for path in flatten(record.config)} if others else set()
    own = [text for text in others if text.partition("=")[0].strip() in stored]
    known = [text for text in texts if text not in own]
    values = schema.read_settings(known, option, "the seed is given with --seed")
    assigned = (split_assignment(text, option, "model.width=32") for text in own)
    return values | {path: freeze(read_literal(text)) for path, text in assigned}


def _read_schema(texts: Sequence[str]) -> Schema:
    """Returns the schema of assignments, with the settings of the modules or functions of the user that they name."""
    return RunConfig.schema({where: list_assigned(texts, where) for where in (WHERE, trial_function.WHERE)})


def _find_images(settings: Settings) -> Settings:
    """Returns the settings with the user's own files replaced by the images in them, as stored runs have them."""
    data = DataConfig.from_dict(nest(settings).get("data", {}))
    if not data.own_files:
        return settings
    found = find_images(data)
    read = {f"data.{name}" for name in ("manual_dir", *READING)}
    others = {path: value for path, value in settings.items() if path not in read}
    return {**others, "data.name": found.name, "data.sha256": found.sha256}


def configure(selectors: Selectors, side: str, context: RunConfig) -> RunConfig:
    """Returns the configuration of arm ``a`` or ``b``: that of `context`, with the settings of the arm.

    Raises:
        InputError: such a configuration is not valid.
    """
    given = {**selectors.shared, **selectors[side]}
    settings = flatten(context, with_internal=True)
    if given.get("model.module", settings.get("model.module")) != settings.get("model.module"):
        settings = {path: value for path, value in settings.items() if not path.startswith("model.")}
    if given.get(trial_function.WHERE, settings.get(trial_function.WHERE)) != settings.get(trial_function.WHERE):
        settings = {}
    settings |= given
    return replace(RunConfig.from_dict(nest(settings)), seed=context.seed)


def find_contexts(selectors: Selectors, records: Mapping[str, Record]) -> dict[RunConfig, dict[str, dict[int, Record]]]:
    """Finds the runs of the two arms, grouped by their other settings.

    Such a group is named by its context: the configuration of its first arm with seed 0. Within a group, the arms
    differ in the settings of `selectors` alone.

    Args:
        selectors: the settings that choose the arms.
        records: all records of the store, by key.

    Returns:
        For each context and each arm (``a`` and ``b``), the records by seed.
    """
    contexts: dict[RunConfig, dict[str, dict[int, Record]]] = {}
    for record in records.values():
        for side in ("a", "b"):
            own = _configure(selectors, side, record.config)
            if own is not None and own.key == record.key:
                # data.manual_dir, a folder that TFDS prepares images from, is no part of the run key.
                data = replace(record.config.data, manual_dir=selectors.shared.get("data.manual_dir"))
                context = _configure(selectors, "a", replace(record.config, data=data, seed=0))
                if context is not None:
                    found = contexts.setdefault(context, {"a": {}, "b": {}})
                    found[side][record.config.seed] = record
    return contexts


def choose_context(contexts: Mapping[RunConfig, Mapping[str, Mapping[int, Record]]]) -> RunConfig | None:
    """Returns the one context in which both arms have runs, or else the only context; ``None`` if there is none.

    Raises:
        InputError: there are several; the message lists the settings in which they differ.
    """
    both = [context for context, found in contexts.items() if found["a"] and found["b"]]
    chosen = both or list(contexts)
    if len(chosen) > 1:
        listed = list_differences(chosen)
        raise InputError(
            f"--a, --b: {len(chosen)} pairs of configurations are stored; choose with --set one of {listed}"
        )
    return chosen[0] if chosen else None


def list_differences(configs: Sequence[RunConfig]) -> str:
    """Returns the settings in which configurations differ, with their values: ``model.padding (same, valid)``."""
    values = [flatten(config) for config in configs]
    paths = dict.fromkeys(path for each in values for path in each)
    found = {path: dict.fromkeys(write_literal(each.get(path)) for each in values) for path in paths}
    return "; ".join(f"{path} ({', '.join(texts)})" for path, texts in found.items() if len(texts) > 1)


def _configure(selectors: Selectors, side: str, context: RunConfig) -> RunConfig | None:
    """Returns the configuration of an arm, or ``None`` if it is not valid."""
    try:
        return configure(selectors, side, context)
    except InputError:  # such as a list with more entries than this network has blocks
        return None
