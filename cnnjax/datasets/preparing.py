"""Prepare a dataset in a TensorFlow process of its own, and leave nothing half-made behind.

TensorFlow is only ever imported by the child, `python -m cnnjax.datasets.prepare_worker`, which answers with one line
of JSON. The parent holds a lock on the data folder meanwhile, so whatever unfinished files appear there are this
attempt's, and removes them if the attempt fails, however it fails.
"""

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cnnjax.children import python_command, python_environment
from cnnjax.datasets.builders import INSTALL_TENSORFLOW, Source
from cnnjax.errors import CnnjaxError, CorruptionError, InputError, UnavailableError

_ERRORS: dict[str, type[CnnjaxError]] = {
    "input": InputError,
    "corruption": CorruptionError,
    "unavailable": UnavailableError,
}


def prepare(source: Source, manual_dir: Path | None) -> None:
    """Download and prepare a dataset as array_record in TFDS's data folder.

    Args:
        source: the dataset; its images must have one declared size.
        manual_dir: folder with files downloaded by hand, which TFDS takes in place of downloads.

    Raises:
        InputError: images vary in size, or the files must be downloaded by hand and `manual_dir` is None.
        CorruptionError: a downloaded file has a wrong checksum or is truncated.
        UnavailableError: no TensorFlow, no network, no permission, or the disk is full.
    """
    where = f"data.name={source.name!r}"
    _check_preparable(source, manual_dir, where)
    data_dir = Path(source.builder.data_dir_root)
    version = f"{source.name}:{source.version}"
    try:
        with _locked(data_dir), _tidied_after_failure(data_dir, source.builder.name):
            _run_child([version, "--data-dir", str(data_dir)], manual_dir, where)
    except OSError as error:
        raise UnavailableError(f"{where} cannot be prepared in {data_dir}: {error.strerror or error}") from None


def _check_preparable(source: Source, manual_dir: Path | None, where: str) -> None:
    if None in source.declared_shape:
        raise InputError(
            f"{where} declares images of varying size, {source.declared_shape}; "
            "they must all have one (height, width, channels)"
        )
    if source.builder.MANUAL_DOWNLOAD_INSTRUCTIONS and manual_dir is None:
        raise InputError(f"{where} must be downloaded by hand; put its files in a folder and pass --data.manual-dir")
    if importlib.util.find_spec("tensorflow") is None:
        raise UnavailableError(f"{where} isn't prepared yet, which takes TensorFlow once; {INSTALL_TENSORFLOW}")


def _run_child(arguments: list[str], manual_dir: Path | None, where: str) -> None:
    """Run the child and raise what it answers; its chatter is shown on a terminal only, as progress."""
    command = python_command("-m", "cnnjax.datasets.prepare_worker", *arguments)
    if manual_dir is not None:
        command += ["--manual-dir", str(manual_dir)]
    child = subprocess.Popen(
        command,
        env={**python_environment(), "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if sys.stderr.isatty() else subprocess.DEVNULL,
    )
    try:
        output, _ = child.communicate()
    finally:
        child.kill()
        child.wait()
    _raise_answer(output, child.returncode, where)


def _raise_answer(output: bytes, status: int, where: str) -> None:
    lines = output.decode(errors="replace").splitlines()
    try:
        answer = json.loads(lines[-1])
        kind, message = answer["kind"], answer["message"]
    except (IndexError, ValueError, TypeError, KeyError):
        raise UnavailableError(f"{where}: the process that prepares it ended with status {status}") from None
    if kind != "prepared":
        raise _ERRORS[kind](f"{where} cannot be prepared: {message}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait for, then hold, the exclusive lock on a folder; one that it makes is removed again if it stays empty."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
        if made:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _tidied_after_failure(data_dir: Path, name: str) -> Iterator[None]:
    """Remove what the block adds to TFDS's folders and doesn't finish, unless the block succeeds."""
    before = set(_paths(data_dir, name))
    try:
        yield
    except BaseException:
        for path in sorted(set(_paths(data_dir, name)) - before, reverse=True):
            unfinished = ".tmp." in path.name or path.name.startswith("incomplete")
            with suppress(OSError):
                if path.is_dir():
                    shutil.rmtree(path) if unfinished else path.rmdir()
                elif unfinished:
                    path.unlink()
        raise


def _paths(data_dir: Path, name: str) -> Iterator[Path]:
    """What there is where TFDS works on a dataset: in its own folder, its downloads' and the extracted archives'."""
    downloads = data_dir / "downloads"
    for root in (data_dir / name, downloads / name):
        yield from (path for path in (root, *root.rglob("*")) if path.exists())
    for root in (downloads, downloads / "extracted"):
        yield from (path for path in (root, *root.glob("*")) if path.exists())
