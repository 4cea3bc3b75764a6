"""The commands of `experiments.explain`: one module for stored runs, one for geometry, and here what they share."""

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
    """Options for the pictures."""

    figures: Path = Path("figures")
    """Folder for the pictures, created if missing; files of the same names are replaced."""
    format: Literal["png", "svg"] = "png"
    """File format of the pictures."""
    json: bool = False
    """Print one JSON object and nothing else on stdout."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


@dataclass(frozen=True)
class Explanation:
    """What a command explains.

    Attributes:
        text: the explanation for the terminal.
        values: the same facts for ``--json``.
        figures: pictures by the name of their file, without its ending.
    """

    text: str
    values: dict[str, Any]
    figures: Mapping[str, "Figure"] = field(default_factory=dict)


def write_pictures(explanation: Explanation, arguments: PictureArguments, kept: Path | None = None) -> list[str]:
    """Writes the pictures; checks first that every one of them can be written.

    Args:
        explanation: whose pictures are written.
        arguments: their folder and format.
        kept: the user's own picture, which must not be overwritten.

    Returns:
        The paths of the files.

    Raises:
        InputError: a picture would overwrite `kept`, or its path cannot be a file.
        UnavailableError: the folder cannot be created.
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
    """Returns a table of words as text, with its columns aligned to the right.

    Example:
        >>> print(align([["1", "10"], ["100", "2"]]))
          1  10
        100   2
    """
    width = max(len(word) for row in rows for word in row)
    return "\n".join(" ".join(word.rjust(width) for word in row) for row in rows)


@contextlib.contextmanager
def blamed(option: str) -> Iterator[None]:
    """Rewords an error about a layer so that it names the option, since the user has named no layer."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{option}: {str(error).split(': ', 2)[-1]}") from None
