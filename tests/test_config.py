"""Configurations: defaults, normal form, run key, round trips and refusals."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnjax.data.settings import READING, DataConfig
from cnnjax.errors import InputError
from cnnjax.models.cnn import ModelConfig
from cnnjax.runs.config import RunConfig
from cnnjax.runs.train_config import TrainConfig
from cnnjax.settings.blocks import collapse, expand, read_padding, read_window

DEFAULT_KEY = "8b63c3f3dac5bb0b439590a62fd9d6bb1b265505181d8d6e6c59d5974cfb7f2d"
property_test = settings(max_examples=60)


def per_block(scalar, entry, count: int):
    """A setting of the blocks: one scalar, or a list with one entry per block."""
    return scalar | st.tuples(*[entry] * count) if count else scalar


pixels = st.tuples(st.integers(0, 4), st.integers(0, 4))
size, padding = st.integers(1, 9), st.sampled_from(["valid", "same", 0, 1, 2])
sizes = size | st.tuples(size, size)
paddings = padding | st.tuples(pixels, pixels)
pools = st.sampled_from(["max", "avg", "none"])
groups = st.sampled_from([1, 2, "depthwise"])
activations = st.sampled_from(["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "linear"])
fractions = st.floats(0, 1, exclude_max=True).map(abs)
words = st.from_regex(r"[a-z][a-z_0-9]{0,7}", fullmatch=True)


@st.composite
def model_configs(draw):
    filters = draw(st.lists(st.integers(1, 99), max_size=3))
    block_settings = {
        "kernel_size": (size, sizes),
        "strides": (size, sizes),
        "padding": (padding, paddings),
        "activation": (activations, activations),
        "pool": (pools, pools),
        "pool_size": (size, sizes),
        "dilation": (size, sizes),
        "groups": (groups, groups),
    }
    values = {name: draw(per_block(*entry, len(filters))) for name, entry in block_settings.items()}
    values["pool_strides"] = draw(st.none() | per_block(size, sizes, len(filters)))
    return ModelConfig(
        filters=tuple(filters),
        dense=tuple(draw(st.lists(st.integers(1, 99), max_size=2))),
        dropout=draw(fractions),
        spatial_dropout=draw(fractions),
        norm=draw(st.sampled_from(["none", "batch", "layer", "group", "instance"])),
        residual=draw(st.booleans()),
        global_pool=draw(st.sampled_from(["none", "max", "avg"])),
        use_bias=draw(st.booleans()),
        initializer=draw(st.sampled_from(["glorot_uniform", "he_normal", "orthogonal"])),
        **values,
    )


@st.composite
def train_configs(draw):
    optimizer = draw(st.sampled_from(["sgd", "adam", "adamw", "rmsprop", "lion", "lamb"]))
    momentum = draw(fractions) if optimizer == "sgd" else 0.0
    validation_split = draw(fractions)
    schedule = draw(st.sampled_from(["constant", "cosine", "onecycle"]))
    warmup = draw(st.none() | fractions)
    return TrainConfig(
        epochs=draw(st.integers(1, 99)),
        batch_size=draw(st.integers(1, 999)),
        optimizer=optimizer,
        learning_rate=draw(st.floats(1e-9, 1e9)),
        momentum=momentum,
        nesterov=bool(momentum) and draw(st.booleans()),
        schedule=schedule,
        warmup=None if schedule == "onecycle" and warmup == 0 else warmup,
        weight_decay=draw(st.floats(0, 10).map(abs)),
        label_smoothing=draw(fractions),
        validation_split=validation_split,
        early_stopping_patience=draw(st.none() | st.integers(1, 9)) if validation_split else None,
        precision=draw(st.sampled_from(["float32", "bfloat16"])),
    )


data_configs = st.builds(
    DataConfig,
    name=words,
    train_size=st.none() | st.integers(1, 10**6),
    manual_dir=st.none() | st.text(st.characters(max_codepoint=0xFFFF)),
)
run_configs = st.builds(
    RunConfig, model=model_configs(), train=train_configs(), data=data_configs, seed=st.integers(0, 2**32 - 1)
)


class TestDefaults:
    def test_the_network_is_the_chapters(self):
        model = ModelConfig()
        assert model.filters == (32, 64)
        assert (model.kernel_size, model.strides, model.padding, model.activation) == (5, 1, "valid", "relu")
        assert (model.pool, model.pool_size, model.pool_strides) == ("max", 2, None)
        assert (model.dense, model.dropout, model.norm, model.use_bias) == ((), 0.0, "none", True)

    def test_the_training_is_the_chapters(self):
        train = TrainConfig()
        assert (train.epochs, train.batch_size) == (5, 100)
        assert (train.optimizer, train.learning_rate, train.momentum, train.schedule) == ("sgd", 0.01, 0.0, "constant")
        assert (train.validation_split, train.early_stopping_patience) == (0.0, None)
        assert (train.weight_decay, train.label_smoothing, train.precision) == (0.0, 0.0, "float32")

    def test_the_images_are_all_of_mnist_and_the_seed_is_zero(self):
        assert RunConfig() == RunConfig(ModelConfig(), TrainConfig(), DataConfig("mnist", None, None), seed=0)

    def test_pooling_strides_default_to_the_pooling_window(self):
        assert [block.pool_strides for block in ModelConfig(pool_size=(3, 2)).blocks] == [(3, 3), (2, 2)]

    @pytest.mark.parametrize(("schedule", "share"), [("constant", 0.0), ("cosine", 0.0), ("onecycle", 0.3)])
    def test_the_warmup_share_defaults_by_schedule(self, schedule, share):
        assert TrainConfig(schedule=schedule).warmup_share == share
        assert TrainConfig(schedule=schedule, warmup=0.5).warmup_share == 0.5


class TestBlocks:
    def test_every_block_has_its_own_entry(self):
        config = ModelConfig(filters=(8, 16), kernel_size=[5, [3, 1]], padding=["same", [[1, 2], [0, 3]]])
        assert [block.filters for block in config.blocks] == [8, 16]
        assert [block.kernel_size for block in config.blocks] == [(5, 5), (3, 1)]
        assert [block.padding for block in config.blocks] == ["same", ((1, 2), (0, 3))]

    def test_hidden_dense_layers_take_the_last_blocks_activation(self):
        assert ModelConfig(activation=["relu", "tanh"], dense=(8,)).dense_activation == "tanh"
        assert ModelConfig(filters=(), activation="elu", dense=(8,)).dense_activation == "elu"

    @property_test
    @given(st.lists(sizes, min_size=1, max_size=4))
    def test_collapsed_windows_expand_to_the_same_entries(self, entries):
        full = expand(tuple(entries), len(entries), read_window, "x")
        assert expand(collapse(full), len(entries), read_window, "x") == full

    @property_test
    @given(st.lists(paddings, min_size=1, max_size=4))
    def test_collapsed_paddings_expand_to_the_same_entries(self, entries):
        full = expand(tuple(entries), len(entries), read_padding, "x")
        assert expand(collapse(full), len(entries), read_padding, "x") == full


SAME_MEANING = [
    (ModelConfig, {"kernel_size": 5}, {"kernel_size": [5, 5]}),
    (ModelConfig, {"kernel_size": 5}, {"kernel_size": [[5, 5], 5]}),
    (ModelConfig, {"kernel_size": [5, 3]}, {"kernel_size": [[5, 5], [3, 3]]}),
    (ModelConfig, {"strides": 2}, {"strides": [[2, 2], [2, 2]]}),
    (ModelConfig, {"padding": "valid"}, {"padding": 0}),
    (ModelConfig, {"padding": "valid"}, {"padding": [[[0, 0], [0, 0]], 0]}),
    (ModelConfig, {"padding": 2}, {"padding": [2, [[2, 2], [2, 2]]]}),
    (ModelConfig, {"activation": "relu"}, {"activation": ["relu", "relu"]}),
    (ModelConfig, {"pool": "avg"}, {"pool": ["avg", "avg"]}),
    (ModelConfig, {"pool_size": 3}, {"pool_size": 3, "pool_strides": 3}),
    (ModelConfig, {"pool_size": [3, 2]}, {"pool_size": [3, 2], "pool_strides": [[3, 3], 2]}),
    (ModelConfig, {"pool": "none"}, {"pool": "none", "pool_size": 3, "pool_strides": 1}),
    (ModelConfig, {"pool": ["none", "max"]}, {"pool": ["none", "max"], "pool_size": [7, 2], "pool_strides": [5, 2]}),
    (ModelConfig, {"filters": []}, {"filters": (), "kernel_size": 3, "strides": 2, "padding": 1}),
    (ModelConfig, {"filters": []}, {"filters": (), "activation": "tanh", "pool": "avg", "pool_size": 3}),
    (ModelConfig, {"dropout": 0.0}, {"dropout": 0}),
    (ModelConfig, {"batch_norm": True}, {"norm": "batch"}),
    (ModelConfig, {"batch_norm": False}, {"norm": "none"}),
    (ModelConfig, {"dilation": 2, "kernel_size": [1, 3]}, {"dilation": [1, 2], "kernel_size": [1, 3]}),
    (ModelConfig, {"filters": []}, {"filters": (), "dilation": 2, "groups": 2, "residual": True, "global_pool": "avg"}),
    (ModelConfig, {"filters": [], "dense": [8]}, {"filters": (), "dense": [8], "norm": "instance"}),
    (TrainConfig, {"learning_rate": 1.0}, {"learning_rate": 1}),
    (TrainConfig, {"warmup": None}, {"warmup": 0}),
    (TrainConfig, {"schedule": "onecycle"}, {"schedule": "onecycle", "warmup": 0.3}),
]


def wrap(config) -> RunConfig:
    return RunConfig(**{config.section: config})


@pytest.mark.parametrize(("kind", "one", "other"), SAME_MEANING)
def test_configurations_with_the_same_meaning_are_equal_and_share_hash_and_key(kind, one, other):
    first, second = kind(**one), kind(**other)
    assert first == second
    assert hash(first) == hash(second)
    assert wrap(first).key == wrap(second).key


def test_negative_zero_is_zero():
    assert wrap(TrainConfig(momentum=-0.0)).key == RunConfig().key


@property_test
@given(run_configs)
def test_the_normal_form_is_stable(config):
    for part in (config.model, config.train, config.data, config):
        assert dataclasses.replace(part) == part


@property_test
@given(run_configs)
def test_dicts_json_and_toml_read_back_as_they_were(config):
    assert RunConfig.from_dict(config.to_dict()) == config
    assert RunConfig.from_json(config.to_json()) == config
    assert RunConfig.from_toml(config.to_toml()) == config
    assert RunConfig.from_json(config.to_json()).key == config.key


@property_test
@given(run_configs, run_configs)
def test_configurations_have_the_same_key_exactly_when_they_are_equal_but_for_manual_dir(one, other):
    def forget(config):
        return dataclasses.replace(config, data=dataclasses.replace(config.data, manual_dir=None))

    assert (one.key == other.key) == (forget(one) == forget(other))


def test_a_folder_named_outside_the_basic_plane_survives_toml():
    config = DataConfig(manual_dir="/data/\N{GRINNING FACE}")
    assert DataConfig.from_toml(config.to_toml()) == config


# One legal value other than the default for every field, with what it needs to be legal.
CHANGES = {
    ("model", "filters"): {"filters": [32, 32]},
    ("model", "kernel_size"): {"kernel_size": 3},
    ("model", "strides"): {"strides": 2},
    ("model", "padding"): {"padding": "same"},
    ("model", "activation"): {"activation": "tanh"},
    ("model", "pool"): {"pool": "avg"},
    ("model", "pool_size"): {"pool_size": 3},
    ("model", "pool_strides"): {"pool_strides": 1},
    ("model", "dense"): {"dense": [128]},
    ("model", "dropout"): {"dropout": 0.5},
    ("model", "dilation"): {"dilation": 2},
    ("model", "groups"): {"groups": "depthwise"},
    ("model", "spatial_dropout"): {"spatial_dropout": 0.5},
    ("model", "norm"): {"norm": "group"},
    ("model", "batch_norm"): {"batch_norm": True},
    ("model", "residual"): {"residual": True},
    ("model", "global_pool"): {"global_pool": "avg"},
    ("model", "initializer"): {"initializer": "he_normal"},
    ("model", "use_bias"): {"use_bias": False},
    ("train", "epochs"): {"epochs": 6},
    ("train", "batch_size"): {"batch_size": 99},
    ("train", "optimizer"): {"optimizer": "adam"},
    ("train", "learning_rate"): {"learning_rate": 0.02},
    ("train", "momentum"): {"momentum": 0.9},
    ("train", "nesterov"): {"nesterov": True, "momentum": 0.9},
    ("train", "schedule"): {"schedule": "cosine"},
    ("train", "warmup"): {"warmup": 0.1},
    ("train", "weight_decay"): {"weight_decay": 1e-4},
    ("train", "clip_norm"): {"clip_norm": 1.0},
    ("train", "average"): {"average": 0.9},
    ("train", "augment"): {"augment": ["flip"]},
    ("train", "normalize"): {"normalize": "standard"},
    ("train", "loss"): {"loss": "optax:l2_loss"},
    ("train", "metrics"): {"metrics": ["optax:l2_loss"]},
    ("train", "label_smoothing"): {"label_smoothing": 0.1},
    ("train", "validation_split"): {"validation_split": 0.2},
    ("train", "early_stopping_patience"): {"early_stopping_patience": 3, "validation_split": 0.2},
    ("train", "precision"): {"precision": "bfloat16"},
    ("data", "name"): {"name": "cifar10"},
    ("data", "train_size"): {"train_size": 1000},
    ("data", "resample"): {"resample": "bootstrap"},
    ("data", "sha256"): {"sha256": "0" * 64},
}


class TestKey:
    def test_is_64_hexadecimal_digits(self):
        key = RunConfig().key
        assert len(key) == 64
        assert set(key) <= set("0123456789abcdef")

    def test_of_the_default_never_changes(self):
        assert RunConfig().key == DEFAULT_KEY

    @pytest.mark.parametrize(
        ("model", "key"),
        [
            ({"batch_norm": True}, "5d145011e576cfcf47071ccd7d3a5716a8d0e463806f98c73b0f3d51100c012d"),
            (
                {"dropout": 0.5, "filters": [3, 4], "kernel_size": [3, 5]},
                "9b414ceffc8f5a675c9a6d71e3959411b0950bf10c56c37007b41b87d097758f",
            ),
        ],
    )
    def test_of_a_network_without_the_settings_that_came_later_never_changes(self, model, key):
        assert RunConfig.from_dict({"model": model}).key == key

    def test_changes_with_every_field_that_can_change_a_result(self):
        fields = {
            (kind.section, entry.name)
            for kind in (ModelConfig, TrainConfig, DataConfig)
            for entry in dataclasses.fields(kind)
        }
        reading = {("data", name) for name in ("manual_dir", *READING)}  # of a run whose images have been read
        assert fields == CHANGES.keys() | reading | {("train", "code")}  # which goes with the functions of the user
        keys = {RunConfig.from_dict({section: values}).key for (section, _), values in CHANGES.items()}
        assert len(keys | {RunConfig().key, RunConfig(seed=1).key}) == len(CHANGES) + 2

    def test_does_not_change_with_the_folder_of_manual_downloads(self):
        assert RunConfig(data=DataConfig(manual_dir="/data")).key == DEFAULT_KEY

    def test_does_not_depend_on_the_order_of_the_settings(self):
        def reverse(value):
            return {k: reverse(v) for k, v in reversed(value.items())} if isinstance(value, dict) else value

        config = RunConfig(model=ModelConfig(dense=(8,)), train=TrainConfig(momentum=0.9), seed=3)
        assert RunConfig.from_dict(reverse(config.to_dict())).key == config.key


ONE_OF_ACTIVATIONS = "must be one of relu, leaky_relu, elu, gelu, silu, tanh, sigmoid, linear"
REFUSED = [
    (ModelConfig, {"filtres": [32]}, r"model: unknown key 'filtres'; did you mean 'filters'\?; legal: filters, kernel"),
    (TrainConfig, {"lr": 0.1}, "train: unknown key 'lr'; legal: epochs, batch_size"),
    (TrainConfig, {"momentun": 0.1}, r"train: unknown key 'momentun'; did you mean 'momentum'\?"),
    (RunConfig, {"sede": 1}, r"configuration: unknown key 'sede'; did you mean 'seed'\?; legal: model, train, data"),
    (RunConfig, {"model": {"dens": []}}, r"model: unknown key 'dens'; did you mean 'dense'\?"),
    (RunConfig, {"model": [1]}, r"model=\[1\]: must be a table of settings"),
    (RunConfig, {"train": None}, "train=None: must be a table of settings"),
    (RunConfig, {"seed": -1}, "seed=-1: must be >= 0 and <= 4294967295"),
    (RunConfig, {"seed": 2**32}, "seed=4294967296: must be >= 0 and <= 4294967295"),
    (RunConfig, {"seed": 1.0}, "seed=1.0: must be an integer, not float"),
    (RunConfig, {"seed": None}, "seed=None: must be an integer, not NoneType"),
    (ModelConfig, {"filters": 32}, r"model.filters=32: must be a list of integers, such as \[32, 64\]"),
    (ModelConfig, {"filters": [32, 0]}, r"model.filters\[1\]=0: must be >= 1"),
    (ModelConfig, {"filters": [True]}, r"model.filters\[0\]=True: must be an integer, not bool"),
    (ModelConfig, {"dense": "64"}, "model.dense='64': must be a list of integers"),
    (ModelConfig, {"dense": [1.5]}, r"model.dense\[0\]=1.5: must be an integer, not float"),
    (
        ModelConfig,
        {"kernel_size": [5]},
        r"kernel_size=\[5\]: a list has one entry per block, but it has 1 for 2 blocks",
    ),
    (ModelConfig, {"filters": [9], "strides": [1, 2]}, "a list has one entry per block, but it has 2 for 1 block of"),
    (ModelConfig, {"kernel_size": 0}, "model.kernel_size=0: must be an integer >= 1 and <= 65536, or a pair"),
    (ModelConfig, {"kernel_size": True}, "model.kernel_size=True: must be an integer >= 1"),
    (ModelConfig, {"kernel_size": 3.0}, "model.kernel_size=3.0: must be an integer >= 1"),
    (
        ModelConfig,
        {"kernel_size": [3, [3, 3, 3]]},
        r"kernel_size\[1\]=\[3, 3, 3\]: must be an integer >= 1",
    ),
    (ModelConfig, {"strides": [0, 1]}, r"model.strides\[0\]=0: must be an integer >= 1"),
    (ModelConfig, {"pool_size": "2"}, "model.pool_size='2': must be an integer >= 1"),
    (ModelConfig, {"pool_strides": [1, 2, 3]}, r"pool_strides=\[1, 2, 3\]: a list has one entry per block"),
    (ModelConfig, {"pool_strides": 0}, "model.pool_strides=0: must be an integer >= 1"),
    (ModelConfig, {"padding": "sane"}, r"padding='sane': must be valid, same, .* or \[\[.*; did you mean 'same'\?"),
    (ModelConfig, {"padding": -1}, "model.padding=-1: must be an integer >= 0"),
    (ModelConfig, {"padding": False}, "model.padding=False: must be valid, same"),
    (ModelConfig, {"padding": [[1, 1], [1, 1]]}, r"model.padding\[0\]=\[1, 1\]: must be valid, same"),
    (ModelConfig, {"padding": [1, [[0, -1], [0, 0]]]}, r"model.padding\[1\]=\[0, -1\]: must be an integer >= 0"),
    (ModelConfig, {"activation": "rleu"}, f"model.activation='rleu': {ONE_OF_ACTIVATIONS}; did you mean 'relu'\\?"),
    (ModelConfig, {"activation": ["relu", 3]}, rf"model.activation\[1\]=3: {ONE_OF_ACTIVATIONS}"),
    (ModelConfig, {"filters": [], "activation": "xyz"}, f"model.activation='xyz': {ONE_OF_ACTIVATIONS}"),
    (ModelConfig, {"pool": "mean"}, "model.pool='mean': must be one of max, avg, none"),
    (ModelConfig, {"pool": None}, "model.pool=None: must be one of max, avg, none"),
    (ModelConfig, {"dropout": 1.0}, "model.dropout=1.0: must be >= 0 and < 1"),
    (ModelConfig, {"dropout": math.nan}, "model.dropout=nan: must be a finite number"),
    (ModelConfig, {"dropout": "0.5"}, "model.dropout='0.5': must be a number, not str"),
    (ModelConfig, {"batch_norm": 1}, "model.batch_norm=1: must be true or false, not int"),
    (ModelConfig, {"norm": "instanse"}, "model.norm='instanse': must be one of none, .*; did you mean 'instance'"),
    (ModelConfig, {"norm": "group", "batch_norm": True}, "model.batch_norm: is another way to write model.norm; give"),
    (ModelConfig, {"groups": 0}, "model.groups=0: must be depthwise, or an integer >= 1"),
    (ModelConfig, {"groups": [1, "deepwise"]}, r"model.groups\[1\]='deepwise': .*; did you mean 'depthwise'\?"),
    (ModelConfig, {"dilation": 0}, "model.dilation=0: must be an integer >= 1"),
    (ModelConfig, {"spatial_dropout": 1}, "model.spatial_dropout=1.0: must be >= 0 and < 1"),
    (ModelConfig, {"use_bias": "no"}, "model.use_bias='no': must be true or false, not str"),
    (TrainConfig, {"epochs": 0}, "train.epochs=0: must be >= 1"),
    (TrainConfig, {"epochs": True}, "train.epochs=True: must be an integer, not bool"),
    (TrainConfig, {"epochs": "5"}, "train.epochs='5': must be an integer, not str"),
    (TrainConfig, {"batch_size": -100}, "train.batch_size=-100: must be >= 1"),
    (
        TrainConfig,
        {"optimizer": "adma"},
        "must be one of sgd, adam, adamw, rmsprop, lion, lamb; did you mean 'ad",
    ),
    (TrainConfig, {"optimizer": ["sgd"]}, r"train.optimizer=\['sgd'\]: must be one of sgd, adam, adamw"),
    (TrainConfig, {"learning_rate": 0}, "train.learning_rate=0.0: must be > 0"),
    (TrainConfig, {"learning_rate": -0.1}, "train.learning_rate=-0.1: must be > 0"),
    (TrainConfig, {"learning_rate": math.inf}, "train.learning_rate=inf: must be a finite number"),
    (TrainConfig, {"learning_rate": True}, "train.learning_rate=True: must be a number, not bool"),
    (TrainConfig, {"learning_rate": None}, "train.learning_rate=None: must be a number, not NoneType"),
    (TrainConfig, {"momentum": 1}, "train.momentum=1.0: must be >= 0 and < 1"),
    (TrainConfig, {"momentum": 0.9, "optimizer": "adam"}, "train.momentum=0.9: only sgd has momentum, not adam; use 0"),
    (TrainConfig, {"nesterov": True}, "train.nesterov=True: needs train.momentum > 0"),
    (
        TrainConfig,
        {"schedule": "cyclic"},
        "must be one of constant, cosine, onecycle, linear, step",
    ),
    (TrainConfig, {"schedule": "onecycle", "warmup": 0}, "train.warmup=0.0: must be > 0 and < 1 for the onecycle"),
    (TrainConfig, {"warmup": 1.0}, "train.warmup=1.0: must be >= 0 and < 1"),
    (TrainConfig, {"weight_decay": -1e-4}, "train.weight_decay=-0.0001: must be >= 0"),
    (TrainConfig, {"weight_decay": -math.inf}, "train.weight_decay=-inf: must be a finite number"),
    (TrainConfig, {"label_smoothing": 1.5}, "train.label_smoothing=1.5: must be >= 0 and < 1"),
    (TrainConfig, {"validation_split": 1}, "train.validation_split=1.0: must be >= 0 and < 1"),
    (TrainConfig, {"early_stopping_patience": 3}, "train.early_stopping_patience=3: needs train.validation_split > 0"),
    (TrainConfig, {"early_stopping_patience": 0}, "train.early_stopping_patience=0: must be >= 1"),
    (TrainConfig, {"precision": "float16"}, "train.precision='float16': must be one of float32, bfloat16; did you"),
    (DataConfig, {"train_size": 0}, "data.train_size=0: must be >= 1"),
    (DataConfig, {"train_size": 0.5}, "data.train_size=0.5: must be an integer, not float"),
    (DataConfig, {"manual_dir": 3}, "data.manual_dir=3: must be a string, not int"),
    (DataConfig, {"name": None}, "data.name=None: must be a string, not NoneType"),
    *(
        (DataConfig, {"name": name}, "data.name=.* is not a dataset name; write name, name/config, name:1.2.3")
        for name in ("../x", "x/../y", "", "a b", "/etc", "a/b/c", "a\\b", "a\n", "a:", "a:b", "a/", "mnïst")
    ),
]


@pytest.mark.parametrize(("kind", "values", "message"), REFUSED)
def test_invalid_settings_are_refused_with_name_value_and_legal_values(kind, values, message):
    with pytest.raises(InputError, match=message) as refusal:
        kind.from_dict(values)
    assert isinstance(refusal.value, ValueError)
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize(("name", "value"), [("model", TrainConfig()), ("train", {}), ("data", "mnist")])
def test_the_parts_of_a_run_must_be_of_their_own_kind(name, value):
    with pytest.raises(InputError, match=f"{name}: must be a .*Config.*, not"):
        RunConfig(**{name: value})


@pytest.mark.parametrize("text", ["", "{", "[1, 2", "epochs = 3", "{'seed': 1}", "[" * 100_000])
def test_text_that_is_not_json_is_refused(text):
    with pytest.raises(InputError, match=r"configuration is (not valid JSON: |nested too deep)"):
        RunConfig.from_json(text)


@pytest.mark.parametrize(
    "text", ["seed", "seed = ", "seed = 1\nseed = 2", "[model", '{"seed": 1}', "x = " + "[" * 100_000]
)
def test_text_that_is_not_toml_is_refused(text):
    with pytest.raises(InputError, match=r"configuration is (not valid TOML: |nested too deep)"):
        RunConfig.from_toml(text)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"seed"'])
def test_json_that_is_not_a_table_is_refused(text):
    with pytest.raises(InputError, match="must be a table of settings"):
        RunConfig.from_json(text)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused_in_json_too(text):
    with pytest.raises(InputError, match="must be a finite number"):
        TrainConfig.from_json(f'{{"learning_rate": {text}}}')


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda: TrainConfig(learning_rate=10**400), id="float"),
        pytest.param(lambda: TrainConfig.from_json(f'{{"epochs": {"9" * 5000}}}'), id="json"),
        pytest.param(lambda: TrainConfig.from_toml(f"epochs = {'9' * 5000}"), id="toml"),
    ],
)
def test_numbers_too_large_to_read_are_refused(read):
    with pytest.raises(InputError, match=r"train|not valid"):
        read()


def test_a_configuration_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'seed'"):
        RunConfig().seed = 1


def test_canonical_json_has_sorted_keys_and_every_default():
    values = json.loads(RunConfig().to_json())
    assert list(values) == sorted(values)
    fields = {entry.name for entry in dataclasses.fields(ModelConfig)}
    assert values["model"].keys() == fields - ModelConfig.aliases.keys()


@pytest.mark.parametrize(
    "module",
    [
        "cnnjax",
        "cnnjax.runs.config",
        "cnnjax.models.table",
        "cnnjax.runs.summary",
        "cnnjax.runs.history",
        "cnnjax.settings.schema",
    ],
)
def test_importing_and_sizing_a_network_needs_nothing_heavy(module):
    code = f"""
import sys, {module}
from cnnjax import ModelConfig, RunConfig, summarize
RunConfig().key, str(summarize(ModelConfig()))
print(sorted(sys.modules.keys() & {{"jax", "flax", "optax", "numpy", "scipy", "rich", "pandas"}}))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
