"""Topping up: further seeds for the cells of a grid that are undecided against a baseline.

The seeds are run in steps. After each step, called a look, all cells are compared again, by levels that account for
looking more than once; only cells that are still undecided get more seeds.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from ablations.execution.arms import make_arms
from ablations.execution.work import Ending
from ablations.study.grid import Cell, Grid
from cnnjax.errors import InputError
from cnnjax.reports.arms import ACCURACIES, complete_measure
from cnnjax.reports.rules import Rules
from cnnjax.runs.store import Store
from cnnjax.runs.train_config import name_metric
from cnnjax.settings.checking import choice
from cnnjax.statistics import compare_in_looks, plan_looks


@dataclass(frozen=True)
class TopUp:
    """A plan of topping up.

    Attributes:
        baseline: the cell that the others are compared with.
        most: largest number of seeds of a cell.
        rules: the rules by which a comparison is decided.
    """

    baseline: Cell
    most: int
    rules: Rules


def extend_seeds(seeds: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Returns the seeds, extended to `most` seeds by the smallest numbers that are not among them.

    Example:
        >>> extend_seeds((0, 1, 7), 5)
        (0, 1, 7, 2, 3)
    """
    free = (seed for seed in itertools.count() if seed not in seeds)
    return (*seeds, *itertools.islice(free, max(most - len(seeds), 0)))


def check_top_up(grid: Grid, top_up: TopUp) -> None:
    """Raises `InputError` if a grid cannot be topped up by this plan."""
    check_most(grid, top_up.most)
    if top_up.baseline.problem:
        raise InputError(f"--baseline {top_up.baseline.name}: cannot exist: {top_up.baseline.problem}")
    splits = {cell.config.train.validation_split for cell in grid.cells}
    if top_up.rules.measure.split == "validation" and (len(splits) > 1 or not splits.pop()):
        raise InputError("--by validation: all cells must have the same train.validation_split, > 0")
    for cell in grid.cells:
        if not top_up.rules.measure.is_accuracy and not cell.config.trial:
            metrics = map(name_metric, cell.config.train.metrics)
            choice(top_up.rules.measure.name, (*ACCURACIES, *metrics), f"{cell.name}: --by")


def check_most(grid: Grid, most: int) -> None:
    """Raises `InputError` if `most` is not more than the seeds of the grid, or the cells have different datasets."""
    if most <= len(grid.seeds):
        raise InputError(f"--top-up {most}: must be > {len(grid.seeds)}, the seeds of the study")
    if len({cell.config.data.source for cell in grid.cells}) > 1:
        raise InputError("--top-up: the cells differ in data.name; must have the same dataset to be compared")


def run_topping_up(grid: Grid, top_up: TopUp, store: Store, run: Callable[[Grid], Ending]) -> Counter[str]:
    """Runs a grid, then further seeds of the baseline and of the undecided cells, look by look.

    Args:
        grid: the grid with the seeds of the study.
        top_up: the plan.
        store: the store that `run` writes to.
        run: runs a grid into the store. If a failure stops it, there is no further look.

    Returns:
        The number of trials by status, of the grid and of all further seeds that were to be run.
    """
    seeds = extend_seeds(grid.seeds, top_up.most)
    looks = plan_looks(len(grid.seeds), top_up.most)
    ending = run(grid)
    counts = ending.counts
    for before, look in itertools.pairwise(looks):
        if ending.stopped:
            return counts
        undecided = set(_list_undecided(replace(grid, seeds=seeds[:before]), looks, look, top_up, store))
        if not undecided:
            return counts
        cells = tuple(cell for cell in grid.cells if cell.name in undecided or cell.name == top_up.baseline.name)
        name = _name_look(grid.name, look, top_up.most)
        ending = run(replace(grid, name=name, cells=cells, seeds=seeds[before:look]))
        counts += ending.counts
    return counts


def _name_look(study: str, look: int, most: int) -> str:
    return f"{study}-to-{look}-of-{most}-seeds"


def describe_other_plans(study: str, most: int | None, grids: Iterable[str]) -> str | None:
    """Returns a warning if a study was topped up by other plans, otherwise ``None``.

    Each plan keeps its own probability of a false claim. If the plan is changed after a look, these probabilities add
    up.

    Args:
        study: name of the study.
        most: largest number of seeds of a cell in the current plan; ``None`` if there is no plan.
        grids: names of the grids in the store; each look is one of them.

    Example:
        >>> describe_other_plans("padding", 12, ["padding", "padding-to-6-of-12-seeds"])
        >>> describe_other_plans("padding", 12, ["padding", "padding-to-6-of-6-seeds"])  # doctest: +ELLIPSIS
        'padding was topped up by another plan, too (--top-up 6): all plans together may make a false claim ...
    """
    looks = (re.fullmatch(rf"{re.escape(study)}-to-\d+-of-(\d+)-seeds", grid) for grid in grids)
    others = sorted({int(look[1]) for look in looks if look} - {most})
    if not others:
        return None
    listed = ", ".join(f"--top-up {other}" for other in others)
    if most is None:
        return f"{study} was topped up ({listed}); without that option, looking more than once is not accounted for"
    return (
        f"{study} was topped up by another plan, too ({listed}): all plans together may make a false claim with up to "
        f"{len(others) + 1} times the probability --alpha"
    )


def _list_undecided(grid: Grid, looks: tuple[int, ...], look: int, top_up: TopUp, store: Store) -> Iterator[str]:
    """Yields the names of the cells that are undecided with the seeds of `grid`, and that `look` may decide."""
    arms = make_arms(grid, store.find_all(trial.key for trial in grid.trials))
    rules = replace(top_up.rules, measure=complete_measure(top_up.rules.measure, arms))
    contrasts = compare_in_looks(
        {arm.name: arm.outcomes(rules.measure) for arm in arms if arm.problem is None},
        top_up.baseline.name,
        {arm.name: arm.ended for arm in arms},
        grid.seeds,
        looks,
        rules,
    )
    for contrast in contrasts:
        if contrast.verdict.word == "undecided" and contrast.verdict.seeds_needed == look:
            yield contrast.first
