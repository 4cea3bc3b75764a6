"""Every reader accepts a damaged input or refuses it with an error of `cnnjax.errors`."""

import contextlib
import io
import json
import sqlite3

import numpy as np
import pytest
from PIL import Image

from ablations import expand, load_study, read_dict
from ablations.execution.trials import read_message
from cnnjax import ModelConfig, RunConfig, TrainConfig
from cnnjax.errors import CorruptionError, InputError
from cnnjax.inspection.photos import read_photo
from cnnjax.runs.record import pack_run, unpack_run
from cnnjax.runs.store import Store
from cnnjax.training.optimizers import init_optimizer, make_optimizer
from experiments.measure.faults import fuzzing, make_run
from experiments.measure.faults.fuzzing import READERS, fuzz_reader

SLOW = {"command line": 20}
"""How many times fewer inputs are read, as each takes long."""
PATIENT = {"cache entry", "worker messages"}
"""Readers that refuse nothing: they do without what they cannot read."""


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """Lets an input take a minute, as one imports JAX; the command, which nothing runs beside, allows ten seconds."""
    monkeypatch.setattr(fuzzing, "LONGEST_SECONDS", 60)


def fuzz(reader, inputs):
    tally = fuzz_reader(reader, range(10**9, 10**9 + inputs // SLOW.get(reader, 1)))
    assert not tally.escapes
    assert tally.inputs == inputs // SLOW.get(reader, 1)
    return tally


@pytest.mark.parametrize("reader", READERS)
def test_some_hundred_damaged_inputs_are_read_or_refused(reader):
    tally = fuzz(reader, 400)
    assert tally.refused > 0 or reader in PATIENT


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_some_thousand_damaged_inputs_are_read_or_refused(reader):
    fuzz(reader, 2_000)


def test_an_error_that_is_not_the_products_own_is_counted_as_one(monkeypatch):
    def read(chance):
        raise IndexError("x")

    monkeypatch.setitem(READERS, "idx file", (lambda folder: read, 1.0))
    tally = fuzz_reader("idx file", range(3, 6))
    assert tally.escapes.total() == 3
    assert [*tally.examples.values()] == [3]


def test_numpy_numbers_are_taken_as_the_numbers_they_are():
    given = {"filters": np.array([16, 32]), "kernel_size": [np.int64(5), np.array(3)], "padding": np.array("same")}
    plain = RunConfig(ModelConfig(filters=(16, 32), kernel_size=(5, 3), padding="same"), TrainConfig(learning_rate=0.5))
    config = RunConfig.from_dict({"model": given, "train": {"learning_rate": np.array(0.5)}, "seed": np.uint8(0)})
    assert config == plain
    assert config.key == plain.key
    assert RunConfig.from_toml(config.to_toml()) == plain


def test_numpy_numbers_in_a_study_are_taken_as_the_numbers_they_are():
    def make(levels, seeds, base):
        values = {
            "title": "x",
            "seeds": seeds,
            "base": {"train.epochs": base},
            "sweep": {"grid": {"model.filters": levels}},
        }
        return read_dict(values, "x")

    plain = make([[16], [16, 32]], [0, 2], 3)
    assert make([np.array([16]), [np.int64(16), np.array(32)]], np.array([0, 2]), np.array(3)) == plain
    assert expand(plain).trials == expand(read_dict(plain.to_dict(), "x")).trials
    changed = load_study("padding", {"train.learning_rate": np.array(0.5)}, seeds=np.arange(2))
    assert changed == load_study("padding", {"train.learning_rate": 0.5}, seeds=[0, 1])


@pytest.mark.parametrize("value", [np.array([]), np.array([[1, 2], [3, 4]]), np.array(None), np.complex64(1), {1, 2}])
def test_arrays_that_are_no_value_are_refused(value):
    with pytest.raises(InputError):
        ModelConfig(pool=value)
    with pytest.raises(InputError):
        expand(read_dict({"title": "x", "sweep": {"grid": {"model.pool": [value]}}}, "x"))


def test_a_list_within_itself_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(InputError, match="nested too deep"):
        ModelConfig(padding=endless)
    with pytest.raises(InputError, match="nested too deep"):
        read_dict({"title": "x", "sweep": {"grid": {"model.padding": endless}}}, "x")


def test_command_line_arguments_must_be_utf_8():
    with pytest.raises(InputError, match="must be UTF-8"):
        RunConfig.schema().read_assignment("model.padding=\udc80", "--set")


def test_a_picture_with_a_very_long_side_is_refused(tmp_path):
    Image.new("L", (2, 40_000)).save(tmp_path / "narrow.png")
    with pytest.raises(InputError, match="is 2 x 40000 pixels; must be at most 16,384 on a side"):
        read_photo(tmp_path / "narrow.png", (28, 28, 1), np.zeros((1, 28, 28, 1), np.uint8))


def test_a_learning_rate_beyond_float32_is_infinite_without_a_warning():
    config = TrainConfig(learning_rate=1e308)
    state = init_optimizer(make_optimizer(config, 1), config, {"w": np.ones(3, np.float32)})  # warnings are errors here
    assert np.isinf(state.hyperparams["learning_rate"])


@pytest.mark.parametrize("size", [-1, 2**31, 2**70, "9", {"a": 1}])
def test_a_message_with_bytes_of_an_impossible_number_is_none(size):
    stream = io.BytesIO(json.dumps({"kind": "ended", "blobs": [size]}).encode() + b"\n" + bytes(20))
    with pytest.raises(ValueError, match="ended"):
        read_message(stream)


@pytest.mark.parametrize("column", ["loss", "seconds", "val_accuracy", "key"])
def test_a_table_of_epochs_without_a_column_is_corruption(column, tmp_path):
    store = Store(tmp_path)
    store.add(make_run())
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute(f"ALTER TABLE epochs RENAME COLUMN {column} TO other")
    with pytest.raises(CorruptionError, match=f"no such column: {column}"):
        store.find_all()


@pytest.mark.parametrize("damage", [b"(1,", b"[[[[", b"x" * 40, b"{'descr'\n", b"\0" * 40])
def test_a_damaged_header_of_an_array_is_corruption(damage):
    packed = pack_run(make_run())
    at = packed.variables.index(b"{'descr'")
    variables = packed.variables[:at] + damage + packed.variables[at + len(damage) :]
    with pytest.raises(CorruptionError, match=r"the arrays of run \w+ cannot be read"):
        unpack_run(packed.record, variables, packed.predictions)


@pytest.mark.parametrize("column", ["key", "status"])
def test_a_name_that_is_no_text_is_corruption(column, tmp_path):
    store = Store(tmp_path)
    store.add(make_run())
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(f"UPDATE runs SET {column} = x'ff'")
    connection.close()
    with pytest.raises(CorruptionError):
        store.list_statuses()
    with pytest.raises(CorruptionError):
        store.find_all()
