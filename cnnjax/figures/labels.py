"""Names and numbers on pictures: in lines that fit, taken literally whatever they contain, and on logarithmic axes."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnnjax.errors import printable

if TYPE_CHECKING:
    from matplotlib.axis import Axis

_WIDE, _NARROW = 1000.0, 10.0
"""Ratios of the ends of an axis from which on powers of ten alone are labelled, and up to which even steps are."""


def wrap(text: str, width: int, most_lines: int = 3) -> str:
    """Returns a name as lines of at most `width` characters, cut between its words where it can be.

    Args:
        text: of any characters; none is taken for a formula.
        width: of a line, in characters.
        most_lines: after which the rest is left out, which three dots say.
    """
    lines = textwrap.wrap(printable(text), width, max_lines=most_lines, placeholder="…", break_on_hyphens=False)
    return "\n".join(lines).replace("$", r"\$")


def wrap_all(texts: Sequence[str], width: int, most_lines: int = 3) -> tuple[list[str], int]:
    """Returns names in lines, and the number of lines of the longest."""
    wrapped = [wrap(text, width, most_lines) for text in texts]
    return wrapped, max((text.count("\n") + 1 for text in wrapped), default=1)


def mark_log_axis(axis: "Axis", low: float, high: float, form: str) -> None:
    """Labels a logarithmic axis from `low` to `high` with plain numbers.

    Args:
        axis: to be labelled.
        low, high: its ends, > 0.
        form: of the numbers, as for ``format()``.
    """
    from matplotlib.ticker import MaxNLocator

    if high / low <= _NARROW:
        ticks = [float(tick) for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)]
    else:
        steps = (1, 2, 5) if high / low < _WIDE else (1,)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        ticks = [step * 10.0**power for power in powers for step in steps]
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_ticks(shown, [format(tick, form) for tick in shown])
    axis.set_ticks([], minor=True)
