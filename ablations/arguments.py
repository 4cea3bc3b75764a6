"""The study on the command line of plan, run and report.

It is a study by name, a file, or axes; ``--set`` changes its base and ``--seeds`` its seeds. Values are written as in a
file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from ablations.study.grid import MOST_TRIALS
from ablations.study.mistakes import Mistakes
from ablations.study.reading import StudyReader, change_study, find_study, list_shipped
from ablations.study.study import DEFAULT_SEEDS, StudyConfig, Sweep
from cnnjax.console.arguments import ADVANCED, Option
from cnnjax.errors import InputError
from cnnjax.models.own_module import WHERE
from cnnjax.runs import trial_function
from cnnjax.runs.config import RunConfig
from cnnjax.settings.checking import Count, check
from cnnjax.settings.code import list_assigned
from cnnjax.settings.schema import Schema, read_literal, split_assignment

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class StudyArguments:
    """A study, and changes to it."""

    study: Annotated[str | None, Option(metavar="STUDY", positional=True)] = None
    """A shipped study, such as padding, or a .toml file."""
    axis: Annotated[tuple[str, ...], Option(metavar="FACTOR=LEVEL,...")] = ()
    """A factor and its levels, such as model.padding=valid,same; several make a grid. Instead of STUDY."""
    set: Annotated[tuple[str, ...], Option(metavar="SETTING=VALUE")] = ()
    """A setting of the base, such as train.epochs=1."""
    seeds: Annotated[str | None, Option(metavar="SEEDS")] = None
    """Replaces the study's seeds: 5 for 0 to 4, 3..9, or 1,5,7."""
    max_trials: Annotated[int, ADVANCED] = MOST_TRIALS
    """Refuse a study with more trials, that is cells times seeds."""


def read_study(arguments: StudyArguments, find: Callable[[str], StudyConfig] = find_study) -> StudyConfig:
    """Returns the study of a command line.

    Args:
        arguments: the arguments as typed.
        find: reads a study by its name.

    Raises:
        InputError: no study or two are given, or lists all mistakes of the study.
    """
    check(arguments.max_trials, Count, "--max-trials")
    if arguments.study is None and not arguments.axis:
        raise InputError(f"STUDY: name one of {', '.join(list_shipped())}, or a .toml file, or give --axis")
    if arguments.study is not None and arguments.axis:
        raise InputError(f"--axis: the study {arguments.study} has factors of its own; give STUDY or --axis, not both")
    mistakes = Mistakes(COMMAND_LINE)
    named = {where: list_assigned(arguments.set, where) for where in (WHERE, trial_function.WHERE)}
    assigned = {where: references[-1] for where, references in named.items() if references}
    study = find(arguments.study) if arguments.study is not None else _read_axes(arguments.axis, assigned, mistakes)
    study = replace(study, settings={**study.settings, **assigned})
    settings = _read_assignments(arguments.set, study.schema, mistakes)
    seeds = None if arguments.seeds is None else _read_seed_text(arguments.seeds)
    study = change_study(study, settings, seeds, ("--set ", "--seeds"), mistakes)
    mistakes.refuse()
    return replace(study, name=f"axes-{study.digest}") if arguments.axis else study


def _read_axes(axes: tuple[str, ...], assigned: Mapping[str, str], mistakes: Mistakes) -> StudyConfig:
    table: dict[str, Any] = {}
    for axis in axes:
        with mistakes.noted():
            name, text = split_assignment(axis, "--axis", "model.padding=valid,same")
            if name in table:
                raise InputError(f"--axis {name}: given twice")
            table[name] = _read_list(text, f"--axis {name}")
    schema = RunConfig.schema([assigned, table])
    factors = StudyReader(schema, mistakes).read_factors(table, "--axis ") if table else ()
    title = " x ".join(factor.name for factor in factors)
    return StudyConfig("axes", title, {}, (Sweep("grid", factors),), DEFAULT_SEEDS, COMMAND_LINE)


def _read_assignments(assignments: tuple[str, ...], schema: Schema, mistakes: Mistakes) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for assignment in assignments:
        with mistakes.noted():
            if split_assignment(assignment, "--set", "train.epochs=1")[0] == "seed":
                raise InputError("--set seed: the seeds are given with --seeds")
            path, value = schema.read_assignment(assignment, "--set")
            if path in settings:
                raise InputError(f"--set {path}: given twice")
            settings[path] = value
    return settings


def _read_list(text: str, where: str) -> Any:
    try:
        return read_literal(f"[{text}]")
    except InputError:
        raise InputError(
            f"{where}={text!r}: must be levels with commas between them, such as valid,same; "
            "a function with arguments is quoted: cross_entropy,'nets.py:focal(gamma=1.0)'"
        ) from None


def _read_seed_text(text: str) -> Any:
    if ".." in text:
        return text.strip()
    try:
        return read_literal(f"[{text}]" if "," in text and not text.startswith("[") else text)
    except InputError:
        return text
