"""Reads damaged inputs with every reader, within limits of time and memory, and counts the results."""

import contextlib
import functools
import gzip
import hashlib
import io
import json
import logging
import os
import random
import resource
import shutil
import signal
import sqlite3
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ablations.execution.local import WorkerProcess
from ablations.execution.trials import read_message, write_message
from ablations.study.grid import Cell, Trial, expand
from ablations.study.reading import SHIPPED, list_shipped, read_file
from cnnjax.console.arguments import read_config
from cnnjax.data import cache
from cnnjax.data.dataset import Split, make_dataset
from cnnjax.data.mnist import read_idx
from cnnjax.data.settings import parse_name
from cnnjax.errors import CnnjaxError
from cnnjax.inspection.photos import read_photo
from cnnjax.models.cnn import ModelConfig
from cnnjax.runs.config import RunConfig
from cnnjax.runs.record import Run, pack_run, unpack_run
from cnnjax.runs.store import Store, StoredGrid
from experiments.measure.faults import CONFIG, WORDS, make_run, mutate_bytes, mutate_value

Read = Callable[[random.Random], None]
"""A function that damages an input at random, and reads it."""

_ROW_COLUMNS = (
    *("key", "status", "reason", "output", "dataset", "seed", "parameters", "flops", "test_loss", "test_accuracy"),
    *("load_seconds", "total_seconds", "config", "provenance", "stored_at"),
)
_PLACES = (
    *(("runs", column) for column in _ROW_COLUMNS),
    *(("epochs", column) for column in ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds", "key")),
    *(("arrays", column) for column in ("key", "variables", "predictions")),
    *(("grids", column) for column in ("name", "study", "command", "started_at")),
    *(("grid_trials", column) for column in ("grid", "position", "key", "trial")),
)


def read_study(folder: Path) -> Read:
    """A study file: read, and expanded into its cells."""
    texts = [(SHIPPED / f"{name}.toml").read_bytes() for name in list_shipped() if name != "chapter"]
    return functools.partial(_read_text, folder / "study.toml", texts, lambda path: expand(read_file(path), 500))


def read_configuration(folder: Path) -> Read:
    """A configuration, in TOML and in JSON."""
    configs = (RunConfig(), CONFIG, RunConfig(ModelConfig(padding=(((1, 2), (3, 4)), "same"), pool=("none", "avg"))))
    readers: list[Read] = [
        functools.partial(_read_text, folder / "run.toml", [c.to_toml().encode() for c in configs], read_config),
        functools.partial(_read_text, folder / "run.json", [c.to_json().encode() for c in configs], read_config),
    ]

    def read_values(chance: random.Random) -> None:
        values = mutate_value(chance.choice(configs).to_dict(), chance)
        RunConfig.from_dict(values)

    return lambda chance: chance.choice((*readers, read_values))(chance)


def read_command_line(folder: Path) -> Read:
    """The command lines of a run and of a plan, up to the configuration and the study."""
    del folder
    from ablations.arguments import StudyArguments, read_study
    from ablations.plan import PlanArguments
    from cnnjax.console.arguments import parse_arguments
    from experiments.train import parse

    lines = (
        ["--model.padding", "same", "--model.filters", "[16,32]", "--seed", "1", "--train.learning-rate", "0.1"],
        ["--data.train-size", "100", "--devices", "2", "--log", "tensorboard", "--checkpoint-every", "1"],
    )
    axes = (["--axis", "model.padding=valid,same", "--set", "train.epochs=1", "--seeds", "0..9", "--max-trials", "9"],)

    def read(chance: random.Random) -> None:
        of_run = chance.random() < 0.5
        words = [*chance.choice(lines if of_run else axes)]
        for _ in range(chance.choice((1, 1, 2))):
            at = chance.randrange(len(words))
            word = (
                mutate_bytes(words[at].encode(errors="surrogateescape"), chance)
                if chance.random() < 0.8
                else chance.choice(WORDS)
            )
            words[at] = word.replace(b"\0", b"").decode(errors="surrogateescape")
        if {"-h", "--help"} & {*words}:
            return
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if of_run:
                parse(words)
            else:
                arguments: StudyArguments = parse_arguments(PlanArguments, words, "plan", PlanArguments())
                read_study(arguments)

    return read


def read_idx_file(folder: Path) -> Read:
    """A compressed IDX file, whose expected hash is that of the damaged bytes."""
    path = folder / "images.gz"
    whole = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (3, 5, 4)) + bytes(range(60))

    def read(chance: random.Random) -> None:
        inside = chance.random() < 0.7
        damaged = (
            gzip.compress(mutate_bytes(whole, chance), 1) if inside else mutate_bytes(gzip.compress(whole), chance)
        )
        path.write_bytes(damaged)
        read_idx(path, sha256=hashlib.sha256(damaged).hexdigest())

    return read


def read_image(folder: Path) -> Read:
    """A picture for ``explain run --image``, in each of the formats and modes."""
    pixels = np.arange(24 * 20 * 4, dtype=np.uint32).reshape(24, 20, 4).astype(np.uint8)
    pictures = []
    for mode, kind in (("L", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("P", "GIF"), ("RGB", "JPEG"), ("1", "BMP")):
        with io.BytesIO() as file:
            Image.fromarray(pixels, "RGBA").convert("RGB" if mode == "P" else mode).save(file, kind)
            pictures.append(file.getvalue())
    examples = np.zeros((10, 28, 28, 1), np.uint8)
    read = lambda path: read_photo(path, (28, 28, 1), examples)  # noqa: E731
    return functools.partial(_read_text, folder / "picture", pictures, read)


def read_parameters(folder: Path) -> Read:
    """The parameters and predictions of a stored run."""
    del folder
    packed = pack_run(make_run())
    assert packed.variables
    assert packed.predictions
    blobs = (packed.variables, packed.predictions)

    def read(chance: random.Random) -> None:
        damaged = [mutate_bytes(blob, chance) if chance.random() < 0.7 else blob for blob in blobs]
        unpack_run(packed.record, damaged[0], damaged[1])

    return read


def read_row(folder: Path) -> Read:
    """A store in which one value of one row is replaced."""
    whole, store, run = _make_store(folder)

    def read(chance: random.Random) -> None:
        store.path.write_bytes(whole)
        table, column = chance.choice(_PLACES)
        connection = sqlite3.connect(store.path, isolation_level=None)
        with contextlib.closing(connection), contextlib.suppress(sqlite3.Error, OverflowError):
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA ignore_check_constraints = ON")
            value = connection.execute(f"SELECT {column} FROM {table}").fetchone()[0]
            connection.execute(f"UPDATE {table} SET {column} = ?", (_damage_value(value, chance),))
        _read_store(store, run.key)

    return read


def read_store(folder: Path) -> Read:
    """The bytes of a store, damaged anywhere."""
    whole, store, run = _make_store(folder)

    def read(chance: random.Random) -> None:
        store.path.write_bytes(mutate_bytes(whole, chance))
        _read_store(store, run.key)

    return read


def read_checkpoint(folder: Path) -> Read:
    """A checkpoint with one damaged file, whose manifest does or does not match the damage."""
    from cnnjax.runs.checkpoints import Checkpoints

    checkpoints = Checkpoints(folder / "checkpoints", CONFIG.key)
    path = checkpoints.save(10, {"kernel": np.arange(6, dtype=np.float32)}, {"history": [], "seconds": 1.0})
    small = [path / "manifest.json", path / "progress.json"]
    files = [*small, *sorted(file for file in path.rglob("*") if file.is_file() and file not in small)]
    contents = {file: file.read_bytes() for file in files}
    shutil.rmtree(path / "arrays")  # which only Orbax reads, after the hashes have been found right
    kept = [file for file in files if file in small]

    def read(chance: random.Random) -> None:
        damaged = {file: contents[file] for file in small}
        file = chance.choice(small)
        if chance.random() < 0.5:
            damaged[file] = mutate_bytes(contents[file], chance)
        else:
            damaged[file] = json.dumps(mutate_value(json.loads(contents[file]), chance)).encode()
        if chance.random() < 0.5 and file.name == "progress.json":
            sealed = {"progress.json": hashlib.sha256(damaged[file]).hexdigest()}
            damaged[small[0]] = json.dumps(sealed).encode()
        for each in kept:
            each.write_bytes(damaged[each])
        checkpoints.restore()

    return read


def read_cache(folder: Path) -> Read:
    """An entry of the cache of decoded datasets, with damaged metadata or arrays; its hash may or may not match."""
    split = Split(np.arange(64, dtype=np.uint8).reshape(4, 4, 4, 1), np.arange(4, dtype=np.int32))
    dataset = make_dataset("letters", "1.0.0", split, split, 4, "tfds")
    with _cache_root(folder):
        cache.store(dataset, ("letters",))
    entry = folder / "datasets" / "letters" / "_" / "1.0.0"
    contents = {file: file.read_bytes() for file in entry.iterdir()}
    metadata = json.loads(contents[entry / "metadata.json"])

    def read(chance: random.Random) -> None:
        file = chance.choice([entry / "metadata.json", *contents])
        damaged = mutate_bytes(contents[file], chance)
        if file.name == "metadata.json" and chance.random() < 0.6:
            values = mutate_value({name: value for name, value in metadata.items() if name != "check"}, chance)
            if isinstance(values, dict):
                text = json.dumps(values, sort_keys=True)
                values["check"] = hashlib.sha256(text.encode()).hexdigest()
            damaged = json.dumps(values).encode()
        file.write_bytes(damaged)
        with _cache_root(folder):
            found = cache.find_entry(parse_name("letters"))
            if found:
                cache.load_entry(found)
        file.write_bytes(contents[file])

    return read


class _Heard(WorkerProcess):
    """A worker without a process, which only receives messages."""

    def __init__(self, trials: list[Trial]) -> None:
        self.signature, self.has_begun = "", False
        self._waiting, self._begun = trials, {}
        self._together, self._is_ready, self._since = 0, False, 0.0
        self._verdict: str | None = None

    def kill(self, reason: str) -> None:
        """Remembers the reason."""
        self._verdict = reason


def read_worker_messages(folder: Path) -> Read:
    """The messages of a worker, lines of JSON followed by bytes, damaged as bytes or as JSON values."""
    del folder
    trial = Trial(Cell({}, CONFIG), CONFIG)
    packed = pack_run(make_run())
    progress = {"epoch": 1, "epochs": 2, "seen": 5, "examples": 50, "loss": 1.0, "accuracy": 0.5, "seconds": 0.1}
    ended = {"kind": "ended", "key": trial.key, "record": packed.record.to_dict()}
    sent: list[tuple[dict[str, Any], tuple[bytes | None, ...]]] = [
        ({"kind": "ready"}, ()),
        ({"kind": "started", "key": trial.key}, ()),
        ({"kind": "advanced", "key": trial.key, "progress": progress}, ()),
        (ended, (packed.variables, packed.predictions)),
        ({"kind": "failed", "reason": "it broke"}, ()),
    ]

    def read(chance: random.Random) -> None:
        at, stream = chance.randrange(len(sent)), io.BytesIO()
        for index, (header, blobs) in enumerate(sent):
            damaged = mutate_value(header, chance) if index == at else header
            write_message(stream, damaged if isinstance(damaged, dict) else {"kind": damaged}, blobs)
        content = stream.getvalue()
        if chance.random() < 0.5:
            content = mutate_bytes(content, chance)
        stream, worker = io.BytesIO(content), _Heard([trial])
        with contextlib.suppress(ValueError):  # for which the listener kills the worker
            while (message := read_message(stream)) is not None:
                worker.receive(message)

    return read


READERS: dict[str, tuple[Callable[[Path], Read], float]] = {
    "configuration": (read_configuration, 0.25),
    "study": (read_study, 0.05),
    "command line": (read_command_line, 0.005),
    "idx file": (read_idx_file, 0.2),
    "image": (read_image, 0.04),
    "parameters": (read_parameters, 0.2),
    "row": (read_row, 0.02),
    "store": (read_store, 0.025),
    "checkpoint": (read_checkpoint, 0.03),
    "cache entry": (read_cache, 0.03),
    "worker messages": (read_worker_messages, 0.15),
}
"""By name of the reader: the function that prepares it in a folder, and its share of all inputs, less if it is slow."""


def _read_text(path: Path, whole: list[bytes], read: Callable[[Path], Any], chance: random.Random) -> None:
    path.write_bytes(mutate_bytes(chance.choice(whole), chance))
    read(path)


def _make_store(folder: Path) -> tuple[bytes, Store, Run]:
    store, run = Store(folder), make_run()
    store.add(run)
    store.add_grid(StoredGrid("grid", "title = 'x'", "run", "2020-01-01T00:00:00+00:00", {run.key: "base, seed=0"}))
    return store.path.read_bytes(), store, run


def _read_store(store: Store, key: str) -> None:
    """Calls every reading method of a store, even after one of them has refused."""
    questions: tuple[Callable[[], Any], ...] = (
        *(store.list_statuses, store.find_all, store.list_grids, store.list_keys),
        *(lambda: store.load(key), lambda: store.load_predictions([key])),
    )
    refusal = None
    for ask in questions:
        try:
            ask()
        except CnnjaxError as error:
            refusal = error
    if refusal:
        raise refusal


def _damage_value(value: Any, chance: random.Random) -> Any:
    if isinstance(value, str) and value.startswith("{") and chance.random() < 0.7:
        return json.dumps(mutate_value(json.loads(value), chance))
    if isinstance(value, str | bytes) and chance.random() < 0.5:
        content = mutate_bytes(value.encode() if isinstance(value, str) else value, chance)
        return content if isinstance(value, bytes) else content.decode(errors="replace")
    return chance.choice((None, -1, 0, 2**62, 1.5, float("inf"), -1e308, "", "x", "2020", b"", b"\xff\xfe", "9" * 30))


@contextlib.contextmanager
def _cache_root(folder: Path) -> Any:
    import os

    before = os.environ.get("CNNJAX_CACHE_DIR")
    os.environ["CNNJAX_CACHE_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["CNNJAX_CACHE_DIR"]
        else:
            os.environ["CNNJAX_CACHE_DIR"] = before


LONGEST_SECONDS = 10
"""Longest time that reading one input may take."""
MOST_MEMORY = 2 * 2**30
"""Bytes of memory that reading may add to the process."""
CHUNK = 2_000
_MEMORY = "/dev/shm"  # files there are kept in memory


@dataclass
class Tally:
    """Results of reading damaged inputs.

    Attributes:
        reader: name of the reader.
        accepted, refused: number of inputs that were read, and that were refused with a `CnnjaxError`.
        slowest: seconds that the slowest input took.
        escapes: number of other errors, by a description of the error.
        examples: the seed of one input for each of these.
    """

    reader: str
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    escapes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, int] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        """Total number of inputs."""
        return self.accepted + self.refused + self.escapes.total()

    def add(self, other: "Tally") -> None:
        """Adds the results of other inputs of the same reader."""
        self.accepted, self.refused = self.accepted + other.accepted, self.refused + other.refused
        self.slowest = max(self.slowest, other.slowest)
        self.escapes += other.escapes
        self.examples = {**other.examples, **self.examples}


def fuzz_reader(reader: str, seeds: range) -> Tally:
    """Reads one damaged input per seed, in this process."""
    tally = Tally(reader)
    with tempfile.TemporaryDirectory(dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None) as folder, _quiet():
        read = READERS[reader][0](Path(folder))
        for seed in seeds:
            start = time.perf_counter()
            try:
                with _limited_time():
                    read(random.Random(f"{reader} {seed}"))
                tally.accepted += 1
            except CnnjaxError:
                tally.refused += 1
            except (Exception, _TooLong) as error:
                escape = _describe(error)
                tally.escapes[escape] += 1
                tally.examples.setdefault(escape, seed)
            tally.slowest = max(tally.slowest, time.perf_counter() - start)
    return tally


def fuzz_all(inputs: int, processes: int, first_seed: int = 0) -> Iterator[Tally]:
    """Yields the results of every reader on its share of the inputs, read in processes with limited memory."""
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_limit_memory) as pool:
        for reader, (_, share) in READERS.items():
            seeds = range(first_seed, first_seed + max(round(inputs * share), 1))
            chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
            total = Tally(reader)
            for tally in pool.map(fuzz_reader, [reader] * len(chunks), chunks):
                total.add(tally)
            yield total


class _TooLong(BaseException):
    """Reading an input took longer than `LONGEST_SECONDS`."""


@contextmanager
def _limited_time() -> Iterator[None]:
    def end(*_: Any) -> None:
        raise _TooLong(f"longer than {LONGEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _limit_memory() -> None:
    import jax  # noqa: F401

    import cnnjax.runs.checkpoints  # noqa: F401 - what the readers import counts as there before

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_MEMORY,) * 2)


def _describe(error: BaseException) -> str:
    others = ("site-packages", "/lib/python", "/experiments/measure/faults/")
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if not any(part in frame.filename for part in others)]
    where = f" in {Path(ours[-1].filename).name}, {ours[-1].name}" if ours else ""
    return f"{type(error).__name__}: {str(error)[:80]!r}{where}"
