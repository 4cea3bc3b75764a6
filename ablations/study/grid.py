"""A study expanded: its cells, each a network to train once for every seed, and the trials this makes."""

import functools
import graphlib
import itertools
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ablations.study.mistakes import Mistakes
from ablations.study.study import Factor, Level, Study, Sweep, meets, write_label
from cnnjax.data.settings import DataConfig
from cnnjax.errors import InputError
from cnnjax.runs.config import RunConfig, static_signature
from cnnjax.settings.checking import choice, near_match
from cnnjax.settings.schema import Schema, nest, write_literal

if TYPE_CHECKING:
    from cnnjax.data.dataset import DatasetInfo


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


Choice = Callable[[Mapping[str, str]], bool]
"""Whether a cell with these labels is chosen."""
_CONDITION = re.compile(r"\s*([^=!]*?)\s*(!?=)\s*(.*?)\s*", re.DOTALL)


def read_choice(texts: Sequence[str], grid: Grid, option: str) -> Choice:
    """Returns the test for the cells that ``factor=label`` and ``factor!=label`` leave.

    Labels of one factor joined by ``=`` are alternatives; everything else must hold together.

    Args:
        texts: the conditions.
        grid: with the factors and their labels.
        option: that they were given to, named in errors.

    Raises:
        InputError: a text of another form, an unknown factor, or a label that the factor does not have.
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


def choose_cell(texts: Sequence[str], grid: Grid, option: str) -> Cell:
    """Returns the one cell that the conditions leave.

    Raises:
        InputError: they leave none or several; or as `read_choice`.
    """
    is_chosen = read_choice(texts, grid, option)
    cells = [cell for cell in grid.cells if is_chosen(cell.labels)]
    if len(cells) == 1:
        return cells[0]
    shown = " ".join(f"{option} {text!r}" for text in texts)
    if not cells:
        raise InputError(f"{shown}: leaves none of the {len(grid.cells)} cells; must leave one")
    open_factors = {factor: dict.fromkeys(cell.labels[factor] for cell in cells) for factor in grid.factors}
    listed = "; ".join(f"{factor} ({', '.join(labels)})" for factor, labels in open_factors.items() if len(labels) > 1)
    raise InputError(f"{shown}: leaves {len(cells)} cells, must leave one; they differ in {listed}")


def list_labels(grid: Grid, factor: str) -> list[str]:
    """Returns the labels that a factor has in a grid, in the order they first appear."""
    return list(dict.fromkeys(cell.labels[factor] for cell in grid.cells))


def _read_condition(text: str, grid: Grid, option: str) -> tuple[str, str, str]:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise InputError(f"{option} {text!r}: must be factor=label or factor!=label{near_match(text, grid.factors)}")
    factor, sign, label = match.groups()
    choice(factor, grid.factors, option)
    return factor, sign, choice(label, list_labels(grid, factor), f"{option} {factor}")


Assignment = dict[str, Level]


def count_assignments(sweep: Sweep) -> int:
    """Returns how many assignments a sweep makes before `exclude` and `only_if`: in no time, however many they are."""
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
    """Yields the assignments of a sweep, in order; those that `only_if` makes equal are all among them.

    Args:
        sweep: any.
        base: what each factor of the sweep is where it is given no level.
        schema: of the settings that may vary.
    """
    for combination in _combine(sweep, schema):
        assignment = _keep_applicable(combination, sweep, base)
        levels = {**base, **assignment}
        if not any(meets(condition, levels) for condition in sweep.exclude):
            yield assignment


def draw_level(factor: Factor, draw_seed: int, index: int, schema: Schema) -> Level:
    """Returns the level that a random sweep gives a factor in the draw `index`, whatever else it draws."""
    share = random.Random(f"{draw_seed}/{factor.name}/{index}").random()
    if factor.range is None:
        return factor.levels[int(share * len(factor.levels))]
    value = factor.range.pick(share)
    return Level.make(write_literal(value), {factor.name: value}, schema)


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


def _keep_applicable(combination: Assignment, sweep: Sweep, base: Mapping[str, Level]) -> Assignment:
    """Drops the factors whose `only_if` does not hold, which a factor dropped itself can bring about."""
    if not sweep.only_if:
        return combination
    kept, levels = dict(combination), {**base, **combination}
    needs = {name: {clause.factor for clause in condition} for name, condition in sweep.only_if.items()}
    for name in graphlib.TopologicalSorter(needs).static_order():
        if name in kept and not meets(sweep.only_if.get(name, ()), levels):
            del kept[name]
            levels[name] = base[name]
    return kept


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
        schema = study.schema
        settings = {**schema.list_defaults(), **study.settings}
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
            self._labels.setdefault(tuple({**self._base, **level.values}.values()), level.label)

    @property
    def base(self) -> Level:
        """What the factor is in the base."""
        return Level(self.label(self._base), self._base, self._base)

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
        from cnnjax.runs.config import split_sizes

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

    def _find(self, data: DataConfig) -> "DatasetInfo | None":
        from cnnjax.data.loading import load_data_info

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
