"""What a comparison of arms found: everything that a report says, in numbers.

`find` runs the statistics over the arms; what is written, drawn or said of them is made from `Findings` alone.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cnnjax.comparison import (
    Contrast,
    Criteria,
    Effect,
    Outcomes,
    Ranks,
    Share,
    adjust_for_size,
    analyze_variance,
    compare_all_pairs,
    compare_in_looks,
    compare_with_base,
    complete,
    estimate_effects,
    interquartile_mean,
    pareto_front,
)
from cnnjax.errors import InputError
from cnnjax.estimates import Estimate, estimate_accuracy
from cnnjax.reports.arms import LOST, Arm, Measure
from cnnjax.reports.predictions import ImageFindings, split_by_contrast
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
        contrasts: the comparisons that could be made.
        uncompared: why an arm that was to be compared could not be, by its name; it counts in the family all the same.
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
    uncompared: Mapping[str, str] = field(default_factory=dict)
    images: ImageFindings | None = None
    provenance: tuple[str, ...] = ()
    remarks: tuple[str, ...] = field(default=())

    def arm(self, name: str) -> ArmResult:
        """Returns the arm of this name."""
        return next(result for result in self.arms if result.arm.name == name)

    def show(self, names: Collection[str]) -> "Findings":
        """Returns the findings with these arms and their comparisons alone, judged as the members of the family of all.

        What is said of factors stays over all arms.

        Raises:
            InputError: there are fewer than two of them.
        """
        if len(names) < 2:
            raise InputError(f"{len(names)} arm: nothing to compare; must be at least two")
        if len(names) == len(self.arms):
            return self
        remark = f"{len(names)} of {len(self.arms)} arms are shown; verdicts and factors are those of all"
        return replace(
            self,
            arms=tuple(result for result in self.arms if result.arm.name in names),
            contrasts=tuple(each for each in self.contrasts if each.first in names and each.second in names),
            uncompared={name: why for name, why in self.uncompared.items() if name in names},
            remarks=(*self.remarks, remark),
        )


def find(
    arms: Sequence[Arm],
    base: str | None,
    rules: Rules,
    *,
    title: str,
    facts: Sequence[str] = (),
    command: str = "",
    resolution: float | None = None,
    chance: float = 0.0,
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
        chance: the accuracy of guessing, the least that lost runs count as.
        seeds: with `rules.looks`, all that may be run, in their order.

    Raises:
        InputError: there are fewer than two arms, no such base, it has no result, or an argument is out of range.
    """
    if len(arms) < 2:
        raise InputError(f"{len(arms)} arm: nothing to compare; must be at least two")
    values = {arm.name: accuracies for arm in arms if (accuracies := arm.measure(rules.measure))}
    if base is not None and base not in values:
        raise InputError(f"baseline {base}: has no completed run with a {rules.measure} accuracy")
    family = {arm.name: arm.outcomes(rules.measure) for arm in arms if arm.problem is None}
    factors = tuple(dict.fromkeys(factor for arm in arms for factor in arm.labels))
    planned = {tuple(arm.labels[factor] for factor in factors): arm for arm in arms if arm.name in family}
    outcomes = {
        cell: _keep_first(family[arm.name], seeds[: rules.looks[0]] if rules.looks else ())
        for cell, arm in planned.items()
    }
    cells = {cell: known for cell, found in outcomes.items() if (known := complete(found))}
    references = None if base is None else next(arm.labels for arm in arms if arm.name == base)
    several = len({arm.labels.get("data.name") for arm in arms}) > 1
    sizes = {cell: arm.parameters or 0 for cell, arm in planned.items()}
    main, interactions = (
        estimate_effects(
            factors, outcomes, order, references=references, criteria=rules, resolution=resolution, chance=chance
        )
        if len(factors) > 1 and not several
        else ()
        for order in (1, 2)
    )
    contrasts = () if several else _contrast(arms, family, base, rules, resolution, chance, seeds)
    uncompared = {} if several else dict(_list_uncompared(arms, base, contrasts, rules, seeds))
    return Findings(
        title=title,
        facts=tuple(facts),
        command=command,
        rules=rules,
        factors=factors,
        arms=_describe(arms, values, resolution, has_front=not several),
        base=base,
        contrasts=contrasts,
        uncompared=uncompared,
        shares=analyze_variance(factors, cells) if len(factors) > 1 and not several else (),
        effects=main,
        interactions=interactions,
        at_equal_size=()
        if several
        else adjust_for_size(factors, outcomes, sizes, references=references, criteria=rules),
        ranks=rank_over_datasets(arms, values, rules.alpha) if several else None,
        images=images and split_by_contrast(images, contrasts),
        provenance=tuple(provenance),
        remarks=(*remarks, *(f"not compared: {name}: {why}" for name, why in uncompared.items())),
    )


def _keep_first(values: Outcomes, seeds: Sequence[int]) -> Outcomes:
    """Returns the values of the seeds, or all of them where none are given: factors are judged at the first look."""
    return {seed: value for seed, value in values.items() if seed in seeds} if seeds else values


def _list_uncompared(
    arms: Sequence[Arm], base: str | None, contrasts: Sequence[Contrast], rules: Rules, seeds: Sequence[int]
) -> Iterator[tuple[str, str]]:
    """Yields the name of every arm that can exist and is in no comparison, and why."""
    compared = {name for contrast in contrasts for name in (contrast.first, contrast.second)}
    for arm in arms:
        if arm.name not in compared and arm.name != base and arm.problem is None:
            lost = {status: arm.counts[status] for status in LOST if arm.counts[status]}
            what = " and ".join(f"{count} {status}" for status, count in lost.items())
            hint = "; --retry-failed runs again what has failed" if rules.looks and "failed" in lost else ""
            if sum(lost.values()) == arm.counts.total():
                why = f"all {what}" if len(lost) == 1 else f"{what}, none completed"
            elif rules.looks and not set(seeds[: rules.looks[0]]) <= set(arm.ended):
                why = f"before its first look, at {rules.looks[0]} seeds"
            else:
                why = "no seed completed" + (" that the baseline has completed, too" if base else "")
            yield arm.name, f"{why}{hint}"


def _contrast(
    arms: Sequence[Arm],
    family: Mapping[str, Outcomes],
    base: str | None,
    rules: Rules,
    resolution: float | None,
    chance: float,
    seeds: Sequence[int],
) -> tuple[Contrast, ...]:
    """Compares arms, as members of the family of all that can be run, whatever has a value by now."""
    if base is None:
        arms_with_values = sum(bool(complete(outcomes)) for outcomes in family.values())
        if arms_with_values > MOST_FOR_PAIRS:
            raise InputError(
                f"{arms_with_values} arms: all pairs are compared of at most {MOST_FOR_PAIRS}; choose a base"
            )
        return compare_all_pairs(family, rules, resolution=resolution, chance=chance)
    if not rules.looks:
        return compare_with_base(family, base, rules, resolution=resolution, chance=chance)
    ended = {arm.name: arm.ended for arm in arms}
    return compare_in_looks(family, base, ended, seeds, rules.looks, rules, resolution=resolution, chance=chance)


def _describe(
    arms: Sequence[Arm], values: Mapping[str, Mapping[int, float]], resolution: float | None, has_front: bool
) -> tuple[ArmResult, ...]:
    means = {name: estimate_accuracy(accuracies.values(), resolution=resolution) for name, accuracies in values.items()}
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
