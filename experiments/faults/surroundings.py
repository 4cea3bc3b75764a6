"""What a command meets outside itself: many others on one store, and a folder that cannot be written."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cnnjax.children import python_command, python_environment
from cnnjax.runs import Store
from experiments.faults.scenarios import ROWS

PROCESSES = 16
_PLAY = ("-m", "experiments.faults.scenarios", "store")


def crowd() -> list[str]:
    """Returns what is wrong after so many processes have stored rows in one new store, their own and the same ones."""
    with tempfile.TemporaryDirectory() as folder:
        started = [_start(folder, str(index // 2 * ROWS)) for index in range(PROCESSES)]  # two of each
        ended = [(process.communicate(timeout=300), process.returncode) for process in started]
        faults = [f"a process ends with {code}: {errors.strip()[-200:]}" for (_, errors), code in ended if code]
        told = {key for (printed, _), _ in ended for key in printed.split()}
        keys = Store(folder).list_keys()
        if len(keys) != PROCESSES // 2 * ROWS or {*keys} != told:
            faults.append(f"{len(told)} rows were told to be stored, {len(keys)} are there")
    return faults


def write_protected() -> list[str]:
    """Returns what is wrong after a command has met a store that it may read and not write.

    Raises:
        PermissionError: this process may not mount a file system, which is what cannot be written even by root.
    """
    with tempfile.TemporaryDirectory() as folder, _mounted(Path(folder)):
        _start(folder).communicate(timeout=300)
        before = Store(folder).find_all()
        _mount("-o", "remount,ro", folder)
        process = _start(folder, str(ROWS))
        printed, errors = process.communicate(timeout=300)
        faults = []
        if process.returncode != 4 or printed or errors.count("\n") != 1:
            faults.append(f"exit code {process.returncode} where nothing can be written: {errors.strip()[-200:]}")
        if Store(folder).find_all() != before:
            faults.append("the rows are not those that were there")
    return faults


def _start(*words: str) -> "subprocess.Popen[str]":
    command = python_command(*_PLAY, *words)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=python_environment()
    )


@contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    _mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _mount(*words: str) -> None:
    try:
        ended = subprocess.run(["mount", *words], capture_output=True, text=True)
    except FileNotFoundError:
        raise PermissionError("there is no mount") from None
    if ended.returncode:
        raise PermissionError(ended.stderr.strip())
