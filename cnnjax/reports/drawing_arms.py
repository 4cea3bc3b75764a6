"""Pictures of the arms beside each other: differences, pairs of runs, accuracy against size, ranks.

Every function returns a figure and its caption, which says what its bars are; or no figure, and why there is none, with
no text where that goes without saying.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnnjax.comparison import Contrast
from cnnjax.figures.capacity import MOST_GROUPS, Point, draw_capacity
from cnnjax.figures.forest import draw_forest
from cnnjax.figures.ranks import draw_ranks
from cnnjax.figures.seeds import MOST_PAIRS, Pair, draw_pairs
from cnnjax.reports.findings import Findings
from cnnjax.reports.names import count, list_levels, name_arms, name_contrasts
from cnnjax.reports.ranking import DATASET
from cnnjax.setting_paths import shorten_paths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Drawn = tuple[Figure | None, str]

MOST_ROWS = 60
"""Contrasts that are drawn."""


def draw_differences(findings: Findings) -> "Drawn":
    """Draws the contrasts of the arms as a forest plot."""
    if not findings.contrasts:
        return None, _explain_lack(findings)
    shown, note = _choose(findings.contrasts, MOST_ROWS)
    figure = draw_forest(name_contrasts(findings, shown), shown, findings.rules.margin)
    against = "of each arm to the base" if findings.base is not None else "between arms, the first less the second"
    seeds = count((each.comparison.n for each in shown), "common seed")
    return figure, (
        f"Mean difference of {findings.rules.measure} accuracy {against}, over {seeds}. {describe_bars(shown)} "
        f"Grey ticks are single seeds; an arrow stands for a mean outside the picture.{note}"
    )


def draw_seeds(findings: Findings) -> "Drawn":
    """Draws the accuracies behind the contrasts, runs of one seed joined by a line."""
    if not findings.contrasts:
        return None, _explain_lack(findings)
    shown, note = _choose(findings.contrasts, MOST_PAIRS)
    names = name_arms(findings)
    figure = draw_pairs(
        [
            Pair(
                names[each.first],
                names[each.second],
                _values_at(findings, each.first, each.comparison.seeds),
                _values_at(findings, each.second, each.comparison.seeds),
            )
            for each in shown
        ],
        findings.base is not None,
    )
    return figure, (
        f"{findings.rules.measure.capitalize()} accuracy of single runs; a line joins the two runs of one seed, which "
        f"saw the same images in the same order. Every panel has a scale of its own. There are no bars.{note}"
    )


def draw_sizes(findings: Findings) -> "Drawn":
    """Draws accuracy against parameters, with the Pareto front."""
    if findings.ranks is not None:
        return None, "Accuracies on several datasets have no scale in common."
    factors, names = shorten_paths(findings.factors), name_arms(findings)
    few = [factor for factor in findings.factors if 1 < len(list_levels(findings, factor)) <= MOST_GROUPS]
    by = few[0] if few else None
    points = [
        Point(
            names[result.arm.name],
            result.arm.parameters,
            result.estimate.mean,
            result.estimate.low,
            result.estimate.high,
            result.arm.labels[by] if by is not None else "",
            result.on_front,
        )
        for result in findings.arms
        if result.estimate is not None and result.arm.parameters
    ]
    if len({point.parameters for point in points}) < 2:
        return None, "The arms with results all have the same number of parameters."
    seeds = count((result.estimate.n for result in findings.arms if result.estimate is not None), "seed")
    return draw_capacity(points, factors[by] if by is not None else ""), (
        f"Mean {findings.rules.measure} accuracy over {seeds} by number of parameters. Bars: 95% intervals of the mean "
        "of each arm by itself. Dotted: the Pareto front, the arms that none of as few parameters beats in the mean."
    )


def draw_dataset_ranks(findings: Findings) -> "Drawn":
    """Draws mean ranks over datasets."""
    if findings.ranks is None:
        several = DATASET in findings.factors
        return None, "No two arms have results on all of at least two datasets." if several else ""
    names, ranks = findings.ranks
    critical = ranks.critical_difference
    bars = (
        "There are no bars, as no two arms are shown to differ."
        if critical is None
        else f"Bars: half of Nemenyi's critical difference of {critical:.2f} to both sides; two arms differ where "
        "their bars do not overlap."
    )
    caption = f"Mean rank over the datasets (Friedman's test: p = {ranks.p:.3g}). {bars}"
    return draw_ranks(names, ranks.mean, critical), caption


def describe_bars(contrasts: Sequence[Contrast]) -> str:
    """Returns a sentence that says with what confidence the intervals of contrasts are."""
    levels = [
        2 * each.equivalence_level if each.verdict.word == "equivalent" else each.level
        for each in contrasts
        if each.low is not None
    ]
    confidences = sorted({round(100 * (1 - level), 2) for level in levels})
    if not confidences:
        return "There are no bars: too few seeds tell nothing of the spread."
    each = f"{confidences[0]:g}%" if len(confidences) == 1 else f"{confidences[0]:g}% to {confidences[-1]:g}%"
    why = ", the confidence at which each is judged as one of many" if len(contrasts) > 1 else ""
    return f"Bars: Student's interval of the paired differences that the verdict rests on, with {each} confidence{why}."


def _values_at(findings: Findings, name: str, seeds: Sequence[int]) -> dict[int, float]:
    accuracies = findings.arm(name).accuracies
    return {seed: accuracies[seed] for seed in seeds}


def _choose(contrasts: Sequence[Contrast], most: int) -> tuple[Sequence[Contrast], str]:
    """Returns the contrasts with the largest differences in their own order, and a sentence where some are left out."""
    if len(contrasts) <= most:
        return contrasts, ""
    largest = sorted(range(len(contrasts)), key=lambda index: -abs(contrasts[index].comparison.mean))[:most]
    shown = [contrasts[index] for index in sorted(largest)]
    return shown, f" Shown are the {most} largest of {len(contrasts):,} differences; the tables have all."


def _explain_lack(findings: Findings) -> str:
    if findings.ranks is not None:
        return "Arms of several datasets are ranked within each dataset instead."
    return "No two arms have results for a common seed."
