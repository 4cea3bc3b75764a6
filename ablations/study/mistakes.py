"""The mistakes of a study, collected and reported together."""

import contextlib
from collections.abc import Iterator, Sequence

from cnnjax.errors import InputError, cut_lines, printable

_LONGEST_LINE = 400


class Mistakes:
    """Collects a line for every mistake; `refuse` raises them together.

    Args:
        source: of the study, the prefix of every line.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Adds a mistake: its place, the value, and the legal values."""
        self._lines.append(line)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Adds the `InputError` that ends the block, if one does."""
        try:
            yield
        except InputError as error:
            self.add(str(error))

    def refuse(self) -> None:
        """Raises `InputError` with all mistakes, if any."""
        if self._lines:
            raise refusal(self._source, self._lines)


def refusal(source: str, lines: Sequence[str]) -> InputError:
    """Returns an error of one line, or of a heading and a line for each mistake."""
    prefix = _shorten(source)
    shown = [f"{prefix}: {_shorten(line)}" for line in lines]
    if len(lines) == 1:
        return InputError(shown[0])
    return InputError("\n  ".join([f"{prefix}: {len(lines):,} errors", *cut_lines(shown)]))


def _shorten(line: str) -> str:
    shown = printable(line[: _LONGEST_LINE + 1])
    return shown if len(line) <= _LONGEST_LINE else f"{shown[:_LONGEST_LINE]} ..."
