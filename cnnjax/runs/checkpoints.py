"""Checkpoints: a folder each, with Orbax arrays and the progress as JSON, which is written completely or not at all.

A checkpoint is written to a temporary folder, with the SHA-256 of every file in ``manifest.json``, and renamed when it
is complete. Reading verifies the hashes first, so a truncated or altered checkpoint is noticed; the newest intact one
is used.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.errors import CorruptionError, InputError, UnavailableError
from cnnjax.machine.processes import quiet

KEPT = 2
"""Number of checkpoints that are kept; the older one is used if the newest is damaged."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to continue.

    Attributes:
        arrays: numpy arrays by name.
        progress: JSON values.
        path: folder of the checkpoint.
        skipped: one message for each newer checkpoint that could not be used.
    """

    arrays: dict[str, np.ndarray]
    progress: dict[str, Any]
    path: Path
    skipped: list[str] = field(default_factory=list)


class Checkpoints:
    """The checkpoints of one run, in ``<folder>/<run key>/<step>``.

    Args:
        folder: the folder with the checkpoints of all runs.
        key: the run key.
        dataset: content hash of the images that the run is trained on; ``None`` accepts checkpoints of any images.
    """

    def __init__(self, folder: str | os.PathLike[str], key: str, dataset: str | None = None) -> None:
        self.key, self.dataset = key, dataset
        self.folder = Path(folder).absolute() / key

    def save(self, step: int, arrays: Mapping[str, np.ndarray], progress: Mapping[str, Any]) -> Path:
        """Writes a checkpoint, then removes old ones.

        The newest `KEPT` checkpoints up to this step stay. Checkpoints of later steps are removed: they are of an
        earlier attempt, which was abandoned.

        Args:
            step: number of steps taken, which names the checkpoint.
            arrays: numpy arrays by name.
            progress: JSON values.

        Returns:
            The folder of the checkpoint.

        Raises:
            UnavailableError: the disk is full, or the folder cannot be written.
        """
        import orbax.checkpoint as ocp

        final = self.folder / f"{step:09d}"
        partial = self.folder / f"{final.name}.partial-{os.getpid()}"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            with quiet(), ocp.StandardCheckpointer(multiprocessing_options=_own_process()) as checkpointer:
                checkpointer.save(partial / "arrays", dict(arrays))
            dataset = {} if self.dataset is None else {"dataset": self.dataset}
            _write_json(partial / "progress.json", {"key": self.key, **dataset, "step": step, **progress})
            _write_json(partial / "manifest.json", _hash_files(partial))
            _sync_files(partial)
            if final.exists():
                # Renaming cannot replace a folder that has content, so the old one is moved away first.
                final.rename(self.folder / f"{final.name}.replaced-{os.getpid()}")
            partial.rename(final)
            _sync(self.folder)
        except (OSError, ValueError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).split(":")[0]
            raise UnavailableError(f"cannot write the checkpoint {final}: {reason}") from error
        paths = self._complete()
        upto = [path for path in paths if int(path.name) <= step]
        leftovers = [path for path in self.folder.glob("*.*") if path.is_dir()]
        for surplus in {*paths, *leftovers} - {*upto[-KEPT:]}:
            shutil.rmtree(surplus, ignore_errors=True)
        return final

    def check_writable(self) -> None:
        """Raises `UnavailableError` if no checkpoint could be written; called before training starts."""
        found = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        if not found.is_dir() or not os.access(found, os.W_OK | os.X_OK):
            raise UnavailableError(f"{found}: checkpoints cannot be written into it")

    def exist(self) -> bool:
        """Whether there is a checkpoint of the run, damaged or not."""
        return bool(self._complete())

    def restore(self) -> Checkpoint | None:
        """Returns the newest intact checkpoint of this run and its images, or ``None`` if there are no checkpoints.

        Raises:
            CorruptionError: there are checkpoints, but all of them are damaged.
            InputError: the intact ones are of another configuration, or were trained on other images.
        """
        import orbax.checkpoint as ocp

        skipped: list[str] = []
        foreign = False
        for path in reversed(self._complete()):
            damage = _find_damage(path)
            if damage:
                skipped.append(f"checkpoint {path} is corrupt ({damage})")
                continue
            progress = _read_progress(path)
            if progress is None:
                skipped.append(f"checkpoint {path} is corrupt (progress.json has no run key)")
                continue
            if progress["key"] != self.key:
                skipped.append(f"checkpoint {path} is of another configuration, run {progress['key'][:12]}")
                foreign = True
                continue
            seen = progress.get("dataset")  # missing in checkpoints of older versions
            if seen and self.dataset and seen != self.dataset:
                skipped.append(f"checkpoint {path} was trained on the images {seen[:12]}, not {self.dataset[:12]}")
                foreign = True
                continue
            try:
                with ocp.StandardCheckpointer(multiprocessing_options=_own_process()) as checkpointer:
                    arrays = checkpointer.restore(path / "arrays")
            except (OSError, ValueError, TypeError, KeyError) as error:
                skipped.append(f"checkpoint {path} is corrupt (its arrays cannot be read: {error})")
                continue
            return Checkpoint({name: np.asarray(array) for name, array in arrays.items()}, progress, path, skipped)
        if skipped:
            kind = InputError if foreign else CorruptionError
            raise kind(f"{'; '.join(skipped)}; remove {self.folder} to start from the beginning")
        return None

    def remove(self) -> None:
        """Deletes all checkpoints of the run."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()

    def _complete(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*") if path.name.isdigit())


def _own_process() -> Any:
    """Returns options by which Orbax does not wait for other processes: each reads by itself, and only one writes."""
    import jax
    import orbax.checkpoint as ocp

    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})


def _read_progress(path: Path) -> dict[str, Any] | None:
    """Returns the progress of a checkpoint, or ``None`` if the file is not JSON or has no run key."""
    try:
        progress = json.loads((path / "progress.json").read_text())
    except ValueError:
        return None
    return progress if isinstance(progress, dict) and isinstance(progress.get("key"), str) else None


def _find_damage(path: Path) -> str | None:
    """Returns what is damaged in a checkpoint, or ``None`` if all files have the hashes of its manifest."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        found = _hash_files(path)
    except (OSError, ValueError) as error:
        return f"unreadable: {error}"
    if not isinstance(manifest, dict) or "progress.json" not in manifest:
        return "manifest.json does not list progress.json"
    found.pop("manifest.json", None)
    for name in sorted(manifest.keys() | found.keys()):
        if manifest.get(name) != found.get(name):
            return f"{name} is {'missing' if name not in found else 'altered or truncated'}"
    return None


def _hash_files(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values))


def _sync_files(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
