"""Studies from the command line: by name, from a file or from axes, with changes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.arguments import StudyArguments, read_study
from ablations.study.grid import expand
from ablations.study.reading import SHIPPED, list_shipped, load_study, read_file
from cnnjax.console.arguments import parse_arguments
from cnnjax.errors import InputError
from cnnjax.runs.config import RunConfig

CELLS = {
    "batch_size": 5,
    "chapter": 24,
    "dense_baseline": 4,
    "depth": 3,
    "filters": 4,
    "kernel": 5,
    "learning_rate": 7,
    "padding": 2,
    "pooling": 5,
    "resample": 6,
    "resnet": 8,
    "stride": 4,
    "train_size": 6,
}


def parse(*argv):
    return parse_arguments(StudyArguments, list(argv), "study", StudyArguments())


def read(*argv):
    return read_study(parse(*argv))


class TestShipped:
    def test_all_are_counted(self):
        assert list_shipped() == tuple(CELLS)

    @pytest.mark.parametrize("name", CELLS)
    def test_a_study_has_its_cells_with_five_seeds(self, name):
        grid = expand(read(name))
        assert grid.name == name
        assert len(grid.cells) == CELLS[name]
        assert grid.seeds == (0, 1, 2, 3, 4)
        assert grid.duplicates == ()

    @pytest.mark.parametrize("name", CELLS)
    def test_a_study_has_a_question_as_title_and_begins_with_a_comment(self, name):
        assert read(name).title.endswith("?")
        assert (SHIPPED / f"{name}.toml").read_text().startswith("# ")

    @pytest.mark.parametrize("name", [name for name in CELLS if name != "chapter"])
    def test_every_network_exists(self, name):
        assert [cell.problem for cell in expand(read(name)).cells] == [None] * CELLS[name]

    def test_three_cells_of_the_chapter_cannot_exist(self):
        cells = expand(read("chapter")).cells
        invalid = [cell for cell in cells if cell.problem]
        assert len(cells) - len(invalid) == 21
        assert {(c.labels["model.padding"], c.labels["model.strides"]) for c in invalid} == {("valid", "2")}
        assert all("MaxPool_1: its 2x2 window is larger than its 1x1 input" in cell.problem for cell in invalid)

    @pytest.mark.parametrize("name", [name for name in CELLS if name not in ("depth", "resample", "resnet")])
    def test_the_textbook_network_is_among_the_cells(self, name):
        assert RunConfig().key in {cell.config.key for cell in expand(read(name)).cells}

    def test_the_networks_of_the_stride_study_have_equally_many_parameters(self):
        from cnnjax.runs.summary import summarize

        totals = {summarize(cell.config.model).parameters for cell in expand(read("stride")).cells}
        assert totals == {62_346}

    def test_the_dense_baseline_is_as_large_as_the_textbook_network(self):
        from cnnjax.runs.summary import summarize

        cells = {cell.name: cell.config.model for cell in expand(read("dense_baseline")).cells}
        totals = {name: summarize(model).parameters for name, model in cells.items()}
        assert totals == {
            "network=convolutional": 62_346,
            "network=dense 78": 62_020,
            "network=dense 512": 407_050,
            "network=linear": 7_850,
        }


class TestFiles:
    def test_a_file_gives_the_study_its_name(self, tmp_path):
        path = tmp_path / "mine.toml"
        path.write_text((SHIPPED / "padding.toml").read_text())
        assert read(str(path)).name == "mine"
        assert expand(read(str(path))).cells == expand(read("padding")).cells

    def test_a_study_written_back_is_the_same(self, tmp_path):
        for name in CELLS:
            study = read(name)
            (tmp_path / f"{name}.toml").write_text(study.to_toml())
            assert read_file(tmp_path / f"{name}.toml") == study

    def test_a_byte_order_mark_and_carriage_returns_are_read(self, tmp_path):
        path = tmp_path / "padding.toml"
        text = (SHIPPED / "padding.toml").read_text()
        path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
        assert read(str(path)) == read("padding")


class TestAxes:
    def test_axes_are_a_grid(self):
        study = read("--axis", "model.padding=valid,same,[same,valid]", "--axis", "model.filters=[16,32],[32,64]")
        assert re.fullmatch("axes-[0-9a-f]{8}", study.name)
        assert study.title == "model.padding x model.filters"
        grid = expand(study)
        assert [cell.labels["model.padding"] for cell in grid.cells][::2] == ["valid", "same", "[same,valid]"]
        assert [cell.config.model.filters for cell in grid.cells][:2] == [(16, 32), (32, 64)]
        assert grid.seeds == (0, 1, 2, 3, 4)

    @pytest.mark.parametrize(
        ("axis", "labels"),
        [
            ("train.learning_rate=0.1,1e-3,1", ["0.1", "0.001", "1"]),
            ("data.train_size=none,1000", ["none", "1000"]),
            ("model.pool=none,max", ["none", "max"]),
            ("model.batch_norm=true,false", ["true", "false"]),
            ("model.kernel_size=[[5,3],3], 5", ["[[5,3],3]", "5"]),
            ("model.strides={label = two, value = 2}", ["two"]),
            ("size={label = small, set = {model.filters = [8]}},{label = usual, set = {}}", ["small", "usual"]),
        ],
    )
    def test_levels_are_typed_like_options(self, axis, labels):
        grid = expand(read("--axis", axis))
        assert [next(iter(cell.labels.values())) for cell in grid.cells] == labels

    def test_a_study_of_axes_is_written_like_any_other(self, tmp_path):
        study = read("--axis", "model.padding=valid,same", "--seeds", "2")
        (tmp_path / f"{study.name}.toml").write_text(study.to_toml())
        assert read_file(tmp_path / f"{study.name}.toml") == study


class TestChanges:
    def test_settings_change_the_base(self):
        study = read(
            "padding", "--set", "train.epochs=1", "--set", "model.filters=[8,16]", "--set", "data.train_size=9"
        )
        assert study.base == RunConfig.from_dict(
            {"train": {"epochs": 1}, "model": {"filters": [8, 16]}, "data": {"train_size": 9}}
        )
        assert {cell.config.train.epochs for cell in expand(study).cells} == {1}

    def test_settings_that_go_together_are_set_together(self):
        study = read("padding", "--set", "model.filters=[8,8,8]", "--set", "model.kernel_size=[5,3,3]")
        assert study.base.model.kernel_size == (5, 3, 3)

    def test_a_folder_is_kept_as_it_was_typed(self):
        assert read("padding", "--set", "data.manual_dir=/my data=x").base.data.manual_dir == "/my data=x"

    @pytest.mark.parametrize(
        ("text", "seeds"),
        [("3", (0, 1, 2)), ("0..2", (0, 1, 2)), ("7..7", (7,)), ("1,5,7", (1, 5, 7)), ("[9]", (9,)), ("4,", (4,))],
    )
    def test_seeds_replace_those_of_the_study(self, text, seeds):
        assert expand(read("padding", "--seeds", text)).seeds == seeds


PADDING = "model.padding=valid,same"
REFUSALS = [
    ([], r"^STUDY: name one of batch_size, chapter, .*, or a \.toml file, or give --axis$"),
    (["padding", "--axis", PADDING], "^--axis: the study padding has factors of its own; give STUDY or --axis, not"),
    (
        ["paddin"],
        r"^paddin: neither a file nor a shipped study; did you mean 'padding'\?; shipped: batch_size, chapter",
    ),
    (["missing/stride.toml"], r"missing/stride.toml: neither a file nor .*; did you mean 'stride'\?; shipped: "),
    (["a\x00b"], "neither a file nor a shipped study"),
    (["x" * 5000], "neither a file nor a shipped study"),
    (["tests"], "^tests: cannot be read: Is a directory$"),
    (["padding", "--max-trials", "0"], "^--max-trials=0: must be >= 1"),
    (["padding", "--max-trials", "9"], r"^padding: --max-trials 9: the study has 10 trials \(2 cells x 5 seeds\)$"),
    (["--axis", "model.padding"], "^command line: --axis 'model.padding': must be such as model.padding=valid,same$"),
    (["--axis", "=1"], "--axis '=1': must be such as"),
    (["--axis", "model.padding="], "command line: --axis model.padding=.*: must be a list of at least one level"),
    (["--axis", "model.padding=valid]"], r"--axis model.padding='valid\]': must be levels with commas between them"),
    (["--axis", "model.padding=valid\n,same"], r"--axis model.padding='valid\\n,same': must be levels with commas"),
    (["--axis", PADDING, "--axis", PADDING], "--axis model.padding: given twice"),
    (["--axis", "model.padding=valid,vlaid"], r"--axis model.padding\[1\]='vlaid': must be valid, same, .* 'valid'\?"),
    (["--axis", "model.paddin=valid"], r"--axis: unknown setting 'model.paddin'; did you mean 'padding'\?"),
    (
        ["--axis", "padding=valid"],
        r"--axis padding\[0\]='valid': a level of 'padding', .*; did you mean 'model.padding'",
    ),
    (["--axis", "seed=1,2"], "--axis: a factor cannot be named 'seed'; the seeds of a study are its `seeds`"),
    (
        ["--axis", "train.optimizer=sgd,adam", "--set", "train.momentum=0.9"],
        "cell train.optimizer=adam: train.momentum=",
    ),
    (["padding", "--set", "model.padding=same"], "--set model.padding: the factor model.padding of the study sets it"),
    (["stride", "--set", "model.pool=avg"], "--set model.pool: the factor shrink of the study sets it already"),
    (["padding", "--set", "train.epochs"], "--set 'train.epochs': must be such as train.epochs=1"),
    (["padding", "--set", "train.epochs=x"], "--set train.epochs='x': must be an integer, not str"),
    (
        ["padding", "--set", "train.epoch=1"],
        r"--set: unknown setting 'train.epoch'; did you mean 'epochs'\?; legal: ep",
    ),
    (["padding", "--set", "train.epochs=1", "--set", "train.epochs=2"], "--set train.epochs: given twice"),
    (["padding", "--set", "seed=1"], "--set seed: the seeds are given with --seeds"),
    (["padding", "--set", "train.nesterov=true"], "train.nesterov=True: needs train.momentum > 0"),
    (["padding", "--seeds", "0"], "--seeds=0: must be >= 1"),
    (["padding", "--seeds", "9..0"], "--seeds='9..0': must not end before it starts"),
    (["padding", "--seeds", "1,1"], "--seeds: 1 is given twice"),
    (["padding", "--seeds", "many"], "--seeds='many': must be the first and the last seed, such as '0..9'"),
    (["padding", "--seeds", "1,-2"], r"--seeds\[1\]=-2: must be >= 0 and <= 4294967295"),
    (["padding", "--seeds", "1 2"], "--seeds='1 2': must be"),
    (["padding", "--sets", "train.epochs=1"], r"--sets: there is no such option; did you mean '--set'\?"),
    (["padding", "stride"], "'stride': one argument too many"),
    (["--axis"], "--axis: expected one argument"),
]


@pytest.mark.parametrize(("argv", "message"), REFUSALS, ids=lambda value: "_".join(value)[:60])
def test_an_invalid_command_line_is_refused_in_one_line(argv, message):
    with pytest.raises(InputError, match=message) as refusal:
        expand(read(*argv), parse(*argv).max_trials)
    assert "\n" not in str(refusal.value)


def test_all_mistakes_of_a_command_line_are_reported_together():
    with pytest.raises(InputError, match=r"^command line: 4 errors\n") as refusal:
        read("--axis", "model.padding=sam", "--axis", "model.strides=0", "--set", "train.epochs=0", "--seeds", "x")
    lines = str(refusal.value).split("\n")[1:]
    assert all(line.startswith("  command line: --") for line in lines)


def test_a_shipped_name_wins_over_a_file_and_a_path_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("padding").write_text("title = 'mine'\n[sweep.grid]\nmodel.strides = [1]\n")
    assert load_study("padding").title == "Does zero padding matter?"
    assert load_study("./padding").title == "mine"


def test_reading_and_expanding_imports_nothing_heavy():
    code = """
import sys
from ablations.study.grid import expand
from ablations.arguments import StudyArguments, read_study
assert len(expand(read_study(StudyArguments("chapter"))).trials) == 120
print(sorted(sys.modules.keys() & {"jax", "flax", "optax", "scipy", "rich", "pandas", "tensorflow_datasets"}))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_a_study_is_changed_from_python_as_on_the_command_line():
    typed = read("padding", "--set", "train.epochs=1", "--set", "model.filters=[8,16]", "--seeds", "0..2")
    called = load_study("padding", settings={"train.epochs": 1, "model.filters": [8, 16]}, seeds=3)
    assert called == typed
    assert load_study("padding", seeds=[3, 1]).seeds == (3, 1)


def test_mistakes_in_changes_are_reported_together():
    with pytest.raises(InputError, match=r"load_study: 3 errors\n") as refusal:
        load_study("padding", settings={"model.padding": "same", "train.epoch": 1}, seeds=0)
    lines = str(refusal.value).split("\n")[1:]
    assert "settings model.padding: the factor model.padding of the study sets it already" in lines[0]
    assert "unknown setting 'train.epoch'; did you mean 'epochs'" in lines[1]
    assert "seeds=0: must be >= 1" in lines[2]


def test_grids_without_a_file_are_named_by_their_factors_and_not_their_seeds():
    axes = ("--axis", "model.padding=valid,same")
    assert read(*axes).name == read(*axes, "--seeds", "9").name
    assert read(*axes).name != read(*axes, "--set", "train.epochs=1").name


@pytest.mark.parametrize("name", [{"model.padding": ["same"]}, None, 3, ["padding"]])
def test_a_study_is_loaded_by_its_name_alone(name):
    with pytest.raises(InputError, match=r"must be the name of a shipped study or a path, not \w+"):
        load_study(name)
