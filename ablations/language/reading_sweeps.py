"""Reading a sweep: its one kind, its factors, and the conditions that leave cells or factors out."""

import graphlib
import typing
from collections.abc import Mapping
from typing import Any

from ablations.language.conditions import Clause, Condition, Operator
from ablations.language.levels import Factor, Level
from ablations.language.mistakes import Mistakes
from ablations.language.reading_levels import check_composite_name, check_keys, read_arm, read_factors
from ablations.language.study import DEFAULT_ARM, Kind, Sweep
from cnnjax.config import Count
from cnnjax.errors import InputError
from cnnjax.rules import Interval, check, near_match
from cnnjax.setting_paths import freeze, parse_value, read_value, unnest

_KINDS: tuple[Kind, ...] = typing.get_args(Kind)
_OWN_KEYS = {"random": ("draws", "draw_seed"), "list": ("factor",)}
_Known = Mapping[str, Factor | None]  # the factors of a sweep by name; those with a mistake are not judged further
_OPERATORS = tuple(operator for operator in typing.get_args(Operator) if operator != "is")


def read_sweep(table: Any, where: str, mistakes: Mistakes) -> Sweep | None:
    """Reads one sweep; ``None`` where a mistake leaves nothing to go on with.

    Args:
        table: as TOML has it.
        where: what an error names, such as ``sweep[0]``.
        mistakes: takes what is wrong.
    """
    try:
        kind = _read_kind(table, where)
        factors = _read_factors(table, kind, where, mistakes)
    except InputError as error:
        mistakes.add(str(error))
        return None
    for key in table:
        with mistakes.noted():
            check_keys({key: None}, (kind, *_OWN_KEYS.get(kind, ()), "exclude", "only_if"), where)
    draws, draw_seed = _read_draws(table, where, mistakes) if kind == "random" else (0, 0)
    known = _list_known(table[kind], factors)
    exclude = _read_exclude(table.get("exclude", []), known, f"{where}.exclude", mistakes)
    only_if = _read_only_if(table.get("only_if", {}), known, f"{where}.only_if", mistakes)
    return Sweep(kind, factors, exclude, only_if, draws, draw_seed)


def _read_kind(table: Any, where: str) -> Kind:
    if not isinstance(table, dict):
        raise InputError(f"{where}={table!r}: must be a table with one of {', '.join(_KINDS)}")
    found = [kind for kind in _KINDS if kind in table]
    if len(found) != 1:
        unknown = [key for key in table if key not in ("exclude", "only_if", *found, *sum(_OWN_KEYS.values(), ()))]
        nearest = "".join(near_match(key, _KINDS) for key in unknown[:1])
        given = f"it has {' and '.join(found)}" if found else "it has none"
        raise InputError(f"{where}: must have exactly one of {', '.join(_KINDS)}; {given}{nearest}")
    return found[0]


def _list_known(given: Any, factors: tuple[Factor, ...]) -> _Known:
    known: dict[str, Factor | None] = {factor.name: factor for factor in factors}
    if isinstance(given, list):
        return {name: arm if arm and len(arm.levels) == len(given) else None for name, arm in known.items()}
    for name, values in unnest(given) if isinstance(given, dict) else ():
        factor = known.get(name)
        is_whole = factor is not None and (factor.range or len(factor.levels) == len(values))
        known[name] = factor if is_whole else None
    return known


def _read_factors(table: Mapping[str, Any], kind: Kind, where: str, mistakes: Mistakes) -> tuple[Factor, ...]:
    if kind == "list":
        return _read_list(table, where, mistakes)
    factors = read_factors(table[kind], f"{where}.{kind}.", mistakes, ranges=kind == "random")
    lengths = {factor.name: len(factor.levels) for factor in factors}
    given = dict(unnest(table[kind])) if isinstance(table[kind], dict) else {}
    counts = {name: len(given[name]) for name in lengths if isinstance(given[name], list)}
    if kind == "zip" and len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
        mistakes.add(f"{where}.zip: factors must have equally many levels, not {listed}")
    if kind == "leave_one_out":
        for name, count in counts.items():
            if count != 1:
                mistakes.add(
                    f"{where}.leave_one_out.{name}: must have one level, the one that is left out, not {count}"
                )
    return factors


def _read_list(table: Mapping[str, Any], where: str, mistakes: Mistakes) -> tuple[Factor, ...]:
    name = check_composite_name(table.get("factor", DEFAULT_ARM), f"{where}.factor")
    entries = table["list"]
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{where}.list={entries!r}: must be a list of at least one table of settings")
    arms: dict[str, Level] = {}
    for index, entry in enumerate(entries):
        with mistakes.noted():
            arm = read_arm(entry, f"{where}.list[{index}]")
            if arm.label in arms:
                raise InputError(f"{where}.list[{index}]: label {arm.label!r} is that of another entry")
            arms[arm.label] = arm
    return (Factor(name, tuple(arms.values())),)


def _read_draws(table: Mapping[str, Any], where: str, mistakes: Mistakes) -> tuple[int, int]:
    draws = draw_seed = 0
    with mistakes.noted():
        if "draws" not in table:
            raise InputError(f"{where}: 'draws' is missing; a random sweep says how many, such as draws = 20")
        draws = check(table["draws"], Count, f"{where}.draws")
    with mistakes.noted():
        draw_seed = check(table.get("draw_seed", 0), typing.Annotated[int, Interval(0)], f"{where}.draw_seed")
    return draws, draw_seed


def _read_exclude(tables: Any, factors: _Known, where: str, mistakes: Mistakes) -> tuple[Condition, ...]:
    if not isinstance(tables, list):
        mistakes.add(f"{where}={tables!r}: must be a list of tables, such as [{{model.padding = 'valid'}}]")
        return ()
    conditions = []
    for index, table in enumerate(tables):
        with mistakes.noted():
            conditions.append(_read_condition(table, factors, f"{where}[{index}]"))
    return tuple(conditions)


def _read_only_if(table: Any, factors: _Known, where: str, mistakes: Mistakes) -> dict[str, Condition]:
    conditions: dict[str, Condition] = {}
    with mistakes.noted():
        if not isinstance(table, dict):
            raise InputError(f"{where}={table!r}: must be a table of conditions by factor")
        for name, inner in unnest(table, factors):
            with mistakes.noted():
                _check_known(name, factors, where)
                conditions[name] = _read_condition(inner, factors, f"{where}.{name}")
        needs = {name: [clause.factor for clause in condition] for name, condition in conditions.items()}
        try:
            graphlib.TopologicalSorter(needs).prepare()
        except graphlib.CycleError as error:
            raise InputError(f"{where}: goes in a circle: {' needs '.join(reversed(error.args[1]))}") from None
    return conditions


def _read_condition(table: Any, factors: _Known, where: str) -> Condition:
    if not isinstance(table, dict) or not table:
        raise InputError(f"{where}={table!r}: must be a table of levels by factor, such as {{model.padding = 'valid'}}")
    clauses: list[Clause] = []
    for name, value in unnest(table, factors):
        factor = _check_known(name, factors, where)
        if factor is None:
            continue
        if isinstance(value, dict):
            clauses += _read_operators(value, factor, f"{where}.{name}")
        else:
            clauses.append(Clause(name, "is", _read_word(value, factor, f"{where}.{name}")))
    return tuple(clauses)


def _read_operators(table: Mapping[str, Any], factor: Factor, where: str) -> list[Clause]:
    if not table:
        raise InputError(f"{where}={{}}: must have one of {', '.join(_OPERATORS)}")
    check_keys(table, _OPERATORS, where)
    return [Clause(factor.name, op, _read_operand(op, value, factor, f"{where}.{op}")) for op, value in table.items()]  # type: ignore[arg-type]


def _read_operand(operator: str, value: Any, factor: Factor, where: str) -> Any:
    if operator == "not":
        return _read_word(value, factor, where)
    if operator == "any_of":
        if not isinstance(value, list) or not value:
            raise InputError(f"{where}={value!r}: must be a list of at least one level")
        return tuple(_read_word(word, factor, f"{where}[{index}]") for index, word in enumerate(value))
    if factor.is_composite:
        raise InputError(f"{where}: {factor.name} has labels and no numbers; use any_of")
    return check(value, float, where) if not isinstance(value, int) else check(value, int, where)


def _read_word(value: Any, factor: Factor, where: str) -> Any:
    """Reads a value or label of a factor; a legal value that no level has, or has any more, is none's mistake."""
    labels = [level.label for level in factor.levels]
    if isinstance(value, str) and (value in labels or (factor.is_composite and value == "base")):
        return value
    if factor.is_composite:
        raise InputError(
            f"{where}={value!r}: must be a label of {factor.name}: {_list(labels)}{near_match(value, labels)}"
        )
    read_value(factor.name, parse_value(factor.name, value), where)
    return parse_value(factor.name, freeze(value))


def _check_known(name: str, factors: _Known, where: str) -> Factor | None:
    if name not in factors:
        known = f"; legal: {_list(list(factors))}" if factors else ""
        raise InputError(f"{where}: {name!r} is no factor of this sweep{near_match(name, factors)}{known}")
    return factors[name]


def _list(words: list[str]) -> str:
    return ", ".join([*words[:10], "..."] if len(words) > 10 else words)
