"""The experiment store: one SQLite file with the record, the epochs, the parameters and the predictions of each run.

A commit returns after the file and its folder have been synced to disk, so a stored run survives a loss of power.
"""

import contextlib
import dataclasses
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnnjax.errors import CorruptionError, InputError, UnavailableError
from cnnjax.machine.files import read_path
from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import EpochMetrics
from cnnjax.runs.record import FINAL, PackedRun, Record, Run, pack_run, unpack_predictions, unpack_run

SCHEMA_VERSION = 4
LONGEST_PATH = 504
"""Longest absolute path, in bytes, of a store: SQLite's limit is 512, and the path of the journal is 8 bytes longer."""
PHASES = ("load", "compile", "train", "evaluate", "total")
_RUNS = """
CREATE TABLE runs (
    key TEXT PRIMARY KEY,
    status TEXT NOT NULL CHECK (status IN ('completed', 'diverged', 'failed', 'invalid', 'pruned')),
    reason TEXT,
    output TEXT,
    dataset TEXT NOT NULL,
    seed INTEGER NOT NULL,
    parameters INTEGER,
    flops INTEGER,
    test_loss REAL,
    test_accuracy REAL,
    load_seconds REAL,
    compile_seconds REAL,
    train_seconds REAL,
    evaluate_seconds REAL,
    total_seconds REAL,
    config TEXT NOT NULL,
    provenance TEXT NOT NULL,
    stored_at TEXT NOT NULL,
    scores TEXT
);
"""
_PARTS_OF_RUNS = """
CREATE TABLE epochs (
    key TEXT NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
    epoch INTEGER NOT NULL,
    loss REAL NOT NULL,
    accuracy REAL NOT NULL,
    val_loss REAL,
    val_accuracy REAL,
    seconds REAL NOT NULL,
    PRIMARY KEY (key, epoch)
) WITHOUT ROWID;
CREATE TABLE arrays (
    key TEXT PRIMARY KEY REFERENCES runs (key) ON DELETE CASCADE,
    variables BLOB NOT NULL,
    predictions BLOB
);
"""
_GRIDS = """
CREATE TABLE grids (
    name TEXT PRIMARY KEY,
    study TEXT NOT NULL,
    command TEXT NOT NULL,
    started_at TEXT NOT NULL
);
CREATE TABLE grid_trials (
    grid TEXT NOT NULL REFERENCES grids (name) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    key TEXT NOT NULL,
    trial TEXT NOT NULL,
    PRIMARY KEY (grid, position)
) WITHOUT ROWID;
"""
_PLANS = """
CREATE TABLE plans (
    content TEXT NOT NULL,
    stored_at TEXT NOT NULL
);
"""
# Version 1 had no pruned runs, output, grids, scores or plans. SQLite cannot alter a CHECK, so the table of runs is
# created anew.
_FROM_1 = f"""
ALTER TABLE runs RENAME TO runs_of_version_1;
{_RUNS}
INSERT INTO runs SELECT key, status, reason, NULL, dataset, seed, parameters, flops, test_loss, test_accuracy,
    load_seconds, compile_seconds, train_seconds, evaluate_seconds, total_seconds, config, provenance, stored_at, NULL
    FROM runs_of_version_1 ORDER BY rowid;
DROP TABLE runs_of_version_1;
{_GRIDS}
{_PLANS}
"""
_STEPS = {
    0: _RUNS + _PARTS_OF_RUNS + _GRIDS + _PLANS,
    1: _FROM_1,
    2: f"ALTER TABLE runs ADD COLUMN scores TEXT; {_PLANS}",
    3: _PLANS,
}
"""The statements that bring a database of this version to `SCHEMA_VERSION`."""
_ENVIRONMENT = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_TOOBIG,
)
"""Errors of SQLite that come from the system, such as a full disk, and not from a damaged file."""


class RunStatus(NamedTuple):
    """The status of a stored run, when it was stored (ISO 8601, UTC), and its test accuracy if it has one."""

    status: str
    stored_at: str
    test_accuracy: float | None


@dataclass(frozen=True)
class StoredGrid:
    """A grid and its trials, as they are stored.

    Attributes:
        name: name of the study.
        study: the study as TOML; empty for a grid that is part of another grid.
        command: the command that ran the grid, as it was typed.
        started_at: time of its last start, ISO 8601, UTC.
        trials: names of the trials by run key, in the order of the study.
    """

    name: str
    study: str
    command: str
    started_at: str
    trials: dict[str, str]


class Store:
    """The store in a folder: the file ``<folder>/runs.sqlite``. Reading a store that does not exist finds no runs.

    Args:
        folder: the output folder; nothing is written to it before a run is added.

    Raises:
        InputError: `folder` is not a path.
        UnavailableError: `folder` starts with ``~``, and the home folder is not known.

    Example:
        >>> from cnnjax import Record
        >>> store, config = Store("runs-of-an-example"), RunConfig(seed=7)
        >>> store.add_all([PackedRun(Record.without_result(config, "failed", "out of memory"))])
        >>> store.find(config.key).reason
        'out of memory'
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = read_path(folder, "out") / "runs.sqlite"

    def create(self) -> None:
        """Makes the folder and an empty store if there is none; brings a store of an older version up to date.

        Raises:
            CorruptionError: the file is not a store, or it is one of a newer version.
            UnavailableError: the folder or the store cannot be written, which this tries out.
        """
        with connect_for_writing(self.path) as connection:
            try_to_write(connection)

    def add(self, run: Run) -> None:
        """Stores a run. Once this method has returned, the stored run survives a crash or a loss of power.

        A stored run with the same key is replaced, unless it has a result and the new one has none.

        Raises:
            CorruptionError, UnavailableError: as `create`; nothing of the run is stored.
        """
        self.add_all([pack_run(run)])

    def add_all(self, runs: Sequence[PackedRun]) -> None:
        """Stores several runs as `add` does, in one transaction: all of them or none."""
        with self._transaction() as connection:
            for run in runs:
                _insert(connection, run)

    def find(self, key: str) -> Record | None:
        """Returns the record of the run with this key, or ``None`` if it is not stored."""
        return self.find_all([key]).get(key)

    def find_all(self, keys: Iterable[str] | None = None) -> dict[str, Record]:
        """Returns the records of the runs with these keys, or of all runs, by key, in the order they were stored."""
        with connect_existing(self.path) as connection:
            if connection is None:
                return {}
            connection.execute("BEGIN")  # one transaction, so that the runs and their epochs are of the same moment
            condition = "" if keys is None else " WHERE key IN (SELECT value FROM json_each(?))"
            wanted = () if keys is None else (json.dumps([*keys]),)
            rows = connection.execute(f"SELECT key, * FROM runs{condition} ORDER BY rowid", wanted).fetchall()
            histories: dict[str, list[EpochMetrics]] = {row["key"]: [] for row in rows}
            columns = "key, epoch, loss, accuracy, val_loss, val_accuracy, seconds"
            epochs = connection.execute(f"SELECT {columns} FROM epochs{condition} ORDER BY key, epoch", wanted)
            for key, *metrics in epochs:
                if key in histories:
                    histories[key].append(EpochMetrics(*metrics))
        return {row["key"]: self._read_record(row, histories[row["key"]]) for row in rows}

    def list_statuses(self) -> dict[str, RunStatus]:
        """Returns the status of every run, by key, in the order they were stored; much faster than `find_all`."""
        with connect_existing(self.path) as connection:
            if connection is None:
                return {}
            rows = connection.execute("SELECT key, status, stored_at, test_accuracy FROM runs ORDER BY rowid")
            statuses = {key: RunStatus(*values) for key, *values in rows}
        self._check_texts("a run", *statuses, *(run.status for run in statuses.values()))
        for key, run in statuses.items():
            self._check_time(run.stored_at, f"run {key[:12]}")
            if not isinstance(run.test_accuracy, float | None):
                raise CorruptionError(f"{self.path}: run {key[:12]} has a test accuracy of {run.test_accuracy!r}")
        return statuses

    def add_grid(self, grid: StoredGrid) -> None:
        """Stores the trials of a grid; a grid with the same name is replaced. Raises the errors of `create`."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM grids WHERE name = ?", (grid.name,))
            row = (grid.name, grid.study, grid.command, grid.started_at)
            connection.execute("INSERT INTO grids VALUES (?, ?, ?, ?)", row)
            trials = [(grid.name, index, *trial) for index, trial in enumerate(grid.trials.items())]
            connection.executemany("INSERT INTO grid_trials VALUES (?, ?, ?, ?)", trials)

    def list_grids(self) -> list[StoredGrid]:
        """Returns the grids that were run on this store, by the time of their last start, the latest last."""
        with connect_existing(self.path) as connection:
            if connection is None or find_version(connection) < 2:
                return []
            connection.execute("BEGIN")
            trials: dict[str, dict[str, str]] = {}
            for name, key, trial in connection.execute(
                "SELECT grid, key, trial FROM grid_trials ORDER BY grid, position"
            ):
                trials.setdefault(name, {})[key] = trial
            query = "SELECT name, study, command, started_at FROM grids ORDER BY started_at, rowid"
            grids = [StoredGrid(*row, trials=trials.get(row[0], {})) for row in connection.execute(query)]  # type: ignore[misc]
        for grid in grids:
            self._check_texts("a grid", grid.name, grid.study, grid.command, *grid.trials, *grid.trials.values())
            self._check_time(grid.started_at, f"grid {grid.name}")
        return grids

    def add_plan(self, content: str) -> None:
        """Stores a plan of looks, as JSON; plans are never replaced. Raises the errors of `create`."""
        with self._transaction() as connection:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            connection.execute("INSERT INTO plans VALUES (?, ?)", (content, now))

    def list_plans(self) -> list[str]:
        """Returns the plans of looks, as JSON, in the order they were stored."""
        with connect_existing(self.path) as connection:
            if connection is None or find_version(connection) < 4:
                return []
            plans = [row[0] for row in connection.execute("SELECT content FROM plans ORDER BY rowid")]
        self._check_texts("a plan", *plans)
        return plans

    def load(self, key: str) -> Run:
        """Returns the run whose key is or begins with `key`.

        Raises:
            InputError: no key or more than one begins with `key`, or the run has no network, as it has no result.
            CorruptionError: the run cannot be read.
        """
        if not isinstance(key, str):
            raise InputError(f"key={key!r}: must be a string of hexadecimal digits")
        key = self._complete_key(key)
        record = self.find(key)
        if record is None:
            raise CorruptionError(f"{self.path}: run {key[:12]} is in the index, but its row is missing")
        with connect(self.path) as connection:
            row = connection.execute("SELECT variables, predictions FROM arrays WHERE key = ?", (key,)).fetchone()
        if row is None and (record.config.trial or record.status not in FINAL):
            why = record.reason or "it called a function"
            raise InputError(f"key={key[:12]!r}: the run is {record.status} and has no network: {why}")
        if row is None:
            raise CorruptionError(f"{self.path}: the arrays of run {key[:12]} are missing")
        try:
            return unpack_run(record, row["variables"], row["predictions"])
        except CorruptionError as error:
            raise CorruptionError(f"{self.path}: {error}") from None

    def load_predictions(self, keys: Iterable[str]) -> dict[str, np.ndarray]:
        """Returns the predictions of completed runs, uint8 or uint16 (test images,), by key.

        Raises:
            CorruptionError: the store cannot be read, or the predictions of a run are missing.
        """
        keys = list(keys)
        with connect(self.path) as connection:
            query = "SELECT key, predictions FROM arrays WHERE key IN (SELECT value FROM json_each(?))"
            found = {row["key"]: row["predictions"] for row in connection.execute(query, (json.dumps(keys),))}
        try:
            missing = next((key for key in keys if found.get(key) is None), None)
            if missing:
                raise CorruptionError(f"the predictions of run {missing[:12]} are missing")
            return {key: unpack_predictions(key, found[key]) for key in keys}
        except CorruptionError as error:
            raise CorruptionError(f"{self.path}: {error}") from None

    def list_keys(self) -> list[str]:
        """Returns the keys of all runs, in the order they were stored."""
        with connect_existing(self.path) as connection:
            if connection is None:
                return []
            keys = [row[0] for row in connection.execute("SELECT key FROM runs ORDER BY rowid")]
        self._check_texts("a run", *keys)
        return keys

    def _check_texts(self, whose: str, *texts: Any) -> None:
        for text in texts:
            if not isinstance(text, str):
                raise CorruptionError(f"{self.path}: {whose} has {text!r} where a text must be")

    def _check_time(self, text: str, whose: str) -> None:
        try:
            if datetime.fromisoformat(text).tzinfo is None:
                raise ValueError
        except (ValueError, TypeError):
            raise CorruptionError(f"{self.path}: {whose} has {text!r} where a time with its zone must be") from None

    def _complete_key(self, beginning: str) -> str:
        stored = self.list_keys()
        keys = [key for key in stored if beginning and key.startswith(beginning)]
        if len(keys) != 1:
            found = f"{len(keys)} runs begin with it" if keys else "no run has it"
            raise InputError(f"key={beginning!r}: {found} in {self.path}; must be one of its {len(stored)} keys")
        return keys[0]

    def _read_record(self, row: sqlite3.Row, history: list[EpochMetrics]) -> Record:
        try:
            seconds = {phase: row[f"{phase}_seconds"] for phase in PHASES}
            record = Record(
                config=RunConfig.from_json(row["config"]),
                status=row["status"],
                reason=row["reason"],
                parameters=row["parameters"],
                flops=row["flops"],
                test_loss=row["test_loss"],
                test_accuracy=row["test_accuracy"],
                history=tuple(history),
                seconds={phase: spent for phase, spent in seconds.items() if spent is not None},
                provenance=json.loads(row["provenance"]),
                output=dict(row).get("output"),  # older versions of the schema lack some columns
                scores=json.loads(dict(row).get("scores") or "{}"),
            )
            record.check(row["key"])
            return record
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise CorruptionError(
                f"{self.path}: the row of run {str(row['key'])[:12]} cannot be read: {error}"
            ) from None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with connect_for_writing(self.path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.commit()


def load_run(key: str, out: str | os.PathLike[str] = "runs") -> Run:
    """Returns a stored run with its parameters, ready to predict.

    Args:
        key: the run key, or as many of its first digits as tell it from other runs.
        out: the output folder with the store.

    Raises:
        InputError: no stored run or more than one has such a key, or the run has no network.
        CorruptionError: the store or the run cannot be read.
        UnavailableError: the store is locked, or this user may not read it.

    Example:
        >>> from cnnjax import DataConfig, RunConfig, TrainConfig, fit
        >>> run = fit(RunConfig(train=TrainConfig(epochs=1), data=DataConfig(train_size=100)), out="runs")
        >>> load_run(run.key[:12], out="runs").record.test_accuracy == run.record.test_accuracy
        True
    """
    return Store(out).load(key)


def _insert(connection: sqlite3.Connection, run: PackedRun) -> None:
    record = run.record
    row = {
        "key": record.key,
        "status": record.status,
        "reason": record.reason,
        "output": record.output,
        "dataset": "" if record.config.trial else record.config.data.name,
        "seed": record.config.seed,
        "parameters": record.parameters,
        "flops": record.flops,
        "test_loss": record.test_loss,
        "test_accuracy": record.test_accuracy,
        **{f"{phase}_seconds": record.seconds.get(phase) for phase in PHASES},
        "config": record.config.to_json(),
        "provenance": json.dumps(record.provenance, sort_keys=True),
        "stored_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "scores": json.dumps(record.scores, sort_keys=True) if record.scores else None,
    }
    stored = connection.execute("SELECT status FROM runs WHERE key = ?", (record.key,)).fetchone()
    if stored and stored["status"] in FINAL and record.status not in FINAL:
        return
    connection.execute("DELETE FROM runs WHERE key = ?", (record.key,))
    names = ", ".join(row)
    connection.execute(f"INSERT INTO runs ({names}) VALUES ({', '.join('?' * len(row))})", (*row.values(),))
    epochs = [(record.key, *dataclasses.astuple(epoch)) for epoch in record.history]
    connection.executemany("INSERT INTO epochs VALUES (?, ?, ?, ?, ?, ?, ?)", epochs)
    if run.variables is not None:
        connection.execute("INSERT INTO arrays VALUES (?, ?, ?)", (record.key, run.variables, run.predictions))


@contextlib.contextmanager
def connect(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens a connection without implicit transactions while the context lasts; creates an empty file if there is none.

    Raises:
        InputError: `path` is a symbolic link, or too long for SQLite.
        CorruptionError: the file is not a database, or it is a store of a newer version.
        UnavailableError: the file was locked for a minute, cannot be read or written, or the disk is full.
    """
    _check_path(path)
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            # FULL syncs the file at each commit, and EXTRA its folder too, so a commit survives a loss of power.
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA foreign_keys = ON")
            version = find_version(connection)
            if not 0 <= version <= SCHEMA_VERSION:
                raise CorruptionError(f"{path}: schema version {version} is not the known {SCHEMA_VERSION}")
            yield connection
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        # Errors that Python raises itself, such as text that is not UTF-8, have no code of SQLite.
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _ENVIRONMENT:
            raise UnavailableError(f"{path}: {error}") from None
        raise CorruptionError(f"{path}: not a readable store: {error}") from None


@contextlib.contextmanager
def connect_for_writing(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens a connection to a store of the current version while the context lasts.

    If there is no store, creates it and its folder; a store of an older version is brought up to date.

    Raises:
        InputError: as `connect`.
        CorruptionError: as `connect`, or the database is not a store.
        UnavailableError: as `connect`, or the folder cannot be made.
    """
    _check_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
        if path.parent.is_symlink() and not path.parent.exists():
            reason = f"it is a link to {os.readlink(path.parent)}, which does not exist"
        raise UnavailableError(f"cannot create the output folder {path.parent}: {reason}") from None
    with connect(path) as connection:
        if find_version(connection) < SCHEMA_VERSION:
            _bring_up_to_date(connection, path)
        yield connection


@contextlib.contextmanager
def connect_existing(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Opens a connection to a store while the context lasts; yields ``None`` if there is no store, and creates nothing.

    Raises:
        InputError: as `connect`.
        CorruptionError: as `connect`, or the database is not a store.
        UnavailableError: as `connect`, or the parent of `path` is not a folder.
    """
    if path.parent.exists() and not path.parent.is_dir():
        raise UnavailableError(f"{path.parent} is not a folder")
    if not path.exists():
        yield None
        return
    with connect(path) as connection:
        if find_version(connection) > 0:
            yield connection
        else:
            _refuse_others(connection, path)
            yield None


def try_to_write(connection: sqlite3.Connection) -> None:
    """Raises the error of SQLite if the database is read-only; writes its version number again, and rolls back."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA user_version = {find_version(connection)}")
    connection.rollback()


def find_version(connection: sqlite3.Connection) -> int:
    """Returns the version of the schema; 0 for a database without tables."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _check_path(path: Path) -> None:
    """Raises `InputError` if the store is a symbolic link, or its path is too long for SQLite."""
    if path.is_symlink():
        raise InputError(f"{path}: is a symbolic link; a store is a file of its own, so name the folder that it is in")
    length = len(os.fsencode(os.path.abspath(path)))
    if length > LONGEST_PATH:
        raise InputError(f"{path}: its path has {length} bytes; SQLite opens at most {LONGEST_PATH}")


def _bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA legacy_alter_table = ON")  # references to a renamed table keep its old name
    connection.execute("BEGIN IMMEDIATE")
    version = find_version(connection)
    if version == 0:
        _refuse_others(connection, path)
    if version < SCHEMA_VERSION:
        for statement in filter(str.strip, _STEPS[version].split(";")):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.commit()
    connection.execute("PRAGMA foreign_keys = ON")


def _refuse_others(connection: sqlite3.Connection, path: Path) -> None:
    """Raises `CorruptionError` if a database without a schema version has tables, as it is then not a store."""
    others = [row[0] for row in connection.execute("SELECT name FROM sqlite_master")]
    if others:
        raise CorruptionError(f"{path}: holds other tables ({', '.join(others)}), so it is not a store of cnnjax")
