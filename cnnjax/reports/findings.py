"""What a comparison of arms found: everything that a report says, in numbers.

`find` runs the statistics over the arms; what is written, drawn or said of them is made from `Findings` alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cnnjax.comparison import (
    Contrast,
    Criteria,
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
from cnnjax.errors import InputError
from cnnjax.estimates import Estimate, estimate_mean
from cnnjax.reports.arms import Arm, Measure
from cnnjax.reports.predictions import ImageFindings
from cnnjax.reports.ranking import rank_over_datasets

MOST_FOR_PAIRS = 60
"""Arms of which all pairs are compared: 1,770, which a reader can no longer take in."""


@dataclass(frozen=True)
class Rules(Criteria):
    """By what the arms are judged: the criteria, and what they are applied to.

    Attributes:
        measure: the accuracy that is compared.
        looks: numbers of seeds at which the comparison is made, where more are run for undecided arms; else nothing.
    """

    measure: Measure = "test"
    looks: tuple[int, ...] = ()


@dataclass(frozen=True)
class ArmResult:
    """What is known of an arm by itself.

    Attributes:
        arm: the arm.
        accuracies: by seed.
        estimate: their mean with its interval; ``None`` where there is none.
        interquartile_mean: of them; ``None`` likewise.
        on_front: whether no network of as few parameters has a mean as high; of one dataset.
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
    seeds: Sequence[int] = (),
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
        seeds: with `rules.looks`, all that may be run, in their order.

    Raises:
        InputError: there are fewer than two arms, no such base, it has no result, or an argument is out of range.
    """
    if len(arms) < 2:
        raise InputError(f"{len(arms)} arm: nothing to compare; must be at least two")
    values = {arm.name: accuracies for arm in arms if (accuracies := arm.measure(rules.measure))}
    if base is not None and base not in values:
        raise InputError(f"baseline {base}: has no completed run with a {rules.measure} accuracy")
    factors = tuple(dict.fromkeys(factor for arm in arms for factor in arm.labels))
    planned = {tuple(arm.labels[factor] for factor in factors): arm for arm in arms if arm.name in values}
    cells = {
        cell: _keep_first(values[arm.name], seeds[: rules.looks[0]] if rules.looks else ())
        for cell, arm in planned.items()
    }
    references = None if base is None else next(arm.labels for arm in arms if arm.name == base)
    several = len({arm.labels.get("data.name") for arm in arms}) > 1
    sizes = {cell: arm.parameters or 0 for cell, arm in planned.items()}
    main, interactions = (
        estimate_effects(factors, cells, order, references=references, criteria=rules, resolution=resolution)
        if len(factors) > 1 and not several
        else ()
        for order in (1, 2)
    )
    contrasts = () if several else _contrast(arms, values, base, rules, resolution, seeds)
    return Findings(
        title=title,
        facts=tuple(facts),
        command=command,
        rules=rules,
        factors=factors,
        arms=_describe(arms, values, has_front=not several),
        base=base,
        contrasts=contrasts,
        shares=analyze_variance(factors, cells) if len(factors) > 1 and not several else (),
        effects=main,
        interactions=interactions,
        at_equal_size=() if several else adjust_for_size(factors, cells, sizes, references=references, criteria=rules),
        ranks=rank_over_datasets(arms, values, rules.alpha) if several else None,
        images=images,
        provenance=tuple(provenance),
        remarks=(*remarks, *_remark(arms, base, contrasts, rules)),
    )


def _keep_first(values: Mapping[int, float], seeds: Sequence[int]) -> Mapping[int, float]:
    """Returns the values of the seeds, or all of them where none are given: factors are judged at the first look."""
    return {seed: value for seed, value in values.items() if seed in seeds} if seeds else values


def _remark(arms: Sequence[Arm], base: str | None, contrasts: Sequence[Contrast], rules: Rules) -> Iterator[str]:
    compared = {name for contrast in contrasts for name in (contrast.first, contrast.second)}
    left_out = [arm.name for arm in arms if arm.name not in compared and arm.name != base and arm.problem is None]
    if rules.looks and left_out:
        first = rules.looks[0]
        failed = any(arm.counts["failed"] for arm in arms if arm.name in (*left_out, base))
        hint = "; --retry-failed runs again what has failed" if failed else ""
        yield f"before the first look, at {first} seeds, of both arms: {'; '.join(left_out)}{hint}"


def _contrast(
    arms: Sequence[Arm],
    values: Mapping[str, Mapping[int, float]],
    base: str | None,
    rules: Rules,
    resolution: float | None,
    seeds: Sequence[int],
) -> tuple[Contrast, ...]:
    if base is None:
        if len(values) > MOST_FOR_PAIRS:
            raise InputError(f"{len(values)} arms: all pairs are compared of at most {MOST_FOR_PAIRS}; choose a base")
        return compare_all_pairs(values, rules, resolution=resolution)
    if not rules.looks:
        return compare_with_base(values, base, rules, resolution=resolution)
    # The family is all that can be run, whatever has a value by now.
    family = {arm.name: arm.measure(rules.measure) for arm in arms if arm.problem is None}
    ended = {arm.name: arm.ended for arm in arms}
    return compare_in_looks(family, base, ended, seeds, rules.looks, rules, resolution=resolution)


def _describe(arms: Sequence[Arm], values: Mapping[str, Mapping[int, float]], has_front: bool) -> tuple[ArmResult, ...]:
    means = {name: estimate_mean(accuracies.values()) for name, accuracies in values.items()}
    sized = [arm for arm in arms if has_front and arm.name in means and arm.parameters is not None]
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
