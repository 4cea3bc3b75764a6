"""The pictures of a comparison: differences, pairs of runs, accuracy against size, ranks, effects, curves, images.

Every function `show_*` returns a figure and its caption, which says what its bars are. Without a figure the caption
says why there is none; it is empty where that is obvious.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnjax.console.tables import capitalize
from cnnjax.figures.arms import MOST_GROUPS, MOST_PAIRS, Pair, Point, draw_capacity, draw_forest, draw_pairs, draw_ranks
from cnnjax.figures.factors import FactorEffects, HeatMap, draw_heat_maps, draw_main_effects, draw_shares
from cnnjax.figures.runs import (
    LEAST_ERROR,
    MOST_CURVES,
    MOST_MATRICES,
    Curve,
    draw_confusions,
    draw_curves,
    draw_hardest,
)
from cnnjax.figures.style import save_figures
from cnnjax.reports.findings import DATASET, ArmResult, Findings
from cnnjax.reports.sentences import (
    name_arms,
    name_contrasts,
    name_effect,
    shorten_level,
    write_counts,
)
from cnnjax.settings.schema import shorten_paths
from cnnjax.statistics import Contrast, Measure
from cnnjax.statistics.estimates import estimate_score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Drawn = tuple[Figure | None, str]

MOST_ROWS = 60
"""Largest number of contrasts in a picture."""


def show_differences(findings: Findings) -> "Drawn":
    """Shows the contrasts of the arms as a forest plot."""
    if not findings.contrasts:
        return None, _say_why_no_differences(findings)
    shown, note = _choose_contrasts(findings.contrasts, MOST_ROWS)
    figure = draw_forest(name_contrasts(findings, shown), shown, findings.rules)
    against = "of each arm to the base" if findings.base is not None else "between arms, the first less the second"
    seeds = write_counts((each.comparison.n for each in shown), "common seed")
    return figure, (
        f"Mean difference of {findings.rules.measure.title} {against}, over {seeds}. {_describe_bars(shown)} "
        f"Grey ticks are single seeds; an arrow stands for a mean outside the picture.{note}"
    )


def show_seeds(findings: Findings) -> "Drawn":
    """Shows the scores of the compared runs, with a line between the two runs of one seed."""
    if not findings.contrasts:
        return None, _say_why_no_differences(findings)
    shown, note = _choose_contrasts(findings.contrasts, MOST_PAIRS)
    names = name_arms(findings)
    figure = draw_pairs(
        [
            Pair(
                names[each.first],
                names[each.second],
                _find_scores(findings, each.first, each.comparison.seeds),
                _find_scores(findings, each.second, each.comparison.seeds),
            )
            for each in shown
        ],
        findings.base is not None,
        findings.rules.measure,
    )
    title = findings.rules.measure.title
    same = ", which saw the same images in the same order" if findings.rules.measure.split else ""
    return figure, (
        f"{capitalize(title)} of single runs; a line joins the two runs of one seed{same}. Every "
        f"panel has a scale of its own. There are no bars.{note}"
    )


def show_capacity(findings: Findings) -> "Drawn":
    """Shows the mean against parameters, with the Pareto front."""
    if findings.ranks is not None:
        what = "Accuracies" if findings.rules.measure.is_accuracy else "Scores"
        return None, f"{what} on several datasets have no scale in common."
    if not findings.has_sizes:
        return None, ""
    factors, names = shorten_paths(findings.factors), name_arms(findings)
    few = [factor for factor in findings.factors if 1 < len(findings.list_labels(factor)) <= MOST_GROUPS]
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
    seeds = write_counts((result.estimate.n for result in findings.arms if result.estimate is not None), "seed")
    return draw_capacity(points, factors[by] if by is not None else "", findings.rules.measure), (
        f"Mean {findings.rules.measure.title} over {seeds} by number of parameters. Bars: 95% intervals of the mean "
        "of each arm by itself. Dotted: the Pareto front, arms that no arm with as few parameters beats in the mean."
    )


def show_ranks(findings: Findings) -> "Drawn":
    """Shows mean ranks over datasets."""
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


def _describe_bars(contrasts: Sequence[Contrast]) -> str:
    """Returns a sentence with the confidence level of the intervals of contrasts."""
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


def _find_scores(findings: Findings, name: str, seeds: Sequence[int]) -> dict[int, float]:
    scores = findings.arm(name).scores
    return {seed: scores[seed] for seed in seeds}


def _choose_contrasts(contrasts: Sequence[Contrast], most: int) -> tuple[Sequence[Contrast], str]:
    """Returns the contrasts with the largest differences, in their order, and a sentence if some are left out."""
    if len(contrasts) <= most:
        return contrasts, ""
    largest = sorted(range(len(contrasts)), key=lambda index: -abs(contrasts[index].comparison.mean))[:most]
    shown = [contrasts[index] for index in sorted(largest)]
    return shown, f" Shown are the {most} largest of {len(contrasts):,} differences; the tables have all."


def _say_why_no_differences(findings: Findings) -> str:
    if findings.ranks is not None:
        return "Arms of several datasets are ranked within each dataset instead."
    return "No two arms have results for a common seed."


MOST_MAPS, MOST_CELLS = 6, 20
"""Largest numbers of heat maps in a picture, and of rows or columns in one of them."""


def show_variance(findings: Findings) -> "Drawn":
    """Shows the share of the variance that each factor and interaction explains."""
    if not findings.shares:
        return None, "One factor alone, or runs without a spread, leave no variance to be divided."
    factors = shorten_paths(findings.factors)
    shares = sorted(findings.shares[:MOST_ROWS], key=lambda share: -share.partial)
    names = [" x ".join(factors[factor] for factor in share.factors) for share in shares]
    return draw_shares(names, shares), (
        "Partial omega squared: of the variance that the other terms leave, the share that each factor or interaction "
        "(x) explains. Lines: 95% intervals, from the noncentrality of F."
    )


def show_effects(findings: Findings) -> "Drawn":
    """Shows the main effects, one panel per factor."""
    if not findings.effects:
        return None, _say_why_no_effects(findings)
    factors = shorten_paths(findings.factors)
    panels = []
    for factor in findings.factors:
        effects = [effect for effect in findings.effects if effect.factors == (factor,)]
        if effects:
            found = {effects[0].references[0]: None, **{effect.labels[0]: effect.contrast for effect in effects}}
            order = [label for label in findings.list_labels(factor) if label in found]
            panels.append(FactorEffects(factors[factor], {label: found[label] for label in order}))
    contrasts = [effect.contrast for effect in findings.effects]
    return draw_main_effects(panels, findings.rules), (
        "Effect of every level against that of the diamond, averaged over the combinations of the other "
        f"factors that have both ({write_counts((e.combinations for e in findings.effects), 'combination')}), over "
        f"{write_counts((each.comparison.n for each in contrasts), 'seed')}. {_describe_bars(contrasts)}"
    )


def show_interactions(findings: Findings) -> "Drawn":
    """Shows the interactions of all pairs of factors with their intervals, the clearest first."""
    if not findings.interactions:
        return None, _say_why_no_effects(findings)
    ranked = sorted(findings.interactions, key=lambda effect: effect.contrast.adjusted_p or 0)
    shown = [effect.contrast for effect in ranked[:MOST_ROWS]]
    note = f" Shown are {len(shown)} of {len(ranked)}; the table has all." if len(shown) < len(ranked) else ""
    figure = draw_forest([name_effect(findings, effect) for effect in ranked[:MOST_ROWS]], shown, findings.rules)
    return figure, (
        "How much more one change of level brings where the other (x) is made as well; at zero, neither depends on "
        f"the other. {_describe_bars(shown)} Grey ticks are single seeds; an arrow stands for a mean outside the "
        f"picture.{note}"
    )


def show_equal_size(findings: Findings) -> "Drawn":
    """Shows the effects of levels at equal numbers of parameters."""
    if not findings.has_sizes:
        return None, ""
    if not findings.at_equal_size:
        return None, "The levels determine the number of parameters, so the two cannot be told apart."
    shown = findings.at_equal_size[:MOST_ROWS]
    factors = shorten_paths(findings.factors)
    names = [f"{shorten_level(each.first, factors)} less {shorten_level(each.second, factors)}" for each in shown]
    return draw_forest(names, shown, findings.rules), (
        "Effect of every level when the logarithm of the number of parameters has explained what it can, over "
        f"{write_counts((each.comparison.n for each in shown), 'seed')}. {_describe_bars(shown)}"
    )


def show_heat_maps(findings: Findings) -> "Drawn":
    """Shows heat maps of one factor against another, one map per level of a third."""
    levels = {factor: findings.list_labels(factor) for factor in findings.factors}
    if len(levels) not in (2, 3):
        return None, "Heat maps are of two factors, or of two for every level of a third."
    order = sorted(levels, key=lambda factor: len(levels[factor]))
    third = order.pop(0) if len(levels) == 3 else None
    rows, columns = sorted(order, key=lambda factor: (-len(levels[factor]), findings.factors.index(factor)))
    titles = levels[third] if third is not None else [""]
    if len(titles) > MOST_MAPS or len(levels[rows]) > MOST_CELLS or len(levels[columns]) > MOST_CELLS:
        return None, f"There are more than {MOST_MAPS} maps, or more than {MOST_CELLS} rows or columns."
    if not any(result.estimate for result in findings.arms):
        return None, "No arm has a result."
    factors, measure = shorten_paths(findings.factors), findings.rules.measure
    maps = []
    for title in titles:
        cells = {
            (result.arm.labels[rows], result.arm.labels[columns]): result
            for result in findings.arms
            if third is None or result.arm.labels[third] == title
        }
        table = [[cells.get((row, column)) for column in levels[columns]] for row in levels[rows]]
        values = np.array([[_scale(result, measure) for result in line] for line in table])
        texts = [[_write_cell(result, measure) for result in line] for line in table]
        name = f"{factors[third]}={title}" if third is not None else ""
        maps.append(HeatMap(name, levels[rows], levels[columns], values, texts))
    seeds = write_counts((result.estimate.n for result in findings.arms if result.estimate is not None), "seed")
    return draw_heat_maps(maps, factors[rows], factors[columns], measure), (
        f"Mean {measure.title}{measure.percent} over {seeds}; ±: standard deviation over seeds. Hatched: no "
        "result, and why; a dash where the study has no such arm."
    )


def _scale(result: ArmResult | None, measure: Measure) -> float:
    return float("nan") if result is None or result.estimate is None else measure.scale * result.estimate.mean


def _write_cell(result: ArmResult | None, measure: Measure) -> str:
    if result is None:
        return "-"
    if result.arm.problem is not None:
        return "invalid"
    if result.estimate is None:
        return next((status for status, runs in result.arm.counts.items() if runs), "missing")
    mean, spread = result.estimate.mean, result.estimate.standard_deviation
    return measure.write_short(mean) + ("" if spread is None else f"\n±{measure.write_short(spread)}")


def _say_why_no_effects(findings: Findings) -> str:
    if len(findings.factors) < 2:
        return "There is one factor: its effects are the differences between the arms."
    return "No two levels of a factor have results that differ in it alone."


NO_PREDICTIONS = "The predictions or the test images of these runs are not at hand."


def show_curves(findings: Findings) -> "Drawn":
    """Shows learning curves with bands, one panel per arm."""
    ended = [result for result in findings.arms if any(record.history for record in result.arm.completed.values())]
    epochs = [len(record.history) for result in ended for record in result.arm.completed.values()]
    if max(epochs, default=0) < 2:
        return None, "No completed run has more than one epoch." if findings.has_networks else ""
    validated = all(_has_validation(result) for result in ended)
    chosen = _choose_arms(findings, ended, MOST_CURVES)
    names = name_arms(findings)
    curves = [_trace(names[result.arm.name], result, validated) for result in chosen]
    base = next((curve for curve in curves if findings.base and curve.name == names[findings.base]), None)
    measured = "validation" if validated else "training"
    note = "" if validated else " It is measured on every training batch before its step."
    if len(chosen) < len(ended):
        note += f" Shown are {len(chosen)} of {len(ended)} arms: the base, then {_name_best(findings)}."
    if min(float(np.nanmin(curve.error)) for curve in curves) < LEAST_ERROR:
        note += f" Errors below {LEAST_ERROR}% are drawn there."
    runs = write_counts((curve.runs for curve in curves), "completed seed")
    return draw_curves(curves, base, measured), (
        f"Mean {measured} error after every epoch, over {runs}. "
        f"Bands: 95% intervals of the mean at each epoch by itself, where there are two runs or more.{note}"
    )


def show_confusions(findings: Findings) -> "Drawn":
    """Shows the confusion matrix of every arm."""
    if findings.images is None:
        return None, NO_PREDICTIONS if findings.has_networks else ""
    known = [result for result in findings.arms if result.arm.name in findings.images.confusions]
    chosen, names = _choose_arms(findings, known, MOST_MATRICES), name_arms(findings)
    matrices = [findings.images.confusions[result.arm.name] for result in chosen]
    figure = draw_confusions([names[result.arm.name] for result in chosen], matrices, findings.images.class_names)
    left_out = len(known) - len(chosen)
    note = f" Shown are {len(chosen)} of {len(known)} arms: the base, then {_name_best(findings)}." if left_out else ""
    seeds = write_counts((len(result.arm.completed) for result in chosen), "seed")
    return figure, (
        f"How often each class (down) is taken for each other (across), summed over {seeds}; "
        f"the grey diagonal is what is right.{note}"
    )


def show_hardest(findings: Findings) -> "Drawn":
    """Shows the test images that most runs get wrong."""
    images = findings.images
    if images is None or images.images is None:
        return None, NO_PREDICTIONS if findings.has_networks else ""
    if not len(images.hardest):
        return None, "Every run gets every test image right."
    figure = draw_hardest(
        images.images,
        [int(index) for index in images.hardest],
        [images.class_names[label] for label in images.labels],
        [images.class_names[guess] for guess in images.guesses],
        [float(share) for share in images.wrong],
    )
    return figure, (
        f"The {len(images.hardest)} of {images.test_size:,} test images that most runs of all arms get wrong: their "
        "number in the test set, their class, the wrong one they are most often taken for, and how many runs miss them."
    )


def _choose_arms(findings: Findings, results: Sequence[ArmResult], most: int) -> list[ArmResult]:
    """Returns the base and the best arms, at most `most` in all, in the study's order."""
    if len(results) <= most:
        return list(results)

    def rank(result: ArmResult) -> tuple[bool, float]:
        sign = findings.rules.measure.sign
        return result.arm.name != findings.base, -sign * result.estimate.mean if result.estimate else math.inf

    chosen = {result.arm.name for result in sorted(results, key=rank)[:most]}
    return [result for result in results if result.arm.name in chosen]


def _name_best(findings: Findings) -> str:
    measure = findings.rules.measure
    return "the most accurate" if measure.is_accuracy else f"those with the best {measure.name}"


def _has_validation(result: ArmResult) -> bool:
    return all(epoch.val_accuracy is not None for record in result.arm.completed.values() for epoch in record.history)


def _trace(name: str, result: ArmResult, validated: bool) -> Curve:
    """Returns the mean error of an arm after every epoch, over the runs that reached that epoch."""
    runs = [
        [epoch.val_accuracy if validated else epoch.accuracy for epoch in record.history]
        for record in result.arm.completed.values()
        if record.history
    ]
    estimates = []
    for epoch in range(max(map(len, runs))):
        values = [run[epoch] for run in runs if len(run) > epoch]
        estimates.append(estimate_score([1 - value for value in values if value is not None]))
    low, high = 100 * np.array([(each.low, each.high) for each in estimates], float).T  # None becomes nan
    return Curve(name, np.array([100 * each.mean for each in estimates]), low, high, len(runs))


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure with its title and caption.

    Attributes:
        title: what it shows.
        caption: what its marks and bars are; without a figure, why there is none.
        figure: the figure; ``None`` if there is nothing to draw.
    """

    title: str
    caption: str
    figure: "Figure | None"


_PICTURES: dict[str, tuple[str, Callable[[Findings], "Drawn"]]] = {
    "differences": ("Differences between arms", show_differences),
    "ranks": ("Ranks over datasets", show_ranks),
    "seeds": ("Runs of the same seed", show_seeds),
    "capacity": ("{} against parameters", show_capacity),
    "variance": ("Shares of the variance", show_variance),
    "effects": ("Main effects", show_effects),
    "interactions": ("Interactions", show_interactions),
    "equal_size": ("Effects at equal size", show_equal_size),
    "heat_maps": ("Factor against factor", show_heat_maps),
    "curves": ("Learning curves", show_curves),
    "confusions": ("Confusions", show_confusions),
    "hardest": ("The hardest images", show_hardest),
}
"""Title, with a place for the measure, and function of every picture by its name, which is also that of its files."""


def draw_all(findings: Findings) -> dict[str, Picture]:
    """Draws every picture of a comparison.

    Args:
        findings: the findings of a comparison.

    Returns:
        The pictures by name, in a fixed order. The caption of a picture that cannot be drawn says why; where that is
        obvious, the picture is left out.
    """
    pictures = {}
    for name, (title, draw) in _PICTURES.items():
        figure, caption = draw(findings)
        if figure is not None or caption:
            pictures[name] = Picture(title.format(capitalize(findings.rules.measure.name)), caption, figure)
    return pictures


def save_pictures(findings: Findings, folder: Path) -> list[Path]:
    """Writes every picture that can be drawn as PNG and as SVG, and returns the paths of the files.

    Args:
        findings: the findings of a comparison.
        folder: the folder of the files, made if it does not exist; files of the same names are replaced.

    Raises:
        InputError: a picture would replace something that is not a file.
        UnavailableError: the folder or a file cannot be written.
    """
    drawn = {name: picture.figure for name, picture in draw_all(findings).items() if picture.figure is not None}
    return save_figures(drawn, folder)
