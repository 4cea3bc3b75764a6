"""A study from Python is that of a file with full paths; its results are what the store says, by the names of cells."""

import html
import inspect
import os
import re
import signal
import sys
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ablations import Study, read_dict, read_toml, run_study
from ablations.execution.coordinator import run_grid
from ablations.execution.in_process import InProcessExecutor
from ablations.execution.work import Policy
from ablations.study.grid import expand
from cnnjax import DataConfig, Dataset, InputError, RunConfig, Store, fit
from cnnjax.console.tables import write_terminal
from cnnjax.errors import Interrupted
from cnnjax.runs.history import Silence
from cnnjax.runs.train_config import TrainConfig
from cnnjax.settings.schema import Schema
from cnnjax.statistics.measures import ACCURACY
from grid_helpers import Watcher, make_grid
from odd_values import check_each

SMALL = DataConfig(train_size=100)
NET = """
    import os
    import flax.linen as nn
    from collections.abc import Callable

    class Net(nn.Module):
        classes: int
        width: int = 4
        norm: str = "group"
        depth: int = 1
        momentum: float = 0.5
        act: Callable = nn.relu

        @nn.compact
        def __call__(self, images):
            return nn.Dense(self.classes)(self.act(nn.Dense(self.width)(images.reshape(len(images), -1))))
"""


@pytest.fixture
def notebook(monkeypatch, tmp_path):
    """Returns a class that is defined as in a notebook, in ``__main__`` without a file."""
    path = tmp_path / "cell.py"
    path.write_text(textwrap.dedent(NET))
    namespace = {"__name__": "__main__"}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "Net", namespace["Net"], raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "nn", namespace["nn"], raising=False)
    return namespace["Net"]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    grid = {"dense": [[4, 4], [8]], "learning_rate": [0.1, 0.01]}
    study = Study(data=DataConfig(train_size=500), base={"model.filters": [], "epochs": 1}, grid=grid, seeds=3)
    return study.run(tmp_path_factory.mktemp("python") / "runs", quiet=True)


def test_short_names_mean_the_settings_of_full_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(textwrap.dedent(NET))
    import flax.linen as nn

    short = Study(
        "nets.py:Net",
        DataConfig("fashion_mnist", train_size=50),
        base={"width": 8, "momentum": 0.25, "epochs": 2},
        grid={"act": [nn.gelu, nn.tanh], "train.momentum": (0.0, 0.9), "augment": [["flip"], []]},
        seeds="3..5",
    ).config
    full = {
        "title": "act x momentum x augment",
        "seeds": [3, 4, 5],
        "base": {
            "model": {"module": "nets.py:Net", "width": 8, "momentum": 0.25},
            "train.epochs": 2,
            "data": {"name": "fashion_mnist", "train_size": 50},
        },
        "sweep": {
            "grid": {
                "model.act": ["flax.linen:gelu", "flax.linen:tanh"],
                "train.momentum": [0.0, 0.9],
                "train.augment": [["flip"], []],
            }
        },
    }
    assert short.to_dict() == read_dict(full, short.name).to_dict()


def test_every_kind_of_sweep_is_that_of_a_file_by_short_names():
    size = [{"label": "small", "set": {"filters": [4], "epochs": 1}}, {"label": "usual", "set": {}}]
    tricks = {"norm": ["batch"], "momentum": [0.9]}
    rates = {"learning_rate": {"low": 0.01, "high": 0.1}, "batch_size": range(50, 151, 50)}
    once = {"optimizer": "adam", "size": "small", "learning_rate": {"at_least": 0.1}}
    given = [
        {"leave_one_out": tricks},
        {"random": rates, "draws": 3},
        {"list": [{"label": "dense", "filters": []}, {}], "factor": "network"},
        {
            "grid": {"optimizer": ["sgd", "adam"], "size": size, "learning_rate": [0.01, 0.1], "momentum": [0.0, 0.9]},
            "exclude": [once],
            "only_if": {"momentum": {"optimizer": "sgd"}},
        },
    ]
    full = """
        title = "norm x momentum x learning_rate x batch_size x network x optimizer x size"
        seeds = [2, 3]
        base.data.name = "mnist"
        [[sweep]]
        leave_one_out = { "model.norm" = ["batch"], "train.momentum" = [0.9] }
        [[sweep]]
        draws = 3
        random = { "train.learning_rate" = { low = 0.01, high = 0.1 }, "train.batch_size" = [50, 100, 150] }
        [[sweep]]
        factor = "network"
        list = [{ label = "dense", "model.filters" = [] }, {}]
        [[sweep]]
        exclude = [{ "train.optimizer" = "adam", size = "small", "train.learning_rate" = { at_least = 0.1 } }]
        only_if = { "train.momentum" = { "train.optimizer" = "sgd" } }
        [sweep.grid]
        "train.optimizer" = ["sgd", "adam"]
        size = [{ label = "small", set = { "model.filters" = [4], "train.epochs" = 1 } }, { label = "usual", set = {} }]
        "train.learning_rate" = [0.01, 0.1]
        "train.momentum" = [0.0, 0.9]
    """
    study = Study(sweep=given, seeds=range(2, 4)).config
    assert study.to_dict() == read_toml(full, "?").to_dict()
    assert Study(sweep={"grid": {"padding": ["same"]}}).config == Study(grid={"padding": ["same"]}).config


def test_an_argument_of_any_type_is_taken_or_refused_in_one_line(result):
    grid = {"padding": ["same", "valid"]}
    for name in ("subject", "data", "base", "grid", "sweep", "seeds", "title"):
        check_each(lambda value, name=name: Study(**{**({} if name == "sweep" else {"grid": grid}), name: value}))
    check_each(lambda value: Study(grid={"padding": value}))
    check_each(lambda value: Study(grid={"learning_rate": [value]}))
    check_each(lambda value: Study(grid=grid, base={"epochs": value}))
    check_each(lambda value: Study(sweep={"grid": grid, "exclude": value}))
    check_each(lambda value: Study(sweep={"grid": grid, "only_if": value}))
    check_each(lambda value: Study(sweep={"list": value, "factor": value}))
    check_each(result.__getitem__)
    for name in inspect.signature(result.compare).parameters:
        check_each(lambda value, name=name: result.compare(**{"baseline": "dense=8, learning_rate=0.1", name: value}))


def test_a_name_of_several_settings_is_refused_with_their_paths():
    class Other(TrainConfig):
        section = "other"

    schema = Schema([DataConfig, TrainConfig, Other])
    with pytest.raises(InputError, match=r"base: 'epochs' is several settings; must be one of train.epochs, other.ep"):
        schema.complete_path("epochs", "base")
    assert schema.complete_path("name", "base") == "data.name"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": {"paddin": ["same"]}}, "grid: unknown setting 'paddin'; did you mean 'padding'.*model.padding"),
        ({"grid": {"padding": "same"}}, "grid.model.padding='same': must be a list of at least one level"),
        ({"grid": {"padding": ["some"]}}, r"model.padding\[0\]='some': must be"),
        ({"grid": {"padding": ["same"]}, "base": {"name": "mnist"}}, "base.data.name: given twice"),
        ({"grid": {"padding": ["same"]}, "base": {"epochs": 0}}, "base.train.epochs=0: must be >= 1"),
        ({"grid": {"padding": ["same"]}, "base": 3}, "base=3: must be a dict"),
        ({"grid": {"padding": ["same"]}, "data": 3}, "data=3: must be a name such as 'mnist', a DataConfig or a Data"),
        ({"grid": {"padding": ["same"]}, "subject": "nets"}, "subject='nets': must be a name in a file or module"),
        ({"grid": {"padding": ["same"]}, "subject": dict}, "builtins:dict'?: is .*must be a linen module"),
        ({"grid": {"padding": ["same"]}, "seeds": 0}, "seeds=0: must be >= 1"),
        ({}, "grid, sweep: must have one of them"),
        ({"grid": {"padding": ["same"]}, "sweep": {"zip": {"padding": ["same"]}}}, "grid, sweep: must have one of"),
        ({"grid": {}}, "sweep.grid=.*: must be a table of factors"),
        ({"grid": {1: ["same"]}}, "grid: 1 is no setting; must be a name, such as 'epochs'"),
        ({"grid": {"padding": ["same"]}, "base": {None: 1}}, "base: None is no setting; must be a name"),
        ({"sweep": "grid"}, "sweep='grid': must be a dict, such as"),
        ({"sweep": [{"zip": {"padding": ["same"]}}, 3]}, r"sweep\[1\]=3: must be a dict"),
        ({"sweep": {"zip": {"paddin": ["same"]}}}, "sweep.zip: unknown setting 'paddin'; did you mean 'padding'"),
        ({"sweep": {"grid": {"epochs": [1]}, "exclude": [{"epoch": 1}]}}, r"exclude\[0\]: unknown setting 'epoch'"),
        ({"sweep": {"grids": {"epochs": [1]}}}, "sweep: must have exactly one of grid.*did you mean 'grid'"),
    ],
)
def test_a_mistake_is_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as refusal:
        Study(**arguments)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("page", "cells"), [("your_network", 2), ("studies", 4)])
def test_the_examples_of_the_pages_are_studies(notebook, page, cells):
    text = (Path(__file__).parent.parent / f"docs/{page}.md").read_text()
    (line,) = re.findall(r"^study = (?:ablations\.)?(Study\(.*\))$", text, re.MULTILINE)
    assert len(expand(eval(line, {"Study": Study, "Net": notebook}).config).cells) == cells


def test_cells_are_found_by_their_names(result):
    records = result.store.find_all().values()
    for dense in ([4, 4], [8]):
        for rate in (0.1, 0.01):
            wanted = {
                record.config.seed: record.test_accuracy
                for record in records
                if [*record.config.model.dense] == dense and record.config.train.learning_rate == rate
            }
            arm = result[f"learning_rate={rate}, dense={str(dense).replace(' ', '')}"]
            assert arm.scores(ACCURACY) == wanted
            assert result[arm.name] is arm
    assert len(wanted) == 3
    with pytest.raises(InputError, match=r"cell 'dense=\[8\]': leaves 2 cells, must leave one; they differ in train.l"):
        result["dense=[8]"]


def test_a_comparison_is_of_the_differences_at_equal_seeds(result):
    found = result.compare("dense=[8], learning_rate=0.1")
    baseline = result[found.findings.base].scores(ACCURACY)
    assert len(found.contrasts) == 3
    for name, contrast in found.contrasts.items():
        own, seeds = result[name].scores(ACCURACY), contrast.comparison.seeds
        assert len(seeds) == contrast.first_runs.completed  # all runs of the baseline trained
        assert contrast.comparison.mean == pytest.approx(np.mean([own[seed] - baseline[seed] for seed in seeds]))
    assert len(result.compare().contrasts) == 6
    assert all(contrast.verdict.label in repr(found) for contrast in found.contrasts.values())


def test_results_show_every_cell_as_text_and_in_a_notebook(result):
    document = result.to_document()
    assert repr(result) == write_terminal(document)
    shown = [re.sub("<.*?>", "", cell) for cell in re.findall("<td.*?</td>", result._repr_html_())]
    (table,) = document.tables
    assert len(shown) == len(table.rows) * len(table.columns)
    assert shown[:: len(table.columns)] == ["[4,4]", "[4,4]", "[8]", "[8]"]
    assert "<table" in html.unescape(result.compare()._repr_html_())


def test_how_cells_are_judged_is_refused_by_the_names_of_arguments(result):
    for judging, message in (
        ({"unit": "own"}, "^unit: describes a metric; give its name with by$"),
        ({"by": "f1", "unit": "own"}, "^margin: must be given, in the unit of f1: smaller differences of it"),
        ({"by": "f1"}, "^metric f1: .* must be one of test, validation, loss$"),
    ):
        with pytest.raises(InputError, match=message):
            result.compare(**judging)


def test_a_study_that_is_run_again_is_read_from_its_store(result):
    grid = {"dense": [[4, 4], [8]], "learning_rate": [0.1, 0.01]}
    again = Study(data=DataConfig(train_size=500), base={"filters": [], "epochs": 1}, grid=grid, seeds=3)
    assert again.config == result.study
    before = result.store.list_statuses()
    assert again.run(result.store.path.parent, quiet=True).records == result.records
    assert result.store.list_statuses() == before
    assert [known.name for known in result.store.list_grids()] == [result.study.name]


def test_images_from_python_are_those_of_the_same_single_run(tmp_path):
    images = np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4)
    data = Dataset.from_arrays((images, [0, 1, 2] * 4), (images, [0, 1, 2] * 4), name="mine")
    study = Study(data=data, base={"filters": [], "epochs": 1, "batch_size": 3}, grid={"dense": [[4]]}, seeds=[7])
    (trial,) = study.run(tmp_path, quiet=True).grid.trials
    config = RunConfig.from_dict({**trial.config.to_dict(), "data": {"name": "mine"}})
    assert fit(config, None, dataset=data).key == trial.key


class TestNotebook:
    def test_a_network_of_a_notebook_is_trained_in_its_process(self, notebook, tmp_path):
        study = Study(notebook, SMALL, base={"epochs": 1}, grid={"width": [2, 3]}, seeds=2)
        result = study.run(tmp_path, quiet=True)
        assert [arm.counts["completed"] for arm in result.arms] == [2, 2]
        for trial in result.grid.trials:
            assert fit(trial.config, None).record.test_loss == result.records[trial.key].test_loss

    def test_its_progress_is_shown_while_a_trial_runs(self, notebook, tmp_path):
        watcher = Watcher()
        study = Study(notebook, SMALL, base={"epochs": 2}, grid={"width": [2]}, seeds=1)
        (trial,) = expand(study.config).trials
        run_study(study.config, tmp_path, observer=watcher)
        kinds = [kind for kind, _ in watcher.told]
        assert kinds == ["begin", "start", *["advance"] * watcher.count("advance"), "end", "close"]
        assert ("advance", trial.key) in watcher.told

    def test_it_is_refused_for_workers_before_anything_is_written(self, notebook, tmp_path):
        study = Study(notebook, SMALL, grid={"width": [2, 3]})
        with pytest.raises(InputError, match="workers=2: Net is defined in a notebook"):
            study.run(tmp_path / "runs", workers=2)
        assert not (tmp_path / "runs").exists()


class TestInProcess:
    def run(self, grid, folder, **policy):
        executor = InProcessExecutor()
        return run_grid(grid, Store(folder), executor, Watcher(), Policy(max_retries=0, **policy))

    def test_a_trial_that_raises_is_failed_and_the_grid_goes_on(self, tmp_path, monkeypatch):
        import ablations.execution.trials as trials

        grid, train = make_grid(), trials.fit_group

        def fail(configs, *arguments, **options):
            if configs[0].seed == 1:
                raise ValueError("a defect\nin two lines")
            return train(configs, *arguments, **options)

        monkeypatch.setattr(trials, "fit_group", fail)
        assert self.run(grid, tmp_path).counts == Counter(completed=2, failed=2)
        records = Store(tmp_path).find_all().values()
        failed = [record for record in records if record.status == "failed"]
        assert {record.config.seed for record in failed} == {1}
        assert all(record.reason == "ValueError: a defect" and "in fail" in record.output for record in failed)

    def test_a_signal_stops_the_grid_and_the_same_call_goes_on(self, tmp_path, monkeypatch):
        import ablations.execution.trials as trials

        grid, train, started = make_grid(), trials.fit_group, []

        class Stop(Silence):
            def advance(self, progress):
                os.kill(os.getpid(), signal.SIGTERM)

        def stop(configs, dataset, make_observer, **options):
            started.append(configs)
            return train(configs, dataset, lambda _: Stop() if len(started) == 3 else Silence(), **options)

        monkeypatch.setattr(trials, "fit_group", stop)
        with pytest.raises(Interrupted, match="2 trials are stored, 2 are left") as stopped:
            self.run(grid, tmp_path)
        assert stopped.value.exit_code == 128 + signal.SIGTERM
        assert self.run(grid, tmp_path).counts == Counter(completed=4)
        assert len(started) == 5
