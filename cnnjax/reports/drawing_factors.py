"""Pictures of the factors: shares of the variance, effects, interactions, effects at equal size, and heat maps."""

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from cnnjax.figures.effects import (
    MOST_LINES,
    Crossing,
    FactorEffects,
    draw_interactions,
    draw_main_effects,
    draw_shares,
)
from cnnjax.figures.forest import draw_forest
from cnnjax.figures.heatmaps import HeatMap, draw_heat_maps
from cnnjax.reports.drawing_arms import MOST_ROWS, describe_bars
from cnnjax.reports.findings import ArmResult, Findings
from cnnjax.reports.names import count, list_levels, shorten_factors

if TYPE_CHECKING:
    from cnnjax.reports.drawing_arms import Drawn

MOST_CROSSINGS, MOST_MAPS, MOST_CELLS = 10, 6, 20
"""Pairs of factors; heat maps beside each other; rows or columns of one."""


def draw_variance(findings: Findings) -> "Drawn":
    """Draws what share of the variance each factor and interaction explains."""
    if not findings.shares:
        return None, "One factor alone, or runs without a spread, leave no variance to be divided."
    factors = shorten_factors(findings.factors)
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
    factors = shorten_factors(findings.factors)
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
    """Draws mean accuracies over two factors, for every two."""
    if not findings.effects:
        return None, _explain_lack(findings)
    pairs = list(combinations(findings.factors, 2))
    ranked = {frozenset(share.factors): rank for rank, share in enumerate(findings.shares)}
    shown = sorted(pairs, key=lambda pair: ranked.get(frozenset(pair), len(ranked)))[:MOST_CROSSINGS]
    crossings = [_cross(findings, *pair) for pair in sorted(shown, key=pairs.index)]
    note = f" Shown are the {len(shown)} strongest of {len(pairs)} pairs." if len(shown) < len(pairs) else ""
    if any(len(list_levels(findings, factor)) > MOST_LINES for pair in shown for factor in pair):
        note += f" A factor has at most {MOST_LINES} lines."
    return draw_interactions(crossings), (
        f"Mean {findings.rules.measure} accuracy over the levels of one factor, a line for each level of another. "
        "Parallel lines: no interaction. Means are over those combinations of the other factors that have results for "
        f"most of what is drawn. There are no bars; the table of interactions has the intervals.{note}"
    )


def draw_at_equal_size(findings: Findings) -> "Drawn":
    """Draws the effects of levels at equal numbers of parameters."""
    if not findings.at_equal_size:
        return None, "The levels determine the number of parameters, so the two cannot be told apart."
    shown = findings.at_equal_size[:MOST_ROWS]
    factors = shorten_factors(findings.factors)
    names = [f"{_shorten(each.first, factors)} less {_shorten(each.second, factors)}" for each in shown]
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
    factors = shorten_factors(findings.factors)
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
        f"Mean {findings.rules.measure} accuracy in % over {seeds}; ±: standard deviation over seeds. Grey: no "
        "result, and why; a dash where the study has no such arm."
    )


def _cross(findings: Findings, factor: str, other: str) -> Crossing:
    """Returns the means over two factors, of those combinations of the rest that most cells have."""
    if len(list_levels(findings, factor)) < len(list_levels(findings, other)):
        factor, other = other, factor
    rest = [each for each in findings.factors if each not in (factor, other)]
    across, along = list_levels(findings, factor), list_levels(findings, other)[:MOST_LINES]
    found: dict[tuple[str, ...], dict[tuple[str, str], float]] = {}
    for result in findings.arms:
        labels = result.arm.labels
        if result.estimate is not None and labels[other] in along:
            block = found.setdefault(tuple(labels[each] for each in rest), {})
            block[labels[factor], labels[other]] = result.estimate.mean
    fullest = max(map(len, found.values()), default=0)
    blocks = [block for block in found.values() if len(block) == fullest]
    factors = shorten_factors(findings.factors)
    lines = {label: [_average(blocks, (level, label)) for level in across] for label in along}
    return Crossing(factors[factor], across, factors[other], lines, len(blocks) if rest else 0)


def _average(blocks: list[dict[tuple[str, str], float]], cell: tuple[str, str]) -> float:
    found = [block[cell] for block in blocks if cell in block]
    return float(np.mean(found)) if found else float("nan")


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


def _shorten(level: str, factors: dict[str, str]) -> str:
    factor, equals, label = level.partition("=")
    return f"{factors.get(factor, factor)}{equals}{label}"


def _explain_lack(findings: Findings) -> str:
    if len(findings.factors) < 2:
        return "There is one factor: its effects are the differences between the arms."
    return "No two levels of a factor have results that differ in it alone."
