"""The source that a process runs, so that a grid is not computed by two versions of it."""

import functools
import hashlib
from pathlib import Path

import ablations
import cnnjax


@functools.cache
def hash_source() -> str:
    """Returns the SHA-256 of the files of the packages, when this is first asked for in this process."""
    digest = hashlib.sha256()
    for package in (ablations, cnnjax):
        (folder,) = map(Path, package.__path__)
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{package.__name__}/{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()
