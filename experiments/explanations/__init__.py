"""The commands of `experiments.explain`: stored runs and geometry have a module each; here is what they share."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cnnjax.console.arguments import ADVANCED
from cnnjax.errors import InputError

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
    """An explanation in text, numbers and pictures.

    Attributes:
        text: the explanation for the terminal.
        values: the same facts for ``--json``.
        figures: the pictures by the name of their file, without its suffix.
    """

    text: str
    values: dict[str, Any]
    figures: Mapping[str, "Figure"] = field(default_factory=dict)


def save_pictures(explanation: Explanation, arguments: PictureArguments, kept: Path | None = None) -> list[Path]:
    """Writes the pictures, and returns the paths of the files; checks first that every one of them can be written.

    Args:
        explanation: the explanation with its pictures.
        arguments: the folder and the format of the files.
        kept: the user's own picture, which must not be overwritten.

    Raises:
        InputError: a picture would overwrite `kept`, or its path cannot be a file.
        UnavailableError: the folder or a file cannot be written.
    """
    from cnnjax.figures.style import save_figures

    folder, suffix = arguments.figures, f".{arguments.format}"
    if kept and kept.resolve() in [(folder / f"{name}{suffix}").resolve() for name in explanation.figures]:
        raise InputError(f"--image {kept}: would be replaced by a picture of that name; give another --figures")
    return save_figures(explanation.figures, folder, (suffix,))


@contextlib.contextmanager
def name_option(option: str) -> Iterator[None]:
    """Rewords an error about a layer so that it names the option, since the user has named no layer."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{option}: {str(error).split(': ', 2)[-1]}") from None
