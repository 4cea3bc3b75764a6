"""What a comparison of arms found: everything that a report says, in numbers.

`find` runs the statistics over the arms; what is written, drawn or said of them is made from `Findings` alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cnnjax.comparison import (
    Contrast,
    Effect,
    Ranks,
    Share,
    adjust_for_size,
    analyze_variance,
    compare_all_pairs,
    compare_in_looks,
    compare_with_base,
    estimate_effects,
    interquartile_mean,
    pareto_front,
)
from cnnjax.comparison.anova import Cells
from cnnjax.comparison.verdicts import MARGIN
from cnnjax.errors import InputError
from cnnjax.estimates import Estimate, estimate_mean
from cnnjax.reports.arms import Arm, Measure
from cnnjax.reports.predictions import ImageFindings
from cnnjax.reports.ranking import rank_over_datasets


@dataclass(frozen=True)
class Rules:
    """By what the arms are judged.

    Attributes:
        measure: the accuracy that is compared.
        alpha: probability of any false claim of a difference, and of any false claim of equivalence.
        margin: differences of accuracy below it make no difference.
        power: with which the seeds that are planned decide.
        looks: numbers of seeds at which the comparison is made, where more are run for undecided arms; else nothing.
    """

    measure: Measure = "test"
    alpha: float = 0.05
    margin: float = MARGIN
    power: float = 0.8
    looks: tuple[int, ...] = ()


@dataclass(frozen=True)
class ArmResult:
    """What is known of an arm by itself.

    Attributes:
        arm: the arm.
        accuracies: by seed.
        estimate: their mean with its interval; ``None`` where there is none.
        interquartile_mean: of them; ``None`` likewise.
        on_front: whether no network of as few parameters has a mean as high.
    """

    arm: Arm
    accuracies: Mapping[int, float]
    estimate: Estimate | None
    interquartile_mean: float | None
    on_front: bool


@dataclass(frozen=True)
class Findings:
    """All that a comparison found.

    Attributes:
        title: the question.
        facts: short texts that say what was compared: study, seeds, dataset, epochs.
        command: that makes this report again.
        rules: by what the arms are judged.
        factors: in the study's order.
        arms: in the study's order.
        base: name of the arm that the others are compared with; ``None`` where all pairs are.
        contrasts: the comparisons.
        shares: of the variance, by factor and interaction; empty for a single factor or without a complete model.
        effects, interactions: of levels, over all cells that have them.
        at_equal_size: effects of levels adjusted for log parameters; empty where size and levels go together.
        ranks: over datasets; ``None`` where there is one dataset.
        images: what single test images tell; ``None`` where predictions or images are not at hand.
        provenance: lines about what made the results, and whether that was one place.
        remarks: what else must be said.
    """

    title: str
    facts: tuple[str, ...]
    command: str
    rules: Rules
    factors: tuple[str, ...]
    arms: tuple[ArmResult, ...]
    base: str | None
    contrasts: tuple[Contrast, ...]
    shares: tuple[Share, ...] = ()
    effects: tuple[Effect, ...] = ()
    interactions: tuple[Effect, ...] = ()
    at_equal_size: tuple[Contrast, ...] = ()
    ranks: tuple[tuple[str, ...], Ranks] | None = None
    images: ImageFindings | None = None
    provenance: tuple[str, ...] = ()
    remarks: tuple[str, ...] = field(default=())

    def arm(self, name: str) -> ArmResult:
        """Returns the arm of this name."""
        return next(result for result in self.arms if result.arm.name == name)


def find(
    arms: Sequence[Arm],
    base: str | None,
    rules: Rules,
    *,
    title: str,
    facts: Sequence[str] = (),
    command: str = "",
    resolution: float | None = None,
    images: ImageFindings | None = None,
    provenance: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> Findings:
    """Compares arms in every way that they allow.

    Args:
        arms: at least two, of one study.
        base: name of the one that the others are compared with; ``None`` compares all pairs.
        rules: by what they are judged.
        title, facts, command, provenance, remarks, images: as in `Findings`.
        resolution: the step of the accuracies; ``None`` where it is not known.

    Raises:
        InputError: there is no such base, it has no result, or an argument is out of range.
    """
    values = {arm.name: accuracies for arm in arms if (accuracies := arm.measure(rules.measure))}
    if base is not None and base not in values:
        raise InputError(f"baseline {base}: has no completed run with a {rules.measure} accuracy")
    factors = tuple(dict.fromkeys(factor for arm in arms for factor in arm.labels))
    cells = {tuple(arm.labels[factor] for factor in factors): values[arm.name] for arm in arms if arm.name in values}
    references = None if base is None else next(arm.labels for arm in arms if arm.name == base)
    several = len({arm.labels.get("data.name") for arm in arms}) > 1
    sizes = {tuple(arm.labels[factor] for factor in factors): arm.parameters or 0 for arm in arms if arm.name in values}
    main, interactions = (
        _estimate(factors, cells, order, references, rules, resolution) if len(factors) > 1 else () for order in (1, 2)
    )
    return Findings(
        title=title,
        facts=tuple(facts),
        command=command,
        rules=rules,
        factors=factors,
        arms=_describe(arms, values),
        base=base,
        contrasts=() if several else _contrast(arms, values, base, rules, resolution),
        shares=analyze_variance(factors, cells) if len(factors) > 1 else (),
        effects=main,
        interactions=interactions,
        at_equal_size=adjust_for_size(
            factors, cells, sizes, references=references, alpha=rules.alpha, margin=rules.margin, power=rules.power
        ),
        ranks=rank_over_datasets(arms, values, rules.alpha) if several else None,
        images=images,
        provenance=tuple(provenance),
        remarks=tuple(remarks),
    )


def _estimate(
    factors: Sequence[str],
    cells: Cells,
    order: int,
    references: Mapping[str, str] | None,
    rules: Rules,
    resolution: float | None,
) -> tuple[Effect, ...]:
    return estimate_effects(
        factors,
        cells,
        order,
        references=references,
        alpha=rules.alpha,
        margin=rules.margin,
        power=rules.power,
        resolution=resolution,
    )


def _contrast(
    arms: Sequence[Arm],
    values: Mapping[str, Mapping[int, float]],
    base: str | None,
    rules: Rules,
    resolution: float | None,
) -> tuple[Contrast, ...]:
    judged = (rules.alpha, rules.margin, rules.power)
    if base is None:
        return compare_all_pairs(values, *judged, resolution=resolution)
    if not rules.looks:
        return compare_with_base(values, base, *judged, resolution=resolution)
    ended = {arm.name: arm.ended for arm in arms}
    seeds = max((arm.seeds for arm in arms), key=len)
    return compare_in_looks(values, base, ended, seeds, rules.looks, *judged, resolution=resolution)


def _describe(arms: Sequence[Arm], values: Mapping[str, Mapping[int, float]]) -> tuple[ArmResult, ...]:
    means = {name: estimate_mean(accuracies.values()) for name, accuracies in values.items()}
    sized = [arm for arm in arms if arm.name in means and arm.parameters is not None]
    front = pareto_front([arm.parameters or 0 for arm in sized], [means[arm.name].mean for arm in sized])
    on_front = {sized[index].name for index in front}
    return tuple(
        ArmResult(
            arm,
            values.get(arm.name, {}),
            means.get(arm.name),
            interquartile_mean(values[arm.name].values()) if arm.name in values else None,
            arm.name in on_front,
        )
        for arm in arms
    )
