"""Reading a study: by the name of a shipped one, from a TOML file, or from plain dicts and lists.

Every value is checked by itself, and all mistakes are reported together. Whether the values of a cell can go together
is checked when the study is expanded.
"""

import contextlib
import functools
import graphlib
import math
import os
import re
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from ablations.study.mistakes import Mistakes, refusal
from ablations.study.study import (
    DEFAULT_FACTOR,
    DEFAULT_SEEDS,
    Clause,
    Condition,
    Factor,
    Kind,
    Level,
    Operator,
    Range,
    StudyConfig,
    Sweep,
    write_label,
)
from cnnjax.errors import InputError
from cnnjax.machine.files import parse_toml, read_text
from cnnjax.runs.config import RunConfig
from cnnjax.settings.checking import Count, Interval, check, check_keys, choice, near_match, show, take_arrays
from cnnjax.settings.schema import Schema, freeze, read_literal, unnest, write_literal

SHIPPED = Path(__file__).parents[1] / "studies"
_KEYS = ("title", "seeds", "base", "sweep")
_KINDS: tuple[Kind, ...] = typing.get_args(Kind)
_OWN_KEYS = {"random": ("draws", "draw_seed"), "list": ("factor",)}
_OPERATORS = tuple(operator for operator in typing.get_args(Operator) if operator != "is")
_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_RESERVED = {"seed": "the seeds of a study are its `seeds`", "seeds": "the seeds of a study are its `seeds`"}
_MOST_SEEDS = 100_000
_Seed = Annotated[int, Interval(0, 2**32 - 1)]
_Known = Mapping[str, Factor | None]  # the factors of a sweep by name; None for one with a mistake


def load_study(name: str, settings: Mapping[str, Any] | None = None, seeds: Any = None) -> StudyConfig:
    """Reads a shipped study or a file.

    Args:
        name: the name of a shipped study, or the path of a ``.toml`` file.
        settings: settings of the base to change, by path, such as ``{"train.epochs": 1}``.
        seeds: replaces the study's seeds: a number of seeds, ``"0..9"``, or a list.

    Raises:
        InputError: the study does not exist, or lists all its mistakes.
    """
    mistakes = Mistakes("load_study")
    study = change_study(find_study(name), settings or {}, seeds, ("settings ", "seeds"), mistakes)
    mistakes.refuse()
    return study


def find_study(name: str) -> StudyConfig:
    """Reads a shipped study, or the file at this path; raises as `load_study`."""
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


def read_file(path: Path, source: str | None = None) -> StudyConfig:
    """Reads a study from a TOML file; the study is named after the file.

    Args:
        path: of the file.
        source: the name in error messages; `path` by default.

    Raises:
        InputError: the file cannot be read, or lists all mistakes of the study.
    """
    source = source or str(path)
    if not path.stem.isprintable():
        raise refusal(source, ["must be a file named in printable characters"])
    try:
        text = read_text(path)
    except InputError as error:
        raise refusal(source, [str(error)]) from None
    return read_toml(text, path.stem, source)


def read_toml(text: str, name: str, source: str = "study") -> StudyConfig:
    """Reads a study from TOML text, as `read_dict` does; raises `InputError` if it is not TOML."""
    try:
        values = parse_toml(text)
    except InputError as error:
        raise refusal(source, [str(error)]) from None
    return read_dict(values, name, source)


def read_dict(values: Any, name: str, source: str = "study") -> StudyConfig:
    """Reads a study from plain dicts and lists, the form that `StudyConfig.to_dict` returns.

    Args:
        values: the tables of the study.
        name: of the study.
        source: the name in error messages.

    Raises:
        InputError: lists all mistakes of the study.
    """
    try:
        plain = take_arrays(values, "study")
        schema = RunConfig.schema(plain)
    except InputError as error:
        raise refusal(source, [str(error)]) from None
    mistakes = Mistakes(source)
    study = StudyReader(schema, mistakes).read_study(plain, name, source)
    mistakes.refuse()
    return study


def change_study(
    study: StudyConfig, settings: Mapping[str, Any], seeds: Any, where: tuple[str, str], mistakes: Mistakes
) -> StudyConfig:
    """Returns the study with some settings of its base, or its seeds, changed.

    Args:
        study: any.
        settings: new settings of the base, by path.
        seeds: new seeds, in any form that a study accepts; ``None`` keeps the study's.
        where: the prefix of a setting, and the name of the seeds, in error messages.
        mistakes: collects the mistakes.
    """
    varied = {path: factor.name for sweep in study.sweeps for factor in sweep.factors for path in factor.paths}
    reader = StudyReader(study.schema, mistakes)
    read: dict[str, Any] = {}
    for path, given in settings.items():
        with mistakes.noted():
            value = take_arrays(given, f"{where[0]}{path}")
            if path in varied:
                raise InputError(f"{where[0]}{path}: the factor {varied[path]} of the study sets it already")
            read |= reader.read_settings({path: value}, where[0])
    changed = replace(study, settings={**study.settings, **read})
    if read:
        with mistakes.noted():
            _ = changed.base
    if seeds is not None:
        with mistakes.noted():
            changed = replace(changed, seeds=read_seeds(take_arrays(seeds, where[1]), where[1]))
    return changed


class StudyReader:
    """Reads the tables of a study; collects every mistake and leaves out the part that has it.

    Attributes:
        schema: the settings that factors may vary.
        mistakes: collects the mistakes.
    """

    def __init__(self, schema: Schema, mistakes: Mistakes) -> None:
        self.schema, self.mistakes = schema, mistakes

    def read_study(self, values: Any, name: str, source: str) -> StudyConfig:
        """Reads a study from plain dicts and lists."""
        if not isinstance(values, Mapping):
            self.mistakes.add(f"must be a table with {', '.join(_KEYS)}, not {values!r}")
            self.mistakes.refuse()
        for key in values:
            with self.mistakes.noted():
                check_keys({key: None}, _KEYS, "study")
        title = ""
        seeds: tuple[int, ...] = DEFAULT_SEEDS
        with self.mistakes.noted():
            title = _read_title(values)
        with self.mistakes.noted():
            seeds = read_seeds(values.get("seeds", list(DEFAULT_SEEDS)), "seeds")
        settings, is_legal = self._read_base(values.get("base", {}))
        sweeps = self._read_sweeps(values)
        self._check_labels(sweeps, settings)
        study = StudyConfig(name, title, settings, tuple(sweeps.values()), seeds, source)
        if is_legal and self._has_whole_model(settings):
            try:
                _ = study.base
            except InputError as error:
                self.mistakes.add(f"base.{error}")
        return study

    def _read_base(self, table: Any) -> tuple[dict[str, Any], bool]:
        """Returns the settings of the base, and whether each is legal by itself."""
        settings: dict[str, Any] = {}
        if not isinstance(table, dict):
            self.mistakes.add(f"base={show(table)}: must be a table of settings, such as model.padding = 'same'")
            return settings, False
        if "seed" in table:
            self.mistakes.add("base.seed: the seeds of a study are its `seeds`")
        alone = True
        for path, value in unnest({key: value for key, value in table.items() if key != "seed"}):
            try:
                settings |= self.read_settings({path: value}, "base.")
            except InputError as error:
                self.mistakes.add(str(error))
                alone = False
        return settings, alone

    def _has_whole_model(self, settings: Mapping[str, Any]) -> bool:
        """Whether the base names the module that its settings belong to, if the study has modules of the user."""
        return "model.module" not in self.schema.paths or "model.module" in settings

    def _read_sweeps(self, values: Mapping[str, Any]) -> dict[str, Sweep]:
        """Returns the readable sweeps by their place in the study, such as ``sweep[0]``."""
        given = values.get("sweep")
        if isinstance(given, dict):
            tables = {"sweep": given}
        elif isinstance(given, list) and given:
            tables = {f"sweep[{index}]": table for index, table in enumerate(given)}
        else:
            problem = "'sweep' is missing" if given is None else f"sweep={given!r}"
            self.mistakes.add(f"{problem}: a study has at least one, such as [sweep.grid] with model.padding = [...]")
            return {}
        sweeps = {where: self._read_sweep(table, where) for where, table in tables.items()}
        return {where: sweep for where, sweep in sweeps.items() if sweep}

    def _read_sweep(self, table: Any, where: str) -> Sweep | None:
        """Reads one sweep; returns ``None`` if its kind or its factors cannot be read.

        Args:
            table: the table from TOML.
            where: its place in error messages, such as ``sweep[0]``.
        """
        try:
            kind = _read_kind(table, where)
            factors = self._read_factors_of(table, kind, where)
        except InputError as error:
            self.mistakes.add(str(error))
            return None
        for key in table:
            with self.mistakes.noted():
                check_keys({key: None}, (kind, *_OWN_KEYS.get(kind, ()), "exclude", "only_if"), where)
        draws, draw_seed = self._read_draws(table, where) if kind == "random" else (0, 0)
        known = _list_known(table[kind], factors)
        exclude = self._read_exclude(table.get("exclude", []), known, f"{where}.exclude")
        only_if = self._read_only_if(table.get("only_if", {}), known, f"{where}.only_if")
        return Sweep(kind, factors, exclude, only_if, draws, draw_seed)

    def _read_factors_of(self, table: Mapping[str, Any], kind: Kind, where: str) -> tuple[Factor, ...]:
        if kind == "list":
            return self._read_list(table, where)
        factors = self.read_factors(table[kind], f"{where}.{kind}.", ranges=kind == "random")
        lengths = {factor.name: len(factor.levels) for factor in factors}
        given = dict(unnest(table[kind])) if isinstance(table[kind], dict) else {}
        counts = {name: len(given[name]) for name in lengths if isinstance(given[name], list)}
        if kind == "zip" and len(set(counts.values())) > 1:
            listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
            self.mistakes.add(f"{where}.zip: factors must have equally many levels, not {listed}")
        if kind == "leave_one_out":
            for name, count in counts.items():
                if count != 1:
                    self.mistakes.add(
                        f"{where}.leave_one_out.{name}: must have one level, the one that is left out, not {count}"
                    )
        return factors

    def _read_list(self, table: Mapping[str, Any], where: str) -> tuple[Factor, ...]:
        name = self._check_composite_name(table.get("factor", DEFAULT_FACTOR), f"{where}.factor")
        entries = table["list"]
        if not isinstance(entries, list) or not entries:
            raise InputError(f"{where}.list={show(entries)}: must be a list of at least one table of settings")
        return (Factor(name, self._collect_levels(entries, self._read_entry, f"{where}.list", "entry")),)

    def _read_entry(self, table: Any, where: str) -> Level:
        """Reads one entry of a list: its settings, with an optional label among them."""
        if not isinstance(table, dict):
            raise InputError(f"{where}={show(table)}: must be a table of settings, such as {{model.padding = 'same'}}")
        settings = self.read_settings({key: value for key, value in table.items() if key != "label"}, f"{where}.")
        return Level.make(_read_label(table.get("label", write_label(settings)), where), settings, self.schema)

    def _read_draws(self, table: Mapping[str, Any], where: str) -> tuple[int, int]:
        draws = draw_seed = 0
        with self.mistakes.noted():
            if "draws" not in table:
                raise InputError(f"{where}: 'draws' is missing; a random sweep says how many, such as draws = 20")
            draws = check(table["draws"], Count, f"{where}.draws")
        with self.mistakes.noted():
            draw_seed = check(table.get("draw_seed", 0), Annotated[int, Interval(0)], f"{where}.draw_seed")
        return draws, draw_seed

    def read_factors(self, table: Any, where: str, *, ranges: bool = False) -> tuple[Factor, ...]:
        """Reads a table of factors.

        Args:
            table: levels by path or name.
            where: the prefix of a factor in error messages, such as ``sweep.grid.``.
            ranges: whether ``{low, high}`` is accepted in place of levels.
        """
        if not isinstance(table, dict) or not unnest(table):
            self.mistakes.add(
                f"{where.rstrip('. ')}={show(table)}: must be a table of factors, such as model.padding = [...]"
            )
            return ()
        factors: dict[str, Factor] = {}
        for name, value in unnest(table):
            with self.mistakes.noted():
                if name in factors:
                    raise InputError(f"{where}{name}: given twice")
                self._check_name(name, where)
                if ranges and isinstance(value, dict):
                    factors[name] = Factor(name, range=self._read_range(name, value, f"{where}{name}"))
                else:
                    factors[name] = Factor(name, self._read_levels(name, value, f"{where}{name}"))
        self._check_overlaps(tuple(factors.values()), where)
        return tuple(factors.values())

    def _check_name(self, name: str, where: str) -> None:
        if name == "data.manual_dir":
            raise InputError(f"{where}{name}: cannot be a factor; the folder changes no result")
        if "." in name or not _NAME.fullmatch(name):
            self.schema.check_path(name, where.rstrip(". "))
        else:
            self._check_composite_name(name, where.rstrip(". "))

    def _check_composite_name(self, name: Any, where: str) -> str:
        """Returns the name of a factor of several settings; raises `InputError` if it cannot be one."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InputError(f"{where}: {name!r} must be letters, digits, _ and -")
        if name in self.schema.sections or name in _RESERVED:
            reason = _RESERVED.get(name, f"{name} is a table of settings")
            raise InputError(f"{where}: a factor cannot be named {name!r}; {reason}")
        return name

    def _check_overlaps(self, factors: tuple[Factor, ...], where: str) -> None:
        setters: dict[str, str] = {}
        for factor in factors:
            for path in factor.paths:
                first = setters.setdefault(path, factor.name)
                if first != factor.name:
                    self.mistakes.add(f"{where}{factor.name}: sets {path}, which {first} sets too")

    def _read_levels(self, name: str, values: Any, where: str) -> tuple[Level, ...]:
        if not isinstance(values, list) or not values:
            raise InputError(f"{where}={show(values)}: must be a list of at least one level")
        return self._collect_levels(values, functools.partial(self._read_level, name), where, f"level of {name}")

    def _collect_levels(
        self, values: Sequence[Any], read: Callable[[Any, str], Level], where: str, noun: str
    ) -> tuple[Level, ...]:
        """Reads every level; leaves out those with a mistake, such as the label of another."""
        levels: dict[str, Level] = {}
        for index, value in enumerate(values):
            with self.mistakes.noted():
                level = read(value, f"{where}[{index}]")
                if level.label in levels:
                    raise InputError(f"{where}[{index}]: label {level.label!r} is that of another {noun}")
                levels[level.label] = level
        return tuple(levels.values())

    def _read_level(self, name: str, value: Any, where: str) -> Level:
        if "." not in name:
            return self._read_composite(name, value, where)
        if not isinstance(value, dict):
            setting = self.schema.parse_value(name, value)
            self.schema.read_value(name, setting, where)
            return Level.make(_read_label(write_literal(setting), where), {name: setting}, self.schema)
        check_keys(value, ("label", "value"), where)
        if "value" not in value:
            raise InputError(f"{where}: 'value' is missing; a level is a value, or {{label = ..., value = ...}}")
        setting = self.schema.parse_value(name, value["value"])
        normal = self.schema.read_value(name, setting, f"{where}.value")
        label = _read_label(value.get("label", write_literal(setting)), where)
        self._check_label_means(name, label, normal, where)
        return Level.make(label, {name: setting}, self.schema)

    def _read_composite(self, name: str, value: Any, where: str) -> Level:
        if not isinstance(value, dict) or "set" not in value:
            legal = "must be {label = ..., set = {...}}"
            raise InputError(
                f"{where}={show(value)}: a level of {name!r}, which has no dot, {legal}{self.schema.suggest_path(name)}"
            )
        check_keys(value, ("label", "set"), where)
        settings = self.read_settings(value["set"], f"{where}.set.")
        return Level.make(_read_label(value.get("label", write_label(settings)), where), settings, self.schema)

    def _check_label_means(self, name: str, label: str, normal: Any, where: str) -> None:
        """Refuses a label that reads as another value of the setting, which reports and conditions would confuse."""
        if name == "data.name":
            return
        try:
            other = self.schema.read_value(name, self.schema.parse_value(name, freeze(read_literal(label))))
        except InputError:
            return
        if other != normal:
            raise InputError(f"{where}: label {label!r} is itself a value of {name}, and not this one")

    def _read_range(self, path: str, table: Mapping[str, Any], where: str) -> Range:
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
        if not integer and self._takes(path, int(high)) and not self._takes(path, high):
            raise InputError(f"{where}: must be a range of integers; add integer = true")
        for end, value in (("low", low), ("high", high)):
            self.schema.read_value(path, value, f"{where}.{end}")
        return Range(low, high, scale, integer)

    def _takes(self, path: str, value: Any) -> bool:
        try:
            self.schema.read_value(path, value)
        except InputError:
            return False
        return True

    def read_settings(self, table: Any, where: str) -> dict[str, Any]:
        """Reads a table of settings, such as a base or the `set` of a level; checks each by itself.

        Args:
            table: values by path, or nested.
            where: the prefix of a setting in error messages, such as ``base.``.

        Raises:
            InputError: a setting is unknown, is given twice, or has an illegal value.
        """
        if not isinstance(table, dict):
            place = where.rstrip(". ")
            raise InputError(f"{place}={show(table)}: must be a table of settings, such as {{model.padding = 'same'}}")
        settings: dict[str, Any] = {}
        for path, value in unnest(table):
            if self.schema.check_path(path, where.rstrip(". ")) in settings:
                raise InputError(f"{where}{path}: given twice")
            settings[path] = self.schema.parse_value(path, value)
            self.schema.read_value(path, settings[path], f"{where}{path}")
        return settings

    def _read_exclude(self, tables: Any, factors: _Known, where: str) -> tuple[Condition, ...]:
        if not isinstance(tables, list):
            self.mistakes.add(
                f"{where}={show(tables)}: must be a list of tables, such as [{{model.padding = 'valid'}}]"
            )
            return ()
        conditions = []
        for index, table in enumerate(tables):
            with self.mistakes.noted():
                conditions.append(self._read_condition(table, factors, f"{where}[{index}]"))
        return tuple(conditions)

    def _read_only_if(self, table: Any, factors: _Known, where: str) -> dict[str, Condition]:
        conditions: dict[str, Condition] = {}
        with self.mistakes.noted():
            if not isinstance(table, dict):
                raise InputError(f"{where}={show(table)}: must be a table of conditions by factor")
            for name, inner in unnest(table, factors):
                with self.mistakes.noted():
                    _check_known(name, factors, where)
                    conditions[name] = self._read_condition(inner, factors, f"{where}.{name}")
            needs = {name: [clause.factor for clause in condition] for name, condition in conditions.items()}
            try:
                graphlib.TopologicalSorter(needs).prepare()
            except graphlib.CycleError as error:
                raise InputError(f"{where}: goes in a circle: {' needs '.join(reversed(error.args[1]))}") from None
        return conditions

    def _read_condition(self, table: Any, factors: _Known, where: str) -> Condition:
        if not isinstance(table, dict) or not table:
            raise InputError(
                f"{where}={show(table)}: must be a table of levels by factor, such as {{model.padding = 'valid'}}"
            )
        clauses: list[Clause] = []
        for name, value in unnest(table, factors):
            factor = _check_known(name, factors, where)
            if factor is None:
                continue
            if isinstance(value, dict):
                clauses += self._read_operators(value, factor, f"{where}.{name}")
            else:
                clauses.append(self._make_clause(factor, "is", self._read_word(value, factor, f"{where}.{name}")))
        return tuple(clauses)

    def _read_operators(self, table: Mapping[str, Any], factor: Factor, where: str) -> list[Clause]:
        if not table:
            raise InputError(f"{where}={{}}: must have one of {', '.join(_OPERATORS)}")
        check_keys(table, _OPERATORS, where)
        return [
            self._make_clause(factor, op, self._read_operand(op, value, factor, f"{where}.{op}"))  # type: ignore[arg-type]
            for op, value in table.items()
        ]

    def _read_operand(self, operator: str, value: Any, factor: Factor, where: str) -> Any:
        if operator == "not":
            return self._read_word(value, factor, where)
        if operator == "any_of":
            if not isinstance(value, list) or not value:
                raise InputError(f"{where}={show(value)}: must be a list of at least one level")
            return tuple(self._read_word(word, factor, f"{where}[{index}]") for index, word in enumerate(value))
        if factor.is_composite:
            raise InputError(f"{where}: {factor.name} has labels and no numbers; use any_of")
        return check(value, float, where) if not isinstance(value, int) else check(value, int, where)

    def _make_clause(self, factor: Factor, operator: Operator, value: Any) -> Clause:
        words = value if operator == "any_of" else (value,)
        values = []
        for word in () if factor.is_composite else words:
            with contextlib.suppress(InputError):  # a word may be only a label
                values.append(self.schema.read_value(factor.name, word))
        return Clause(factor.name, operator, value, tuple(values))

    def _read_word(self, value: Any, factor: Factor, where: str) -> Any:
        """Reads a value or label of a factor; a valid value that matches no level is allowed."""
        labels = [level.label for level in factor.levels]
        if isinstance(value, str) and (value in labels or (factor.is_composite and value == "base")):
            return value
        if factor.is_composite:
            raise InputError(
                f"{where}={show(value)}: must be a label of {factor.name}: {_list(labels)}{near_match(value, labels)}"
            )
        self.schema.read_value(factor.name, self.schema.parse_value(factor.name, value), where)
        return self.schema.parse_value(factor.name, freeze(value))

    def _check_labels(self, sweeps: Mapping[str, Sweep], base: Mapping[str, Any]) -> None:
        """Refuses a label that has two meanings in the study, or ``base`` for anything but the base."""
        settings = {**self.schema.list_defaults(), **base}
        meanings: dict[tuple[str, str], Mapping[str, Any]] = {}
        levels = [(where, f, level) for where, sweep in sweeps.items() for f in sweep.factors for level in f.levels]
        for where, factor, level in levels:
            label = f"{where}: the label {level.label!r} of {factor.name}"
            is_base = all(
                path in settings and self.schema.read_value(path, settings[path]) == value
                for path, value in level.values.items()
            )
            if meanings.setdefault((factor.name, level.label), level.values) != level.values:
                self.mistakes.add(f"{label} is that of another level in a sweep before")
            elif factor.is_composite and level.label == "base" and not is_base:
                self.mistakes.add(f"{label} stands for the base configuration, and these settings differ from it")


def _read_title(values: Mapping[str, Any]) -> str:
    if "title" not in values:
        raise InputError("'title' is missing; it says in one line what the study asks")
    title = check(values["title"], str, "title")
    if not title.strip() or not title.isprintable():
        raise InputError(f"title={title!r}: must be one line of printable text")
    return title  # type: ignore[no-any-return]


def read_seeds(value: Any, where: str) -> tuple[int, ...]:
    """Reads seeds: ``5`` (0 to 4), ``"3..9"`` (both included) or ``[0, 3, 7]``.

    Raises:
        InputError: another form, no seeds, a seed given twice, or one out of range.
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
        raise InputError(f"{where}={show(value)}: must be a number of seeds, such as 5, or '0..9', or [0, 3, 7]")
    return tuple(range(check(value, Annotated[int, Interval(1, _MOST_SEEDS)], where)))


def _read_interval(text: str, where: str) -> tuple[int, ...]:
    match = re.fullmatch(r"([0-9]{1,10})\.\.([0-9]{1,10})", text)
    if not match:
        raise InputError(f"{where}={show(text)}: must be the first and the last seed, such as '0..9'")
    first, last = (check(int(seed), _Seed, where) for seed in match.groups())
    if first > last:
        raise InputError(f"{where}={show(text)}: must not end before it starts")
    if last - first >= _MOST_SEEDS:
        raise InputError(f"{where}={show(text)}: must be at most {_MOST_SEEDS:,} seeds")
    return tuple(range(first, last + 1))


def _read_kind(table: Any, where: str) -> Kind:
    if not isinstance(table, dict):
        raise InputError(f"{where}={show(table)}: must be a table with one of {', '.join(_KINDS)}")
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
        return {name: each if each and len(each.levels) == len(given) else None for name, each in known.items()}
    for name, values in unnest(given) if isinstance(given, dict) else ():
        factor = known.get(name)
        is_whole = factor is not None and (factor.range or len(factor.levels) == len(values))
        known[name] = factor if is_whole else None
    return known


def _check_known(name: str, factors: _Known, where: str) -> Factor | None:
    if name not in factors:
        known = f"; legal: {_list(list(factors))}" if factors else ""
        raise InputError(f"{where}: {name!r} is no factor of this sweep{near_match(name, factors)}{known}")
    return factors[name]


def _read_label(label: Any, where: str) -> str:
    if not isinstance(label, str) or not label.strip() or label != label.strip() or not label.isprintable():
        raise InputError(f"{where}: label {label!r} must be one line of printable text, without spaces around it")
    return label


def _list(words: list[str]) -> str:
    return ", ".join([*words[:10], "..."] if len(words) > 10 else words)
