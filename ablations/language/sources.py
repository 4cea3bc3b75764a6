"""Where a study comes from: shipped with the package, by its name, or a file; and what is changed of it."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablations.language.mistakes import Mistakes
from ablations.language.reading import read_file, read_seeds
from ablations.language.reading_levels import read_settings
from ablations.language.study import Study
from cnnjax.config import RunConfig
from cnnjax.errors import InputError
from cnnjax.rules import near_match, take_arrays
from cnnjax.setting_paths import nest

SHIPPED = Path(__file__).parents[1] / "studies"


def load_study(name: str, settings: Mapping[str, Any] | None = None, seeds: Any = None) -> Study:
    """Reads a shipped study, or else the file of this path.

    Args:
        name: of a shipped study, or path of a ``.toml`` file.
        settings: of the base, by path, in place of the study's own, such as ``{"train.epochs": 1}``.
        seeds: in place of the study's own: a number of them, ``"0..9"``, or a list.

    Raises:
        InputError: there is neither, or all that is wrong with it.
    """
    mistakes = Mistakes("load_study")
    study = change_study(find_study(name), settings or {}, seeds, ("settings ", "seeds"), mistakes)
    mistakes.refuse()
    return study


def find_study(name: str) -> Study:
    """Reads a shipped study, or else the file of this path; raises as `load_study`."""
    if not isinstance(name, str | os.PathLike):
        raise InputError(f"study {name!r}: must be the name of a shipped study or a path, not {type(name).__name__}")
    shipped = list_shipped()
    if name in shipped:
        return read_file(SHIPPED / f"{name}.toml", source=name)
    if not os.path.lexists(name):
        near = near_match(Path(name).stem, shipped)
        raise InputError(f"{name}: neither a file nor a shipped study{near}; shipped: {', '.join(shipped)}")
    return read_file(Path(name))


def list_shipped() -> tuple[str, ...]:
    """Returns the names of the shipped studies, sorted."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def change_study(
    study: Study, settings: Mapping[str, Any], seeds: Any, where: tuple[str, str], mistakes: Mistakes
) -> Study:
    """Returns the study with other settings of the base and other seeds.

    Args:
        study: any.
        settings: by path.
        seeds: as a study has them; ``None`` keeps the study's.
        where: what errors put before a setting, and what they call the seeds.
        mistakes: takes what is wrong.
    """
    varied = {path: factor.name for sweep in study.sweeps for factor in sweep.factors for path in factor.paths}
    read: dict[str, Any] = {}
    for path, given in settings.items():
        with mistakes.noted():
            value = take_arrays(given, f"{where[0]}{path}")
            if path in varied:
                raise InputError(f"{where[0]}{path}: the factor {varied[path]} of the study sets it already")
            read |= read_settings({path: value}, where[0])
    changed = replace(study, settings={**study.settings, **read})
    if read:
        with mistakes.noted():
            RunConfig.from_dict(nest(changed.settings))
    if seeds is not None:
        with mistakes.noted():
            changed = replace(changed, seeds=read_seeds(take_arrays(seeds, where[1]), where[1]))
    return changed
