"""Simulates studies of which the truth is known, and counts how often the statistics are wrong.

Three minutes; fewer studies, in twenty seconds; the tables of the documentation::

    python -m experiments.calibration
    python -m experiments.calibration --studies 200
    python -m experiments.calibration --markdown docs/calibration.md
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np

from cnnjax.comparison import plan_looks, spend
from cnnjax.comparison.criteria import MARGIN
from cnnjax.comparison.families import find_family_level
from cnnjax.comparison.paired import least_spread
from cnnjax.comparison.power import plan_seeds
from cnnjax.comparison.verdicts import half_widths, judge
from cnnjax.config import Count
from cnnjax.console import find_width, run_command, say
from cnnjax.outputs import check_output, replace_file
from cnnjax.rules import check
from cnnjax.tables import Column, Document, Table, Value, write_markdown, write_terminal
from experiments.arguments import parse_arguments
from experiments.options import ADVANCED

PROG = "python -m experiments.calibration"
ALPHA, POWER = 0.05, 0.8
STEP = 1e-4
SPREAD = 0.002
SEEDS = (3, 5, 10, 20)
ARMS = 14
LOOKS = ((3, 24), (5, 40), (10, 40))
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _draw_normal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.standard_normal(shape)


def _draw_heavy(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    noise: np.ndarray = random.standard_t(3, shape) / np.sqrt(3)
    return noise


def _draw_skewed(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return 1 - random.exponential(1, shape)


def _draw_collapsing(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.where(random.random(shape) < 0.05, -10.0, 0.0) + random.standard_normal(shape)


def _draw_small(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.standard_normal(shape) * 0.025  # half a step: most accuracies of an arm are equal


def _draw_centred_collapses(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return _draw_collapsing(random, shape) + 0.5


def _draw_wide_skewed(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return 3 * _draw_skewed(random, shape)


NOISES: dict[str, tuple[Draw, Draw]] = {
    "normal": (_draw_normal, _draw_normal),
    "t of 3 degrees": (_draw_heavy, _draw_heavy),
    "skewed (exponential)": (_draw_skewed, _draw_skewed),
    "1 run in 20 collapses": (_draw_collapsing, _draw_collapsing),
    "half a step": (_draw_small, _draw_small),
    "one arm skewed, three times as wide": (_draw_wide_skewed, _draw_normal),
    "one arm collapses 1 run in 20": (_draw_centred_collapses, _draw_normal),
}
"""Noise of a run of the first and of the second arm in units of `SPREAD`, by what it is like; means are equal."""


@dataclass(frozen=True)
class CalibrationArguments:
    """Counts how often verdicts and intervals are wrong in simulated studies."""

    studies: int = 2000
    """Simulated studies of each kind."""
    markdown: Path | None = None
    """File for the tables in Markdown."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    arguments = parse_arguments(CalibrationArguments, argv, PROG, CalibrationArguments())
    check(arguments.studies, Count, "--studies")
    markdown = arguments.markdown and check_output(arguments.markdown, "--markdown")
    document = calibrate(arguments.studies)
    if markdown:
        replace_file(markdown, write_markdown(document) + "\n", "--markdown")
    say(write_terminal(document, find_width()), sys.stdout)
    return 0


def calibrate(studies: int) -> Document:
    """Returns the rates of all simulated situations.

    Args:
        studies: of each kind.
    """
    error = 1.96 * np.sqrt(0.05 * 0.95 / studies)
    facts = (f"{studies:,} studies each", f"a rate of 5% is known to ±{100 * error:.1f} points")
    notes = (
        f"accuracies are multiples of {STEP:g}; the noise of a run has a standard deviation of {100 * SPREAD:g} points "
        f"where it is not said otherwise; the margin is {100 * MARGIN:g} points, the level {ALPHA:g}",
        "correlation: of the two arms over the seeds",
    )
    make = (_tabulate_verdicts, _tabulate_power, _tabulate_families, _tabulate_looks)
    tables = tuple(tabulate(studies) for tabulate in make)
    return Document("How often the statistics are wrong", facts, tables, notes)


def draw_differences(
    random: np.random.Generator, draws: tuple[Draw, Draw], difference: float, correlation: float, shape: tuple[int, int]
) -> np.ndarray:
    """Returns the differences between two arms, (studies, seeds), in whole steps of the accuracy."""
    common = draws[1](random, shape)
    arms = (np.sqrt(correlation) * common + np.sqrt(1 - correlation) * draw(random, shape) for draw in draws)
    first, second = (0.97 + SPREAD * arm for arm in arms)
    differences: np.ndarray = (np.rint((first + difference) / STEP) - np.rint(second / STEP)) * STEP
    return differences


def summarize(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the means and the spreads of studies, as `compare_paired` has them."""
    return differences.mean(1), np.maximum(differences.std(1, ddof=1), least_spread(STEP))


def _tabulate_verdicts(studies: int) -> Table:
    columns = (
        Column("noise"),
        Column("correlation", right=True),
        Column("seeds", right=True),
        Column("false better or worse", ".1%", True),
        Column("interval covers", ".1%", True),
        Column("false equivalent at the margin", ".1%", True),
        Column("found at twice the margin", ".1%", True),
        Column("equivalent at no difference", ".1%", True),
    )
    rows: list[tuple[Value, ...]] = []
    for index, (noise, correlation, n) in enumerate(product(NOISES, (0.0, 0.7), SEEDS)):
        random = np.random.default_rng(index)
        found: dict[float, np.ndarray] = {}
        same: dict[float, np.ndarray] = {}
        covered = np.zeros(0)
        for difference in (0.0, MARGIN, 2 * MARGIN):
            mean, spread = summarize(draw_differences(random, NOISES[noise], difference, correlation, (studies, n)))
            halves = half_widths(spread, n, ALPHA, ALPHA)
            found[difference], same[difference] = judge(mean, halves, MARGIN)
            covered = np.append(covered, np.abs(mean - difference) <= halves[0])
        claimed = found[0.0] & ~same[0.0]
        rates = (claimed, covered, same[MARGIN], found[2 * MARGIN] & ~same[2 * MARGIN], same[0.0])
        rows.append((noise, correlation, n, *(float(np.mean(rate)) for rate in rates)))
    return Table(columns, tuple(rows), "Two arms")


def _tabulate_power(studies: int) -> Table:
    columns = (
        Column("spread of differences, points", ".2f", True),
        Column("planned seeds", right=True),
        Column("finds the margin", ".1%", True),
        Column("finds no difference equivalent", ".1%", True),
    )
    rows: list[tuple[Value, ...]] = []
    for index, spread in enumerate((0.0005, 0.001, 0.002, 0.004)):
        random = np.random.default_rng(index)
        planned = plan_seeds(spread, MARGIN, ALPHA, POWER)
        assert planned is not None
        rates = []
        for difference, which in ((MARGIN, 0), (0.0, 1)):
            drawn = np.rint((difference + spread * random.standard_normal((studies, planned))) / STEP) * STEP
            mean, deviation = summarize(drawn)
            judged = judge(mean, half_widths(deviation, planned, ALPHA, ALPHA), MARGIN)
            rates.append(float(np.mean(judged[which])))
        rows.append((100 * spread, planned, *rates))
    return Table(columns, tuple(rows), f"Seeds planned for a power of {POWER:.0%}")


def _tabulate_families(studies: int) -> Table:
    columns = (
        Column("noise"),
        Column("seeds", right=True),
        Column("any false better or worse", ".1%", True),
        Column("all intervals cover", ".1%", True),
    )
    rows: list[tuple[Value, ...]] = []
    for index, (noise, n) in enumerate(
        product(("normal", "t of 3 degrees", "skewed (exponential)", "half a step"), (3, 5, 8, 10, 20))
    ):
        random = np.random.default_rng(index)
        missed, claimed = zip(*(_simulate_family(random, NOISES[noise][0], n) for _ in range(studies)), strict=True)
        rows.append((noise, n, float(np.mean(claimed)), 1 - float(np.mean(missed))))
    title = f"{ARMS} arms against a base that none differs from, with spreads from half to three times the base's"
    return Table(columns, tuple(rows), title)


def _simulate_family(random: np.random.Generator, draw: Draw, n: int) -> tuple[bool, bool]:
    """Returns whether any interval misses the truth, which is no difference, and whether any difference is claimed."""
    noise = draw(random, (ARMS + 1, n)) * SPREAD * np.append(1.0, np.linspace(0.5, 3, ARMS))[:, None]
    accuracies = np.rint((0.97 + noise) / STEP) * STEP
    differences = accuracies[1:] - accuracies[0]
    mean, spread = summarize(differences)
    level, _ = find_family_level(differences, ARMS, ALPHA)
    found, same = judge(mean, half_widths(spread, n, level, ALPHA / ARMS), MARGIN)
    return bool(found.any()), bool((found & ~same).any())


def _tabulate_looks(studies: int) -> Table:
    columns = (
        Column("noise"),
        Column("looks"),
        Column("false better or worse", ".1%", True),
        Column("false equivalent at the margin", ".1%", True),
        Column("false better or worse without spending", ".1%", True),
    )
    rows: list[tuple[Value, ...]] = []
    for index, (noise, (first, most)) in enumerate(product(NOISES, LOOKS)):
        random = np.random.default_rng(index)
        looks = plan_looks(first, most)
        none = draw_differences(random, NOISES[noise], 0.0, 0.0, (studies, most))
        margin = draw_differences(random, NOISES[noise], MARGIN, 0.0, (studies, most))
        levels = spend(looks, ALPHA)
        found, _ = _look(none, looks, levels)
        _, same = _look(margin, looks, levels)
        unspent, _ = _look(none, looks, (ALPHA,) * len(looks))
        rows.append((noise, ", ".join(map(str, looks)), found, same, unspent))
    return Table(columns, tuple(rows), "Looking again with more seeds")


def _look(differences: np.ndarray, looks: tuple[int, ...], levels: tuple[float, ...]) -> tuple[float, float]:
    """Returns how often the first look that decides finds a difference, and how often equivalence."""
    decided = np.zeros(len(differences), bool)
    rates = np.zeros(2)
    for found, same in _judge_looks(differences, looks, levels):
        rates += np.sum(found & ~same & ~decided), np.sum(same & ~decided)
        decided |= found | same
    return float(rates[0] / len(decided)), float(rates[1] / len(decided))


def _judge_looks(
    differences: np.ndarray, looks: tuple[int, ...], levels: tuple[float, ...]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for n, level in zip(looks, levels, strict=True):
        mean, spread = summarize(differences[:, :n])
        yield judge(mean, half_widths(spread, n, level, level), MARGIN)


if __name__ == "__main__":
    run_command(main)
