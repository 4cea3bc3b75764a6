"""The compare command: which runs belong to an arm, its output, and how it refuses bad input."""

import dataclasses
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnjax import DataConfig, InputError, ModelConfig, RunConfig, TrainConfig
from cnnjax.runs.store import Store
from experiments.compare import main
from grid_helpers import make_packed

ROOT = Path(__file__).parent.parent
TINY = RunConfig(ModelConfig(filters=(2,)), TrainConfig(epochs=1, batch_size=50), DataConfig(train_size=100))
A, B = ["--a", "model.padding=same"], ["--b", "model.padding=valid"]


def store_arms(folder, seeds=6, base=TINY, difference=0.003):
    random = np.random.default_rng(0)
    runs = []
    for seed in range(seeds):
        common = random.integers(9600, 9700)
        for padding, gain in (("same", difference), ("valid", 0.0)):
            model = dataclasses.replace(base.model, padding=padding)
            config = dataclasses.replace(base, model=model, seed=seed)
            runs.append(make_packed(config, float((common + random.integers(0, 5)) / 1e4 + gain)))
    Store(folder).add_all(runs)


@pytest.fixture
def folder(tmp_path):
    store_arms(tmp_path / "runs")
    return tmp_path / "runs"


def compare(capsys, folder, *arguments):
    assert main([*A, *B, "--out", str(folder), *arguments]) == 0
    return capsys.readouterr().out


def test_the_terminal_says_which_arm_is_better(folder, capsys):
    text = compare(capsys, folder)
    assert text.startswith(
        "Is model.padding=same better than model.padding=valid?\n6 seeds, data.name mnist, train.epochs 1,"
    )
    assert "model.padding=same less model.padding=valid is +0.30 points" in text
    assert text.split("\n\n")[1].startswith("Better: ")
    assert f"made by: python -m experiments.compare {' '.join(A)}" in text


def test_json_holds_every_number(folder, capsys):
    values = json.loads(compare(capsys, folder, "--format", "json", "--margin", "1"))
    (contrast,) = values["contrasts"]
    assert (contrast["first"], contrast["second"]) == ("model.padding=same", "model.padding=valid")
    assert contrast["verdict"]["word"] == "equivalent"
    assert values["rules"]["margin"] == 0.01
    assert len(values["arms"][0]["accuracies"]) == 6


def test_fewer_seeds_can_be_compared(folder, capsys):
    values = json.loads(compare(capsys, folder, "--format", "json", "--seeds", "3"))
    assert values["contrasts"][0]["comparison"]["seeds"] == [0, 1, 2]


def test_of_several_pairs_one_must_be_chosen(folder, capsys):
    longer = dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, epochs=2))
    store_arms(folder, base=longer, difference=-0.01)
    with pytest.raises(InputError, match=r"--a, --b: 2 pairs of configurations are stored; .* train.epochs \(1, 2\)$"):
        main([*A, *B, "--out", str(folder)])
    assert "is -1.00 points" in compare(capsys, folder, "--set", "train.epochs=2")


def test_a_setting_that_one_side_names_has_its_default_on_the_other(folder, capsys):
    assert (
        main(
            ["--a", "model.padding=same", "--b", "model.padding=valid", "--b", "model.strides=1", "--out", str(folder)]
        )
        == 0
    )
    assert "model.padding=same, model.strides=1 less model.padding=valid, model.strides=1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*A], r"--b: must be given, such as --b model.padding=same"),
        ([*A, "--b", "model.padding=same"], r"--a and --b: mean the same configuration; must differ"),
        ([*A, "--b", "model.paddings=same"], r"--b: unknown setting 'model.paddings'; did you mean 'padding'"),
        ([*A, "--b", "model.padding=odd"], r"--b model.padding='odd': must be"),
        ([*A, "--b", "padding"], r"--b 'padding': must be such as model.padding=same"),
        ([*A, *A, *B], r"--a model.padding: given twice"),
        ([*A, *B, "--set", "model.padding=same"], r"--set model.padding: is a setting of --a or --b"),
        ([*A, "--b", "seed=3"], r"--b seed: arms are paired by seed"),
        ([*A, *B, "--set", "train.epochs=7"], r"--a model.padding=same: no completed run of it is in .*; --run trains"),
        ([*A, *B, "--margin", "0"], r"--margin=0.0: must be"),
        ([*A, *B, "--alpha", "0.7"], r"--alpha=0.7: must be"),
        ([*A, *B, "--power", "0.01"], r"--power 0.01: must be > --alpha"),
        ([*A, *B, "--output", "/nowhere/x.html"], r"--output /nowhere/x.html: its folder does not exist"),
        ([*A, *B, "--figures", "/dev/null/x"], r"--figures /dev/null/x: /dev/null is a file; must be a folder"),
        (["--a", "data.name=mnist", "--b", "data.name=fashion_mnist"], r"--a data.name: both arms must be tested on"),
        ([*A, *B, "--by", "validation"], r"--by validation: needs --set train.validation_split=0.1"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_refused(folder, arguments, message):
    before = (folder / "runs.sqlite").read_bytes()
    with pytest.raises(InputError, match=message):
        main([*arguments, "--out", str(folder)])
    assert (folder / "runs.sqlite").read_bytes() == before


def test_help_starts_without_jax_and_matplotlib():
    code = (
        "import sys\nfrom experiments.compare import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'jax', 'matplotlib', 'scipy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=300).returncode == 0


def test_a_comparison_starts_without_jax(folder):
    code = "import sys; from experiments.compare import main; main(sys.argv[1:]); assert 'jax' not in sys.modules"
    result = subprocess.run(
        [sys.executable, "-c", code, *A, *B, "--out", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_missing_runs_are_trained_and_stored(tmp_path, capsys):
    settings = ["--set", "train.epochs=1", "--set", "data.train_size=500", "--set", "model.filters=[4]"]
    arguments = [*A, *B, *settings, "--out", str(tmp_path / "runs"), "--run", "--seeds", "2", "--format", "json"]
    assert main(arguments) == 0
    values = json.loads(capsys.readouterr().out)
    assert [len(arm["accuracies"]) for arm in values["arms"]] == [2, 2]
    assert len(Store(tmp_path / "runs").list_keys()) == 4
    assert list(values["noise"]) == ["model.padding=same"]
    assert main([*arguments, "--seeds", "3"]) == 0
    assert len(Store(tmp_path / "runs").list_keys()) == 6


def test_runs_that_differ_only_in_the_folder_of_their_images_belong_to_one_arm(folder, capsys):
    elsewhere = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, manual_dir="elsewhere"))
    store_arms(folder, seeds=8, base=elsewhere)
    assert len(json.loads(compare(capsys, folder, "--format", "json"))["arms"][0]["accuracies"]) == 8


def test_the_facts_list_the_common_settings_of_both_arms(folder, capsys):
    text = compare(capsys, folder)
    assert "train.batch_size 50" in text
    assert "data.train_size 100" in text
    assert "model.filters [2]" in text


def test_arms_without_a_common_seed_are_reported_as_not_compared(folder, capsys):
    with sqlite3.connect(folder / "runs.sqlite") as store:
        store.execute("DELETE FROM runs WHERE seed < 3 AND config LIKE '%same%'")
        store.execute("DELETE FROM runs WHERE seed >= 3 AND config NOT LIKE '%same%'")
    assert "Nothing could be compared: no two arms" in compare(capsys, folder)


@pytest.mark.parametrize("arguments", [["--b", "model.kernel_size=29"], ["--b", "model.filters=[2,2,2,2,2,2]"]])
def test_nothing_is_trained_where_one_arm_cannot_exist(tmp_path, arguments):
    with pytest.raises(InputError, match=r"model: "):
        main(["--a", "model.padding=valid", *arguments, "--run", "--out", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()
