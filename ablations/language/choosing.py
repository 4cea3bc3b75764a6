"""Cells chosen by the labels of their factors: ``model.padding=same``, or ``model.padding!=same``."""

import re
from collections.abc import Callable, Mapping, Sequence

from ablations.language.grids import Cell, Grid
from cnnjax.errors import InputError
from cnnjax.rules import choice, near_match

Choice = Callable[[Mapping[str, str]], bool]
"""Whether a cell with these labels is chosen."""
_CONDITION = re.compile(r"\s*([^=!]*?)\s*(!?=)\s*(.*?)\s*", re.DOTALL)


def read_choice(texts: Sequence[str], grid: Grid, option: str) -> Choice:
    """Returns the test for the cells that ``factor=label`` and ``factor!=label`` leave.

    Labels of one factor joined by ``=`` are alternatives; everything else must hold together.

    Args:
        texts: the conditions.
        grid: with the factors and their labels.
        option: that they were given to, named in errors.

    Raises:
        InputError: a text of another form, an unknown factor, or a label that the factor does not have.
    """
    wanted: dict[str, set[str]] = {}
    unwanted: set[tuple[str, str]] = set()
    for text in texts:
        factor, sign, label = _read_condition(text, grid, option)
        if sign == "=":
            wanted.setdefault(factor, set()).add(label)
        else:
            unwanted.add((factor, label))
    return lambda labels: (
        all(labels[factor] in legal for factor, legal in wanted.items()) and unwanted.isdisjoint(labels.items())
    )


def choose_cell(texts: Sequence[str], grid: Grid, option: str) -> Cell:
    """Returns the one cell that the conditions leave.

    Raises:
        InputError: they leave none or several; or as `read_choice`.
    """
    is_chosen = read_choice(texts, grid, option)
    cells = [cell for cell in grid.cells if is_chosen(cell.labels)]
    if len(cells) == 1:
        return cells[0]
    shown = " ".join(f"{option} {text!r}" for text in texts)
    if not cells:
        raise InputError(f"{shown}: leaves none of the {len(grid.cells)} cells; must leave one")
    open_factors = {factor: dict.fromkeys(cell.labels[factor] for cell in cells) for factor in grid.factors}
    listed = "; ".join(f"{factor} ({', '.join(labels)})" for factor, labels in open_factors.items() if len(labels) > 1)
    raise InputError(f"{shown}: leaves {len(cells)} cells, must leave one; they differ in {listed}")


def list_labels(grid: Grid, factor: str) -> list[str]:
    """Returns the labels that a factor has in a grid, in the order they first appear."""
    return list(dict.fromkeys(cell.labels[factor] for cell in grid.cells))


def _read_condition(text: str, grid: Grid, option: str) -> tuple[str, str, str]:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise InputError(f"{option} {text!r}: must be factor=label or factor!=label{near_match(text, grid.factors)}")
    factor, sign, label = match.groups()
    choice(factor, grid.factors, option)
    return factor, sign, choice(label, list_labels(grid, factor), f"{option} {factor}")
