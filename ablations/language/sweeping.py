"""The sweep algebra: which combinations of levels a sweep makes, and how many, without making them.

An assignment gives some factors of a sweep a level; the others keep the base's value. Everything here is pure: the same
sweep gives the same assignments in the same order, and a draw depends on nothing but its seed, factor and index.
"""

import graphlib
import itertools
import math
import random
from collections.abc import Iterator, Mapping

from ablations.language.conditions import meets
from ablations.language.levels import Factor, Level
from ablations.language.study import Sweep
from cnnjax.setting_paths import write_literal

Assignment = dict[str, Level]


def count_assignments(sweep: Sweep) -> int:
    """Returns how many assignments a sweep makes before `exclude` and `only_if`: in no time, however many they are."""
    sizes = [len(factor.levels) for factor in sweep.factors]
    match sweep.kind:
        case "grid":
            return math.prod(sizes)
        case "one_at_a_time":
            return 1 + sum(sizes)
        case "leave_one_out":
            return 1 + len(sizes)
        case "random":
            return sweep.draws
        case "zip" | "list":
            return sizes[0]


def list_assignments(sweep: Sweep, base: Mapping[str, Level]) -> Iterator[Assignment]:
    """Yields the assignments of a sweep, in order; those that `only_if` makes equal are all among them.

    Args:
        sweep: any.
        base: what each factor of the sweep is where it is given no level.
    """
    for combination in _combine(sweep):
        assignment = _keep_applicable(combination, sweep, base)
        levels = {**base, **assignment}
        if not any(meets(condition, levels) for condition in sweep.exclude):
            yield assignment


def draw_level(factor: Factor, draw_seed: int, index: int) -> Level:
    """Returns the level that a random sweep gives a factor in the draw `index`, whatever else it draws."""
    share = random.Random(f"{draw_seed}/{factor.name}/{index}").random()
    if factor.range is None:
        return factor.levels[int(share * len(factor.levels))]
    value = factor.range.pick(share)
    return Level(write_literal(value), {factor.name: value})


def _combine(sweep: Sweep) -> Iterator[Assignment]:
    names = [factor.name for factor in sweep.factors]
    columns = [factor.levels for factor in sweep.factors]
    match sweep.kind:
        case "grid":
            yield from (dict(zip(names, row, strict=True)) for row in itertools.product(*columns))
        case "zip" | "list":
            yield from (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
        case "one_at_a_time":
            yield {}
            yield from ({factor.name: level} for factor in sweep.factors for level in factor.levels)
        case "leave_one_out":
            everything = {factor.name: factor.levels[0] for factor in sweep.factors}
            yield everything
            yield from ({n: level for n, level in everything.items() if n != left_out} for left_out in names)
        case "random":
            for index in range(sweep.draws):
                yield {factor.name: draw_level(factor, sweep.draw_seed, index) for factor in sweep.factors}


def _keep_applicable(combination: Assignment, sweep: Sweep, base: Mapping[str, Level]) -> Assignment:
    """Drops the factors whose `only_if` does not hold, which a factor dropped itself can bring about."""
    if not sweep.only_if:
        return combination
    kept, levels = dict(combination), {**base, **combination}
    needs = {name: {clause.factor for clause in condition} for name, condition in sweep.only_if.items()}
    for name in graphlib.TopologicalSorter(needs).static_order():
        if name in kept and not meets(sweep.only_if.get(name, ()), levels):
            del kept[name]
            levels[name] = base[name]
    return kept
