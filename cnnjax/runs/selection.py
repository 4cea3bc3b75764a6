"""Runs chosen from a store by their settings, and put side by side: two arms that differ in these settings alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cnnjax.errors import InputError
from cnnjax.runs.config import RunConfig
from cnnjax.runs.record import Record
from cnnjax.settings.schema import flatten, nest, write_literal

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Selectors:
    """What was asked for.

    Attributes:
        a, b: settings of the two arms; both have the same paths, a path that one side left out having its default.
        shared: settings that both arms have.
    """

    a: Settings
    b: Settings
    shared: Settings

    def __getitem__(self, side: str) -> Settings:
        return self.a if side == "a" else self.b

    def name(self, side: str) -> str:
        """Returns the settings of an arm as they are typed, such as ``model.padding=same``."""
        return ", ".join(f"{path}={write_literal(value)}" for path, value in self[side].items())


def read_selectors(a: Sequence[str], b: Sequence[str], shared: Sequence[str]) -> Selectors:
    """Returns what ``--a``, ``--b`` and ``--set`` ask for.

    Raises:
        InputError: one is none, ``--a`` or ``--b`` is missing, or a setting is given to an arm and to both.
    """
    given = {"--a": a, "--b": b, "--set": shared}
    seeds = "arms are paired by seed; the seeds are given with --seeds"
    read = {option: RunConfig.schema().read_settings(texts, option, seeds) for option, texts in given.items()}
    for option in ("--a", "--b"):
        if not read[option]:
            raise InputError(f"{option}: must be given, such as {option} model.padding=same")
    paths = dict.fromkeys([*read["--a"], *read["--b"]])
    for option in ("--a", "--b"):
        wrong = next((path for path in read[option] if path.startswith("data.") and path != "data.train_size"), None)
        if wrong:
            raise InputError(f"{option} {wrong}: both arms must be tested on the same images; give it with --set")
    twice = next((path for path in paths if path in read["--set"]), None)
    if twice:
        raise InputError(f"--set {twice}: is a setting of --a or --b, and cannot be the same for both")
    defaults = RunConfig.schema().list_defaults()
    first, second = ({path: read[option].get(path, defaults[path]) for path in paths} for option in ("--a", "--b"))
    selectors = Selectors(first, second, read["--set"])
    if configure(selectors, "a", RunConfig()) == configure(selectors, "b", RunConfig()):
        raise InputError("--a and --b: mean the same configuration; must differ")
    return selectors


def configure(selectors: Selectors, side: str, context: RunConfig) -> RunConfig:
    """Returns the configuration of an arm in a context, which says everything else.

    Raises:
        InputError: there is none such.
    """
    settings = {**flatten(context), **selectors.shared, **selectors[side]}
    return replace(RunConfig.from_dict(nest(settings)), seed=context.seed)


def find_contexts(selectors: Selectors, records: Mapping[str, Record]) -> dict[RunConfig, dict[str, dict[int, Record]]]:
    """Returns what is stored of the two arms, by context.

    A context is a configuration of the first arm, without its seed. Configurations whose settings are those of an arm
    belong to it; both arms of a context differ in the settings of `selectors` alone.

    Args:
        selectors: what was asked for.
        records: all that is stored, by key.

    Returns:
        By context and arm (``a`` or ``b``), the records by seed.
    """
    contexts: dict[RunConfig, dict[str, dict[int, Record]]] = {}
    for record in records.values():
        for side in ("a", "b"):
            own = _configure(selectors, side, record.config)
            if own is not None and own.key == record.key:
                # Where the images were prepared from is no part of a run.
                data = replace(record.config.data, manual_dir=selectors.shared.get("data.manual_dir"))
                context = _configure(selectors, "a", replace(record.config, data=data, seed=0))
                if context is not None:
                    found = contexts.setdefault(context, {"a": {}, "b": {}})
                    found[side][record.config.seed] = record
    return contexts


def choose_context(contexts: Mapping[RunConfig, Mapping[str, Mapping[int, Record]]]) -> RunConfig | None:
    """Returns the context in which both arms have runs, or the only one there is; ``None`` where there is none.

    Raises:
        InputError: there are several; what they differ in is listed.
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
    """Returns the settings in which configurations differ, such as ``model.padding (same, valid)``."""
    values = [flatten(config) for config in configs]
    found = {path: dict.fromkeys(write_literal(each[path]) for each in values) for path in values[0]}
    return "; ".join(f"{path} ({', '.join(texts)})" for path, texts in found.items() if len(texts) > 1)


def _configure(selectors: Selectors, side: str, context: RunConfig) -> RunConfig | None:
    try:
        return configure(selectors, side, context)
    except InputError:  # such as one value a block too many for this network
        return None
