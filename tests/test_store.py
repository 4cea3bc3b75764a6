"""The store keeps a run completely, or not at all."""

import dataclasses
import json
import multiprocessing
import sqlite3

import numpy as np
import pytest

from cnnjax import CorruptionError, InputError, ModelConfig, RunConfig, TrainConfig, UnavailableError
from cnnjax.runs.history import EpochMetrics
from cnnjax.runs.record import PackedRun, Record, Run, pack_run
from cnnjax.runs.store import SCHEMA_VERSION, Store, StoredGrid, load_run


def make_run(seed=0, status="completed", accuracy=0.97, **config):
    record = Record(
        config=RunConfig(seed=seed, train=TrainConfig(epochs=2), **config),
        status=status,
        reason=None if status == "completed" else "loss not finite at step 3",
        parameters=62346,
        flops=7495680,
        test_loss=0.1 if status == "completed" else None,
        test_accuracy=accuracy if status == "completed" else None,
        history=(EpochMetrics(1, 0.5, 0.8, None, None, 1.5), EpochMetrics(2, 0.1 + 0.2, 0.9, 0.4, 0.91, 1.25)),
        seconds={"load": 0.1, "compile": 1.0, "train": 2.0, "evaluate": 0.2, "total": 3.5},
        provenance={"python": "3.11", "git": {"commit": None, "dirty": None}},
    )
    rng = np.random.default_rng(seed)
    params = {
        "Conv_0": {"kernel": rng.normal(size=(5, 5, 1, 32)).astype(np.float32)},
        "Dense_0": {"bias": np.zeros(10)},
    }
    predictions = rng.integers(0, 10, 100).astype(np.uint8) if status == "completed" else None
    return Run(record, params, {}, predictions)


def test_a_loaded_run_equals_the_stored_one(tmp_path):
    run = make_run()
    Store(tmp_path).add(run)
    loaded = load_run(run.key, tmp_path)
    assert loaded.record == run.record
    assert loaded.params.keys() == run.params.keys()
    np.testing.assert_array_equal(loaded.params["Conv_0"]["kernel"], run.params["Conv_0"]["kernel"])
    np.testing.assert_array_equal(loaded.predictions, run.predictions)
    assert loaded.predictions.dtype == np.uint8


def test_a_diverged_run_has_nulls_and_never_zeros(tmp_path):
    run = make_run(status="diverged")
    Store(tmp_path).add(run)
    loaded = load_run(run.key, tmp_path)
    assert (loaded.record.test_accuracy, loaded.predictions) == (None, None)
    with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
        assert connection.execute("SELECT status, test_accuracy, reason FROM runs").fetchall() == [
            ("diverged", None, "loss not finite at step 3")
        ]


def test_plain_sql_reads_a_row_a_run_and_a_row_an_epoch(tmp_path):
    for seed in range(3):
        Store(tmp_path).add(make_run(seed, accuracy=0.9 + seed / 100))
    with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
        assert connection.execute("SELECT seed, test_accuracy, parameters FROM runs ORDER BY seed").fetchall() == [
            (0, 0.9, 62346),
            (1, 0.91, 62346),
            (2, 0.92, 62346),
        ]
        assert connection.execute("SELECT COUNT(*), MAX(epoch) FROM epochs").fetchone() == (6, 2)


def test_storing_a_key_again_replaces_its_row(tmp_path):
    store = Store(tmp_path)
    store.add(make_run(accuracy=0.5))
    store.add(make_run(accuracy=0.6))
    assert [store.load(key).record.test_accuracy for key in store.list_keys()] == [0.6]


def test_the_beginning_of_a_key_is_enough_if_it_is_unique(tmp_path):
    store = Store(tmp_path)
    runs = [make_run(seed) for seed in range(40)]
    for run in runs:
        store.add(run)
    assert store.load(runs[0].key[:10]).record == runs[0].record
    with pytest.raises(InputError, match=r"key='': .*must be one of its 40 keys"):
        store.load("")
    shared = next(a.key[:1] for a in runs for b in runs if a is not b and a.key[0] == b.key[0])
    with pytest.raises(InputError, match=r"runs begin with it"):
        store.load(shared)
    with pytest.raises(InputError, match=r"key='xyz': no run has it in .*runs.sqlite"):
        store.load("xyz")


def test_reading_a_store_that_does_not_exist_creates_nothing(tmp_path):
    store = Store(tmp_path / "nowhere")
    assert store.find("a" * 64) is None
    assert store.list_keys() == []
    with pytest.raises(InputError, match="no run has it"):
        store.load("abc")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("damage", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_file_that_is_not_a_store_is_refused_and_left_alone(tmp_path, damage):
    path = tmp_path / "runs.sqlite"
    path.write_bytes(damage)
    with pytest.raises(CorruptionError, match=r"runs.sqlite: not a readable store"):
        Store(tmp_path).add(make_run())
    assert path.read_bytes() == damage


def test_a_database_of_something_else_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(CorruptionError, match=r"runs.sqlite: holds other tables \(recipes\)"):
        Store(tmp_path).add(make_run())


def test_a_newer_schema_is_refused(tmp_path):
    store = Store(tmp_path)
    store.create()
    with sqlite3.connect(store.path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(CorruptionError, match=rf"schema version {SCHEMA_VERSION + 1} is not the known"):
        store.find("a" * 64)


def test_damaged_arrays_are_refused_by_name(tmp_path):
    run = make_run()
    store = Store(tmp_path)
    store.add(run)
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE arrays SET variables = substr(variables, 1, 200)")
    with pytest.raises(CorruptionError, match=rf"the arrays of run {run.key[:12]} cannot be read"):
        store.load(run.key)


def test_missing_arrays_are_refused_by_name(tmp_path):
    run = make_run()
    store = Store(tmp_path)
    store.add(run)
    with sqlite3.connect(store.path) as connection:
        connection.execute("DELETE FROM arrays")
    with pytest.raises(CorruptionError, match=rf"the arrays of run {run.key[:12]} are missing"):
        store.load(run.key)


def test_arrays_that_would_need_unpickling_are_refused(tmp_path):
    run = make_run()
    evil = dataclasses.replace(run, params={"x": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(CorruptionError, match="cannot be read"):
        Store(tmp_path).add(evil) or Store(tmp_path).load(run.key)


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UnavailableError, match=r"cannot create the output folder .*runs"):
        Store(tmp_path / "runs").create()


def test_sixteen_processes_open_one_new_store_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(16)
    processes = [context.Process(target=_add, args=(tmp_path / "new", seed, together)) for seed in range(16)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 16
    assert sorted(record.config.seed for record in Store(tmp_path / "new").find_all().values()) == list(range(16))


def _add(folder, seed, together):
    together.wait(300)
    Store(folder).add(make_run(seed))


def test_the_rows_survive_a_process_killed_while_it_writes(tmp_path):
    context = multiprocessing.get_context("spawn")
    acknowledged = context.Queue()
    writer = context.Process(target=_add_until_killed, args=(tmp_path, acknowledged))
    writer.start()
    keys = [acknowledged.get(timeout=300) for _ in range(20)]
    writer.kill()
    writer.join()
    store = Store(tmp_path)
    assert set(keys) <= set(store.list_keys())
    for key in store.list_keys():
        assert store.load(key).record.status == "completed"


def _add_until_killed(folder, acknowledged):
    for seed in range(10_000):
        run = make_run(seed)
        Store(folder).add(run)
        acknowledged.put(run.key)


def test_a_stored_network_keeps_its_configuration(tmp_path):
    run = make_run(model=ModelConfig(filters=(8,), padding=(((1, 2), (0, 3)),), kernel_size=((5, 3),)))
    Store(tmp_path).add(run)
    assert load_run(run.key, tmp_path).record.config == run.record.config


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("UPDATE runs SET test_accuracy = NULL", "completed, with test loss 0.1 and test accuracy None"),
        ("UPDATE runs SET test_accuracy = 'high'", "its results and times are not all finite numbers"),
        ("UPDATE runs SET test_accuracy = 9e999", "its results and times are not all finite numbers"),
        ("UPDATE runs SET train_seconds = 'long'", "its results and times are not all finite numbers"),
        ("UPDATE runs SET flops = 'many'", "62346 parameters and 'many' FLOPs"),
        ("UPDATE runs SET provenance = '[]'", "cannot be read"),
        ("UPDATE runs SET provenance = '{\"device\": [1]}'", "its provenance is not made of tables"),
        ("UPDATE runs SET reason = CAST(x'ff' AS TEXT)", "not a readable store: Could not decode"),
        ("DELETE FROM epochs WHERE epoch = 2", "epochs are missing"),
        ("UPDATE runs SET config = '{}'", "its configuration has the key"),
        ("UPDATE runs SET config = 'x'", "configuration is not valid JSON"),
        ("DELETE FROM epochs WHERE epoch = 1", "epochs are missing"),
        ("UPDATE epochs SET loss = 'x' WHERE epoch = 1", "the history is not made of numbers"),
        ("ALTER TABLE runs RENAME COLUMN flops TO operations", "cannot be read"),
        ("DROP TABLE epochs", "not a readable store: no such table: epochs"),
        ("DROP TABLE runs", "not a readable store: no such table: (main.)?runs"),
        ("PRAGMA user_version = -3", "schema version -3 is not the known 4"),
    ],
)
def test_a_row_that_is_not_what_was_stored_is_refused(tmp_path, damage, message):
    run = make_run(seed=3)
    store = Store(tmp_path)
    store.add(run)
    with sqlite3.connect(store.path) as connection:
        connection.execute(damage)
    with pytest.raises(CorruptionError, match=message):
        store.find(run.key)


VERSION_1 = """
CREATE TABLE runs (key TEXT PRIMARY KEY, status TEXT NOT NULL CHECK (status IN ('completed', 'diverged', 'failed',
'invalid')), reason TEXT, dataset TEXT NOT NULL, seed INTEGER NOT NULL, parameters INTEGER, flops INTEGER,
test_loss REAL, test_accuracy REAL, load_seconds REAL, compile_seconds REAL, train_seconds REAL, evaluate_seconds REAL,
total_seconds REAL, config TEXT NOT NULL, provenance TEXT NOT NULL, stored_at TEXT NOT NULL);
CREATE TABLE epochs (key TEXT NOT NULL REFERENCES runs (key) ON DELETE CASCADE, epoch INTEGER NOT NULL, loss REAL NOT
NULL, accuracy REAL NOT NULL, val_loss REAL, val_accuracy REAL, seconds REAL NOT NULL, PRIMARY KEY (key, epoch))
WITHOUT ROWID;
CREATE TABLE arrays (key TEXT PRIMARY KEY REFERENCES runs (key) ON DELETE CASCADE, variables BLOB NOT NULL,
predictions BLOB);
PRAGMA user_version = 1;
"""


@pytest.fixture
def store_of_version_1(tmp_path):
    """A store as version 1 wrote it, with the same two runs as one of today."""
    today, old = Store(tmp_path / "today"), Store(tmp_path / "old")
    for seed in (1, 0):
        today.add(make_run(seed))
    old.path.parent.mkdir()
    with sqlite3.connect(old.path) as connection:
        connection.executescript(VERSION_1)
        connection.execute("ATTACH ? AS today", (str(today.path),))
        columns = ", ".join(row[1] for row in connection.execute("PRAGMA main.table_info(runs)"))
        connection.execute(f"INSERT INTO main.runs SELECT {columns} FROM today.runs ORDER BY rowid")
        connection.execute("INSERT INTO main.epochs SELECT * FROM today.epochs")
        connection.execute("INSERT INTO main.arrays SELECT * FROM today.arrays")
    connection.close()
    return old, today


def test_a_store_of_version_1_is_read_as_it_is(store_of_version_1):
    old, today = store_of_version_1
    before = old.path.read_bytes()
    assert old.find_all() == today.find_all()
    assert old.list_grids() == []
    assert old.path.read_bytes() == before


def test_a_store_of_version_1_is_brought_up_to_date_when_written(store_of_version_1):
    old, today = store_of_version_1
    for store in (old, today):
        store.add(make_run(2))
        store.add_all([PackedRun(Record.without_result(make_run(3).record.config, "pruned", "too slow"))])
        store.add(make_run(1, accuracy=0.5))
    assert old.find_all() == today.find_all()
    assert old.load(make_run(0).key).record == make_run(0).record
    with sqlite3.connect(old.path) as one, sqlite3.connect(today.path) as other:
        assert _schema(one) == _schema(other)
        assert one.execute("PRAGMA foreign_key_check").fetchall() == []
        assert one.execute("SELECT COUNT(*) FROM epochs").fetchone() == (6,)


def _schema(connection):
    rows = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    return [(name, "".join((sql or "").split())) for name, sql in rows]


def test_runs_are_stored_all_or_none(tmp_path):
    store = Store(tmp_path)
    good, bad = (pack_run(make_run(seed)) for seed in (0, 1))
    object.__setattr__(bad.record, "status", "undecided")
    with pytest.raises(CorruptionError, match="CHECK constraint failed"):
        store.add_all([good, bad])
    assert store.list_keys() == []


def test_records_are_found_by_their_keys_in_the_order_they_were_stored(tmp_path):
    store, runs = Store(tmp_path), [make_run(seed) for seed in (3, 1, 2)]
    store.add_all([pack_run(run) for run in runs])
    assert list(store.find_all().values()) == [run.record for run in runs]
    assert store.find_all([runs[2].key, "a" * 64]) == {runs[2].key: runs[2].record}
    assert [(o.status, o.test_accuracy) for o in store.list_statuses().values()] == [("completed", 0.97)] * 3


def test_a_run_without_a_network_says_why_when_it_is_loaded(tmp_path):
    store, config = Store(tmp_path), make_run().record.config
    store.add_all([PackedRun(Record.without_result(config, "failed", "the worker ended", (9, 8), "last words"))])
    record = store.find(config.key)
    assert (record.parameters, record.flops, record.output, record.seconds) == (9, 8, "last words", {})
    with pytest.raises(InputError, match="the run is failed and has no network: the worker ended"):
        store.load(config.key)


def test_a_record_is_the_same_after_json():
    record = make_run().record
    assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_grid_is_stored_and_replaced_by_its_name(tmp_path):
    store = Store(tmp_path)
    first = StoredGrid(
        "padding", "title = 'x'", "run padding", "2026-01-01T00:00:00+00:00", {"b" * 64: "two", "a" * 64: "one"}
    )
    other = StoredGrid("stride", "", "run stride", "2026-01-02T00:00:00+00:00", {})
    for grid in (first, other):
        store.add_grid(grid)
    assert store.list_grids() == [first, other]
    assert list(store.list_grids()[0].trials) == ["b" * 64, "a" * 64]
    again = dataclasses.replace(first, started_at="2026-01-03T00:00:00+00:00", trials={"c" * 64: "three"})
    store.add_grid(again)
    assert store.list_grids() == [other, again]


@pytest.mark.parametrize("time", ["noon", "", "2026-01-01T00:00:00"])
def test_an_invalid_time_is_refused(tmp_path, time):
    store, run = Store(tmp_path), make_run()
    store.add(run)
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE runs SET stored_at = ?", (time,))
    with pytest.raises(CorruptionError, match=rf"run {run.key[:12]} has '{time}' where a time with its zone must be"):
        store.list_statuses()


def test_a_database_of_something_else_is_not_read_as_an_empty_store(tmp_path):
    with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(CorruptionError, match=r"holds other tables \(recipes\), so it is not a store of cnnjax"):
        Store(tmp_path).find_all()


def test_a_folder_that_is_a_file_is_not_read_as_an_empty_store(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="file is not a folder"):
        Store(tmp_path / "file").list_keys()
