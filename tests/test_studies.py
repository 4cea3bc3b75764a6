"""The study language: its meaning, and its errors, which are all reported at once."""

import re
import tomllib
from pathlib import Path

import pytest

from ablations.study.grid import Duplicate, choose_cell, expand
from ablations.study.reading import read_dict, read_file, read_toml
from cnnjax.errors import InputError
from cnnjax.models.cnn import ModelConfig
from cnnjax.runs.config import RunConfig
from cnnjax.settings import write_toml

DOCUMENT = (Path(__file__).parent.parent / "docs/studies.md").read_text()
BLOCKS = [text for text in re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL) if "trial.function" not in text]


def study(text, **others):
    return read_toml("\n".join(['title = "any"', *(f"{k} = {v}" for k, v in others.items()), text]), "any", "any.toml")


def grid(text, **others):
    return expand(study(text, **others))


def labels(text, **others):
    return [tuple(cell.labels.values()) for cell in grid(text, **others).cells]


def refuse(text, **others):
    """Returns the lines of the refusal, without the name of the file and the heading."""
    with pytest.raises(InputError, match=r"^any\.toml: ") as refusal:
        expand(study(text, **others))
    first, *lines = str(refusal.value).split("\n")
    if lines:
        assert first == f"any.toml: {len(lines)} errors"
        assert all(line.startswith("  any.toml: ") for line in lines)
    return [line.strip().removeprefix("any.toml: ") for line in lines or [first]]


class TestDocument:
    def test_shows_every_kind_of_sweep(self):
        kinds = {sweep.kind for block in BLOCKS for sweep in read_toml(block, "doc").sweeps}
        assert kinds == {"grid", "leave_one_out", "list", "random"}

    @pytest.mark.parametrize(("block", "cells"), list(zip(BLOCKS, [4, 4, 4, 2, 20, 9], strict=True)))
    def test_a_block_is_a_study(self, block, cells):
        study = read_toml(block, "doc")
        assert len(expand(study).cells) == cells
        assert read_toml(study.to_toml(), "doc") == study


class TestMeaning:
    def test_a_level_is_named_by_its_shortest_literal(self):
        text = 'sweep.grid.model.padding = ["valid", ["same", "valid"], [[[1, 2], [0, 0]], 3]]\n'
        assert labels(text) == [("valid",), ("[same,valid]",), ("[[[1,2],[0,0]],3]",)]
        assert labels("sweep.grid.train.learning_rate = [0.01, 1, 1e-5]") == [("0.01",), ("1",), ("1e-05",)]
        assert labels("sweep.grid.model.batch_norm = [true, false]") == [("true",), ("false",)]

    def test_an_alias_names_the_same_cells_as_its_setting(self):
        text = "sweep.one_at_a_time.model.{} = [{}]\nsweep.one_at_a_time.train.momentum = [0.9]\n"
        old, new = grid(text.format("batch_norm", "true")), grid(text.format("norm", '"batch"'))
        assert [cell.config for cell in old.cells] == [cell.config for cell in new.cells]
        assert [cell.labels["model.batch_norm"] for cell in old.cells] == ["false", "true", "false"]

    def test_a_setting_and_its_alias_are_not_mixed(self):
        text = '[base]\nmodel.batch_norm = true\n[sweep.grid]\nmodel.norm = ["none"]\n'
        assert refuse(text) == [
            "cell model.norm=none: model.batch_norm: is another way to write model.norm; give only one of them; "
            "leave it out with `exclude` or `only_if`"
        ]

    def test_a_label_replaces_the_literal(self):
        assert labels('sweep.grid.model.strides = [1, { label = "two", value = 2 }]') == [("1",), ("two",)]

    def test_none_leaves_a_setting_out(self):
        cells = grid('sweep.grid.model.pool_strides = ["none", 1]').cells
        assert [cell.config.model.pool_strides for cell in cells] == [None, 1]
        assert study('base.data.train_size = "none"\nsweep.list = [{}]').base == RunConfig()

    def test_none_is_a_word_for_settings_that_have_it(self):
        assert grid('sweep.grid.model.pool = ["none"]').cells[0].config.model.pool == "none"

    def test_quoted_and_nested_paths_are_the_same(self):
        plain = study("[sweep.grid]\nmodel.padding = ['valid', 'same']")
        assert study("[sweep.grid]\n'model.padding' = ['valid', 'same']") == plain
        assert study("[sweep.grid.model]\npadding = ['valid', 'same']") == plain
        assert study("[[sweep]]\ngrid = { model = { padding = ['valid', 'same'] } }") == plain

    @pytest.mark.parametrize(
        ("text", "seeds"),
        [("3", (0, 1, 2)), ('"2..4"', (2, 3, 4)), ("[7, 0]", (7, 0)), ("[4294967295]", (2**32 - 1,))],
    )
    def test_seeds_are_read_from_a_number_a_range_or_a_list(self, text, seeds):
        assert study("sweep.list = [{}]", seeds=text).seeds == seeds
        assert read_toml(study("sweep.list = [{}]", seeds=text).to_toml(), "any").seeds == seeds

    def test_a_base_keeps_what_only_some_cells_need(self):
        text = "base = { model.filters = [], model.kernel_size = 3 }\nsweep.grid.model.filters = [[], [8]]"
        assert [cell.config.model.kernel_size for cell in grid(text).cells] == [5, 3]

    def test_settings_that_go_together_are_checked_together(self):
        text = "[sweep.zip]\nmodel.filters = [[8, 16], [8, 8, 8]]\nmodel.kernel_size = [5, [5, 3, 3]]"
        assert [len(cell.config.model.blocks) for cell in grid(text).cells] == [2, 3]

    def test_a_composite_factor_makes_several_settings(self):
        text = """
            [sweep.grid]
            size = [{ label = "s", set = { model.filters = [8], train.epochs = 1 } }, { label = "m", set = {} }]
            model.padding = ["valid", "same"]
        """
        cells = grid(text).cells
        assert [cell.name for cell in cells] == [
            "size=s, model.padding=valid", "size=s, model.padding=same",
            "size=m, model.padding=valid", "size=m, model.padding=same",
        ]  # fmt: skip
        assert [(c.config.model.filters, c.config.train.epochs) for c in cells[1:3]] == [((8,), 1), ((32, 64), 5)]

    def test_the_entries_of_a_list_are_named_by_their_settings(self):
        text = 'sweep.list = [{}, { model.padding = "same", train.epochs = 1 }, { label = "x", train.epochs = 2 }]'
        assert labels(text) == [("base",), ("model.padding=same train.epochs=1",), ("x",)]

    def test_a_cell_whose_network_cannot_exist_has_the_reason(self):
        first, second = grid("sweep.grid.model.kernel_size = [5, 29]").cells
        assert first.problem is None
        assert second.problem.startswith("model: Conv_0: its 29x29 window is larger than its 28x28 input")


class TestUnion:
    def test_cells_have_labels_of_the_factors_of_all_sweeps(self):
        text = """
            [[sweep]]
            grid.model.padding = ["same"]
            [[sweep]]
            grid.model.strides = [{ label = "one", value = 1 }, 2]
            [[sweep]]
            list = [{ label = "dense", model.filters = [] }]
        """
        assert grid(text).factors == ("model.padding", "model.strides", "arm")
        assert labels(text) == [
            ("same", "one", "base"), ("valid", "one", "base"), ("valid", "2", "base"), ("valid", "one", "dense")
        ]  # fmt: skip

    def test_a_value_has_the_same_label_whichever_factor_sets_it(self):
        text = """
            [[sweep]]
            grid.model.padding = ["valid", { label = "zeros", value = "same" }]
            [[sweep]]
            list = [{ label = "padded", model.padding = "same" }]
        """
        assert labels(text) == [("valid", "base"), ("zeros", "padded")]
        assert grid(text).duplicates == ()

    def test_the_same_cell_of_several_sweeps_is_kept_once_and_is_no_duplicate(self):
        text = "".join(f"[[sweep]]\n{kind}.train.epochs = [5, 1]\n" for kind in ("grid", "one_at_a_time", "zip"))
        assert labels(text) == [("5",), ("1",)]
        assert grid(text).duplicates == ()

    def test_two_ways_to_write_a_value_are_one_cell_and_a_duplicate(self):
        text = "[sweep.grid]\nmodel.kernel_size = [5, [[5, 5], [5, 5]]]\ntrain.epochs = [1, 2]"
        assert len(grid(text).cells) == 2
        assert grid(text).duplicates == tuple(
            Duplicate(f"model.kernel_size=[[5,5],[5,5]], train.epochs={n}", f"model.kernel_size=5, train.epochs={n}")
            for n in (1, 2)
        )

    def test_cells_that_differ_in_a_setting_without_effect_are_duplicates(self):
        found = grid('[sweep.grid]\nmodel.pool = ["none"]\nmodel.pool_size = [2, 3]').duplicates
        assert found == (Duplicate("model.pool=none, model.pool_size=3", "model.pool=none, model.pool_size=2"),)

    def test_two_entries_of_a_list_with_one_configuration_are_duplicates(self):
        found = grid('sweep.list = [{ label = "a" }, { label = "b", model.padding = 0 }]').duplicates
        assert found == (Duplicate("arm=b", "arm=a"),)


STUDY_REFUSALS = [
    ("", "'sweep' is missing: a study has at least one, such as [sweep.grid]"),
    ("sweep = []", "sweep=[]: a study has at least one"),
    ("sweep = 3", "sweep=3: a study has at least one"),
    ("sweep = [3]", "sweep[0]=3: must be a table with one of grid, zip"),
    ("[sweep]", "sweep: must have exactly one of grid, zip, one_at_a_time, leave_one_out, list, random; it has none"),
    ("sweep.gird = {}", "sweep: must have exactly one of grid, .*; it has none; did you mean 'grid'?"),
    ("sweep = { grid.train.epochs = [1], zip.train.epochs = [1] }", "sweep: must have .*; it has grid and zip"),
    (
        "sweep = { grid.train.epochs = [1], exlude = [] }",
        "sweep: unknown key 'exlude'; did you mean 'exclude'?; legal: ",
    ),
    ("sweep = { grid.train.epochs = [1], draws = 3 }", "sweep: unknown key 'draws'; legal: grid, exclude, only_if"),
    (
        "sweeps.grid.train.epochs = [1]\nsweep.list=[{}]",
        "study: unknown key 'sweeps'; did you mean 'sweep'?; legal: ti",
    ),
    ("sweep.grid = 3", "sweep.grid=3: must be a table of factors, such as model.padding"),
    ("sweep.grid = {}", "sweep.grid={}: must be a table of factors"),
    ("sweep.grid.train.epochs = []", "sweep.grid.train.epochs=[]: must be a list of at least one level"),
    ("sweep.grid.train.epochs = 3", "sweep.grid.train.epochs=3: must be a list of at least one level"),
    ("sweep.grid.train.epochs.x = [1]", "sweep.grid.train.epochs={'x': [1]}: must be a list of at least one level"),
    ("sweep.grid.train.epochs = [0]", "sweep.grid.train.epochs[0]=0: must be >= 1"),
    ("sweep.grid.train.epochs = ['3']", "sweep.grid.train.epochs[0]='3': must be an integer, not str"),
    ("sweep.grid.train.epochs = [1, 1]", "sweep.grid.train.epochs[1]: label '1' is that of another level of train"),
    ("sweep.grid.train.epohcs = [1]", "sweep.grid: unknown setting 'train.epohcs'; did you mean 'epochs'?; legal: ep"),
    ("sweep.grid.modle.padding = [1]", "sweep.grid: unknown setting 'modle.padding'; did you mean 'model.padding'?"),
    ("sweep.grid.padding = ['same']", "sweep.grid.padding[0]='same': a level of 'padding', which has no dot, must be "),
    ("sweep.grid.padding = ['same']", ".*; did you mean 'model.padding'?"),
    ("sweep.grid.seed = [1]", "sweep.grid: a factor cannot be named 'seed'; the seeds of a study are its `seeds`"),
    ("sweep.grid.model = [1]", "sweep.grid: a factor cannot be named 'model'; model is a table of settings"),
    ("sweep.grid.'' = [1]", "sweep.grid: unknown setting ''"),
    ("sweep.grid.'a b' = [1]", "sweep.grid: unknown setting 'a b'"),
    ("sweep.grid.data.manual_dir = ['x']", "sweep.grid.data.manual_dir: cannot be a factor"),
    ("sweep.grid.data.name = ['../x']", "sweep.grid.data.name[0]='../x' is not a dataset name; write name"),
    ("sweep.grid.model.padding = ['valid', 'foo']", "sweep.grid.model.padding[1]='foo': must be valid, same, a number"),
    ("sweep.grid.model.filters = [[8], [8, 0]]", "sweep.grid.model.filters[1][1]=0: must be >= 1"),
    ("sweep.grid.model.pool_strides = [0]", "sweep.grid.model.pool_strides[0]=0: must be an integer >= 1"),
    (
        "sweep.grid.model.pool = ['mxa']",
        "sweep.grid.model.pool[0]='mxa': must be one of max, avg, none; did you mean 'm",
    ),
    ("sweep.grid.train.learning_rate = [nan]", "sweep.grid.train.learning_rate[0]=nan: must be a finite number"),
    ("sweep.grid.train.learning_rate = [inf]", "sweep.grid.train.learning_rate[0]=inf: must be a finite number"),
    ("sweep.grid.train.epochs = [1979-05-27]", r"sweep.grid.train.epochs[0]=datetime.date(1979, 5, 27): must be an in"),
    ("sweep.grid.model.strides = [[{}]]", "sweep.grid.model.strides[0][0]={}: must be an integer"),
    ("sweep.grid.train.epochs = [{ label = 'a' }]", "sweep.grid.train.epochs[0]: 'value' is missing; a level is a"),
    ("sweep.grid.train.epochs = [{ valeu = 1 }]", "sweep.grid.train.epochs[0]: unknown key 'valeu'; did you mean 'va"),
    ("sweep.grid.train.epochs = [{ label = 'x', value = 0 }]", "sweep.grid.train.epochs[0].value=0: must be >= 1"),
    ("sweep.grid.train.epochs = [{ label = 3, value = 3 }]", "sweep.grid.train.epochs[0]: label 3 must be one line of"),
    (
        "sweep.grid.train.epochs = [{ label = ' ', value = 3 }]",
        "sweep.grid.train.epochs[0]: label ' ' must be one line",
    ),
    ('sweep.grid.train.epochs = [{ label = "a\\nb", value = 3 }]', r"sweep.grid.train.epochs[0]: label 'a\nb' must be"),
    ("sweep.grid.train.epochs = [{ label = '2', value = 3 }]", "sweep.grid.train.epochs[0]: label '2' is itself a val"),
    ("sweep.grid.size = [{ label = 'a', set = 3 }]", "sweep.grid.size[0].set=3: must be a table of settings"),
    ("sweep.grid.size = [{ label = 'a', set.train.epochs = 0 }]", "sweep.grid.size[0].set.train.epochs=0: must be >="),
    ("sweep.grid.size = [{ label = 'a', set.train.epoch = 1 }]", "sweep.grid.size[0].set: unknown setting 'train.epo"),
    ("sweep.grid.size = [{ labl = 'a', set = {} }]", "sweep.grid.size[0]: unknown key 'labl'; did you mean 'label'?"),
    (
        "sweep.grid = { train.epochs = [1], size = [{ label = 'a', set.train.epochs = 2 }] }",
        "sweep.grid.size: sets train.epochs, which train.epochs sets too",
    ),
    (
        "sweep.grid = { train.epochs = [1], 'train.epochs' = [2] }",
        "sweep.grid.train.epochs: given twice",
    ),
    (
        "sweep.zip = { train.epochs = [1, 2], train.batch_size = [1] }",
        "sweep.zip: factors must have equally many levels, not 2 of train.epochs, 1 of train.batch_size",
    ),
    (
        "sweep.leave_one_out.train.epochs = [1, 2]",
        "sweep.leave_one_out.train.epochs: must have one level, the one that is left out, not 2",
    ),
    ("sweep.list = 3", "sweep.list=3: must be a list of at least one table of settings"),
    ("sweep.list = []", "sweep.list=[]: must be a list of at least one table"),
    ("sweep.list = [3]", "sweep.list[0]=3: must be a table of settings"),
    ("sweep.list = [{}, {}]", "sweep.list[1]: label 'base' is that of another entry"),
    ("sweep.list = [{ train.epochs = 0 }]", "sweep.list[0].train.epochs=0: must be >= 1"),
    ("sweep = { list = [{}], factor = 'a b' }", "sweep.factor: 'a b' must be letters, digits, _ and -"),
    ("sweep = { list = [{}], factor = 'data' }", "sweep.factor: a factor cannot be named 'data'"),
    ("sweep.list = [{ label = 'base', train.epochs = 1 }]", "sweep: the label 'base' of arm stands for the base"),
    ("sweep.random.train.epochs = [1]", "sweep: 'draws' is missing; a random sweep says how many"),
    ("sweep = { random.train.epochs = [1], draws = 0 }", "sweep.draws=0: must be >= 1"),
    ("sweep = { random.train.epochs = [1], draws = 1.5 }", "sweep.draws=1.5: must be an integer, not float"),
    ("sweep = { random.train.epochs = [1], draws = 1, draw_seed = -1 }", "sweep.draw_seed=-1: must be >= 0"),
    ("seeds = 0\nsweep.list = [{}]", "seeds=0: must be >= 1 and <= 100000"),
    ("seeds = -1\nsweep.list = [{}]", "seeds=-1: must be >= 1"),
    ("seeds = 1000000000\nsweep.list = [{}]", "seeds=1000000000: must be >= 1 and <= 100000"),
    ("seeds = []\nsweep.list = [{}]", "seeds: must be at least one seed and at most 100,000, not 0"),
    ("seeds = [1, 2, 1]\nsweep.list = [{}]", "seeds: 1 is given twice"),
    ("seeds = [1, -1]\nsweep.list = [{}]", "seeds[1]=-1: must be >= 0 and <= 4294967295"),
    ("seeds = [4294967296]\nsweep.list = [{}]", "seeds[0]=4294967296: must be >= 0 and <= 4294967295"),
    ("seeds = [true]\nsweep.list = [{}]", "seeds[0]=True: must be an integer, not bool"),
    ("seeds = true\nsweep.list = [{}]", "seeds=True: must be a number of seeds, such as 5, or '0..9', or [0, 3, 7]"),
    ("seeds = 2.0\nsweep.list = [{}]", "seeds=2.0: must be a number of seeds"),
    ("seeds = '9..0'\nsweep.list = [{}]", "seeds='9..0': must not end before it starts"),
    ("seeds = '0..4294967295'\nsweep.list = [{}]", "seeds='0..4294967295': must be at most 100,000 seeds"),
    ("seeds = '0..4294967296'\nsweep.list = [{}]", "seeds=4294967296: must be >= 0"),
    ("seeds = 'a..b'\nsweep.list = [{}]", "seeds='a..b': must be the first and the last seed, such as '0..9'"),
    ("base.seed = 3\nsweep.list = [{}]", "base.seed: the seeds of a study are its `seeds`"),
    ("base = 3\nsweep.list = [{}]", "base=3: must be a table of settings"),
    (
        "base.modle.padding = 3\nsweep.list = [{}]",
        "base: unknown setting 'modle.padding'; did you mean 'model.padding'",
    ),
    ("base.model = 3\nsweep.list = [{}]", "base: unknown setting 'model'; legal: "),
    ("base.train.epochs = 0\nsweep.list = [{}]", "base.train.epochs=0: must be >= 1"),
    ("base.train.nesterov = true\nsweep.list = [{}]", "base.train.nesterov=True: needs train.momentum > 0"),
    ("base.model.strides = [1]\nsweep.list = [{}]", "base.model.strides=[1]: a list has one entry per block, but it"),
]


@pytest.mark.parametrize(("text", "message"), STUDY_REFUSALS, ids=lambda text: text[:60])
def test_a_mistake_names_its_place_its_value_and_the_legal_values(text, message):
    (line,) = refuse(text)
    assert re.match(re.escape(message).replace(r"\.\*", ".*"), line), line


RANGE_REFUSALS = [
    ("{ low = 2, high = 1 }", "learning_rate: low=2.0 must be < high=1.0"),
    ("{ low = 1, high = 1 }", "learning_rate: low=1.0 must be < high=1.0"),
    ("{ low = 0, high = 1, scale = 'log' }", "learning_rate.low=0.0: must be > 0 on a log scale"),
    ("{ low = 0, high = 1 }", "learning_rate.low=0.0: must be > 0"),
    ("{ low = 1.5, high = 3, integer = true }", "learning_rate.low=1.5: must be an integer, not float"),
    ("{ low = 1 }", "learning_rate: 'high' is missing"),
    ("{ low = 1, high = nan }", "learning_rate.high=nan: must be a finite number"),
    ("{ low = 1, high = inf }", "learning_rate.high=inf: must be a finite number"),
    ("{ low = 1, high = '2' }", "learning_rate.high='2': must be a number, not str"),
    ("{ low = 1, high = 2, scale = 'lin' }", "learning_rate.scale='lin': must be one of linear, log; did you mean"),
    ("{ low = 1, high = 2, integer = 1 }", "learning_rate.integer=1: must be true or false"),
    ("{ low = 1, hihg = 2 }", "learning_rate: unknown key 'hihg'; did you mean 'high'"),
]


@pytest.mark.parametrize(("text", "message"), RANGE_REFUSALS)
def test_a_range_that_cannot_be_drawn_from_is_refused(text, message):
    (line,) = refuse(f"sweep = {{ draws = 3, random.train.learning_rate = {text} }}")
    assert line.startswith(f"sweep.random.train.{message}")


def test_a_range_for_an_integer_setting_must_be_declared_integer():
    (line,) = refuse("sweep = { draws = 3, random.train.epochs = { low = 1, high = 9 } }")
    assert line == "sweep.random.train.epochs: must be a range of integers; add integer = true"
    text = "sweep = { draws = 30, random.train.epochs = { low = 1, high = 3, integer = true } }"
    assert {cell.config.train.epochs for cell in grid(text).cells} == {1, 2, 3}


def test_a_range_is_for_settings_that_have_numbers():
    (line,) = refuse("sweep = { draws = 3, random.model.pool = { low = 1.5, high = 2 } }")
    assert line.startswith("sweep.random.model.pool.low=1.5: must be one of max, avg, none")


CONDITIONS = [
    ("exclude = 3", "exclude=3: must be a list of tables"),
    ("exclude = [3]", "exclude[0]=3: must be a table of levels by factor"),
    ("exclude = [{}]", "exclude[0]={}: must be a table of levels by factor"),
    (
        "exclude = [{ model.strides = 1 }]",
        "exclude[0]: 'model.strides' is no factor of this sweep; legal: model.padding",
    ),
    (
        "exclude = [{ model.pading = 1 }]",
        "exclude[0]: 'model.pading' is no factor of this sweep; did you mean 'model.pa",
    ),
    ("exclude = [{ model.padding = 'vlaid' }]", "exclude[0].model.padding='vlaid': must be valid, same, a number of"),
    ("exclude = [{ size = 'smal' }]", "exclude[0].size='smal': must be a label of size: small; did you mean 'small'?"),
    ("exclude = [{ size = { at_least = 3 } }]", "exclude[0].size.at_least: size has labels and no numbers; use any_of"),
    ("exclude = [{ model.padding = {} }]", "exclude[0].model.padding={}: must have one of not, any_of, at_least"),
    ("exclude = [{ model.padding = { nto = 1 } }]", "exclude[0].model.padding: unknown key 'nto'; did you mean 'not'?"),
    ("exclude = [{ model.padding = { any_of = 1 } }]", "exclude[0].model.padding.any_of=1: must be a list of at least"),
    ("exclude = [{ model.padding = { any_of = ['x'] } }]", "exclude[0].model.padding.any_of[0]='x': must be valid"),
    ("exclude = [{ train.epochs = { at_most = 'x' } }]", "exclude[0].train.epochs.at_most='x': must be a number, not"),
    ("only_if = 3", "only_if=3: must be a table of conditions by factor"),
    ("only_if.train.epochs = 3", "only_if.train.epochs=3: must be a table of levels by factor"),
    ("only_if.train.epoch.size = 'small'", "only_if: 'train.epoch' is no factor of this sweep; did you mean 'train."),
    (
        "only_if.train.epochs.sise = 'small'",
        "only_if.train.epochs: 'sise' is no factor of this sweep; did you mean 'si",
    ),
    ("only_if.train.epochs.train.epochs = 1", "only_if: goes in a circle: train.epochs needs train.epochs"),
    (
        "only_if = { size.train.epochs = 1, train.epochs.size = 'small' }",
        "only_if: goes in a circle: ",
    ),
]


@pytest.mark.parametrize(("text", "message"), CONDITIONS)
def test_a_condition_must_be_about_the_sweep(text, message):
    sweep = "[sweep.grid]\nmodel.padding = ['valid']\nsize = [{ label = 'small', set = {} }]\ntrain.epochs = [1]"
    (line,) = refuse(f"[sweep]\n{text}\n{sweep}")
    assert line.startswith(f"sweep.{message}")


class TestRefusals:
    def test_all_mistakes_are_listed_together_each_with_its_place(self):
        text = """
            seeds = [1, 1]
            base.model.paddin = "x"
            base.model.filters = [0]
            [[sweep]]
            grid.model.padding = ["valid", "foo", "bar"]
            grid.modle.padding = [1]
            exclude = [{ model.strides = 2 }]
            [[sweep]]
            zip = { model.padding = ["valid", "same"], model.strides = [0, 2, 3] }
            [[sweep]]
            random.train.learning_rate = { low = 1, high = 0.1 }
            draws = 0
        """
        assert [re.split(r"[:=]", line)[0] for line in refuse(text)] == [
            "seeds", "base", "base.model.filters[0]", "sweep[0].grid.model.padding[1]",
            "sweep[0].grid.model.padding[2]",
            "sweep[0].grid", "sweep[0].exclude[0]", "sweep[1].zip.model.strides[0]", "sweep[1].zip",
            "sweep[2].random.train.learning_rate", "sweep[2].draws",
        ]  # fmt: skip

    def test_a_title_is_required(self):
        for values in ({}, {"title": 3}, {"title": "a\nb"}, {"title": " "}):
            with pytest.raises(InputError, match="title"):
                read_dict({**values, "sweep": {"list": [{}]}}, "any")
        with pytest.raises(InputError, match=r"^study: must be a table with title, seeds, base, sweep, not \[\]$"):
            read_dict([], "any")

    def test_cells_with_an_illegal_configuration_are_named_with_the_remedy(self):
        (line,) = refuse("[sweep.grid]\ntrain.optimizer = ['sgd', 'adam']\ntrain.momentum = [0.0, 0.9]")
        assert line == (
            "cell train.optimizer=adam, train.momentum=0.9: train.momentum=0.9: only sgd has momentum, not adam; "
            "use 0; leave it out with `exclude` or `only_if`"
        )

    def test_illegal_cells_are_named_once_each_and_twenty_at_most(self):
        epochs = list(range(1, 33))
        text = f"[[sweep]]\nlist = [{{}}]\n[[sweep]]\ngrid.train = {{ momentum = [0.9], epochs = {epochs} }}"
        with pytest.raises(InputError, match=r"any\.toml: 32 errors") as refusal:
            expand(study(f"base.train.optimizer = 'adam'\n{text}"))
        lines = str(refusal.value).split("\n")
        assert len(lines) == 1 + 20 + 1
        assert lines[-1] == "  ... and 12 more"
        assert lines[1].startswith(
            "  any.toml: sweep[1]: cell train.momentum=0.9, train.epochs=1, arm=base: train.mome"
        ) or ("sweep[1]: cell " in lines[1])

    def test_a_training_set_that_is_too_small_is_an_error(self):
        (line,) = refuse("sweep.grid.data.train_size = [100, 60001]")
        assert line.startswith("cell data.train_size=60001: data.train_size=60001: must be <= 60000, the training exam")

    def test_an_unknown_dataset_is_reported_once(self):
        lines = refuse("[sweep.grid]\ndata.name = ['mnist', 'fashoin_mnist']\ntrain.epochs = [1, 2, 3]")
        assert len(lines) == 1
        assert "fashoin_mnist" in lines[0]

    def test_a_label_has_one_meaning_in_a_study(self):
        levels = ["{ label = 'two', value = 2 }", "{ label = 'two', value = 3 }"]
        (line,) = refuse("\n".join(f"[[sweep]]\ngrid.model.strides = [{level}]" for level in levels))
        assert line == "sweep[1]: the label 'two' of model.strides is that of another level in a sweep before"

    def test_a_study_without_cells_is_refused(self):
        (line,) = refuse("[sweep]\nexclude = [{ train.epochs = 1 }]\n[sweep.grid]\ntrain.epochs = [1]")
        assert line == "the study has no cells; `exclude` leaves all of them out"

    def test_an_exclude_that_meets_nothing_is_fine(self):
        assert len(labels("[sweep]\nexclude = [{ train.epochs = 9 }]\n[sweep.grid]\ntrain.epochs = [1]")) == 1

    def test_too_many_trials_are_refused_before_expansion(self):
        factors = [
            f"{path} = {list(range(1, 1001))}" for path in ("train.epochs", "train.batch_size", "data.train_size")
        ]
        (line,) = refuse("\n".join(["[sweep.grid]", *factors]))
        assert line == "--max-trials 10000: the study has 5,000,000,000 trials (1,000,000,000 cells x 5 seeds)"
        (line,) = refuse("[sweep]\ndraws = 2147483647\nrandom.train.epochs = [1]")
        assert line.startswith("--max-trials 10000: the study has 10,737,418,235 trials")

    def test_the_limit_of_trials_can_be_set_and_is_inclusive(self):
        ten = study("sweep.grid.train.epochs = [1, 2]")
        assert len(expand(ten, max_trials=10).trials) == 10
        with pytest.raises(InputError, match=r"--max-trials 9: the study has 10 trials \(2 cells x 5 seeds\)"):
            expand(ten, max_trials=9)


HOSTILE = [
    ("title = ", "not valid TOML: "),
    ("title = 'a'\ntitle = 'b'\n", r"not valid TOML: Cannot overwrite a value \(at line 2, column 12\)"),
    ("x = " + "[" * 100_000, "nested too deep"),
    (".".join("a" * 3000) + " = 1", "nested too deep"),
    ("title = 'x'\nsweep.grid." + ".".join("a" * 3000) + " = 1", "nested too deep"),
    ("title = 'x'\nsweep.grid.train.epochs." + ".".join("a" * 3000) + " = 1", "nested too deep"),
    (f"seeds = {'9' * 5000}", "not valid TOML"),
    (f"title = 'x'\nseeds = {'9' * 4000}\nsweep.list = [{{}}]", "seeds=9999"),
    (f"title = 'x'\nsweep.grid.train.learning_rate = [{'9' * 4000}]", "must be a finite number"),
    ('title = "x"\n"a\\u001b[31m" = 1\nsweep.list = [{}]', r"unknown key 'a\\x1b\[31m'"),
    ('title = "x"\nsweep.grid."\\u001b\\n" = [1]', r"unknown setting '\\x1b\\n'"),
    ("title = 'x\x00'", "not valid TOML"),
]


@pytest.mark.parametrize(("text", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_refused_in_printable_lines(text, message):
    with pytest.raises(InputError, match=message) as refusal:
        read_toml(text, "any", "any\n.toml")
    lines = str(refusal.value).split("\n")
    assert all(line.isprintable() and len(line) < 500 for line in lines)
    assert all(r"any\n.toml: " in line for line in lines)


class TestFiles:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"title = '\xff'", "x.toml: must be UTF-8: invalid start byte at byte 9"),
            (b"#" * (2**20 + 1), "x.toml: must be at most 1 MiB"),
            (b"", "x.toml: 2 errors"),
        ],
    )
    def test_a_file_that_is_no_study_is_refused_by_name(self, content, message, tmp_path):
        path = tmp_path / "x.toml"
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_file(path)

    def test_a_file_that_cannot_be_read_is_refused_by_name(self, tmp_path):
        with pytest.raises(InputError, match=r"missing\.toml: cannot be read: No such file or directory"):
            read_file(tmp_path / "missing.toml")
        with pytest.raises(InputError, match="cannot be read: Is a directory"):
            read_file(tmp_path)
        with pytest.raises(InputError, match=r"a\\x00: must be a file named in printable characters"):
            read_file(Path("a\x00"))
        with pytest.raises(InputError, match="/dev/zero: must be a regular file"):
            read_file(Path("/dev/zero"))


class TestCanonicalForm:
    def test_the_written_study_is_short_and_complete(self):
        text = """
            seeds = [3, 4, 5]
            base = { model.filters = [8], data.train_size = "none" }
            [[sweep]]
            exclude = [{ train.epochs = { at_least = 2, at_most = 3 }, model.pool_strides = { any_of = ["none", 1] } }]
            grid.train.epochs = [1, { label = "two", value = 2 }]
            grid.model.pool_strides = ["none", 1]
            [[sweep]]
            random.train.learning_rate = { low = 1, high = 2 }
            random.model.padding = ["valid", ["same"]]
            draws = 3
            only_if.train.learning_rate.model.padding = { not = "valid" }
        """
        assert study(text).to_toml() == (
            'title = "any"\n'
            'seeds = "3..5"\n'
            "\n[base.model]\n"
            "filters = [8]\n"
            "\n[base.data]\n"
            'train_size = "none"\n'
            "\n[[sweep]]\n"
            "exclude = [\n"
            '    {"train.epochs" = {at_least = 2, at_most = 3}, "model.pool_strides" = {any_of = ["none", 1]}},\n'
            "]\n"
            "\n[sweep.grid]\n"
            '"train.epochs" = [1, {label = "two", value = 2}]\n'
            '"model.pool_strides" = ["none", 1]\n'
            "\n[[sweep]]\n"
            "draws = 3\n"
            "draw_seed = 0\n"
            "\n[sweep.random]\n"
            '"train.learning_rate" = {low = 1.0, high = 2.0, scale = "linear", integer = false}\n'
            '"model.padding" = ["valid", ["same"]]\n'
            "\n[sweep.only_if]\n"
            '"train.learning_rate" = {"model.padding" = {not = "valid"}}\n'
        )
        assert read_toml(study(text).to_toml(), "any") == study(text)

    @pytest.mark.parametrize(
        "label", ['quote"d', "it's", "back\\slash", "é 字 \N{GRINNING FACE}", "a=b, c", "#x", "[1"]
    )
    def test_any_label_survives(self, label):
        levels = [{"label": label, "value": 2}]
        one = read_dict({"title": label, "sweep": {"grid": {"model.strides": levels}}}, "any")
        assert read_toml(one.to_toml(), "any") == one
        assert expand(one).cells[0].labels == {"model.strides": label}

    def test_tables_are_written_in_their_order(self):
        values = {"a": {"b": {"c": {"d": 1}}, "e": [{"f": [1, {"g": 2}]}]}, "h": [], "i": {}, "j": [{}, {"k": {}}]}
        read = tomllib.loads(write_toml(values))
        assert read == values
        assert list(read) == list(values)
        assert list(read["a"]) == list(values["a"])


def test_a_study_has_the_configuration_it_varies():
    one = study('base = { model.padding = "same" }\nsweep.grid.train.epochs = [1]')
    assert one.base == RunConfig(model=ModelConfig(padding="same"))
    assert one.name == "any"
    assert one.source == "any.toml"


def test_an_empty_section_is_no_table_of_factors():
    for kind in ("grid", "zip", "one_at_a_time", "leave_one_out"):
        (line,) = refuse(f"[sweep.{kind}]\nmodel = {{}}")
        assert "must be a table of factors, such as model.padding = [...]" in line


def test_a_range_of_huge_integers_is_refused_by_its_end():
    nines = "9" * 400
    (line,) = refuse(f"sweep = {{ draws = 3, random.train.epochs = {{ low = 1, high = {nines}, integer = true }} }}")
    assert "random.train.epochs.high=" in line


def test_a_repeated_seed_in_a_long_list_is_found_quickly():
    seeds = ", ".join(map(str, [*range(99_999), 5]))
    (line,) = refuse(f"seeds = [{seeds}]\n[sweep.grid]\ntrain.epochs = [1]")
    assert "seeds: 5 is given twice" in line


def test_a_baseline_of_several_datasets_is_named_without_one():
    cells = grid('[sweep.grid]\n"data.name" = ["mnist", "fashion_mnist"]\nmodel.padding = ["valid", "same"]')
    cell = choose_cell(["padding=same"], cells, "--baseline", apart_from="data.name")
    assert cell.name == "data.name=mnist, model.padding=same"
    with pytest.raises(InputError, match=r"leaves 2 cells, must leave one; they differ in data.name \(mnist, fashion"):
        choose_cell(["padding=same"], cells, "cell")
    with pytest.raises(
        InputError, match=r"leaves 2 cells, must leave one; they differ in model.padding \(valid, same\)"
    ):
        choose_cell(["data.name=mnist"], cells, "--baseline", apart_from="data.name")
