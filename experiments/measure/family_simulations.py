"""Simulated families in which some arms differ from their base, and how often a claim about any of them is wrong."""

from itertools import product

import numpy as np
from scipy.special import stdtr

from cnnjax.console.tables import Column, Table
from cnnjax.statistics.families import step_down
from experiments.measure.simulations import ALPHA, ARMS, NOISES, SEEDS, SPREAD, STEP, Draw, make_rows, summarize

TRUTHS: dict[str, tuple[float, ...]] = {
    "half far, of both signs": (4.0, -4.0) * 3 + (6.0,) + (0.0,) * 7,
    "half far, all above": (4.0,) * 7 + (0.0,) * 7,
    "half far, all below": (-4.0,) * 7 + (0.0,) * 7,
    "all but one far": (4.0, -4.0) * 6 + (6.0, 0.0),
    "one step up to one spread, of both signs": tuple((-1) ** arm * (arm + 1) / 14 for arm in range(14)),
    "a hundredth of a spread, of both signs": (0.01, -0.01) * 7,
}
"""True differences of the arms to their base, in units of `SPREAD`, by their name in the table."""
KINDS = ("normal", "t of 3 degrees", "half a step")


def tabulate_steps(studies: int) -> Table:
    """Tabulates false and true claims of the step-down test in families; uses a quarter of the studies."""
    columns = (
        Column("noise"),
        Column("true differences"),
        Column("seeds", right=True),
        Column("any false claim", ".1%", True),
        Column("any wrong sign", ".1%", True),
        Column("true differences found", ".1%", True),
        Column("by intervals alone", ".1%", True),
    )

    def count(random: np.random.Generator, kind: str, name: str, n: int) -> tuple[np.ndarray, ...]:
        truths = np.array(TRUTHS[name])
        judged = [claim(draw_family(random, NOISES[kind], truths, n)) for _ in range(max(studies // 4, 1))]
        signs, alone = (np.array(each) for each in zip(*judged, strict=True))
        is_wrong_sign = (signs != 0) & (truths != 0) & (signs != np.sign(truths))
        is_false = is_wrong_sign | ((signs != 0) & (truths == 0))
        differs = truths != 0
        found, found_alone = ((each == np.sign(truths))[:, differs] for each in (signs, alone))
        return is_false.any(1), is_wrong_sign.any(1), found, found_alone

    title = f"{ARMS} arms against a base, of which some differ: the step-down test"
    return Table(columns, make_rows(product(KINDS, TRUTHS, SEEDS), count), title)


def draw_family(random: np.random.Generator, draws: tuple[Draw, Draw], truths: np.ndarray, n: int) -> np.ndarray:
    """Returns the differences of arms of unequal spreads to a common base, float64 (arms, seeds), in whole steps.

    Args:
        random: random generator.
        draws: noise of the arms and of the base.
        truths: true differences of the arms, in units of `SPREAD`.
        n: number of seeds.
    """
    spreads = random.permutation(np.linspace(0.5, 3, len(truths)))[:, None]
    arms = SPREAD * (truths[:, None] + draws[0](random, (len(truths), n)) * spreads)
    base = SPREAD * draws[1](random, (1, n))
    differences: np.ndarray = (np.rint((0.97 + arms) / STEP) - np.rint((0.97 + base) / STEP)) * STEP
    return differences


def claim(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sign of every claimed difference, 0 without a claim, by the step-down test and by intervals alone."""
    k, n = differences.shape
    mean, spread = summarize(differences)
    p = 2 * stdtr(n - 1, -np.abs(mean) / spread * np.sqrt(n))
    level, levels, _ = step_down([*p], differences, k, ALPHA)
    signs = np.sign(mean)
    return np.where(p <= np.array(levels), signs, 0.0), np.where(p <= level, signs, 0.0)
