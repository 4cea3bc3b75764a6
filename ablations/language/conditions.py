"""Conditions on the levels of a cell: ``padding is valid``, ``strides at least 2``, and all of several.

A condition speaks of factors. A level meets a clause by its label, or by its value in normal form, so that ``5``,
``[5, 5]`` and the label of a level with this value are one and the same to it.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ablations.language.levels import Level
from cnnjax.errors import InputError
from cnnjax.setting_paths import read_value, thaw

Operator = Literal["is", "not", "any_of", "at_least", "at_most"]


@dataclass(frozen=True)
class Clause:
    """What a condition asks of one factor.

    Attributes:
        factor: its name.
        operator: how its level is compared.
        value: with what: a value or label; several of them for ``any_of``; a number for ``at_least`` and ``at_most``.
    """

    factor: str
    operator: Operator
    value: Any

    def holds(self, level: Level) -> bool:
        """Whether the level of the factor passes."""
        value = level.values.get(self.factor)
        if self.operator in ("at_least", "at_most"):
            if isinstance(value, bool) or not isinstance(value, int | float):
                return False
            return bool(value >= self.value if self.operator == "at_least" else value <= self.value)
        found = any(label == level.label or (known and normal == value) for label, known, normal in self._meanings)
        return found != (self.operator == "not")

    @functools.cached_property
    def _meanings(self) -> list[tuple[Any, bool, Any]]:
        return [
            _read_meaning(self.factor, word) for word in (self.value if self.operator == "any_of" else (self.value,))
        ]


Condition = tuple[Clause, ...]


def meets(condition: Condition, levels: Mapping[str, Level]) -> bool:
    """Whether every clause holds, given the level of every factor."""
    return all(clause.holds(levels[clause.factor]) for clause in condition)


def write_condition(condition: Condition) -> dict[str, Any]:
    """Returns the condition as a table of the study language."""
    table: dict[str, Any] = {}
    for clause in condition:
        if clause.operator == "is":
            table[clause.factor] = thaw(clause.value)
        else:
            table.setdefault(clause.factor, {})[clause.operator] = thaw(clause.value)
    return table


def _read_meaning(factor: str, word: Any) -> tuple[Any, bool, Any]:
    """Returns `word` as a label, and as a value of the factor where it can be one."""
    try:
        return (word, True, read_value(factor, word)) if "." in factor else (word, False, None)
    except InputError:
        return word, False, None
