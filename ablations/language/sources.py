"""Where the commands get their study: a shipped one by name, a file, or axes typed on the command line.

``--set`` changes the base and ``--seeds`` the seeds of either. What is typed means what it means in a file.
"""

import os.path
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from ablations.language.expanding import MOST_TRIALS
from ablations.language.mistakes import Mistakes
from ablations.language.paths import check_path, nest
from ablations.language.reading import read_file, read_seeds
from ablations.language.reading_levels import read_factors, read_settings
from ablations.language.study import DEFAULT_SEEDS, Study, Sweep
from cnnjax.config import Count, RunConfig
from cnnjax.errors import InputError
from cnnjax.literals import read_literal
from cnnjax.rules import check, near_match

SHIPPED = Path(__file__).parents[1] / "studies"
COMMAND_LINE = "command line"
_TEXTS = ("data.name", "data.manual_dir")


@dataclass(frozen=True)
class StudyArguments:
    """Which study, and what is changed of it."""

    study: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")] = None
    """A shipped study, such as padding, or a .toml file."""
    axis: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FACTOR=LEVEL,...")] = ()
    """A factor and its levels, such as model.padding=valid,same; several make a grid. In place of STUDY."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="SETTING=VALUE")] = ()
    """A setting of the base, such as train.epochs=1."""
    seeds: Annotated[str | None, tyro.conf.arg(metavar="SEEDS")] = None
    """The seeds in place of the study's: 5 for 0 to 4, 3..9, or 1,5,7."""
    max_trials: int = MOST_TRIALS
    """Refuse a study of more trials, which are cells times seeds."""


def read_study(arguments: StudyArguments) -> Study:
    """Returns the study that a command line asks for.

    Raises:
        InputError: no study or two, or all that is wrong with it.
    """
    check(arguments.max_trials, Count, "--max-trials")
    if arguments.study is None and not arguments.axis:
        raise InputError(f"STUDY: name one of {', '.join(list_shipped())}, or a .toml file, or give --axis")
    if arguments.study is not None and arguments.axis:
        raise InputError(f"--axis: the study {arguments.study} has factors of its own; give STUDY or --axis, not both")
    mistakes = Mistakes(COMMAND_LINE)
    study = _read_named(arguments.study) if arguments.study is not None else _read_axes(arguments.axis, mistakes)
    study = change_study(study, arguments, mistakes)
    mistakes.refuse()
    return study


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
    study = _change(_read_named(name), settings or {}, seeds, ("settings ", "seeds"), mistakes)
    mistakes.refuse()
    return study


def _read_named(name: str) -> Study:
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


def change_study(study: Study, arguments: StudyArguments, mistakes: Mistakes) -> Study:
    """Returns the study with the base and the seeds of the command line; notes what is wrong with them."""
    settings = _read_assignments(arguments.set, mistakes)
    seeds = None if arguments.seeds is None else _read_seed_text(arguments.seeds)
    return _change(study, settings, seeds, ("--set ", "--seeds"), mistakes)


def _change(study: Study, settings: Mapping[str, Any], seeds: Any, where: tuple[str, str], mistakes: Mistakes) -> Study:
    varied = {path: factor.name for sweep in study.sweeps for factor in sweep.factors for path in factor.paths}
    read: dict[str, Any] = {}
    for path, value in settings.items():
        with mistakes.noted():
            if path in varied:
                raise InputError(f"{where[0]}{path}: the factor {varied[path]} of the study sets it already")
            read |= read_settings({path: value}, where[0])
    changed = replace(study, settings={**study.settings, **read})
    if read:
        with mistakes.noted():
            RunConfig.from_dict(nest(changed.settings))
    if seeds is not None:
        with mistakes.noted():
            changed = replace(changed, seeds=read_seeds(seeds, where[1]))
    return changed


def _read_axes(axes: tuple[str, ...], mistakes: Mistakes) -> Study:
    table: dict[str, Any] = {}
    for axis in axes:
        with mistakes.noted():
            name, text = _split(axis, "--axis", "model.padding=valid,same")
            if name in table:
                raise InputError(f"--axis {name}: given twice")
            table[name] = _read_list(text, f"--axis {name}")
    factors = read_factors(table, "--axis ", mistakes) if table else ()
    title = " x ".join(factor.name for factor in factors)
    return Study("command-line", title, {}, (Sweep("grid", factors),), DEFAULT_SEEDS, COMMAND_LINE)


def _read_assignments(assignments: tuple[str, ...], mistakes: Mistakes) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for assignment in assignments:
        with mistakes.noted():
            path, text = _split(assignment, "--set", "train.epochs=1")
            if path == "seed":
                raise InputError("--set seed: the seeds are given with --seeds")
            check_path(path, "--set")
            if path in settings:
                raise InputError(f"--set {path}: given twice")
            settings[path] = text if path in _TEXTS else read_literal(text)
    return settings


def _split(text: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"{option} {text!r}: must be such as {example}")
    return name.strip(), value.strip()


def _read_list(text: str, where: str) -> Any:
    try:
        return read_literal(f"[{text}]")
    except InputError:
        raise InputError(f"{where}={text!r}: must be levels with commas between them, such as valid,same") from None


def _read_seed_text(text: str) -> Any:
    if ".." in text:
        return text.strip()
    try:
        return read_literal(f"[{text}]" if "," in text and not text.startswith("[") else text)
    except InputError:
        return text
