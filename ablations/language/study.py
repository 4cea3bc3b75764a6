"""What a study asks: factors, each with levels; sweeps, which combine them; seeds, with which every cell is run.

These are plain values: `ablations.language.reading` makes and checks them, `ablations.language.sweeping` combines them,
and `to_toml` writes them in one canonical form, which reads back as it was.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ablations.language.conditions import Condition, write_condition
from ablations.language.paths import nest, read_value, thaw, write_literal
from cnnjax.config import RunConfig
from cnnjax.settings import write_toml

Kind = Literal["grid", "zip", "one_at_a_time", "leave_one_out", "list", "random"]
DEFAULT_SEEDS = (0, 1, 2, 3, 4)
DEFAULT_ARM = "arm"


@dataclass(frozen=True)
class Level:
    """One choice: the settings it makes, by path, and the label it goes by."""

    label: str
    settings: Mapping[str, Any]

    @functools.cached_property
    def values(self) -> dict[str, Any]:
        """The settings in normal form, so that equal meanings are equal."""
        return {path: read_value(path, value) for path, value in self.settings.items()}


def write_label(settings: Mapping[str, Any]) -> str:
    """Returns the label that a level with these settings has if it is given none."""
    return " ".join(f"{path}={write_literal(value)}" for path, value in settings.items()) or "base"


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included, evenly spread on the scale."""

    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"
    integer: bool = False

    def pick(self, share: float) -> float:
        """Returns the number below which `share` in [0, 1) of the range lies; 4 significant digits, or an integer."""
        # An integer stands for itself and what follows up to the next, so that all are equally likely.
        low, high = self.low, self.high + self.integer
        if self.scale == "log":
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        rounded = math.floor(value) if self.integer else float(f"{value:.4g}")
        return min(max(rounded, self.low), self.high)

    def to_dict(self) -> dict[str, Any]:
        """Returns the range as a table of the study language."""
        return {"low": self.low, "high": self.high, "scale": self.scale, "integer": self.integer}


@dataclass(frozen=True)
class Factor:
    """What varies: a setting, by its path, or several at once under a name of their own, without a dot.

    Attributes:
        name: the path of the setting, or the name.
        levels: its choices; empty where it has a range.
        range: the numbers that a random sweep draws from.
    """

    name: str
    levels: tuple[Level, ...] = ()
    range: Range | None = None

    @property
    def is_composite(self) -> bool:
        """Whether its levels may make several settings."""
        return "." not in self.name

    @functools.cached_property
    def paths(self) -> tuple[str, ...]:
        """The settings it makes."""
        if not self.is_composite:
            return (self.name,)
        return tuple(dict.fromkeys(path for level in self.levels for path in level.settings))

    def to_value(self) -> Any:
        """Returns what stands beside its name in the study language."""
        return self.range.to_dict() if self.range else [self._write(level) for level in self.levels]

    def _write(self, level: Level) -> Any:
        if self.is_composite:
            return {"label": level.label, "set": _write_settings(level)}
        value = level.settings[self.name]
        plain = level.label == write_literal(value)
        return thaw(value) if plain else {"label": level.label, "value": thaw(value)}


@dataclass(frozen=True)
class Sweep:
    """A rule that combines levels of factors into assignments.

    Attributes:
        kind: the rule.
        factors: in their order; a list has one.
        exclude: combinations that meet one of these conditions are left out.
        only_if: conditions without which a factor keeps the base's value.
        draws: how many assignments a random sweep draws.
        draw_seed: of its draws.
    """

    kind: Kind
    factors: tuple[Factor, ...]
    exclude: tuple[Condition, ...] = ()
    only_if: Mapping[str, Condition] = field(default_factory=dict)
    draws: int = 0
    draw_seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the sweep as a table of the study language."""
        table: dict[str, Any] = {}
        if self.exclude:
            table["exclude"] = [write_condition(condition) for condition in self.exclude]
        if self.kind == "random":
            table |= {"draws": self.draws, "draw_seed": self.draw_seed}
        if self.kind == "list":
            (arm,) = self.factors
            table["factor"] = arm.name
            table["list"] = [{"label": level.label, **_write_settings(level)} for level in arm.levels]
        else:
            table[self.kind] = {factor.name: factor.to_value() for factor in self.factors}
        if self.only_if:
            table["only_if"] = {name: write_condition(condition) for name, condition in self.only_if.items()}
        return table


@dataclass(frozen=True)
class Study:
    """A question, and the trials that answer it.

    Attributes:
        name: the name of its file, without the ending.
        title: the question in one line.
        settings: of the base, as they were given, by path; the others have their defaults.
        sweeps: the study is their union.
        seeds: of every cell.
        source: where it was read, as errors name it.
    """

    name: str
    title: str
    settings: Mapping[str, Any]
    sweeps: tuple[Sweep, ...]
    seeds: tuple[int, ...] = DEFAULT_SEEDS
    source: str = field(default="study", compare=False)

    @functools.cached_property
    def base(self) -> RunConfig:
        """The configuration that the sweeps vary."""
        return RunConfig.from_dict(nest(self.settings))

    def to_dict(self) -> dict[str, Any]:
        """Returns the study as plain dicts, lists, strings and numbers: the study language."""
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


def _write_settings(level: Level) -> dict[str, Any]:
    return {path: thaw(value) for path, value in level.settings.items()}
