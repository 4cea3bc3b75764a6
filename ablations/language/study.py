"""What a study asks: sweeps, which combine the levels of factors, and seeds, with which every cell is run.

These are plain values: `ablations.language.reading` makes and checks them, `ablations.language.sweeping` combines them,
and `to_toml` writes them in one canonical form, which reads back as it was.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ablations.language.conditions import Condition, write_condition
from ablations.language.levels import Factor, write_settings
from cnnjax.config import RunConfig
from cnnjax.setting_paths import nest, thaw
from cnnjax.settings import write_toml

Kind = Literal["grid", "zip", "one_at_a_time", "leave_one_out", "list", "random"]
DEFAULT_SEEDS = (0, 1, 2, 3, 4)
DEFAULT_ARM = "arm"


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
            table["list"] = [{"label": level.label, **write_settings(level)} for level in arm.levels]
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
