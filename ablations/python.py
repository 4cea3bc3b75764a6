"""A study in a few lines of Python, and what the store says of it, by the names of its cells.

A study of a network of one's own, or of a trial function; its results, which show themselves; how the other cells
compare with one::

    study = Study(ResNet, "cifar10", base={"width": 16, "epochs": 5}, grid={"norm": ["group", "none"]}, seeds=5)
    result = study.run("runs")
    result.compare("norm=none")
"""

import functools
import inspect
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, get_args

from ablations.execution.arms import make_arms
from ablations.execution.launching import hand_over, run_study
from ablations.execution.watching import make_grid_observer
from ablations.results import Report, compare_grid, describe_study, list_base, list_duplicates
from ablations.study.grid import Grid, choose_cell, expand
from ablations.study.reading import read_dict
from ablations.study.study import DEFAULT_FACTOR, DEFAULT_SEEDS, Kind, StudyConfig
from cnnjax.console.tables import Document
from cnnjax.data.dataset import Dataset
from cnnjax.data.settings import DataConfig
from cnnjax.errors import InputError
from cnnjax.models import own_module
from cnnjax.reports.arms import Arm
from cnnjax.reports.comparison import Comparison
from cnnjax.reports.findings import DATASET
from cnnjax.reports.rules import Unit, make_rules
from cnnjax.runs import trial_function
from cnnjax.runs.config import RunConfig
from cnnjax.runs.record import Record
from cnnjax.runs.store import Store
from cnnjax.settings.checking import show
from cnnjax.settings.functions import read_function
from cnnjax.settings.references import load_object, read_reference
from cnnjax.settings.schema import Schema, shorten_paths

_SOURCE = "Study"
_ADVICE = "Cells are listed here, not compared: `compare('FACTOR=LABEL')` compares all with one, `compare()` all pairs."


@dataclass(frozen=True)
class Study:
    """Networks that differ in design choices, or calls of a trial function, each with several seeds.

    Settings are named by their path, such as ``train.epochs``, or by its last part: a field of the network or a
    parameter of the function, or else a setting of the training or of the data.

    Attributes:
        subject: a class of Flax modules, a trial function (`cnnjax.runs.trial_function`), or its import path; left out,
            the textbook network.
        data: the name of a dataset, such as ``folder:PATH``, its settings, or the dataset itself.
        base: the settings that all cells share.
        grid: the levels of every factor; the cells are all combinations.
        sweep: instead of a grid, what stands below ``sweep`` in a file (docs/studies.md), such as
            ``{"one_at_a_time": {"norm": ["none"], "depth": [2]}}``, or a list of several.
        seeds: of every cell: ``5`` for 0 to 4, ``"3..9"``, or a list.
        title: the question in one line; by default, the names of the factors.

    Raises:
        InputError: lists all mistakes of the study.

    Example:
        >>> grid = {"padding": ["valid", "same"]}
        >>> study = Study(data=DataConfig(train_size=200), base={"epochs": 1}, grid=grid, seeds=2)
        >>> result = study.run("runs", quiet=True)
        >>> result["padding=same"].counts["completed"]
        2
        >>> result.compare("padding=valid").contrasts["model.padding=same"].comparison.n
        2
    """

    subject: Any = None
    data: str | DataConfig | Dataset = "mnist"
    _: KW_ONLY
    base: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] | None = None
    sweep: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    seeds: Any = DEFAULT_SEEDS
    title: str | None = None

    def __post_init__(self) -> None:
        _ = self.config

    @functools.cached_property
    def config(self) -> StudyConfig:
        """The study with its settings in full, as a file has them."""
        given = _name_subject(self.subject)
        if trial_function.WHERE not in given:
            given |= _list_data_settings(self.data)
        elif self.data != "mnist":
            raise InputError(f"{_SOURCE}: data={self.data!r}: a trial function loads its own data; leave it out")
        schema = RunConfig.schema(given)
        base = _complete(self.base, schema, "base")
        for path in base:
            if path in given:
                raise InputError(f"{_SOURCE}: base.{path}: given twice")
        if (self.grid is None) == (self.sweep is None):
            raise InputError(f"{_SOURCE}: grid, sweep: must have one of them, such as grid={{'padding': ['same', 0]}}")
        if self.sweep is None:
            sweep: Any = {"grid": _complete(self.grid, schema, "grid")}
        elif isinstance(self.sweep, list | tuple):
            sweep = [_complete_sweep(table, schema, f"sweep[{index}]") for index, table in enumerate(self.sweep)]
        else:
            sweep = _complete_sweep(self.sweep, schema, "sweep")
        title = "?" if self.title is None else self.title
        table = {"title": title, "seeds": self.seeds, "base": {**given, **base}, "sweep": sweep}
        config = read_dict(table, "", _SOURCE)
        if self.title is None:
            factors = dict.fromkeys(factor.name for each in config.sweeps for factor in each.factors)
            config = replace(config, title=" x ".join(shorten_paths([*factors]).values()))
        name = next(iter(given.values())).rpartition(":")[2] if self.subject else "cnn"
        return replace(config, name=f"{name}-{config.digest}")

    def run(
        self, out: str | os.PathLike[str] = "runs", *, workers: int | None = None, quiet: bool = False
    ) -> "StudyResult":
        """Runs the trials that are not stored, and returns the results; an interrupted study continues.

        Workers import the subject, so in a script this is called below ``if __name__ == "__main__":``. What is
        defined in a notebook runs in this process.

        Args:
            out: the output folder with the store.
            workers: the number of worker processes; by default, one per core or device.
            quiet: shows only failures.

        Raises:
            InputError, CorruptionError, UnavailableError, Interrupted: as `run_study`.
        """
        config = hand_over(self.config, self.data) if isinstance(self.data, Dataset) else self.config
        run_study(config, out, workers=workers, observer=make_grid_observer(quiet), command="Study.run")
        return StudyResult(config, Store(out))


def _name_subject(subject: Any) -> dict[str, Any]:
    """Returns the setting that names what is studied: a module, a function, or none for the textbook network."""
    if subject is None:
        return {}
    reference = read_reference(subject, "subject")
    found = load_object(reference, "subject")
    is_class = inspect.isclass(getattr(found, "func", found))  # functools.partial presets fields or arguments
    return {own_module.WHERE if is_class else trial_function.WHERE: reference}


def _list_data_settings(data: Any) -> dict[str, Any]:
    """Returns the settings of a dataset, by path; of one that is handed over, its name."""
    if isinstance(data, DataConfig):
        return {f"data.{name}": value for name, value in data.to_dict().items() if value != getattr(DataConfig, name)}
    if isinstance(data, str | Dataset):
        return {"data.name": data.name if isinstance(data, Dataset) else data}
    raise InputError(f"{_SOURCE}: data={show(data)}: must be a name such as 'mnist', a DataConfig or a Dataset")


def _complete_sweep(table: Any, schema: Schema, where: str) -> Any:
    """Returns a sweep with all settings by their paths, wherever it names them."""
    if not isinstance(table, Mapping):
        raise InputError(f"{_SOURCE}: {where}={show(table)}: must be a dict, such as {{'zip': {{'epochs': [1, 2]}}}}")
    kinds = [kind for kind in get_args(Kind) if kind != "list" and kind in table]
    completed = {**table, **{kind: _complete(table[kind], schema, f"{where}.{kind}") for kind in kinds}}
    sets = [name for kind in kinds for name in completed[kind] if "." not in name]
    kept = (table.get("factor", DEFAULT_FACTOR), *sets)
    for key, names in (("list", ("label",)), ("exclude", kept)):
        if isinstance(table.get(key), list | tuple):
            parts = enumerate(table[key])
            completed[key] = [_complete(part, schema, f"{where}.{key}[{index}]", names) for index, part in parts]
    if "only_if" in table:
        conditions = _complete(table["only_if"], schema, f"{where}.only_if", kept)
        completed["only_if"] = {
            name: _complete(condition, schema, f"{where}.only_if.{name}", kept)
            for name, condition in conditions.items()
        }
    return completed


def _complete(table: Any, schema: Schema, where: str, kept: Collection[str] = ()) -> dict[str, Any]:
    """Returns settings by their paths, apart from names that are kept, with code named by its import path."""
    if not isinstance(table, Mapping):
        raise InputError(f"{_SOURCE}: {where}={show(table)}: must be a dict of settings, such as {{'epochs': 5}}")
    for name in table:
        if not isinstance(name, str):
            raise InputError(f"{_SOURCE}: {where}: {show(name)} is no setting; must be a name, such as 'epochs'")
    paths = [name if name in kept else _complete_name(name, levels, schema, where) for name, levels in table.items()]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise InputError(f"{_SOURCE}: {where}.{twice}: given twice")
    values = (_complete_level(value, schema, where) for value in table.values())
    return {path: _name_code(value, f"{where}.{path}") for path, value in zip(paths, values, strict=True)}


def _complete_level(value: Any, schema: Schema, where: str) -> Any:
    """Returns levels that set several settings with these by their paths; any other value as it is."""
    if isinstance(value, list | tuple):
        return [_complete_level(part, schema, where) for part in value]
    if isinstance(value, Mapping) and "set" in value:
        return {**value, "set": _complete(value["set"], schema, f"{where}: set")}
    return value


def _complete_name(name: str, levels: Any, schema: Schema, where: str) -> str:
    """Returns the path of a setting; a factor whose levels are sets of settings keeps its name."""
    listed = levels if isinstance(levels, list | tuple) else ()
    has_sets = any(isinstance(level, Mapping) and "set" in level for level in listed)
    return name if has_sets else schema.complete_path(name, f"{_SOURCE}: {where}")


def _name_code(value: Any, where: str) -> Any:
    if isinstance(value, list | tuple):
        return [_name_code(part, where) for part in value]
    if isinstance(value, Mapping):
        return {name: _name_code(part, where) for name, part in value.items()}
    return read_function(value, where) if callable(value) else value


@dataclass(frozen=True, repr=False)
class StudyResult:
    """What a store says of a study; it shows itself as text, and in notebooks as tables.

    A cell is named by the labels of its factors, such as ``norm=group, depth=1``, as far as they tell it from the
    others.

    Attributes:
        study: the study.
        store: the store with its runs.
    """

    study: StudyConfig
    store: Store

    @functools.cached_property
    def grid(self) -> Grid:
        """The study expanded into its cells."""
        return expand(self.study)

    @functools.cached_property
    def records(self) -> dict[str, Record]:
        """The stored runs of the study, by run key."""
        return self.store.find_all(trial.key for trial in self.grid.trials)

    @functools.cached_property
    def arms(self) -> tuple[Arm, ...]:
        """The cells with their stored runs."""
        return make_arms(self.grid, self.records)

    def __getitem__(self, cell: str) -> Arm:
        """Returns the cell of this name with its runs; raises `InputError` if it is not the name of one cell."""
        return self.arms[self.grid.cells.index(choose_cell(self._split(cell, "cell"), self.grid, "cell"))]

    def compare(
        self,
        baseline: str | None = None,
        *,
        by: str = "test",
        unit: Unit = "percent",
        lower_is_better: bool = False,
        chance: float | None = None,
        margin: float | None = None,
        alpha: float = 0.05,
        power: float = 0.8,
    ) -> Comparison:
        """Compares the cells by their differences at equal seeds.

        Args:
            baseline: the name of the cell that the others are compared with; ``None`` compares all pairs.
            by, unit, lower_is_better, chance, margin, alpha, power: how cells are judged, as in
                `cnnjax.reports.rules.make_rules`.

        Raises:
            InputError: there is no such cell, it has no result, or cells cannot be judged in this way.
        """
        rules = make_rules(
            by=by,
            unit=unit,
            lower_is_better=lower_is_better,
            chance=chance,
            margin=margin,
            alpha=alpha,
            power=power,
        )
        cell = None
        if baseline is not None:
            cell = choose_cell(self._split(baseline, "baseline"), self.grid, "baseline", apart_from=DATASET)
        findings = compare_grid(
            self.grid,
            self.records,
            self.store,
            cell,
            rules,
            title=self.study.title,
            facts=describe_study(self.grid, list_base(self.study)),
            command="",
            remarks=list_duplicates(self.grid),
        )
        return Comparison(findings)

    def to_document(self) -> Document:
        """Returns the cells with their results."""
        report = Report(self.study.title, self.grid, self.arms, base=list_base(self.study))
        return replace(report.to_document(), summary=(_ADVICE,))

    def __repr__(self) -> str:
        return str(self.to_document())

    def _repr_html_(self) -> str:
        return self.to_document()._repr_html_()

    def _split(self, name: Any, where: str) -> list[str]:
        """Returns the parts of a cell's name; a comma in a label, such as ``[16,32]``, separates no parts."""
        if not isinstance(name, str):
            first = self.grid.cells[0].name
            raise InputError(f"{where}={show(name)}: must be the name of a cell, such as {first!r}")
        factors = shorten_paths(self.grid.factors)
        known = "|".join(map(re.escape, (*factors, *factors.values())))
        return re.split(rf",\s*(?=(?:{known})\s*=)", name)
