"""A study expanded: its cells, each a network to train once for every seed, and the trials this makes."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cnnjax.config import RunConfig
from cnnjax.signatures import static_signature


@dataclass(frozen=True)
class Cell:
    """One combination of factor levels.

    Attributes:
        labels: the label of its level of every factor of the study, in the study's order of factors.
        config: what its trials run, apart from the seed.
        problem: why its network cannot exist, naming layer and shapes; ``None`` where it can.
    """

    labels: Mapping[str, str]
    config: RunConfig
    problem: str | None = None

    @property
    def name(self) -> str:
        """The levels in one line, such as ``model.padding=same, model.strides=2``; ``base`` without factors."""
        return ", ".join(f"{factor}={label}" for factor, label in self.labels.items()) or "base"

    def seeded(self, seed: int) -> "Trial":
        """Returns the trial of this cell with a seed."""
        return Trial(self, replace(self.config, seed=seed))


@dataclass(frozen=True)
class Trial:
    """A cell run with one seed."""

    cell: Cell
    config: RunConfig

    @property
    def key(self) -> str:
        """The run key."""
        return self.config.key

    @functools.cached_property
    def signature(self) -> str:
        """The static signature of its run: trials of one signature share their programs."""
        return static_signature(self.config)

    @property
    def name(self) -> str:
        """The cell and the seed in one line."""
        return f"{self.cell.name}, seed={self.config.seed}"


@dataclass(frozen=True)
class Duplicate:
    """A cell that was folded away: `name` runs what the cell `kept` runs."""

    name: str
    kept: str


@dataclass(frozen=True)
class Grid:
    """All there is to run in a study.

    Attributes:
        name: of the study.
        factors: in the study's order.
        cells: no two with the same configuration; those with a problem are never trained.
        seeds: of every cell.
        duplicates: what was folded away.
    """

    name: str
    factors: tuple[str, ...]
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    duplicates: tuple[Duplicate, ...] = ()

    @functools.cached_property
    def trials(self) -> tuple[Trial, ...]:
        """Every cell with every seed, cell by cell."""
        return tuple(cell.seeded(seed) for cell in self.cells for seed in self.seeds)
