"""What varies: a factor has levels, and a level makes settings; or it has a range, of which levels are drawn."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cnnjax.setting_paths import read_value, thaw, write_literal


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
        rounded = math.floor(value) if self.integer else float(f"{value:.{self._digits}g}")
        return min(max(rounded, self.low), self.high)

    @property
    def _digits(self) -> int:
        """Significant digits of a number: 4, and as many more as both ends of a narrow range have in common."""
        largest = max(abs(self.low), abs(self.high))
        return 4 + max(0, math.floor(math.log10(largest / (self.high - self.low))))

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
            return {"label": level.label, "set": write_settings(level)}
        value = level.settings[self.name]
        plain = level.label == write_literal(value)
        return thaw(value) if plain else {"label": level.label, "value": thaw(value)}


def write_settings(level: Level) -> dict[str, Any]:
    """Returns the settings of a level as a table of the study language."""
    return {path: thaw(value) for path, value in level.settings.items()}
