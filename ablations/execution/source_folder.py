"""The source of the user's code that a grid runs, laid out as a folder for machines that lack it.

What is below the current folder keeps its place, so that a task in a copy of the folder reads the same references, and
finds the same source. A module that is imported from elsewhere is in a folder of its own, which the task adds to
`sys.path`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ablations.study.grid import Grid
from cnnjax.errors import InputError
from cnnjax.settings.references import find_root, is_installed, read_source

_WHERE = "--address"
_OWN = ("ablations", "cnnjax")
"""Packages that every node has in the coordinator's version."""
_ELSEWHERE = ".imported"


@dataclass(frozen=True)
class SourceFolder:
    """The files of a folder, which need not exist.

    Attributes:
        files: their texts, by path relative to the folder.
        roots: the folders in it, apart from itself, that modules are imported from.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    roots: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Writes the files into a folder."""
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())


NO_SOURCE = SourceFolder()


def gather_source(grid: Grid) -> SourceFolder:
    """Returns the source of the user's code that the trials of a grid run; installed packages are left out.

    Raises:
        InputError: a file is not below the current folder, or there is no such module any more.
    """
    references = dict.fromkeys(reference for cell in grid.cells for reference in cell.config.references)
    files: dict[str, str] = {}
    roots: dict[Path, str] = {}
    for reference in references:
        module = reference.partition(":")[0]
        if Path(module).is_absolute():
            raise InputError(
                f"{_WHERE}: {module} is not below the current folder, so it cannot be sent to the nodes; run the "
                "command in a folder above it"
            )
        if module.endswith(".py"):
            place = os.path.dirname(module)
        elif module.partition(".")[0] in _OWN or is_installed(module, _WHERE):
            continue
        else:
            root = find_root(reference, _WHERE)
            place = roots.setdefault(root, _find_place(root, len(roots)))
        files |= {os.path.join(place, name): text for name, text in read_source(reference, _WHERE).files}
    return SourceFolder(files, tuple(filter(None, roots.values())))


def _find_place(root: Path, number: int) -> str:
    """Returns where the modules of a folder are in the copy of the current folder; `number` tells others apart."""
    here = Path.cwd()
    if not root.is_relative_to(here):
        return f"{_ELSEWHERE}/{number}"
    return "" if root == here else root.relative_to(here).as_posix()
