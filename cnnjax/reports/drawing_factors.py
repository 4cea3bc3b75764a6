"""Pictures of the factors: shares of the variance, effects, interactions, effects at equal size, and heat maps."""

from typing import TYPE_CHECKING

import numpy as np

from cnnjax.figures.effects import FactorEffects, draw_main_effects, draw_shares
from cnnjax.figures.forest import draw_forest
from cnnjax.figures.heatmaps import HeatMap, draw_heat_maps
from cnnjax.reports.drawing_arms import MOST_ROWS, describe_bars
from cnnjax.reports.findings import ArmResult, Findings
from cnnjax.reports.names import count, list_levels, name_effect, shorten_level
from cnnjax.setting_paths import shorten_paths

if TYPE_CHECKING:
    from cnnjax.reports.drawing_arms import Drawn

MOST_MAPS, MOST_CELLS = 6, 20
"""Heat maps beside each other; rows or columns of one."""


def draw_variance(findings: Findings) -> "Drawn":
    """Draws what share of the variance each factor and interaction explains."""
    if not findings.shares:
        return None, "One factor alone, or runs without a spread, leave no variance to be divided."
    factors = shorten_paths(findings.factors)
    shares = sorted(findings.shares[:MOST_ROWS], key=lambda share: -share.partial)
    names = [" x ".join(factors[factor] for factor in share.factors) for share in shares]
    return draw_shares(names, shares), (
        "Partial omega squared: of the variance that the other terms leave, the share that each factor or interaction "
        "(x) explains. Lines: 95% intervals, from the noncentrality of F."
    )


def draw_effects(findings: Findings) -> "Drawn":
    """Draws the main effects, a panel for every factor."""
    if not findings.effects:
        return None, _explain_lack(findings)
    factors = shorten_paths(findings.factors)
    panels = []
    for factor in findings.factors:
        effects = [effect for effect in findings.effects if effect.factors == (factor,)]
        if effects:
            found = {effects[0].references[0]: None, **{effect.labels[0]: effect.contrast for effect in effects}}
            order = [label for label in list_levels(findings, factor) if label in found]
            panels.append(FactorEffects(factors[factor], {label: found[label] for label in order}))
    contrasts = [effect.contrast for effect in findings.effects]
    return draw_main_effects(panels, findings.rules.margin), (
        "Effect of every level against that of the diamond, averaged over the combinations of the other "
        f"factors that have both ({count((e.combinations for e in findings.effects), 'combination')}), over "
        f"{count((each.comparison.n for each in contrasts), 'seed')}. {describe_bars(contrasts)}"
    )


def draw_crossings(findings: Findings) -> "Drawn":
    """Draws the interactions of every two factors with their intervals, the clearest first."""
    if not findings.interactions:
        return None, _explain_lack(findings)
    ranked = sorted(findings.interactions, key=lambda effect: effect.contrast.adjusted_p or 0)
    shown = [effect.contrast for effect in ranked[:MOST_ROWS]]
    note = f" Shown are {len(shown)} of {len(ranked)}; the table has all." if len(shown) < len(ranked) else ""
    figure = draw_forest([name_effect(findings, effect) for effect in ranked[:MOST_ROWS]], shown, findings.rules.margin)
    return figure, (
        "How much more one change of level brings where the other (x) is made as well; at zero, neither depends on "
        f"the other. {describe_bars(shown)} Grey ticks are single seeds; an arrow stands for a mean outside the "
        f"picture.{note}"
    )


def draw_at_equal_size(findings: Findings) -> "Drawn":
    """Draws the effects of levels at equal numbers of parameters."""
    if not findings.at_equal_size:
        return None, "The levels determine the number of parameters, so the two cannot be told apart."
    shown = findings.at_equal_size[:MOST_ROWS]
    factors = shorten_paths(findings.factors)
    names = [f"{shorten_level(each.first, factors)} less {shorten_level(each.second, factors)}" for each in shown]
    return draw_forest(names, shown, findings.rules.margin), (
        "Effect of every level when the logarithm of the number of parameters has explained what it can, over "
        f"{count((each.comparison.n for each in shown), 'seed')}. {describe_bars(shown)}"
    )


def draw_maps(findings: Findings) -> "Drawn":
    """Draws one factor against another, and a map for every level of a third."""
    levels = {factor: list_levels(findings, factor) for factor in findings.factors}
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
    factors = shorten_paths(findings.factors)
    maps = []
    for title in titles:
        cells = {
            (result.arm.labels[rows], result.arm.labels[columns]): result
            for result in findings.arms
            if third is None or result.arm.labels[third] == title
        }
        table = [[cells.get((row, column)) for column in levels[columns]] for row in levels[rows]]
        values = np.array([[_percent(result) for result in line] for line in table])
        texts = [[_write_cell(result) for result in line] for line in table]
        name = f"{factors[third]}={title}" if third is not None else ""
        maps.append(HeatMap(name, levels[rows], levels[columns], values, texts))
    seeds = count((result.estimate.n for result in findings.arms if result.estimate is not None), "seed")
    return draw_heat_maps(maps, factors[rows], factors[columns]), (
        f"Mean {findings.rules.measure} accuracy in % over {seeds}; ±: standard deviation over seeds. Hatched: no "
        "result, and why; a dash where the study has no such arm."
    )


def _percent(result: ArmResult | None) -> float:
    return float("nan") if result is None or result.estimate is None else 100 * result.estimate.mean


def _write_cell(result: ArmResult | None) -> str:
    if result is None:
        return "-"
    if result.arm.problem is not None:
        return "invalid"
    if result.estimate is None:
        return next(iter(result.arm.counts), "missing")
    spread = result.estimate.standard_deviation
    return f"{100 * result.estimate.mean:.2f}" + ("" if spread is None else f"\n±{100 * spread:.2f}")


def _explain_lack(findings: Findings) -> str:
    if len(findings.factors) < 2:
        return "There is one factor: its effects are the differences between the arms."
    return "No two levels of a factor have results that differ in it alone."
