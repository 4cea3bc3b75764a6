"""The source that a process runs: a grid computed by two versions of it would be neither's result."""

import functools
import hashlib
from pathlib import Path

import ablations
import cnnjax
from cnnjax.errors import UnavailableError


@functools.cache
def hash_source() -> str:
    """Returns the SHA-256 of the files of the packages, as they were when a process first asked for it."""
    digest = hashlib.sha256()
    for package in (ablations, cnnjax):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{package.__name__}/{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def check_source(coordinators: str) -> None:
    """Raises `UnavailableError` where the coordinator of a grid, with this hash, runs other source than we do."""
    if coordinators != hash_source():
        folder = Path(ablations.__path__[0]).parent
        raise UnavailableError(f"{folder}: this source is not the one that the grid was started with; start it again")
