"""Many arms against a base: how often any of their verdicts is wrong."""

from itertools import product

import numpy as np

from cnnjax.comparison.criteria import MARGIN
from cnnjax.comparison.families import find_family_level
from cnnjax.comparison.verdicts import half_widths, judge
from cnnjax.tables import Column, Table, Value
from experiments.simulations.noises import FAMILIES, SPREAD, STEP, Draw, summarize
from experiments.simulations.pairs import ALPHA

ARMS = 14
SEEDS = (3, 5, 10, 20)


def tabulate_families(studies: int) -> Table:
    """Returns how often any verdict of a family is wrong; of half as many studies, for each takes milliseconds."""
    columns = (
        Column("noise"),
        Column("seeds", right=True),
        Column("any false better or worse", ".1%", True),
        Column("all intervals cover", ".1%", True),
        Column("any false equivalent, margin above", ".1%", True),
        Column("any false equivalent, margin below", ".1%", True),
    )
    rows: list[tuple[Value, ...]] = []
    for index, (noise, n) in enumerate(product(FAMILIES, SEEDS)):
        random = np.random.default_rng(index)
        families = [_draw_family(random, FAMILIES[noise], 0.0, n) for _ in range(max(studies // 2, 1))]
        claimed, missed = zip(*(_judge_family(differences) for differences in families), strict=True)
        rates = [1 - float(np.mean(missed))]
        for truth in (MARGIN, -MARGIN):
            drawn = np.array([_draw_family(random, FAMILIES[noise], truth, n) for _ in range(studies)])
            mean, spread = summarize(drawn)
            _, same = judge(mean, half_widths(spread, n, ALPHA, ALPHA / ARMS), MARGIN)
            rates.append(float(np.mean(same.any(1))))
        rows.append((noise, n, float(np.mean(claimed)), *rates))
    title = f"{ARMS} arms of equal means against a base, with spreads from half to three times the base's"
    return Table(columns, tuple(rows), title)


def _draw_family(random: np.random.Generator, draws: tuple[Draw, Draw], difference: float, n: int) -> np.ndarray:
    """Returns the differences of all arms to the base, (arms, seeds), in whole steps."""
    arms = difference + SPREAD * draws[0](random, (ARMS, n)) * np.linspace(0.5, 3, ARMS)[:, None]
    base = SPREAD * draws[1](random, (1, n))
    differences: np.ndarray = (np.rint((0.97 + arms) / STEP) - np.rint((0.97 + base) / STEP)) * STEP
    return differences


def _judge_family(differences: np.ndarray) -> tuple[bool, bool]:
    """Returns whether any difference is claimed, and whether any interval misses the truth, which is no difference."""
    mean, spread = summarize(differences)
    level, _ = find_family_level(differences, ARMS, ALPHA)
    found, same = judge(mean, half_widths(spread, differences.shape[1], level, ALPHA / ARMS), MARGIN)
    return bool((found & ~same).any()), bool(found.any())
