"""What `experiments.explain` can explain, a module each, and what their commands share."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cnnjax.console.arguments import ADVANCED
from cnnjax.errors import InputError, UnavailableError
from cnnjax.machine.files import check_output, replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PictureArguments:
    """Where pictures go."""

    figures: Path = Path("figures")
    """Folder of the pictures, made where it is not there; files of the same names are replaced."""
    format: Literal["png", "svg"] = "png"
    """Of the pictures."""
    json: bool = False
    """Print one JSON object and nothing else on stdout."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


@dataclass(frozen=True)
class Explanation:
    """An explanation: as text, as JSON values, and as pictures by their names."""

    text: str
    values: dict[str, Any]
    figures: Mapping[str, "Figure"] = field(default_factory=dict)


def write_pictures(explanation: Explanation, arguments: PictureArguments, kept: Path | None = None) -> list[str]:
    """Writes the pictures, after every one of them is known to have a place.

    Args:
        explanation: what to write of.
        arguments: where to.
        kept: a file that must not be replaced.

    Returns:
        The paths of the files.
    """
    from cnnjax.figures.style import encode_figure

    folder = arguments.figures
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"--figures {folder}: {error.strerror}") from None
    paths = [folder / f"{name}.{arguments.format}" for name in explanation.figures]
    targets = [check_output(path, "--figures") for path in paths]
    if kept and kept.resolve() in targets:
        raise InputError(f"--image {kept}: would be replaced by a picture of that name; give another --figures")
    contents = [encode_figure(figure, f".{arguments.format}") for figure in explanation.figures.values()]
    for target, content in zip(targets, contents, strict=True):
        replace_file(target, content, "--figures")
    return [str(path) for path in paths]


def align(rows: list[list[str]]) -> str:
    """Returns words as lines whose columns are set to the right."""
    width = max(len(word) for row in rows for word in row)
    return "\n".join(" ".join(word.rjust(width) for word in row) for row in rows)


@contextlib.contextmanager
def blamed(option: str) -> Iterator[None]:
    """Has an error that names a layer of the network behind a picture name the option instead."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{option}: {str(error).split(': ', 2)[-1]}") from None
