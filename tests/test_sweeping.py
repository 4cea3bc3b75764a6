"""The laws of the sweep algebra, for any study that can be written."""

import dataclasses
import math
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ablations.study.grid import count_assignments, draw_level, expand, list_assignments
from ablations.study.reading import read_dict, read_toml
from ablations.study.study import Range
from cnnjax.runs.config import RunConfig
from cnnjax.settings.schema import flatten, thaw

property_test = settings(max_examples=60)

SCHEMA = RunConfig.schema()
# Levels of which every combination is a configuration, among them two ways to write one value.
CHOICES = {
    "model.padding": ["valid", "same", 0, 1, ["same", "valid"]],
    "model.strides": [1, [1, 2], [[1, 1], 1]],
    "model.kernel_size": [5, 3, [5, 3], [[5, 5], [5, 5]]],
    "model.filters": [[32, 64], [8, 8], [2, 4]],
    "model.pool": ["max", "avg", "none"],
    "model.pool_size": [2, 3],
    "model.pool_strides": ["none", 2, 1],
    "model.dropout": [0, 0.5],
    "train.epochs": [5, 1, 2],
    "train.learning_rate": [0.01, 1, 0.1],
    "train.optimizer": ["sgd", "adam"],
    "data.train_size": ["none", 1000, 60000],
}
COMPOSITES = [
    {"label": "small", "set": {"model.dense": [8], "train.batch_size": 10}},
    {"label": "large", "set": {"model.dense": [64]}},
    {"label": "plain", "set": {}},
]
RANGES = {
    "train.weight_decay": {"low": 1e-5, "high": 0.1, "scale": "log"},
    "train.batch_size": {"low": 10, "high": 300, "scale": "log", "integer": True},
    "model.dropout": {"low": 0.0, "high": 0.5},
}


@st.composite
def factor_tables(draw, *, least=1, levels=None):
    names = draw(st.lists(st.sampled_from([*CHOICES, "size"]), min_size=least, max_size=3, unique=True))
    return {name: draw(level_lists(name, levels)) for name in names}


@st.composite
def level_lists(draw, name, count=None):
    legal = COMPOSITES if name == "size" else CHOICES[name]
    count = count if count is not None else draw(st.integers(1, len(legal)))
    return draw(st.permutations(legal))[:count]


@st.composite
def sweeps(draw):
    kind = draw(st.sampled_from(["grid", "zip", "one_at_a_time", "leave_one_out", "list", "random"]))
    if kind == "list":
        return {"list": draw(st.lists(arms(), min_size=1, max_size=4, unique_by=lambda arm: arm["label"]))}
    count = {"zip": draw(st.integers(1, 2)), "leave_one_out": 1}.get(kind)
    table = draw(factor_tables(levels=count))
    if kind == "random":
        ranges = draw(st.lists(st.sampled_from(["train.weight_decay"]), max_size=1))
        return {
            kind: {**table, **{name: RANGES[name] for name in ranges}},
            "draws": draw(st.integers(1, 6)),
            "draw_seed": draw(st.integers(0, 3)),
        }
    return {kind: table, **draw(conditions(table))}


@st.composite
def arms(draw):
    names = draw(st.lists(st.sampled_from(list(CHOICES)), max_size=2, unique=True))
    settings = {name: draw(st.sampled_from(CHOICES[name])) for name in names}
    return {"label": draw(st.sampled_from("abcdef")), **settings}


@st.composite
def conditions(draw, table):
    """Nothing, or an `exclude` that spares a cell, or an `only_if` among the factors of the table."""
    names = list(table)
    first = {name: levels[0]["label"] if name == "size" else levels[0] for name, levels in table.items()}
    kind = draw(st.sampled_from(["nothing", "exclude", "only_if"]))
    if kind == "nothing" or len(names) < 2:
        return {}
    if kind == "only_if":
        return {"only_if": {names[0]: {names[1]: draw(st.sampled_from([first[names[1]], {"not": first[names[1]]}]))}}}
    return {"exclude": [{name: {"not": first[name]} for name in names[:2]}]}


@st.composite
def studies(draw):
    base = draw(st.sampled_from([{}, {"train": {"epochs": 2}}, {"model.padding": "same", "model.pool": "avg"}]))
    tables = draw(st.lists(sweeps(), min_size=1, max_size=3))
    for index, table in enumerate(tables):
        if "list" in table:
            table["factor"] = f"arm{index}"
    seeds = draw(st.sampled_from([1, 3, "4..6", [0, 7, 3]]))
    return {"title": "any", "seeds": seeds, "base": base, "sweep": tables}


def study_of(sweep, **others):
    return read_dict({"title": "any", "seeds": 2, "sweep": sweep, **others}, "any")


def keys(study):
    return {trial.key for trial in expand(study).trials}


def normal(name, value):
    return SCHEMA.read_value(name, SCHEMA.parse_value(name, value))


@property_test
@given(studies())
def test_a_study_written_as_toml_reads_back_equal_with_an_equal_grid(values):
    study = read_dict(values, "any")
    again = read_toml(study.to_toml(), "any")
    assert again == study
    assert again.to_toml() == study.to_toml()
    assert read_dict(study.to_dict(), "any") == study
    assert expand(again) == expand(study)
    assert [trial.key for trial in expand(again).trials] == [trial.key for trial in expand(study).trials]


@property_test
@given(studies())
def test_a_grid_written_out_as_a_list_has_the_same_trials(values):
    study = read_dict(values, "any")
    rows = [flatten(cell.config) for cell in expand(study).cells]
    arms = [{"label": str(i), **{path: thaw(value) for path, value in row.items()}} for i, row in enumerate(rows)]
    for arm in arms:
        del arm["data.manual_dir"]
    written = read_dict({"title": "any", "seeds": values["seeds"], "sweep": {"list": arms}}, "any")
    assert [trial.key for trial in expand(written).trials] == [trial.key for trial in expand(study).trials]


@property_test
@given(studies())
def test_no_two_cells_are_the_same_and_every_label_is_given(values):
    grid = expand(read_dict(values, "any"))
    assert len({cell.config.key for cell in grid.cells}) == len(grid.cells)
    assert len({tuple(cell.labels.values()) for cell in grid.cells}) == len(grid.cells)
    assert all(tuple(cell.labels) == grid.factors for cell in grid.cells)
    assert all(cell.config.seed == 0 for cell in grid.cells)
    names = {cell.name for cell in grid.cells}
    assert all(duplicate.kept in names and duplicate.name not in names for duplicate in grid.duplicates)


@property_test
@given(studies())
def test_a_study_is_no_larger_than_its_sweeps_are_counted(values):
    study = read_dict(values, "any")
    assert 1 <= len(expand(study).cells) <= sum(count_assignments(sweep) for sweep in study.sweeps)


@property_test
@given(studies(), st.randoms(use_true_random=False))
def test_the_order_of_factors_levels_and_sweeps_does_not_change_the_trials(values, generator):
    def shuffle(pairs):
        pairs = list(pairs)
        generator.shuffle(pairs)
        return pairs

    def reorder(table):
        if "grid" in table or "one_at_a_time" in table:
            kind = "grid" if "grid" in table else "one_at_a_time"
            return {**table, kind: {name: shuffle(levels) for name, levels in shuffle(table[kind].items())}}
        return {**table, "list": shuffle(table["list"])} if "list" in table else table

    changed = {**values, "sweep": shuffle(map(reorder, values["sweep"]))}
    assert keys(read_dict(changed, "any")) == keys(read_dict(values, "any"))


@property_test
@given(studies(), sweeps())
def test_another_sweep_keeps_the_earlier_trials(values, sweep):
    sweep = {**sweep, "factor": "further"} if "list" in sweep else sweep
    before = expand(read_dict(values, "any"))
    after = expand(read_dict({**values, "sweep": [*values["sweep"], sweep]}, "any"))
    assert [trial.key for trial in after.trials][: len(before.trials)] == [trial.key for trial in before.trials]


@property_test
@given(studies())
def test_another_seed_keeps_the_earlier_trials(values):
    study = read_dict(values, "any")
    assert keys(study) < keys(dataclasses.replace(study, seeds=(*study.seeds, 99)))


@property_test
@given(factor_tables())
def test_another_level_keeps_the_earlier_trials(table):
    fewer = {name: levels[:-1] or levels for name, levels in table.items()}
    for kind in ("grid", "one_at_a_time"):
        assert keys(study_of({kind: fewer})) <= keys(study_of({kind: table}))


def distinct(name, levels):
    return len({normal(name, level) for level in levels})


# Factors of which every value means something whatever the others are.
plain_tables = factor_tables().filter(lambda table: not {"size", "model.pool", "model.pool_strides"} & set(table))


@property_test
@given(plain_tables)
def test_a_grid_is_the_product_of_its_factors(table):
    study = study_of({"grid": table})
    assert count_assignments(study.sweeps[0]) == math.prod(len(levels) for levels in table.values())
    expected = math.prod(distinct(name, levels) for name, levels in table.items())
    assert len(expand(study).cells) == expected


@property_test
@given(plain_tables)
def test_one_at_a_time_is_the_base_and_every_other_level(table):
    study = study_of({"one_at_a_time": table})
    base = {path: normal(path, thaw(value)) for path, value in flatten(study.base).items()}
    others = sum(len({normal(name, level) for level in levels} - {base[name]}) for name, levels in table.items())
    assert len(expand(study).cells) == 1 + others
    assert expand(study).cells[0].config == study.base


ON = {"model.padding": ["same"], "model.norm": ["batch"], "model.dropout": [0.5], "train.momentum": [0.9]}


@property_test
@given(st.lists(st.sampled_from(list(ON)), min_size=1, unique=True))
def test_leave_one_out_is_all_and_all_but_each(names):
    grid = expand(study_of({"leave_one_out": {name: ON[name] for name in names}}))
    assert len(grid.cells) == 1 + len(names)
    everything, *others = [{path: flatten(cell.config)[path] for path in names} for cell in grid.cells]
    for name, cell in zip(names, others, strict=True):
        assert {path for path in names if cell[path] != everything[path]} == {name}


def test_a_zip_pairs_its_levels_in_order():
    grid = expand(study_of({"zip": {"model.filters": [[8], [16], [32]], "train.epochs": [3, 2, 1]}}))
    rows = [(cell.config.model.filters, cell.config.train.epochs) for cell in grid.cells]
    assert rows == [((8,), 3), ((16,), 2), ((32,), 1)]


def test_the_first_factor_of_a_grid_varies_slowest():
    grid = expand(study_of({"grid": {"model.padding": ["same", "valid"], "train.epochs": [2, 1]}}))
    assert [tuple(cell.labels.values()) for cell in grid.cells] == [
        ("same", "2"), ("same", "1"), ("valid", "2"), ("valid", "1")
    ]  # fmt: skip


@property_test
@given(factor_tables(least=2), st.data())
def test_exclude_is_a_filter(table, data):
    one, other = list(table)[:2]
    level = {name: data.draw(st.sampled_from(table[name])) for name in (one, other)}
    word = {name: value["label"] if name == "size" else value for name, value in level.items()}
    whole = study_of({"grid": table})
    filtered = study_of({"grid": table, "exclude": [word]})

    def is_excluded(assignment):
        return all(
            assignment[name].label == word[name]
            if name == "size"
            else assignment[name].values[name] == normal(name, word[name])
            for name in word
        )

    left = [row for row in list_assignments(whole.sweeps[0], {}, SCHEMA) if not is_excluded(row)]
    assert list(list_assignments(filtered.sweeps[0], {}, SCHEMA)) == left


@pytest.mark.parametrize(
    ("clause", "kept"),
    [
        (3, [1, 2, 4]),
        ({"not": 3}, [3]),
        ({"any_of": [1, 4]}, [2, 3]),
        ({"at_least": 3}, [1, 2]),
        ({"at_most": 2}, [3, 4]),
        ({"at_least": 2, "at_most": 3}, [1, 4]),
        ("four", [1, 2, 3]),
        ({"any_of": ["four", 3]}, [1, 2]),
        (9, [1, 2, 3, 4]),
    ],
)
def test_a_clause_means_what_it_says(clause, kept):
    table = {"grid": {"train.epochs": [1, 2, 3, {"label": "four", "value": 4}]}, "exclude": [{"train.epochs": clause}]}
    assert [cell.config.train.epochs for cell in expand(study_of(table)).cells] == kept


def test_a_factor_that_does_not_apply_keeps_the_bases_value_and_its_cells_are_one():
    study = study_of(
        {
            "grid": {"train.optimizer": ["sgd", "adam"], "train.momentum": [0.5, 0.9], "train.nesterov": [False, True]},
            "only_if": {
                "train.momentum": {"train.optimizer": "sgd"},
                "train.nesterov": {"train.momentum": {"at_least": 0.1}},
            },
        }
    )
    grid = expand(study)
    assert len(grid.cells) == 2 * 2 + 1
    assert grid.duplicates == ()
    last = grid.cells[-1]
    assert last.labels == {"train.optimizer": "adam", "train.momentum": "0.0", "train.nesterov": "false"}


def random_study(names, draws, seed=0, **choices):
    table = {**choices, **{name: RANGES[name] for name in names}}
    return study_of({"random": table, "draws": draws, "draw_seed": seed})


def draw_settings(study):
    return [{n: level.settings[n] for n, level in row.items()} for row in list_assignments(study.sweeps[0], {}, SCHEMA)]


@property_test
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_more_draws_keep_the_earlier_ones_and_more_factors_change_none(fewer, more, seed):
    names = ["train.weight_decay", "train.batch_size"]
    short = draw_settings(random_study(names, fewer, seed))
    assert draw_settings(random_study(names, fewer + more, seed))[:fewer] == short
    wider = draw_settings(random_study([*names, "model.dropout"], fewer, seed, **{"model.padding": ["valid", "same"]}))
    assert [{name: row[name] for name in names} for row in wider] == short


def test_draws_never_change():
    assert draw_settings(random_study(["train.weight_decay", "train.batch_size"], 3)) == [
        {"train.weight_decay": 0.01802, "train.batch_size": 24},
        {"train.weight_decay": 0.002308, "train.batch_size": 24},
        {"train.weight_decay": 3.203e-05, "train.batch_size": 65},
    ]


@property_test
@given(
    st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.sampled_from(["linear", "log"]), st.floats(0, 1, exclude_max=True)
)
def test_a_draw_lies_in_its_range_and_is_rounded_to_four_digits(one, other, scale, share):
    low, high = sorted([one, other])
    assume(low < high)
    value = Range(low, high, scale).pick(share)
    assert low <= value <= high
    assert value in (low, high, float(f"{value:.4g}")) or high - low <= high / 10
    assert Range(low, high, scale).pick(0) == pytest.approx(low, rel=1e-3)


@property_test
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(["linear", "log"]))
def test_every_integer_of_a_range_is_drawn(low, width, scale):
    drawn = {Range(low, low + width, scale, integer=True).pick(i / 1000) for i in range(1000)}
    assert drawn == set(range(low, low + width + 1))
    assert all(isinstance(value, int) for value in drawn)


def test_draws_are_uniform_on_their_scale():
    (factor,) = random_study(["train.weight_decay"], 1).sweeps[0].factors
    values = [math.log10(draw_level(factor, 0, index, SCHEMA).settings[factor.name]) for index in range(2000)]
    counts = [sum(low <= value < low + 1 for value in values) for low in (-5, -4, -3, -2)]
    assert all(abs(count - 500) < 4 * math.sqrt(2000 * 0.25 * 0.75) for count in counts)


def test_choices_are_drawn_uniformly():
    (factor,) = study_of({"random": {"model.pool": ["max", "avg", "none"]}, "draws": 1}).sweeps[0].factors
    labels = [draw_level(factor, 0, index, SCHEMA).label for index in range(3000)]
    assert all(abs(labels.count(label) - 1000) < 4 * math.sqrt(3000 * 2 / 9) for label in ("max", "avg", "none"))


def test_drawing_does_not_change_the_global_generator():
    random.seed(1)
    before = random.getstate()
    expand(random_study(["train.weight_decay"], 5))
    assert random.getstate() == before


def test_a_long_chain_of_conditions_is_decided_quickly():
    names = [f"f{index}" for index in range(800)]
    factors = {name: [{"label": "on", "set": {"train.epochs": 2}}] for name in names[:1]}
    factors |= {name: [{"label": "on", "set": {}}] for name in names[1:]}
    only_if = {
        name: {other: "on" for other in names[max(index - 2, 0) : index]} for index, name in enumerate(names) if index
    }
    study = read_dict({"title": "a chain", "seeds": 1, "sweep": {"grid": factors, "only_if": only_if}}, "chain")
    (cell,) = expand(study).cells
    assert set(cell.labels.values()) == {"on"}


def test_a_narrow_range_keeps_its_digits():
    picked = {Range(0.99991, 0.99999).pick(index / 100) for index in range(100)}
    assert len(picked) > 50
