"""A study expanded into a grid: its cells, and a trial for every cell and seed.

Every sweep assigns levels to factors, and an assignment on top of the study's base is a configuration. Assignments with
one configuration are one cell.
"""

import functools
import graphlib
import itertools
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablations.study.mistakes import Mistakes
from ablations.study.study import Factor, Level, StudyConfig, Sweep, meets, write_label
from cnnjax.data.dataset import DatasetInfo
from cnnjax.data.loading import find_images, load_data_info
from cnnjax.data.settings import DataConfig
from cnnjax.errors import InputError
from cnnjax.runs.config import RunConfig, static_signature
from cnnjax.runs.splits import split_sizes
from cnnjax.settings.checking import choice, near_match
from cnnjax.settings.schema import Schema, nest, shorten_paths, write_literal

MOST_TRIALS = 10_000
"""Default limit of the trials of a study."""
_CONDITION = re.compile(r"\s*([^=!]*?)\s*(!?=)\s*(.*?)\s*", re.DOTALL)
Assignment = dict[str, Level]
"""A level for some or all factors of a sweep, by factor."""
Choice = Callable[[Mapping[str, str]], bool]
"""Whether a cell with these labels is chosen."""


@dataclass(frozen=True)
class Cell:
    """One combination of factor levels.

    Attributes:
        labels: the label of its level, by factor, in the study's order of factors.
        config: the configuration of its trials, apart from the seed.
        problem: why its network cannot exist, with the layer and its shapes; ``None`` if it can.
    """

    labels: Mapping[str, str]
    config: RunConfig
    problem: str | None = None

    @property
    def name(self) -> str:
        """The levels in one line, such as ``model.padding=same, model.strides=2``; ``base`` without factors."""
        return _name(self.labels)

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
        """The static signature of its run; trials with the same one share their compiled programs."""
        return static_signature(self.config)

    @property
    def name(self) -> str:
        """The cell and the seed in one line."""
        return f"{self.cell.name}, seed={self.config.seed}"


@dataclass(frozen=True)
class Duplicate:
    """A cell left out because the cell `kept` has the same configuration."""

    name: str
    kept: str


@dataclass(frozen=True)
class Grid:
    """The cells and trials of a study.

    Attributes:
        name: the name of the study.
        factors: the names of its factors, in the study's order.
        cells: no two with the same configuration; those with a problem are never trained.
        seeds: the seeds of every cell.
        duplicates: the cells left out because another has the same configuration.
    """

    name: str
    factors: tuple[str, ...]
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    duplicates: tuple[Duplicate, ...] = ()

    @functools.cached_property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, cell by cell."""
        return tuple(cell.seeded(seed) for cell in self.cells for seed in self.seeds)


def expand(study: StudyConfig, max_trials: int = MOST_TRIALS) -> Grid:
    """Returns the grid of a study.

    Args:
        study: any.
        max_trials: the limit of cells times seeds, counted before anything is expanded.

    Raises:
        InputError: the study has more trials than `max_trials`; or lists all cells with an illegal configuration, an
            unknown dataset, or a dataset that is too small. A network that cannot exist is the `problem` of its cell.
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


def _check_size(study: StudyConfig, max_trials: int) -> None:
    cells = sum(count_assignments(sweep) for sweep in study.sweeps)
    trials = cells * len(study.seeds)
    if trials > max_trials:
        raise InputError(
            f"{study.source}: --max-trials {max_trials}: the study has {trials:,} trials "
            f"({cells:,} cells x {len(study.seeds):,} seeds)"
        )


class _Expansion:
    """Collects the cells of one sweep after the other, by run key, with their duplicates and mistakes."""

    def __init__(self, study: StudyConfig) -> None:
        self.mistakes = Mistakes(study.source)
        self.cells: dict[str, Cell] = {}
        self.duplicates: list[Duplicate] = []
        self.factors = _merge_factors(study)
        self._study = study
        schema = study.schema
        settings = {**schema.list_defaults(), **study.settings}  # a module's field may have no default
        self._base = {path: schema.read_value(path, value) for path, value in settings.items()}
        self._scales = {name: _Scale(factor, self._base) for name, factor in self.factors.items()}
        self._datasets = _Datasets(self.mistakes)

    def add(self, sweep: Sweep, where: str) -> None:
        base = {factor.name: self._scales[factor.name].base for factor in sweep.factors}
        for assignment in list_assignments(sweep, base, self._study.schema):
            labels = self._label(assignment)
            settings = {path: value for level in assignment.values() for path, value in level.settings.items()}
            try:
                config = RunConfig.from_dict(nest({**self._study.settings, **settings}))
            except InputError as error:
                self.mistakes.add(f"{where} {_name(labels)}: {error}; leave it out with `exclude` or `only_if`")
                continue
            data = self._datasets.find(config.data)
            if data is not None:
                self._add_cell(Cell(labels, replace(config, data=data)), where)

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


def _merge_factors(study: StudyConfig) -> dict[str, Factor]:
    """Returns every factor of the study with its levels of all sweeps, in order of first appearance."""
    levels: dict[str, list[Level]] = {}
    for sweep in study.sweeps:
        for factor in sweep.factors:
            levels.setdefault(factor.name, []).extend(factor.levels)
    return {name: Factor(name, tuple(merged)) for name, merged in levels.items()}


class _Scale:
    """Finds the label of a factor in cells that are assigned no level of it, by their settings."""

    def __init__(self, factor: Factor, base: Mapping[str, Any]) -> None:
        self._factor = factor
        self._base = {path: base.get(path) for path in factor.paths}
        self._labels: dict[tuple[Any, ...], str] = {}
        for level in factor.levels:
            self._labels.setdefault(tuple({**self._base, **level.values}.values()), level.label)

    @property
    def base(self) -> Level:
        """The level of the base, which need not be among the levels of the factor."""
        return Level(self.label(self._base), self._base, self._base)

    def label(self, values: Mapping[str, Any]) -> str:
        """Returns the label of the level with these values; without one, the values as text."""
        here = {path: values.get(path) for path in self._base}
        known = self._labels.get(tuple(here.values()))
        if known is not None:
            return known
        if self._factor.is_composite:
            return write_label({path: value for path, value in here.items() if value != self._base[path]})
        return write_literal(here[self._factor.name])


class _Datasets:
    """Checks cells against their datasets, each of which is looked up once."""

    def __init__(self, mistakes: Mistakes) -> None:
        self._mistakes = mistakes
        self._infos: dict[DataConfig, DatasetInfo | None] = {}
        self._found: dict[DataConfig, DataConfig | None] = {}

    def find(self, data: DataConfig) -> DataConfig | None:
        """Returns the settings with the user's own files replaced by the images in them; ``None`` for a mistake."""
        if not data.own_files:
            return data
        whole = data.whole
        if whole not in self._found:
            self._found[whole] = None
            with self._mistakes.noted():
                self._found[whole] = find_images(whole)
        found = self._found[whole]
        return found and found.choose(data)

    def check(self, cell: Cell, where: str) -> Cell:
        """Returns the cell, with its problem if any; an unknown dataset or one that is too small is a mistake."""
        if cell.config.trial:
            return cell
        info = self._find(cell.config.data)
        if info is None:
            return cell
        if info.train_size is not None:
            try:
                split_sizes(cell.config, info.train_size)
            except InputError as error:
                self._mistakes.add(f"{where} {cell.name}: {error}")
        try:
            cell.config.model.list_layers(info.image_shape, info.classes)
        except InputError as error:
            return replace(cell, problem=str(error))
        return cell

    def _find(self, data: DataConfig) -> DatasetInfo | None:
        data = data.whole
        if data not in self._infos:
            self._infos[data] = None
            with self._mistakes.noted():
                self._infos[data] = load_data_info(data)
        return self._infos[data]


def count_assignments(sweep: Sweep) -> int:
    """Returns how many assignments a sweep makes before `exclude` and `only_if`, without making them."""
    sizes = [len(factor.levels) for factor in sweep.factors]
    match sweep.kind:
        case "grid":
            return math.prod(sizes)
        case "one_at_a_time":
            return 1 + sum(sizes)
        case "leave_one_out":
            return 1 + len(sizes)
        case "random":
            return sweep.draws
        case "zip" | "list":
            return sizes[0]


def list_assignments(sweep: Sweep, base: Mapping[str, Level], schema: Schema) -> Iterator[Assignment]:
    """Yields the assignments of a sweep, in order; some may be equal because of `only_if`.

    Args:
        sweep: any.
        base: the level of each factor of the sweep in the base.
        schema: the settings that may vary.
    """
    for combination in _combine(sweep, schema):
        assignment = _keep_applicable(combination, sweep, base)
        levels = {**base, **assignment}
        if not any(meets(condition, levels) for condition in sweep.exclude):
            yield assignment


def _combine(sweep: Sweep, schema: Schema) -> Iterator[Assignment]:
    names = [factor.name for factor in sweep.factors]
    columns = [factor.levels for factor in sweep.factors]
    match sweep.kind:
        case "grid":
            yield from (dict(zip(names, row, strict=True)) for row in itertools.product(*columns))
        case "zip" | "list":
            yield from (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
        case "one_at_a_time":
            yield {}
            yield from ({factor.name: level} for factor in sweep.factors for level in factor.levels)
        case "leave_one_out":
            everything = {factor.name: factor.levels[0] for factor in sweep.factors}
            yield everything
            yield from ({n: level for n, level in everything.items() if n != left_out} for left_out in names)
        case "random":
            for index in range(sweep.draws):
                yield {factor.name: draw_level(factor, sweep.draw_seed, index, schema) for factor in sweep.factors}


def draw_level(factor: Factor, draw_seed: int, index: int, schema: Schema) -> Level:
    """Returns the level that a random sweep draws for a factor; it depends on nothing else that is drawn."""
    share = random.Random(f"{draw_seed}/{factor.name}/{index}").random()
    if factor.range is None:
        return factor.levels[int(share * len(factor.levels))]
    value = factor.range.pick(share)
    return Level.make(write_literal(value), {factor.name: value}, schema)


def _keep_applicable(combination: Assignment, sweep: Sweep, base: Mapping[str, Level]) -> Assignment:
    """Drops the factors whose `only_if` does not hold; dropping one can make that of another fail."""
    if not sweep.only_if:
        return combination
    kept, levels = dict(combination), {**base, **combination}
    needs = {name: {clause.factor for clause in condition} for name, condition in sweep.only_if.items()}
    for name in graphlib.TopologicalSorter(needs).static_order():
        if name in kept and not meets(sweep.only_if.get(name, ()), levels):
            del kept[name]
            levels[name] = base[name]
    return kept


def read_choice(texts: Sequence[str], grid: Grid, option: str) -> Choice:
    """Returns a test for the cells that meet conditions of the form ``factor=label`` or ``factor!=label``.

    A factor is given by its path, or by the last part of it where no other factor ends with that. Several ``=``
    conditions on one factor are alternatives; all others must hold together.

    Args:
        texts: the conditions.
        grid: has the factors and their labels.
        option: the command line option that has the conditions, for error messages.

    Raises:
        InputError: a condition has another form, an unknown factor, or an unknown label.
    """
    wanted: dict[str, set[str]] = {}
    unwanted: set[tuple[str, str]] = set()
    for text in texts:
        factor, sign, label = _read_condition(text, grid, option)
        if sign == "=":
            wanted.setdefault(factor, set()).add(label)
        else:
            unwanted.add((factor, label))
    return lambda labels: (
        all(labels[factor] in legal for factor, legal in wanted.items()) and unwanted.isdisjoint(labels.items())
    )


def choose_cell(texts: Sequence[str], grid: Grid, option: str, *, apart_from: str | None = None) -> Cell:
    """Returns the one cell that meets the conditions.

    Args:
        texts: the conditions, such as ``model.padding=same``.
        grid: the cells.
        option: what an error calls the conditions.
        apart_from: a factor in which several cells may differ; the first of them is returned.

    Raises:
        InputError: no cell or several cells meet them; or as `read_choice`.
    """
    is_chosen = read_choice(texts, grid, option)
    cells = [cell for cell in grid.cells if is_chosen(cell.labels)]
    found = {factor: dict.fromkeys(cell.labels[factor] for cell in cells) for factor in grid.factors}
    open_factors = {factor: labels for factor, labels in found.items() if len(labels) > 1 and factor != apart_from}
    if cells and not open_factors:
        return cells[0]
    shown = " ".join(f"{option} {text!r}" for text in texts)
    if not cells:
        raise InputError(f"{shown}: leaves none of the {len(grid.cells)} cells; must leave one")
    listed = "; ".join(f"{factor} ({', '.join(labels)})" for factor, labels in open_factors.items())
    raise InputError(f"{shown}: leaves {len(cells)} cells, must leave one; they differ in {listed}")


def find_base_cell(study: StudyConfig, cells: Sequence[Cell]) -> Cell | None:
    """Returns the cell that equals the base of the study; ``None`` if there is none."""
    base = replace(study.base, data=find_images(study.base.data))
    return next((cell for cell in cells if cell.seeded(0).key == base.key), None)


def list_labels(grid: Grid, factor: str) -> list[str]:
    """Returns the labels of a factor in a grid, in order of first appearance."""
    return list(dict.fromkeys(cell.labels[factor] for cell in grid.cells))


def _read_condition(text: str, grid: Grid, option: str) -> tuple[str, str, str]:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise InputError(f"{option} {text!r}: must be factor=label or factor!=label{near_match(text, grid.factors)}")
    name, sign, label = match.groups()
    paths = {short: path for path, short in shorten_paths(grid.factors).items()}
    factor = choice(paths.get(name, name), grid.factors, option)
    return factor, sign, choice(label, list_labels(grid, factor), f"{option} {factor}")


def _name(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{factor}={label}" for factor, label in labels.items()) or "base"
