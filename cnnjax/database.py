"""The SQLite file underneath the store: its tables, their versions, and its errors as ours.

A commit is in the file, and the folder that names the file is synced, before it returns: it survives a loss of power.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from cnnjax.errors import CorruptionError, InputError, UnavailableError

SCHEMA_VERSION = 2
LONGEST_PATH = 504
"""Bytes of an absolute path that SQLite opens; that of its journal, 8 longer, may have 512."""
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
    stored_at TEXT NOT NULL
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
# Version 1 knew no pruned runs, no output and no grids. A CHECK can only be changed by making the table anew.
_FROM_1_TO_2 = f"""
ALTER TABLE runs RENAME TO runs_of_version_1;
{_RUNS}
INSERT INTO runs SELECT key, status, reason, NULL, dataset, seed, parameters, flops, test_loss, test_accuracy,
    load_seconds, compile_seconds, train_seconds, evaluate_seconds, total_seconds, config, provenance, stored_at
    FROM runs_of_version_1 ORDER BY rowid;
DROP TABLE runs_of_version_1;
{_GRIDS}
"""
_STEPS = {0: _RUNS + _PARTS_OF_RUNS + _GRIDS, 1: _FROM_1_TO_2}
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


@contextlib.contextmanager
def connect(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens a connection without implicit transactions, for the length of the context; makes an empty file if none is.

    Raises:
        CorruptionError: the file is not a database, or one of a newer version.
        UnavailableError: it is locked for a minute, cannot be read or written, or the disk is full.
    """
    _check_path(path)
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            # EXTRA is FULL with the folder synced too, so a commit survives a loss of power.
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA foreign_keys = ON")
            version = find_version(connection)
            if not 0 <= version <= SCHEMA_VERSION:
                raise CorruptionError(f"{path}: schema version {version} is not the known {SCHEMA_VERSION}")
            yield connection
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        # Errors of Python's own, such as text that is not UTF-8, have no code.
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _ENVIRONMENT:
            raise UnavailableError(f"{path}: {error}") from None
        raise CorruptionError(f"{path}: not a readable store: {error}") from None


@contextlib.contextmanager
def connect_for_writing(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens a connection to a database of today's version, made in a new folder or brought up to date if need be.

    Raises:
        CorruptionError: as `connect`, or it is a database of something else.
        UnavailableError: as `connect`, or the folder cannot be made.
    """
    _check_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
        if path.parent.is_symlink() and not path.parent.exists():
            reason = f"it is a link to {os.readlink(path.parent)}, which is not there"
        raise UnavailableError(f"cannot create the output folder {path.parent}: {reason}") from None
    with connect(path) as connection:
        if find_version(connection) < SCHEMA_VERSION:
            _bring_up_to_date(connection, path)
        yield connection


@contextlib.contextmanager
def connect_existing(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Opens a connection to a database that has tables, or yields ``None`` and makes nothing.

    Raises:
        CorruptionError, UnavailableError: as `connect`, or the folder is none, or it is a database of something else.
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
    """Writes to the database what it holds already, and takes it back, so that one that is read-only is noticed."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA user_version = {find_version(connection)}")
    connection.rollback()


def find_version(connection: sqlite3.Connection) -> int:
    """Returns the version of the schema, 0 where there are no tables."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _check_path(path: Path) -> None:
    """Raises `InputError` where a store would be written through a link to elsewhere, or SQLite cannot open it."""
    if path.is_symlink():
        raise InputError(f"{path}: is a symbolic link; a store is a file of its own, so name the folder that it is in")
    length = len(os.fsencode(os.path.abspath(path)))
    if length > LONGEST_PATH:
        raise InputError(f"{path}: its path has {length} bytes; SQLite opens at most {LONGEST_PATH}")


def _bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA legacy_alter_table = ON")  # a renamed table takes no references along
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
    others = [row[0] for row in connection.execute("SELECT name FROM sqlite_master")]
    if others:
        raise CorruptionError(f"{path}: holds other tables ({', '.join(others)}), so it is no store")
