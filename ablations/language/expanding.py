"""From a study to its grid: every assignment becomes a configuration, and those that are the same become one cell.

A cell has a label for every factor of the study, also where its sweep says nothing of one, so cells of different sweeps
stand in one table. Cells that run the same are folded; where their labels differ, the grid says so.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ablations.language.grids import Cell, Duplicate, Grid
from ablations.language.levels import Factor, Level, write_label
from ablations.language.mistakes import Mistakes
from ablations.language.study import Study, Sweep
from ablations.language.sweeping import Assignment, count_assignments, list_assignments
from cnnjax.architecture import list_layers
from cnnjax.config import DataConfig, RunConfig
from cnnjax.errors import InputError
from cnnjax.setting_paths import list_defaults, nest, read_value, write_literal

if TYPE_CHECKING:
    from cnnjax.datasets import DatasetInfo

MOST_TRIALS = 10_000


def expand(study: Study, max_trials: int = MOST_TRIALS) -> Grid:
    """Returns the grid of a study.

    Args:
        study: any.
        max_trials: the most cells times seeds, counted before anything is expanded.

    Raises:
        InputError: more trials than `max_trials`; or all cells whose configuration cannot be, whose dataset is not
            known or too small. A cell whose network cannot be is none of these: it has a `problem`.
        UnavailableError: a dataset cannot be looked up.
    """
    _check_size(study, max_trials)
    expansion = _Expansion(study)
    for index, sweep in enumerate(study.sweeps):
        expansion.add(sweep, f"sweep[{index}]: cell" if len(study.sweeps) > 1 else "cell")
    expansion.mistakes.refuse()
    cells = tuple(expansion.cells.values())
    if not cells:
        raise InputError(f"{study.source}: the study has no cells; `exclude` leaves all of them out")
    duplicates = tuple(dict.fromkeys(expansion.duplicates))
    return Grid(study.name, tuple(expansion.factors), cells, study.seeds, duplicates)


def _check_size(study: Study, max_trials: int) -> None:
    cells = sum(count_assignments(sweep) for sweep in study.sweeps)
    trials = cells * len(study.seeds)
    if trials > max_trials:
        raise InputError(
            f"{study.source}: --max-trials {max_trials}: the study has {trials:,} trials "
            f"({cells:,} cells x {len(study.seeds):,} seeds)"
        )


class _Expansion:
    """The cells so far, by run key, and what was found on the way."""

    def __init__(self, study: Study) -> None:
        self.mistakes = Mistakes(study.source)
        self.cells: dict[str, Cell] = {}
        self.duplicates: list[Duplicate] = []
        self.factors = _merge_factors(study)
        self._study = study
        self._base = {path: read_value(path, value) for path, value in {**list_defaults(), **study.settings}.items()}
        self._scales = {name: _Scale(factor, self._base) for name, factor in self.factors.items()}
        self._datasets = _Datasets(self.mistakes)

    def add(self, sweep: Sweep, where: str) -> None:
        base = {factor.name: self._scales[factor.name].base for factor in sweep.factors}
        for assignment in list_assignments(sweep, base):
            labels = self._label(assignment)
            settings = {path: value for level in assignment.values() for path, value in level.settings.items()}
            try:
                config = RunConfig.from_dict(nest({**self._study.settings, **settings}))
            except InputError as error:
                self.mistakes.add(f"{where} {_name(labels)}: {error}; leave it out with `exclude` or `only_if`")
                continue
            self._add_cell(Cell(labels, config), where)

    def _add_cell(self, cell: Cell, where: str) -> None:
        kept = self.cells.get(cell.config.key)
        if kept is None:
            self.cells[cell.config.key] = self._datasets.check(cell, where)
        elif kept.labels != cell.labels:
            self.duplicates.append(Duplicate(cell.name, kept.name))

    def _label(self, assignment: Assignment) -> dict[str, str]:
        values = dict(self._base)
        for level in assignment.values():
            values |= level.values
        return {
            name: assignment[name].label if name in assignment else scale.label(values)
            for name, scale in self._scales.items()
        }


class _Scale:
    """Names the level of a factor by the settings of a cell, for cells that are not given one."""

    def __init__(self, factor: Factor, base: Mapping[str, Any]) -> None:
        self._factor = factor
        self._base = {path: base[path] for path in factor.paths}
        self._labels: dict[tuple[Any, ...], str] = {}
        for level in factor.levels:
            self._labels.setdefault(tuple((self._base | level.values).values()), level.label)

    @property
    def base(self) -> Level:
        """What the factor is in the base."""
        return Level(self.label(self._base), self._base)

    def label(self, values: Mapping[str, Any]) -> str:
        """Returns the label of the level that has these values, or else the values themselves."""
        here = {path: values[path] for path in self._base}
        known = self._labels.get(tuple(here.values()))
        if known is not None:
            return known
        if self._factor.is_composite:
            return write_label({path: value for path, value in here.items() if value != self._base[path]})
        return write_literal(here[self._factor.name])


class _Datasets:
    """Holds cells to their datasets, each of which is looked up once."""

    def __init__(self, mistakes: Mistakes) -> None:
        self._mistakes = mistakes
        self._infos: dict[DataConfig, DatasetInfo | None] = {}

    def check(self, cell: Cell, where: str) -> Cell:
        """Returns the cell, with its problem if it has one; notes a dataset that is unknown or too small."""
        from cnnjax.splits import split_sizes

        info = self._find(cell.config.data)
        if info is None:
            return cell
        if info.train_size is not None:
            try:
                split_sizes(cell.config, info.train_size)
            except InputError as error:
                self._mistakes.add(f"{where} {cell.name}: {error}")
        try:
            list_layers(cell.config.model, info.image_shape, info.classes)
        except InputError as error:
            return replace(cell, problem=str(error))
        return cell

    def _find(self, data: DataConfig) -> "DatasetInfo | None":
        from cnnjax.datasets import load_data_info

        data = data.whole
        if data not in self._infos:
            self._infos[data] = None
            with self._mistakes.noted():
                self._infos[data] = load_data_info(data)
        return self._infos[data]


def _merge_factors(study: Study) -> dict[str, Factor]:
    """Returns every factor of the study with its levels of all sweeps, in order of first appearance."""
    levels: dict[str, list[Level]] = {}
    for sweep in study.sweeps:
        for factor in sweep.factors:
            levels.setdefault(factor.name, []).extend(factor.levels)
    return {name: Factor(name, tuple(merged)) for name, merged in levels.items()}


def _name(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{factor}={label}" for factor, label in labels.items())
