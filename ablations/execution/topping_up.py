"""Topping up: further seeds for the cells of a grid that are undecided against a baseline.

The seeds are run in steps. After each step, called a look, all cells are compared again, by levels that account for
looking more than once; only cells that are still undecided get more seeds. Either a few looks are planned, or every
seed is one: then the tests hold at any time, and the first plan is stored.
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
from cnnjax.reports.arms import EVALUATED, complete_measure
from cnnjax.reports.plans import SequentialPlan, describe_plan, find_plans
from cnnjax.reports.rules import Rules
from cnnjax.runs.store import Store
from cnnjax.runs.train_config import name_metric
from cnnjax.settings.checking import choice
from cnnjax.statistics import compare_in_looks, complete, plan_looks
from cnnjax.statistics.any_time import find_least_seeds


@dataclass(frozen=True)
class TopUp:
    """A plan of topping up.

    Attributes:
        baseline: the cell that the others are compared with.
        most: largest number of seeds of a cell.
        rules: the rules by which a comparison is decided.
        at_any_time: whether every seed is a look, by tests that hold at any time.
    """

    baseline: Cell
    most: int
    rules: Rules
    at_any_time: bool = False

    @property
    def option(self) -> str:
        """The option that asks for it, as typed."""
        return f"{'--until-decided' if self.at_any_time else '--top-up'} {self.most}"

    def plan(self, grid: Grid) -> SequentialPlan | None:
        """Returns the plan to store for a grid with the seeds of its study; ``None`` for planned looks."""
        if not self.at_any_time:
            return None
        return SequentialPlan(
            study=grid.name,
            baseline=self.baseline.name,
            arms={cell.name: cell.seeded(0).key for cell in grid.cells if cell.problem is None},
            seeds=extend_seeds(grid.seeds, self.most),
            first=len(grid.seeds),
            alpha=self.rules.alpha,
            margin=self.rules.margin,
            measure=self.rules.measure,
        )


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
    check_most(grid, top_up.most, top_up.option)
    plan = top_up.plan(grid)
    if plan and len(plan.arms) < 2:
        raise InputError(f"{top_up.option}: nothing to compare; must be at least two cells that can exist")
    if plan and top_up.most < (least := find_least_seeds(plan.level)):
        compared = len(plan.arms) - 1
        what = f"one of {compared} comparisons" if compared > 1 else "the comparison"
        raise InputError(
            f"{top_up.option}: must be >= {least}, the fewest seeds that can decide {what} at --alpha {plan.alpha:g}"
        )
    if top_up.baseline.problem:
        raise InputError(f"--baseline {top_up.baseline.name}: cannot exist: {top_up.baseline.problem}")
    splits = {cell.config.train.validation_split for cell in grid.cells}
    if top_up.rules.measure.split == "validation" and (len(splits) > 1 or not splits.pop()):
        raise InputError("--by validation: all cells must have the same train.validation_split, > 0")
    for cell in grid.cells:
        if not top_up.rules.measure.is_accuracy and not cell.config.trial:
            metrics = map(name_metric, cell.config.train.metrics)
            choice(top_up.rules.measure.name, (*EVALUATED, *metrics), f"{cell.name}: --by")


def check_most(grid: Grid, most: int, option: str) -> None:
    """Raises `InputError` if `most` is not more than the seeds of the grid, or the cells have different datasets."""
    if most <= len(grid.seeds):
        raise InputError(f"{option}: must be > {len(grid.seeds)}, the seeds of the study")
    if len({cell.config.data.source for cell in grid.cells}) > 1:
        raise InputError(f"{option}: the cells differ in data.name; must have the same dataset to be compared")


def check_other_plans(grid: Grid, top_up: TopUp, store: Store) -> None:
    """Raises `InputError` if comparisons of a grid have another plan already, which then holds.

    Args:
        grid: the grid with the seeds of its study.
        top_up: the plan that is asked for.
        store: the store that has earlier plans.
    """
    keys = {cell.seeded(0).key for cell in grid.cells}
    plan = top_up.plan(grid)
    for known in find_plans(keys, store):
        if plan is None:
            raise InputError(f"{top_up.option}: {describe_plan(known)}, which holds; --until-decided goes on")
        change = known.find_change(plan)
        if change:
            raise InputError(
                f"{top_up.option}: the study {known.study} has a plan, which was stored first and holds: {change}"
            )
    if plan is None:
        return
    for looked in store.list_grids():
        most = _read_most(grid.name, looked.name)
        if not most:
            continue
        trials = replace(grid, seeds=extend_seeds(grid.seeds, most)).trials
        if {trial.key for trial in trials} & looked.trials.keys():
            raise InputError(
                f"{top_up.option}: the study was looked at by the plan of --top-up {most}, which holds; go on with "
                "that, or choose another --out"
            )


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
    seeds, first = extend_seeds(grid.seeds, top_up.most), len(grid.seeds)
    plan = top_up.plan(grid)
    looks = plan.rules.looks if plan else plan_looks(first, top_up.most)
    ending = run(grid)
    counts = ending.counts
    for before, look in itertools.pairwise((first, *(look for look in looks if look > first))):
        if ending.stopped:
            return counts
        cells = grid.cells
        if before >= looks[0]:
            undecided = set(_list_undecided(replace(grid, seeds=seeds[:before]), looks, look, top_up, store))
            if not undecided:
                return counts
            cells = tuple(cell for cell in cells if cell.name in undecided or cell.name == top_up.baseline.name)
        name = f"{grid.name}-until-decided" if plan else _name_look(grid.name, look, top_up.most)
        ending = run(replace(grid, name=name, cells=cells, seeds=seeds[before:look]))
        counts += ending.counts
    return counts


def _name_look(study: str, look: int, most: int) -> str:
    return f"{study}-to-{look}-of-{most}-seeds"


def _read_most(study: str, grid: str) -> int | None:
    """Returns the largest number of seeds of a grid that is a planned look of the study; otherwise ``None``."""
    look = re.fullmatch(rf"{re.escape(study)}-to-\d+-of-(\d+)-seeds", grid)
    return int(look[1]) if look else None


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
    others = sorted({known for grid in grids if (known := _read_most(study, grid)) and known != most})
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
    """Yields the names of the cells that are undecided with the seeds of `grid`, and that `look` may decide.

    Among them are cells that trained, and so did the baseline, but at no common seed yet.
    """
    arms = make_arms(grid, store.find_all(trial.key for trial in grid.trials))
    rules = replace(top_up.rules, measure=complete_measure(top_up.rules.measure, arms))
    baseline = top_up.baseline.name
    outcomes = {arm.name: arm.outcomes(rules.measure) for arm in arms if arm.problem is None}
    contrasts = compare_in_looks(
        outcomes,
        baseline,
        {arm.name: arm.ended for arm in arms},
        grid.seeds,
        looks,
        rules,
        at_any_time=top_up.at_any_time,
    )
    verdicts = {contrast.first: contrast.verdict for contrast in contrasts}
    ended = {arm.name for arm in arms if set(grid.seeds) <= set(arm.ended) and complete(outcomes.get(arm.name, {}))}
    for name in outcomes:
        verdict = verdicts.get(name)
        if verdict is None:
            if name != baseline and {name, baseline} <= ended:
                yield name
        elif verdict.word == "undecided" and verdict.seeds_needed == look:
            yield name
