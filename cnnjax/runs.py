"""The experiment store: one SQLite file, one row a run, its epochs, its parameters and its predictions.

A run is acknowledged only after its commit. Arrays are kept in numpy's npz format, which is compact and holds no code.
The table ``runs`` is meant to be queried with plain SQL. Nothing here imports JAX until a stored network predicts.
"""

import contextlib
import dataclasses
import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cnnjax.config import RunConfig
from cnnjax.errors import CorruptionError, InputError, UnavailableError
from cnnjax.history import EpochMetrics
from cnnjax.records import Record, Run, pack_predictions, pack_variables, unpack_run

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE runs (
    key TEXT PRIMARY KEY,
    status TEXT NOT NULL CHECK (status IN ('completed', 'diverged', 'failed', 'invalid')),
    reason TEXT,
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
    stored_at TEXT NOT NULL
);
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
PHASES = ("load", "compile", "train", "evaluate", "total")


class Store:
    """The store in a folder: ``<folder>/runs.sqlite``."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / "runs.sqlite"

    def create(self) -> None:
        """Makes the folder and an empty store where there is none.

        Raises:
            CorruptionError: the file is not a store, or one of a newer version.
            UnavailableError: the folder cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnavailableError(f"cannot create the output folder {self.path.parent}: {error.strerror}") from None
        with self._connect() as connection:
            connection.execute("BEGIN IMMEDIATE")
            if _version(connection) == 0:
                others = [row[0] for row in connection.execute("SELECT name FROM sqlite_master")]
                if others:
                    raise CorruptionError(f"{self.path}: holds other tables ({', '.join(others)}), so it is no store")
                for statement in filter(str.strip, SCHEMA.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.commit()

    def add(self, run: Run) -> None:
        """Stores a run; when this returns, it survives a crash. A run of the same key is replaced.

        Raises:
            CorruptionError, UnavailableError: as for `create`; nothing of the run is stored.
        """
        self.create()
        record = run.record
        row = {
            "key": record.key,
            "status": record.status,
            "reason": record.reason,
            "dataset": record.config.data.name,
            "seed": record.config.seed,
            "parameters": record.parameters,
            "flops": record.flops,
            "test_loss": record.test_loss,
            "test_accuracy": record.test_accuracy,
            **{f"{phase}_seconds": record.seconds.get(phase) for phase in PHASES},
            "config": record.config.to_json(),
            "provenance": json.dumps(record.provenance, sort_keys=True),
            "stored_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        epochs = [(record.key, *dataclasses.astuple(epoch)) for epoch in record.history]
        arrays = (record.key, pack_variables(run), pack_predictions(run))
        with self._connect() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM runs WHERE key = ?", (record.key,))
            names = ", ".join(row)
            connection.execute(f"INSERT INTO runs ({names}) VALUES ({', '.join('?' * len(row))})", (*row.values(),))
            connection.executemany("INSERT INTO epochs VALUES (?, ?, ?, ?, ?, ?, ?)", epochs)
            connection.execute("INSERT INTO arrays VALUES (?, ?, ?)", arrays)
            connection.commit()

    def find(self, key: str) -> Record | None:
        """Returns the record of the run with this key, or ``None``."""
        with self._connect_existing() as connection:
            if connection is None:
                return None
            row = connection.execute("SELECT * FROM runs WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            history = connection.execute("SELECT * FROM epochs WHERE key = ? ORDER BY epoch", (key,)).fetchall()
        return self._read_record(row, history)

    def load(self, key: str) -> Run:
        """Returns the run with this key, or with the one key that begins with it.

        Raises:
            InputError: no key, or more than one, begins with `key`.
            CorruptionError: the row cannot be read.
        """
        if not isinstance(key, str):
            raise InputError(f"key={key!r}: must be a string of hexadecimal digits")
        key = self._complete_key(key)
        record = self.find(key)
        assert record is not None
        with self._connect() as connection:
            row = connection.execute("SELECT variables, predictions FROM arrays WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise CorruptionError(f"{self.path}: the arrays of run {key[:12]} are missing")
        try:
            return unpack_run(record, row["variables"], row["predictions"])
        except CorruptionError as error:
            raise CorruptionError(f"{self.path}: {error}") from None

    def list_keys(self) -> list[str]:
        """Returns the keys of all runs, in the order they were stored."""
        with self._connect_existing() as connection:
            if connection is None:
                return []
            return [row[0] for row in connection.execute("SELECT key FROM runs ORDER BY rowid")]

    def _complete_key(self, beginning: str) -> str:
        everything = self.list_keys()
        keys = [key for key in everything if beginning and key.startswith(beginning)]
        if len(keys) != 1:
            found = f"{len(keys)} runs begin with it" if keys else "no run has it"
            raise InputError(f"key={beginning!r}: {found} in {self.path}; must be one of its {len(everything)} keys")
        return keys[0]

    def _read_record(self, row: sqlite3.Row, history: list[sqlite3.Row]) -> Record:
        try:
            record = Record(
                config=RunConfig.from_json(row["config"]),
                status=row["status"],
                reason=row["reason"],
                parameters=row["parameters"],
                flops=row["flops"],
                test_loss=row["test_loss"],
                test_accuracy=row["test_accuracy"],
                history=tuple(EpochMetrics(*epoch[1:]) for epoch in history),
                seconds={phase: row[f"{phase}_seconds"] for phase in PHASES},
                provenance=json.loads(row["provenance"]),
            )
            record.check(row["key"])
            return record
        except (ValueError, TypeError, IndexError) as error:
            raise CorruptionError(f"{self.path}: the row of run {row['key'][:12]} cannot be read: {error}") from None

    @contextlib.contextmanager
    def _connect_existing(self) -> Iterator[sqlite3.Connection | None]:
        if not self.path.exists():
            yield None
            return
        with self._connect() as connection:
            yield None if _version(connection) == 0 else connection

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=60, isolation_level=None)) as connection:
                connection.row_factory = sqlite3.Row
                # EXTRA is FULL with the folder synced too, so a commit survives a loss of power.
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute("PRAGMA foreign_keys = ON")
                version = _version(connection)
                if not 0 <= version <= SCHEMA_VERSION:
                    raise CorruptionError(f"{self.path}: schema version {version} is not the known {SCHEMA_VERSION}")
                yield connection
        except sqlite3.DatabaseError as error:
            # Errors of Python's own, such as text that is not UTF-8, have no code.
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _ENVIRONMENT:
                raise UnavailableError(f"{self.path}: {error}") from None
            raise CorruptionError(f"{self.path}: not a readable store: {error}") from None


def load_run(key: str, out: str | os.PathLike[str] = "runs") -> Run:
    """Returns a stored run with its parameters, ready to predict.

    Args:
        key: the run key, or its beginning where only one run has it.
        out: the output folder it was stored in.

    Raises:
        InputError: there is no such run, or more than one.
        CorruptionError: the store cannot be read.
    """
    return Store(out).load(key)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
