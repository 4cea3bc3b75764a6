"""Studies from dicts, TOML and files: every mistake is found, and all are said at once."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from ablations.language.mistakes import Mistakes, refusal
from ablations.language.reading_levels import check_keys, read_settings
from ablations.language.reading_sweeps import read_sweep
from ablations.language.study import DEFAULT_SEEDS, Study, Sweep
from cnnjax.config import RunConfig
from cnnjax.errors import InputError
from cnnjax.inputs import parse_toml, read_text
from cnnjax.rules import Interval, check, take_arrays
from cnnjax.setting_paths import list_defaults, nest, read_value, unnest

_KEYS = ("title", "seeds", "base", "sweep")
_MOST_SEEDS = 100_000
_Seed = Annotated[int, Interval(0, 2**32 - 1)]


def read_dict(values: Any, name: str, source: str = "study") -> Study:
    """Reads a study from plain dicts and lists: what `Study.to_dict` returns.

    Args:
        values: in the study language.
        name: of the study.
        source: where it comes from, as errors name it.

    Raises:
        InputError: all that is wrong with it.
    """
    mistakes = Mistakes(source)
    try:
        plain = take_arrays(values, "study")
    except InputError as error:
        raise refusal(source, [str(error)]) from None
    study = _read_study(plain, name, source, mistakes)
    mistakes.refuse()
    return study


def read_toml(text: str, name: str, source: str = "study") -> Study:
    """Reads a study from TOML, as `read_dict` does; raises `InputError` too where the text is not TOML."""
    try:
        values = parse_toml(text)
    except InputError as error:
        raise refusal(source, [str(error)]) from None
    return read_dict(values, name, source)


def read_file(path: Path, source: str | None = None) -> Study:
    """Reads a study from a TOML file, which gives it its name.

    Args:
        path: of the file.
        source: what errors name in place of `path`.

    Raises:
        InputError: the file cannot be read, or all that is wrong with it.
    """
    source = source or str(path)
    if not path.stem.isprintable():
        raise refusal(source, ["must be a file named in printable characters"])
    try:
        text = read_text(path)
    except InputError as error:
        raise refusal(source, [str(error)]) from None
    return read_toml(text, path.stem, source)


def read_seeds(value: Any, where: str) -> tuple[int, ...]:
    """Reads ``5`` (0 to 4), ``"3..9"`` (both included) or ``[0, 3, 7]``.

    Raises:
        InputError: it is none of these, empty, or has a seed twice or out of range.
    """
    if isinstance(value, str):
        return _read_interval(value, where)
    if isinstance(value, list | tuple):
        if not 1 <= len(value) <= _MOST_SEEDS:
            raise InputError(f"{where}: must be at least one seed and at most {_MOST_SEEDS:,}, not {len(value):,}")
        seeds = tuple(check(seed, _Seed, f"{where}[{index}]") for index, seed in enumerate(value))
        twice = [seed for seed, count in Counter(seeds).items() if count > 1]
        if twice:
            raise InputError(f"{where}: {twice[0]} is given twice")
        return seeds
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{where}={value!r}: must be a number of seeds, such as 5, or '0..9', or [0, 3, 7]")
    return tuple(range(check(value, Annotated[int, Interval(1, _MOST_SEEDS)], where)))


def _read_interval(text: str, where: str) -> tuple[int, ...]:
    match = re.fullmatch(r"([0-9]{1,10})\.\.([0-9]{1,10})", text)
    if not match:
        raise InputError(f"{where}={text!r}: must be the first and the last seed, such as '0..9'")
    first, last = (check(int(seed), _Seed, where) for seed in match.groups())
    if first > last:
        raise InputError(f"{where}={text!r}: must not end before it starts")
    if last - first >= _MOST_SEEDS:
        raise InputError(f"{where}={text!r}: must be at most {_MOST_SEEDS:,} seeds")
    return tuple(range(first, last + 1))


def _read_study(values: Any, name: str, source: str, mistakes: Mistakes) -> Study:
    if not isinstance(values, Mapping):
        mistakes.add(f"must be a table with {', '.join(_KEYS)}, not {values!r}")
        mistakes.refuse()
    for key in values:
        with mistakes.noted():
            check_keys({key: None}, _KEYS, "study")
    title = ""
    seeds: tuple[int, ...] = DEFAULT_SEEDS
    with mistakes.noted():
        title = _read_title(values)
    with mistakes.noted():
        seeds = read_seeds(values.get("seeds", list(DEFAULT_SEEDS)), "seeds")
    settings = _read_base(values.get("base", {}), mistakes)
    sweeps = _read_sweeps(values, mistakes)
    _check_labels(sweeps, settings, mistakes)
    return Study(name, title, settings, tuple(sweeps.values()), seeds, source)


def _read_title(values: Mapping[str, Any]) -> str:
    if "title" not in values:
        raise InputError("'title' is missing; it says in one line what the study asks")
    title = check(values["title"], str, "title")
    if not title.strip() or not title.isprintable():
        raise InputError(f"title={title!r}: must be one line of printable text")
    return title  # type: ignore[no-any-return]


def _read_base(table: Any, mistakes: Mistakes) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if not isinstance(table, dict):
        mistakes.add(f"base={table!r}: must be a table of settings, such as model.padding = 'same'")
        return settings
    if "seed" in table:
        mistakes.add("base.seed: the seeds of a study are its `seeds`")
    alone = True
    for path, value in unnest({key: value for key, value in table.items() if key != "seed"}):
        try:
            settings |= read_settings({path: value}, "base.")
        except InputError as error:
            mistakes.add(str(error))
            alone = False
    if alone:
        try:
            RunConfig.from_dict(nest(settings))
        except InputError as error:
            mistakes.add(f"base.{error}")
    return settings


def _read_sweeps(values: Mapping[str, Any], mistakes: Mistakes) -> dict[str, Sweep]:
    """Reads the sweeps, by the place that errors name; those with nothing to go on with are left out."""
    given = values.get("sweep")
    if isinstance(given, dict):
        tables = {"sweep": given}
    elif isinstance(given, list) and given:
        tables = {f"sweep[{index}]": table for index, table in enumerate(given)}
    else:
        problem = "'sweep' is missing" if given is None else f"sweep={given!r}"
        mistakes.add(f"{problem}: a study has at least one, such as [sweep.grid] with model.padding = [...]")
        return {}
    sweeps = {where: read_sweep(table, where, mistakes) for where, table in tables.items()}
    return {where: sweep for where, sweep in sweeps.items() if sweep}


def _check_labels(sweeps: Mapping[str, Sweep], base: Mapping[str, Any], mistakes: Mistakes) -> None:
    """Refuses a label that means one thing here and another there, ``base`` included."""
    settings = {**list_defaults(), **base}
    meanings: dict[tuple[str, str], dict[str, Any]] = {}
    levels = [(where, f, level) for where, sweep in sweeps.items() for f in sweep.factors for level in f.levels]
    for where, factor, level in levels:
        label = f"{where}: the label {level.label!r} of {factor.name}"
        is_base = all(read_value(path, settings[path]) == value for path, value in level.values.items())
        if meanings.setdefault((factor.name, level.label), level.values) != level.values:
            mistakes.add(f"{label} is that of another level in a sweep before")
        elif factor.is_composite and level.label == "base" and not is_base:
            mistakes.add(f"{label} stands for the base configuration, and these settings differ from it")
