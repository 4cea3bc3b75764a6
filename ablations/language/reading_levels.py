"""Reading the factors of a sweep and their levels, each checked on its own, whatever the other settings are."""

import math
import re
from collections.abc import Mapping
from typing import Any

from ablations.language.levels import Factor, Level, Range, write_label
from ablations.language.mistakes import Mistakes
from cnnjax.errors import InputError
from cnnjax.literals import read_literal
from cnnjax.rules import check, choice, near_match
from cnnjax.setting_paths import (
    SECTIONS,
    check_path,
    freeze,
    parse_value,
    read_value,
    suggest_path,
    unnest,
    write_literal,
)

_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_RESERVED = {"seed": "the seeds of a study are its `seeds`", "seeds": "the seeds of a study are its `seeds`"}


def read_factors(table: Any, where: str, mistakes: Mistakes, *, ranges: bool = False) -> tuple[Factor, ...]:
    """Reads a table of factors.

    Args:
        table: levels by path or name.
        where: what an error puts before the path, such as ``sweep.grid.``.
        mistakes: takes what is wrong; a factor with a mistake is left out.
        ranges: whether ``{low, high}`` may stand for levels.
    """
    if not isinstance(table, dict) or not unnest(table):
        mistakes.add(f"{where.rstrip('. ')}={table!r}: must be a table of factors, such as model.padding = [...]")
        return ()
    entries = unnest(table)
    factors: dict[str, Factor] = {}
    for name, value in entries:
        with mistakes.noted():
            if name in factors:
                raise InputError(f"{where}{name}: given twice")
            _check_name(name, where)
            if ranges and isinstance(value, dict):
                factors[name] = Factor(name, range=read_range(name, value, f"{where}{name}"))
            else:
                factors[name] = Factor(name, read_levels(name, value, f"{where}{name}", mistakes))
    _check_overlaps(tuple(factors.values()), where, mistakes)
    return tuple(factors.values())


def read_levels(name: str, values: Any, where: str, mistakes: Mistakes) -> tuple[Level, ...]:
    """Reads the levels of a factor; those with a mistake are left out."""
    if not isinstance(values, list) or not values:
        raise InputError(f"{where}={values!r}: must be a list of at least one level")
    levels: dict[str, Level] = {}
    for index, value in enumerate(values):
        with mistakes.noted():
            level = _read_level(name, value, f"{where}[{index}]")
            if level.label in levels:
                raise InputError(f"{where}[{index}]: label {level.label!r} is that of another level of {name}")
            levels[level.label] = level
    return tuple(levels.values())


def read_settings(table: Any, where: str) -> dict[str, Any]:
    """Reads a table of settings, such as a base or the `set` of a level, each checked on its own.

    Args:
        table: values by path, or nested.
        where: what an error puts before the path, such as ``base.``.

    Raises:
        InputError: an unknown setting, one given twice, or a value that it cannot have.
    """
    if not isinstance(table, dict):
        place = where.rstrip(". ")
        raise InputError(f"{place}={table!r}: must be a table of settings, such as {{model.padding = 'same'}}")
    settings: dict[str, Any] = {}
    for path, value in unnest(table):
        if check_path(path, where.rstrip(". ")) in settings:
            raise InputError(f"{where}{path}: given twice")
        settings[path] = parse_value(path, value)
        read_value(path, settings[path], f"{where}{path}")
    return settings


def read_arm(table: Any, where: str) -> Level:
    """Reads one entry of a list: settings, and its label beside them."""
    if not isinstance(table, dict):
        raise InputError(f"{where}={table!r}: must be a table of settings, such as {{model.padding = 'same'}}")
    settings = read_settings({key: value for key, value in table.items() if key != "label"}, f"{where}.")
    return Level(_read_label(table.get("label", write_label(settings)), where), settings)


def read_range(path: str, table: Mapping[str, Any], where: str) -> Range:
    """Reads ``{low, high, scale, integer}``."""
    check_keys(table, ("low", "high", "scale", "integer"), where)
    for end in ("low", "high"):
        if end not in table:
            raise InputError(f"{where}: {end!r} is missing; a range is {{low = ..., high = ...}}")
    integer = check(table.get("integer", False), bool, f"{where}.integer")
    scale = choice(table.get("scale", "linear"), ("linear", "log"), f"{where}.scale")
    low, high = (check(table[end], int if integer else float, f"{where}.{end}") for end in ("low", "high"))
    if not low < high:
        raise InputError(f"{where}: low={low} must be < high={high}")
    if scale == "log" and low <= 0:
        raise InputError(f"{where}.low={low}: must be > 0 on a log scale")
    if not integer and not math.isfinite(high - low):
        raise InputError(f"{where}: high - low must be a finite number")
    if not integer and _takes(path, int(high)) and not _takes(path, high):
        raise InputError(f"{where}: must be a range of integers; add integer = true")
    for end, value in (("low", low), ("high", high)):
        read_value(path, value, f"{where}.{end}")
    return Range(low, high, scale, integer)


def check_composite_name(name: Any, where: str) -> str:
    """Returns `name` if a factor of several settings can have it; raises `InputError` otherwise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"{where}: {name!r} must be letters, digits, _ and -")
    if name in SECTIONS or name in _RESERVED:
        reason = _RESERVED.get(name, f"{name} is a table of settings")
        raise InputError(f"{where}: a factor cannot be named {name!r}; {reason}")
    return name


def check_keys(table: Mapping[str, Any], legal: tuple[str, ...], where: str) -> None:
    """Raises `InputError` for the first key that is not legal, with the nearest one."""
    for key in table:
        if key not in legal:
            raise InputError(f"{where}: unknown key {key!r}{near_match(key, legal)}; legal: {', '.join(legal)}")


def _takes(path: str, value: Any) -> bool:
    try:
        read_value(path, value)
    except InputError:
        return False
    return True


def _check_name(name: str, where: str) -> None:
    if name == "data.manual_dir":
        raise InputError(f"{where}{name}: cannot be a factor; the folder changes no result")
    if "." in name or not _NAME.fullmatch(name):
        check_path(name, where.rstrip(". "))
    else:
        check_composite_name(name, where.rstrip(". "))


def _read_level(name: str, value: Any, where: str) -> Level:
    if "." not in name:
        return _read_composite(name, value, where)
    if not isinstance(value, dict):
        setting = parse_value(name, value)
        read_value(name, setting, where)
        return Level(_read_label(write_literal(setting), where), {name: setting})
    check_keys(value, ("label", "value"), where)
    if "value" not in value:
        raise InputError(f"{where}: 'value' is missing; a level is a value, or {{label = ..., value = ...}}")
    setting = parse_value(name, value["value"])
    normal = read_value(name, setting, f"{where}.value")
    label = _read_label(value.get("label", write_literal(setting)), where)
    _check_label_means(name, label, normal, where)
    return Level(label, {name: setting})


def _read_composite(name: str, value: Any, where: str) -> Level:
    if not isinstance(value, dict) or "set" not in value:
        legal = "must be {label = ..., set = {...}}"
        raise InputError(f"{where}={value!r}: a level of {name!r}, which has no dot, {legal}{suggest_path(name)}")
    check_keys(value, ("label", "set"), where)
    settings = read_settings(value["set"], f"{where}.set.")
    return Level(_read_label(value.get("label", write_label(settings)), where), settings)


def _read_label(label: Any, where: str) -> str:
    if not isinstance(label, str) or not label.strip() or label != label.strip() or not label.isprintable():
        raise InputError(f"{where}: label {label!r} must be one line of printable text, without spaces around it")
    return label


def _check_label_means(name: str, label: str, normal: Any, where: str) -> None:
    """Refuses the label of one value for another: reports and conditions take it at its word."""
    if name == "data.name":
        return
    try:
        other = read_value(name, parse_value(name, freeze(read_literal(label))))
    except InputError:
        return
    if other != normal:
        raise InputError(f"{where}: label {label!r} is itself a value of {name}, and not this one")


def _check_overlaps(factors: tuple[Factor, ...], where: str, mistakes: Mistakes) -> None:
    setters: dict[str, str] = {}
    for factor in factors:
        for path in factor.paths:
            first = setters.setdefault(path, factor.name)
            if first != factor.name:
                mistakes.add(f"{where}{factor.name}: sets {path}, which {first} sets too")
