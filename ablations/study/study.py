"""A study: a question, asked by sweeps that combine the levels of factors, and seeds.

A level sets one or several settings; a factor is its levels, or a range from which levels are drawn. Everything here
can be written as a table of TOML, and `ablations.study.reading` reads it back.
"""

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cnnjax.runs.config import RunConfig
from cnnjax.settings import write_toml
from cnnjax.settings.schema import Schema, nest, thaw, write_literal


@dataclass(frozen=True)
class Level:
    """One choice of a factor.

    Attributes:
        label: its name.
        settings: what it sets, by path, as written in the study.
        values: the settings in normal form, so that equal meanings are equal.
    """

    label: str
    settings: Mapping[str, Any]
    values: Mapping[str, Any] = field(compare=False)

    @classmethod
    def make(cls, label: str, settings: Mapping[str, Any], schema: Schema) -> "Level":
        """Returns the level with these settings, all of them legal."""
        return cls(label, settings, {path: schema.read_value(path, value) for path, value in settings.items()})


def write_label(settings: Mapping[str, Any]) -> str:
    """Returns the default label of a level with these settings."""
    return " ".join(f"{path}={write_literal(value)}" for path, value in settings.items()) or "base"


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included, distributed evenly on the scale."""

    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"
    integer: bool = False

    def pick(self, share: float) -> float:
        """Returns the number below which `share` in [0, 1) of the range lies; 4 significant digits, or an integer."""
        # An integer covers the interval up to the next one, so that all are equally likely.
        low, high = self.low, self.high + self.integer
        if self.scale == "log":
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        rounded = math.floor(value) if self.integer else float(f"{value:.{self._digits}g}")
        return min(max(rounded, self.low), self.high)

    @property
    def _digits(self) -> int:
        """Significant digits of a number: 4, and more where the range is narrow."""
        largest = max(abs(self.low), abs(self.high))
        return 4 + max(0, math.floor(math.log10(largest / (self.high - self.low))))

    def to_dict(self) -> dict[str, Any]:
        """Returns the range as a table."""
        return {"low": self.low, "high": self.high, "scale": self.scale, "integer": self.integer}


@dataclass(frozen=True)
class Factor:
    """What varies: one setting, or several at once.

    Attributes:
        name: the path of the setting, or a name without a dot for several settings.
        levels: its choices; empty if it has a range.
        range: the numbers that a random sweep draws from.
    """

    name: str
    levels: tuple[Level, ...] = ()
    range: Range | None = None

    @property
    def is_composite(self) -> bool:
        """Whether its levels may set several settings."""
        return "." not in self.name

    @functools.cached_property
    def paths(self) -> tuple[str, ...]:
        """The settings that it varies."""
        if not self.is_composite:
            return (self.name,)
        return tuple(dict.fromkeys(path for level in self.levels for path in level.settings))

    @property
    def first(self) -> Mapping[str, Any]:
        """The settings of its first level, or the low end of its range."""
        return {self.name: self.range.low} if self.range else self.levels[0].settings if self.levels else {}

    def to_value(self) -> Any:
        """Returns the value beside its name in the table of a sweep."""
        return self.range.to_dict() if self.range else [self._write(level) for level in self.levels]

    def _write(self, level: Level) -> Any:
        if self.is_composite:
            return {"label": level.label, "set": write_settings(level)}
        value = level.settings[self.name]
        plain = level.label == write_literal(value)
        return thaw(value) if plain else {"label": level.label, "value": thaw(value)}


def write_settings(level: Level) -> dict[str, Any]:
    """Returns the settings of a level as a table."""
    return {path: thaw(value) for path, value in level.settings.items()}


Operator = Literal["is", "not", "any_of", "at_least", "at_most"]


@dataclass(frozen=True)
class Clause:
    """A condition on one factor.

    Attributes:
        factor: the name of the factor.
        operator: how its level is compared with `value`.
        value: a value or label; several of them for ``any_of``; a number for ``at_least`` and ``at_most``.
        values: these values in normal form, without words that are only labels.
    """

    factor: str
    operator: Operator
    value: Any
    values: tuple[Any, ...] = field(default=(), compare=False)

    def holds(self, level: Level) -> bool:
        """Whether a level of the factor meets the condition."""
        value = level.values.get(self.factor)
        if self.operator in ("at_least", "at_most"):
            if isinstance(value, bool) or not isinstance(value, int | float):
                return False
            return bool(value >= self.value if self.operator == "at_least" else value <= self.value)
        labels = self.value if self.operator == "any_of" else (self.value,)
        found = level.label in labels or (self.factor in level.values and value in self.values)
        return found != (self.operator == "not")


Condition = tuple[Clause, ...]


def meets(condition: Condition, levels: Mapping[str, Level]) -> bool:
    """Whether every clause holds, given the level of every factor."""
    return all(clause.holds(levels[clause.factor]) for clause in condition)


def write_condition(condition: Condition) -> dict[str, Any]:
    """Returns the condition as a table."""
    table: dict[str, Any] = {}
    for clause in condition:
        if clause.operator == "is":
            table[clause.factor] = thaw(clause.value)
        else:
            table.setdefault(clause.factor, {})[clause.operator] = thaw(clause.value)
    return table


Kind = Literal["grid", "zip", "one_at_a_time", "leave_one_out", "list", "random"]
DEFAULT_SEEDS = (0, 1, 2, 3, 4)
DEFAULT_FACTOR = "arm"
"""Name of the factor of a list."""


@dataclass(frozen=True)
class Sweep:
    """A rule that combines levels of factors into assignments.

    Attributes:
        kind: the rule.
        factors: in order; a list has one.
        exclude: leaves out the combinations that meet one of these conditions.
        only_if: by factor, the condition under which it varies; otherwise it keeps the base's value.
        draws: how many assignments a random sweep draws.
        draw_seed: the seed of these draws.
    """

    kind: Kind
    factors: tuple[Factor, ...]
    exclude: tuple[Condition, ...] = ()
    only_if: Mapping[str, Condition] = field(default_factory=dict)
    draws: int = 0
    draw_seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the sweep as a table."""
        table: dict[str, Any] = {}
        if self.exclude:
            table["exclude"] = [write_condition(condition) for condition in self.exclude]
        if self.kind == "random":
            table |= {"draws": self.draws, "draw_seed": self.draw_seed}
        if self.kind == "list":
            (factor,) = self.factors
            table["factor"] = factor.name
            table["list"] = [{"label": level.label, **write_settings(level)} for level in factor.levels]
        else:
            table[self.kind] = {factor.name: factor.to_value() for factor in self.factors}
        if self.only_if:
            table["only_if"] = {name: write_condition(condition) for name, condition in self.only_if.items()}
        return table


@dataclass(frozen=True)
class StudyConfig:
    """A question, and the trials that answer it.

    Attributes:
        name: the name of its file, without the suffix.
        title: the question in one line.
        settings: the settings that its base gives, by path, as written; all others have their defaults.
        sweeps: the cells of the study are the union of theirs.
        seeds: the seeds of every cell.
        source: the name in error messages.
    """

    name: str
    title: str
    settings: Mapping[str, Any]
    sweeps: tuple[Sweep, ...]
    seeds: tuple[int, ...] = DEFAULT_SEEDS
    source: str = field(default="study", compare=False)

    @functools.cached_property
    def base(self) -> RunConfig:
        """The configuration that the sweeps start from; if they vary the module, it is the textbook network.

        What has no default and is not given has the first level of its factor.
        """
        known = {*self.schema.list_defaults(), *self.settings}
        factors = (factor for sweep in self.sweeps for factor in sweep.factors)
        first = {path: value for factor in factors for path, value in factor.first.items() if path not in known}
        settings = {**first, **self.settings}
        if "model.module" in self.schema.paths and "model.module" not in settings:
            settings = {path: value for path, value in settings.items() if not path.startswith("model.")}
        return RunConfig.from_dict(nest(settings))

    @functools.cached_property
    def schema(self) -> Schema:
        """The settings that factors may vary."""
        levels = [level.settings for sweep in self.sweeps for factor in sweep.factors for level in factor.levels]
        return RunConfig.schema([self.settings, *levels])

    @property
    def digest(self) -> str:
        """Eight digits that name a study without a file: they depend on everything but its name and its seeds."""
        return hashlib.sha256(replace(self, seeds=(0,)).to_toml().encode()).hexdigest()[:8]

    def to_dict(self) -> dict[str, Any]:
        """Returns the study as plain dicts, lists, strings and numbers."""
        table: dict[str, Any] = {"title": self.title, "seeds": write_seeds(self.seeds)}
        if self.settings:
            table["base"] = nest({path: thaw(value) for path, value in self.settings.items()})
        return {**table, "sweep": [sweep.to_dict() for sweep in self.sweeps]}

    def to_toml(self) -> str:
        """Returns the study as canonical TOML, which reads back as an equal study."""
        return write_toml(self.to_dict())


def write_seeds(seeds: tuple[int, ...]) -> Any:
    """Returns the shortest form of the seeds: ``5`` for 0 to 4, ``"3..9"``, or a list."""
    first, last = seeds[0], seeds[-1]
    if seeds != tuple(range(first, last + 1)):
        return list(seeds)
    return len(seeds) if first == 0 else f"{first}..{last}"
