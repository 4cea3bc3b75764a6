"""Functions of the user in training: optimizer, loss, metrics and random changes of images, by import path."""

import dataclasses
import functools
import importlib.metadata
import json
import linecache
import re
import shlex
import shutil
import sqlite3
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ablations import expand, read_dict, run_study
from ablations.arguments import read_study
from ablations.run import RunArguments
from cnnjax import DataConfig, InputError, ModelConfig, RunConfig, Store, TrainConfig, fit, load_run
from cnnjax.console.arguments import parse_arguments
from cnnjax.console.terminal import LineObserver
from cnnjax.data.loading import load
from cnnjax.errors import CodeError
from cnnjax.reports.arms import count_origins, describe_origins
from cnnjax.runs.provenance import list_code
from cnnjax.runs.trackers.tracking import list_origins
from cnnjax.settings.functions import load_function, read_function
from cnnjax.settings.references import describe_package
from cnnjax.training.fit import fit_many
from cnnjax.training.optimizers import make_schedule
from cnnjax.training.own_functions import check_functions
from experiments.train import main, parse

SMALL = ModelConfig(filters=(4,), kernel_size=3, dense=(8,))
FEW = DataConfig(train_size=120)

SOURCE = """
    import dm_pix as pix
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    def cross_entropy(logits, labels, power: float = 1.0):
        return optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, logits.shape[-1])) ** power

    def sgd(learning_rate, momentum: float = 0.0):
        return optax.sgd(learning_rate, momentum)

    def decay(steps, peak: float = 0.1):
        return optax.sgd(optax.linear_schedule(peak, 0.0, steps))

    def flip(key, image):
        return pix.random_flip_left_right(key, image)

    def recall(logits, labels, label: int = 0):
        return np.mean(np.argmax(logits, -1)[labels == label] == label)

    def hit(logits, labels):
        return jnp.argmax(logits, -1) == labels

    def three():
        return 3

    def mean(logits, labels):
        return cross_entropy(logits, labels).mean()

    def accuracy(logits, labels):
        return hit(logits, labels)

    def endless(logits, labels):
        return float("nan")
"""


@pytest.fixture(autouse=True)
def source(tmp_path, monkeypatch):
    """Writes the file of functions into the current folder; returns its path."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(SOURCE))
    return path


def make_config(seed=0, **train):
    return RunConfig(SMALL, TrainConfig(**{"epochs": 2, "batch_size": 30, **train}), FEW, seed=seed)


def assert_same_training(config, other):
    run, reference = fit(config, out=None), fit(other, out=None)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), run.params, reference.params)
    for epoch, expected in zip(run.history, reference.history, strict=True):
        assert epoch.loss == pytest.approx(expected.loss, rel=1e-4)
        assert epoch.val_loss == pytest.approx(expected.val_loss, rel=1e-4)
    assert run.record.test_loss == pytest.approx(reference.record.test_loss, rel=1e-4)


class TestTraining:
    def test_by_a_loss_of_the_user_equals_that_by_the_same_loss_of_the_library(self):
        own = make_config(loss="mine.py:cross_entropy", learning_rate=0.1, validation_split=0.1)
        assert_same_training(own, make_config(learning_rate=0.1, validation_split=0.1))

    @pytest.mark.parametrize("schedule", ["constant", "cosine"])
    def test_by_an_optimizer_of_the_user_equals_that_by_the_same_optimizer_of_the_library(self, schedule):
        shared = {"learning_rate": 0.1, "schedule": schedule, "clip_norm": 0.5, "validation_split": 0.1}
        own = make_config(optimizer="mine.py:sgd(momentum=0.9)", **shared)
        assert_same_training(own, make_config(momentum=0.9, **shared))

    def test_by_a_factory_of_optax_needs_no_file(self):
        own = make_config(optimizer="optax:adam(b1=0.9)", learning_rate=0.01, validation_split=0.1)
        assert own.train.code == (("optax:adam", "installed"),)
        assert_same_training(own, make_config(optimizer="adam", learning_rate=0.01, validation_split=0.1))

    def test_gives_an_optimizer_the_number_of_steps(self):
        own = make_config(optimizer="mine.py:decay", validation_split=0.1)
        linear = make_config(learning_rate=0.1, schedule="linear", validation_split=0.1)
        assert_same_training(own, linear)

    def test_on_images_changed_by_the_user_equals_that_by_the_same_change_of_the_library(self):
        own = make_config(augment=("mine.py:flip", "crop:1"), validation_split=0.1)
        assert_same_training(own, make_config(augment=("flip", "crop:1"), validation_split=0.1))

    def test_of_several_runs_in_one_program_gives_what_each_gives_alone(self):
        functions = {"loss": "mine.py:cross_entropy", "optimizer": "mine.py:sgd", "metrics": ("mine.py:recall",)}
        configs = [make_config(seed, learning_rate=rate, **functions) for seed, rate in enumerate((0.1, 0.2))]
        for run, config in zip(fit_many(configs, out=None, at_once=2), configs, strict=True):
            alone = fit(config, out=None)
            assert run.record.test_loss == pytest.approx(alone.record.test_loss, rel=1e-4)
            assert run.record.scores == pytest.approx(alone.record.scores, abs=0.02)

    def test_by_an_edited_function_is_another_program(self, source):
        first = fit(make_config(loss="mine.py:cross_entropy", learning_rate=0.1), out=None)
        source.write_text(source.read_text().replace("power: float = 1.0", "power: float = 2.0"))
        second = fit(make_config(loss="mine.py:cross_entropy", learning_rate=0.1), out=None)
        assert first.record.test_loss != second.record.test_loss

    def test_by_a_function_of_a_notebook_whose_global_has_changed_is_another_program(self, monkeypatch):
        main = sys.modules["__main__"]
        text = "def scaled(logits, labels):\n    return FACTOR * logits[:, 0] ** 2\n"
        linecache.cache["<cell 1>"] = (len(text), None, text.splitlines(keepends=True), "<cell 1>")
        exec(compile(text, "<cell 1>", "exec"), vars(main))
        losses = []
        for factor in (0.0, 5.0):
            monkeypatch.setattr(main, "FACTOR", factor, raising=False)
            losses.append(fit(make_config(loss="__main__:scaled"), out=None).record.test_loss)
        assert losses[0] == 0 < losses[1]

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (
                "@scale(1.0)\ndef loss(x, y):\n    return x[:, 0]\n",
                "@scale(5.0)\ndef loss(x, y):\n    return x[:, 0]\n",
            ),
            ("def loss(x, y, k=K):\n    return k * x[:, 0] ** 2\n", None),
            ("def loss(x, y):\n    return W[1000] * x[:, 0] ** 2\n", None),
        ],
    )
    def test_an_edit_of_a_notebook_is_another_run(self, monkeypatch, before, after):
        main, keys = sys.modules["__main__"], []

        def scale(factor):
            return lambda function: functools.wraps(function)(lambda x, y: factor * function(x, y))

        for cell, text in enumerate((before, after or before)):
            weights = np.arange(2000.0)
            weights[1000] += cell / 1e12
            for name, value in (("K", 3 + cell), ("W", weights), ("scale", scale)):
                monkeypatch.setattr(main, name, value, raising=False)
            linecache.cache["<cell>"] = (len(text), None, text.splitlines(keepends=True), "<cell>")
            exec(compile(text, "<cell>", "exec"), vars(main))
            keys.append(make_config(loss="__main__:loss").key)
        assert keys[0] != keys[1]

    def test_by_a_function_that_imports_when_it_is_called_finds_the_file_beside_it(self, tmp_path):
        (tmp_path / "code").mkdir()
        (tmp_path / "code/factor.py").write_text("FACTOR = 3\n")
        (tmp_path / "code/late.py").write_text(
            "def loss(logits, labels):\n    from factor import FACTOR\n    return FACTOR * logits[:, 0] ** 2\n"
        )
        assert fit(make_config(loss="code/late.py:loss"), out=None).record.status == "completed"

    def test_is_refused_once_a_module_that_the_function_uses_was_edited(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "weight_of_loss.py").write_text("def weigh(x):\n    return x\n")
        text = "from weight_of_loss import weigh\ndef loss(logits, labels):\n    return weigh(logits[:, 0] ** 2)\n"
        (tmp_path / "weighted_loss.py").write_text(text)
        fit(make_config(loss="weighted_loss:loss"), out=None)
        (tmp_path / "weight_of_loss.py").write_text("def weigh(x):\n    return 2 * x\n")
        with pytest.raises(InputError, match="weighted_loss has been edited since it was imported; start Python again"):
            fit(make_config(loss="weighted_loss:loss"), out=None)

    def test_is_refused_once_the_function_is_not_that_of_the_configuration(self, source, tmp_path):
        config = make_config(loss="mine.py:cross_entropy")
        source.write_text(source.read_text() + "# edited\n")
        with pytest.raises(InputError, match=r"the source of mine\.py:cross_entropy is not the one of this run"):
            fit(config, tmp_path / "runs")
        assert not (tmp_path / "runs").exists()


class TestMetrics:
    METRICS = ("mine.py:recall(label=3)", "mine.py:hit", "mine.py:endless")

    def test_are_those_of_the_predictions_on_the_test_set(self, tmp_path):
        run = fit(make_config(metrics=self.METRICS), tmp_path / "runs")
        test = load("mnist").test
        predictions = run.predict_proba(test.images).argmax(1)
        recall = np.mean(predictions[test.labels == 3] == 3)
        expected = {"recall(label=3)": recall, "hit": run.record.test_accuracy, "endless": None}
        assert run.record.scores == pytest.approx(expected)
        assert load_run(run.key, tmp_path / "runs").record.scores == run.record.scores

    def test_do_not_change_the_training(self):
        runs = [fit(make_config(metrics=metrics), out=None) for metrics in ((), self.METRICS)]
        assert runs[0].record.test_loss == runs[1].record.test_loss

    def test_that_fail_lose_no_run(self, source, tmp_path):
        source.write_text(
            source.read_text() + "def spoilt(logits, labels):\n    assert len(labels) < 100, 'too many'\n    return 1\n"
        )
        config, notes = make_config(metrics=("mine.py:spoilt", "mine.py:hit")), []
        observer = LineObserver()
        observer.note = notes.append
        run = fit(config, tmp_path / "runs", observer=observer)
        assert run.record.scores == {"spoilt": None, "hit": pytest.approx(run.record.test_accuracy)}
        assert Store(tmp_path / "runs").find(run.key).scores == run.record.scores
        (note,) = [note for note in notes if "spoilt" in note or "too many" in note]
        assert note.endswith("AssertionError: too many; the metric is stored as missing")

    def test_are_printed_by_the_command(self, capsys):
        assert main(["--train.epochs", "1", "--data.train-size", "100", "--train.metrics", "[mine.py:hit]"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-2].removeprefix("hit: ") == lines[-1].removeprefix("Test accuracy: ")


def test_a_store_of_version_2_is_read_and_takes_scores(tmp_path):
    shutil.copytree(Path(__file__).parent / "recorded/store", tmp_path / "runs")
    store = Store(tmp_path / "runs")
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()
    before = store.find_all()
    assert all(record.scores == {} for record in before.values())
    run = fit(make_config(metrics=("mine.py:hit",)), tmp_path / "runs")
    assert store.find_all() == {**before, run.key: run.record}


class TestKey:
    def test_changes_with_a_comment_in_the_source_and_not_with_another_file(self, source, tmp_path):
        key = make_config(loss="mine.py:cross_entropy").key
        (tmp_path / "other.py").write_text("x = 1")
        assert make_config(loss="mine.py:cross_entropy").key == key
        source.write_text("# a comment\n" + source.read_text())
        assert make_config(loss="mine.py:cross_entropy").key != key

    def test_does_not_change_with_the_folder_or_the_spelling(self, source, tmp_path):
        key = make_config(optimizer="mine.py:sgd(momentum=0.5)").key
        (tmp_path / "code").mkdir()
        shutil.copy(source, tmp_path / "code/mine.py")
        for spelling in ("./mine.py:sgd( momentum = .5 )", "code/mine.py:sgd(momentum=5e-1)"):
            assert make_config(optimizer=spelling).key == key

    def test_does_not_change_with_an_argument_at_its_default_or_an_integer_for_a_float(self):
        key = make_config(loss="mine.py:cross_entropy").key
        for spelling in ("mine.py:cross_entropy(power=1.0)", "mine.py:cross_entropy(power=1)"):
            assert make_config(loss=spelling).key == key
        keys = {make_config(loss=f"mine.py:cross_entropy(power={power})").key for power in ("2", "2.0", "2e0")}
        assert len(keys) == 1

    def test_of_a_function_is_that_of_its_name(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        import mine

        config = make_config(loss=functools.partial(mine.cross_entropy, power=2), metrics=(mine.hit,))
        assert config.train.loss == "mine:cross_entropy(power=2.0)"
        assert config == make_config(loss="mine:cross_entropy(power=2)", metrics=("mine:hit",))

    def test_of_a_stored_configuration_needs_no_source(self, source):
        config = make_config(loss="mine.py:cross_entropy", metrics=("mine.py:hit",))
        source.unlink()
        again = RunConfig.from_json(config.to_json())
        assert (again, again.key) == (config, config.key)
        assert RunConfig.from_toml(config.to_toml()) == config

    def test_does_not_change_with_what_is_recorded_of_a_package(self):
        config = RunConfig(train=TrainConfig(optimizer="optax:lion", learning_rate=0.1))
        values = config.to_dict()
        assert values["train"].pop("code") == [["optax:lion", "installed"]]
        assert RunConfig.from_dict(values) == config
        assert config.key == "f7c57296f81435c574d5c044d8f8c714810b0affe244bb354929caced23389d9"

    def test_the_store_keeps_the_source(self, source, tmp_path):
        run = fit(make_config(loss="mine.py:cross_entropy"), tmp_path / "runs")
        kept = load_run(run.key, tmp_path / "runs").record.provenance["code"]["mine.py:cross_entropy"]
        assert kept["files"] == {"mine.py": source.read_text()}
        assert json.loads(run.record.config.to_json())["train"]["code"] == [["mine.py:cross_entropy", kept["sha256"]]]


def test_the_levels_of_a_study_may_be_functions_with_arguments():
    sweep = {"train.optimizer": ["sgd", "mine.py:sgd(momentum=0.5)", "mine.py:sgd(momentum=0.9)"]}
    study = read_dict({"title": "Which optimizer?", "seeds": 1, "sweep": {"grid": sweep}}, "optimizers")
    cells = expand(study).cells
    assert [cell.config.train.optimizer for cell in cells] == sweep["train.optimizer"]
    assert len({cell.config.key for cell in cells}) == 3


REFUSED = [
    ({"loss": "mine.py:nothing"}, InputError, "train.loss: mine.py has no nothing"),
    ({"loss": "none.py:f"}, InputError, "train.loss: there is no file none.py"),
    ({"loss": "entropy"}, InputError, "train.loss='entropy': must be one of cross_entropy; did you mean"),
    ({"loss": "mine.py:cross_entropy(2)"}, InputError, r"train.loss='mine.py:cross_entropy\(2\)': must be a function"),
    ({"loss": "mine.py:cross_entropy(powr=2)"}, InputError, "unknown key 'powr'; did you mean 'power'"),
    ({"loss": "mine.py:cross_entropy(power='a')"}, InputError, "train.loss: power='a': must be a number, not str"),
    ({"loss": "mine.py:cross_entropy(power={1: 2})"}, InputError, "power={1: 2}: must be a number, a word, or a list"),
    ({"loss": "mine.py:np"}, InputError, "is no function"),
    ({"loss": "mine.py:cross_entropy", "label_smoothing": 0.1}, InputError, "train.label_smoothing=0.1: has no effect"),
    (
        {"loss": "mine.py:recall"},
        CodeError,
        "train.loss: TracerBoolConversionError|train.loss: NonConcreteBoolean|Tracer",
    ),
    ({"metrics": ("mine.py:hit", "mine.py:hit")}, InputError, "train.metrics: two metrics are called hit"),
    ({"metrics": ("mine.py:accuracy",)}, InputError, "train.metrics: "),
    ({"metrics": ("jax.numpy:loss",)}, InputError, "train.metrics: "),
    ({"loss": "mine.py:mean", "metrics": ("mine.py:mean",)}, InputError, "must return the losses of the examples"),
    ({"metrics": ("mine.py:flip",)}, CodeError, "train.metrics: "),
    ({"metrics": ("jax.numpy:add",)}, CodeError, "train.metrics: "),
    ({"metrics": ("accuracy",)}, InputError, "must be a function such as nets.py:focal"),
    ({"augment": ("mine.py:hit",)}, CodeError, "train.augment: "),
    ({"augment": ("flap",)}, InputError, "must be one of crop, flip"),
    ({"optimizer": "sgdd"}, InputError, "must be one of sgd, adam, adamw, rmsprop, lion, lamb; did you mean 'sgd'"),
    ({"optimizer": "mine.py:decay", "learning_rate": 0.1}, InputError, "train.learning_rate=0.1: has no effect"),
    ({"optimizer": "mine.py:decay", "schedule": "cosine"}, InputError, "train.schedule='cosine': has no effect"),
    ({"optimizer": "mine.py:sgd", "weight_decay": 0.1}, InputError, "must be an argument of mine.py:sgd"),
    ({"optimizer": "mine.py:sgd(learning_rate=1)"}, InputError, "unknown key 'learning_rate'; legal: momentum"),
    ({"optimizer": "optax:lbfgs"}, CodeError, "train.optimizer: TypeError"),
    ({"optimizer": "mine.py:three"}, InputError, "train.optimizer: must return an optax optimizer, not int"),
    ({"optimizer": "mine.py:hit"}, CodeError, "train.optimizer: TypeError"),
]


@pytest.mark.parametrize(("train", "kind", "message"), REFUSED)
def test_a_wrong_function_is_refused_before_anything_is_written(tmp_path, train, kind, message):
    with pytest.raises(kind, match=message):
        fit(make_config(**train), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"loss": "mine.py:mean"}, "must return the losses of the examples"),
        ({"loss": "builtins:int"}, "train.loss: builtins has no source in Python"),
        ({"metrics": ["mine.py:flip"]}, "train.metrics: "),
        ({"optimizer": "mine.py:three"}, "must return an optax optimizer, not int"),
    ],
)
def test_a_study_with_a_wrong_function_is_refused_before_anything_is_written(tmp_path, train, message):
    base, sweep = {"train": train, "data": {"train_size": 120}}, {"model.padding": ["valid", "same"]}
    study = read_dict({"title": "Which padding?", "seeds": 1, "base": base, "sweep": {"grid": sweep}}, "padding")
    with pytest.raises(InputError, match=message):
        run_study(study, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_loss_must_be_that_of_every_example(tmp_path):
    with pytest.raises(InputError, match=r"must return the losses of the examples, float \(20,\), not float32 \(\)"):
        fit(make_config(loss="mine.py:mean"), tmp_path / "runs")


def test_the_same_text_gives_the_same_object_so_that_programs_are_reused():
    load_again = functools.partial(load_function, "mine.py:cross_entropy(power=2.0)", ("logits", "labels"), "loss")
    assert load_again() is load_again()
    assert read_function("mine.py:cross_entropy()", "loss") == "mine.py:cross_entropy"


def test_the_examples_of_the_page_run(tmp_path):
    page = (Path(__file__).parent.parent / "docs/your_training.md").read_text()
    source, commands = re.findall(r"^```(?:python)?\n(.*?)^```$", page, re.M | re.S)
    (tmp_path / "mine.py").write_text(source)
    for line in commands.splitlines():
        command = shlex.split(line)
        if "experiments.train" in command:
            config = parse(command[3:]).run
            check_functions(config.train, load("mnist").info)
        elif "ablations.run" in command:
            arguments = parse_arguments(RunArguments, command[3:], "ablations.run", RunArguments())
            cells = expand(read_study(arguments)).cells
            assert [cell.config.train.loss for cell in cells] == ["cross_entropy", "mine.py:focal"]


def test_a_report_says_which_versions_of_a_function_an_arm_mixes(source, tmp_path):
    records = []
    for seed in range(2):
        records.append(fit(make_config(seed, loss="mine.py:cross_entropy"), out=None).record)
        source.write_text(source.read_text() + "# edited\n")
    (line,) = [line for line in describe_origins(count_origins(records)) if "mine.py" in line]
    hashes = [record.provenance["code"]["mine.py:cross_entropy"]["sha256"][:12] for record in records]
    assert line == f"mixed code of mine.py:cross_entropy: {hashes[0]} (1 runs), {hashes[1]} (1 runs)"


def test_an_older_record_is_read_with_its_code_as_a_newer_one(source):
    record = fit(make_config(loss="mine.py:cross_entropy", optimizer="optax:adam"), out=None).record
    code = record.provenance["code"]
    assert code["optax:adam"] == {"package": "optax", "version": importlib.metadata.version("optax")}
    older = {**record.provenance, "code": {"module": "nets.py:Net", "sha256": "1" * 64, "files": {}}, "functions": code}
    assert list_code(older) == {"nets.py:Net": {"sha256": "1" * 64, "files": {}}, **code}
    origins = count_origins([dataclasses.replace(record, provenance=older)])
    assert origins["code of nets.py:Net"] == {"1" * 12: 1}
    assert origins["code of optax:adam"] == {f"optax {importlib.metadata.version('optax')}": 1}
    shown = list_origins(dataclasses.replace(record, provenance=older))
    assert not any("files" in name for name in shown)


def test_restarts_begin_a_new_cosine_after_one_and_three_sevenths_of_the_steps():
    schedule = make_schedule("restarts", warmup_share=0.0, steps=70)
    values = np.array([schedule(step) for step in range(70)])
    assert np.flatnonzero(np.diff(values) > 0).tolist() == [9, 29]
    for start, end in ((0, 10), (10, 30), (30, 70)):
        steps = np.arange(end - start) / (end - start)
        np.testing.assert_allclose(values[start:end], (1 + np.cos(np.pi * steps)) / 2, atol=1e-6)
    assert jnp.shape(schedule(jnp.int32(3))) == ()


def test_a_module_of_a_package_that_distributions_share_is_recorded_with_its_own(tmp_path, monkeypatch):
    for name, version, modules in (("first", "1.0", ["one", "both"]), ("second", "2.0", ["two", "inner/two", "both"])):
        files = [f"shared_package/{module}.py" for module in modules]
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text("raise ImportError")
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    monkeypatch.syspath_prepend(tmp_path)
    second, unclear = {"package": "second", "version": "2.0"}, {"package": "shared_package", "version": None}
    assert describe_package("shared_package.one:f") == {"package": "first", "version": "1.0"}
    assert describe_package("shared_package.two:f") == describe_package("shared_package.inner.two:f") == second
    assert describe_package("shared_package.both:f") == describe_package("shared_package.none:f") == unclear
