"""The findings of a comparison in numbers: arms, differences, effects of factors, ranks and single images.

`compare_stored_arms` reads what is stored of the runs; `compare_arms` computes the findings.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cnnjax.errors import InputError
from cnnjax.reports.arms import (
    WITHOUT_SCORE,
    Arm,
    complete_measure,
    count_origins,
    describe_origins,
    find_training_draws,
)
from cnnjax.reports.images import ImageFindings, add_noise, load_image_findings
from cnnjax.reports.rules import Rules
from cnnjax.runs.store import Store
from cnnjax.statistics import (
    Contrast,
    DatasetContrast,
    Effect,
    Measure,
    Outcomes,
    Ranks,
    Rate,
    Share,
    TrainingDraw,
    VarianceSplit,
    WiderVerdict,
    adjust_for_size,
    analyze_variance,
    compare_all_pairs,
    compare_in_looks,
    compare_over_datasets,
    compare_with_baseline,
    complete,
    decide_for_new_training,
    estimate_effects,
    estimate_rate,
    interquartile_mean,
    mark_collapsed,
    pareto_front,
    rank_arms,
    split_variance,
)
from cnnjax.statistics.estimates import Estimate, estimate_score
from cnnjax.statistics.losses import find_collapsed

DATASET = "data.name"
MOST_FOR_PAIRS = 60
"""Largest number of arms of which all pairs are compared; 1,770 pairs are more than a reader can take in."""


@dataclass(frozen=True)
class ArmResult:
    """An arm with its scores.

    Attributes:
        arm: the arm.
        scores: the values of the measure of its completed runs by seed.
        estimate: the mean of those that trained, or of all if none did, with its interval; ``None`` without any.
        interquartile_mean: the mean of their middle half; ``None`` without any.
        on_front: whether it is on the Pareto front of parameters and mean score.
        at_chance: the seeds of completed runs that are not shown to do better than guessing.
        rate: how many of its runs collapsed: those at chance, and those that diverged.
    """

    arm: Arm
    scores: Mapping[int, float]
    estimate: Estimate | None
    interquartile_mean: float | None
    on_front: bool
    at_chance: tuple[int, ...]
    rate: Rate


@dataclass(frozen=True)
class Findings:
    """The findings of a comparison in numbers; a `Comparison` shows them.

    Attributes:
        title: the question.
        facts: short texts that say what was compared: study, seeds, dataset, epochs.
        command: the command that makes this report again.
        rules: the rules of the comparison.
        factors: the factors, in the study's order.
        arms: the arms, in the study's order.
        base: the name of the arm that the others are compared with; ``None`` if all pairs are compared.
        contrasts: the comparisons that could be made.
        uncompared: by arm, why it could not be compared; it still counts in the family.
        shares: the shares of the variance by factor and interaction; empty for a single factor, or where the runs
            do not determine them.
        split: the variance between runs, divided among the factors, the seed and the rest; ``None`` where `shares` is
            empty.
        effects, interactions: the effects of levels, averaged over the cells that have them.
        at_equal_size: the effects of levels adjusted for the log of parameters; empty if both go together.
        over_datasets: the comparisons of arms that differ in more than the dataset, over all datasets; empty for one.
        ranks: the names of the arms and their mean ranks over datasets; ``None`` for one dataset.
        images: what single test images show; ``None`` if predictions or images are not at hand.
        draws: by arm, how its seeds draw their training images; arms that have the same for all seeds are absent.
        new_training: by the two arms of a comparison, the verdict for new training images, where both draw alike.
        provenance: lines about the machine and the versions that made the results.
        remarks: further lines for the reader.
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
    split: VarianceSplit | None = None
    effects: tuple[Effect, ...] = ()
    interactions: tuple[Effect, ...] = ()
    at_equal_size: tuple[Contrast, ...] = ()
    over_datasets: tuple[DatasetContrast, ...] = ()
    ranks: tuple[tuple[str, ...], Ranks] | None = None
    uncompared: Mapping[str, str] = field(default_factory=dict)
    images: ImageFindings | None = None
    draws: Mapping[str, TrainingDraw] = field(default_factory=dict)
    new_training: Mapping[tuple[str, str], WiderVerdict] = field(default_factory=dict)
    provenance: tuple[str, ...] = ()
    remarks: tuple[str, ...] = field(default=())

    @property
    def has_sizes(self) -> bool:
        """Whether the size of any network is known."""
        return any(result.arm.parameters is not None for result in self.arms)

    @property
    def has_collapses(self) -> bool:
        """Whether any run collapsed."""
        return any(result.rate.collapsed for result in self.arms)

    @property
    def has_networks(self) -> bool:
        """Whether the runs may have trained networks: they are not calls of a trial function."""
        return not any(result.arm.config and result.arm.config.trial for result in self.arms)

    def arm(self, name: str) -> ArmResult:
        """Returns the arm of this name."""
        return next(result for result in self.arms if result.arm.name == name)

    def list_labels(self, factor: str) -> list[str]:
        """Returns the labels of a factor's levels, in the study's order."""
        return list(dict.fromkeys(result.arm.labels[factor] for result in self.arms))

    def restrict(self, names: Collection[str]) -> "Findings":
        """Returns the findings with these arms alone; verdicts and effects of factors stay those of all arms.

        Raises:
            InputError: fewer than two arms are named.
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


def compare_stored_arms(
    arms: Sequence[Arm],
    base: str | None,
    rules: Rules,
    store: Store,
    *,
    title: str,
    facts: Sequence[str],
    command: str,
    seeds: Sequence[int] = (),
    remarks: Sequence[str] = (),
    shown: Collection[str] | None = None,
) -> Findings:
    """Compares arms whose runs are stored: their scores, and their predictions for single test images.

    Args:
        arms: at least two, of one study: all of them are the family that verdicts are for.
        base: name of the arm that the others are compared with; ``None`` compares all pairs.
        rules: the rules of the comparison.
        store: the store of their runs.
        title, facts, command, remarks: as in `Findings`.
        seeds: with `rules.looks`, all seeds that may be run, in their order.
        shown: names of the arms to show, the base among them; left out, all.

    Raises:
        InputError: fewer than two arms are shown, the base has no result, or a rule is out of range.
        CorruptionError: the store cannot be read.
    """
    names = {arm.name for arm in arms} if shown is None else shown
    images, notes = load_image_findings([arm for arm in arms if arm.name in names], base, store, rules.measure)
    findings = compare_arms(
        arms,
        base,
        replace(rules, measure=complete_measure(rules.measure, arms)),
        title=title,
        facts=facts,
        command=command,
        seeds=seeds,
        images=images,
        draws=find_training_draws(arms),
        provenance=describe_origins(count_origins(record for arm in arms for record in arm.records.values())),
        remarks=(*remarks, *notes),
    )
    return findings.restrict(names)


def compare_arms(
    arms: Sequence[Arm],
    base: str | None,
    rules: Rules,
    *,
    title: str,
    facts: Sequence[str] = (),
    command: str = "",
    seeds: Sequence[int] = (),
    images: ImageFindings | None = None,
    draws: Mapping[str, TrainingDraw] | None = None,
    provenance: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> Findings:
    """Compares arms in every way that their design allows; reads nothing but the arms.

    Args:
        arms: at least two, of one study.
        base: name of the arm that the others are compared with; ``None`` compares all pairs.
        rules: the rules of the comparison.
        title, facts, command, provenance, remarks, images, draws: as in `Findings`.
        seeds: with `rules.looks`, all seeds that may be run, in their order.

    Raises:
        InputError: there are fewer than two arms, no such base, it has no result, no run of an arm has a value of the
            measure, or an argument is out of range.
    """
    if len(arms) < 2:
        raise InputError(f"{len(arms)} arm: nothing to compare; must be at least two")
    measure = rules.measure
    arms = [arm.judge(measure) for arm in arms]
    values = {arm.name: scores for arm in arms if (scores := arm.scores(measure))}
    if base is not None and base not in values:
        raise InputError(f"baseline {base}: has no completed run with a {measure.title}")
    family = {arm.name: arm.outcomes(measure) for arm in arms if arm.problem is None}
    factors = tuple(dict.fromkeys(factor for arm in arms for factor in arm.labels))
    planned = {tuple(arm.labels[factor] for factor in factors): arm for arm in arms if arm.name in family}
    outcomes = {
        cell: _keep_first(family[arm.name], seeds[: rules.looks[0]] if rules.looks else ())
        for cell, arm in planned.items()
    }
    cells = {cell: known for cell, found in outcomes.items() if (known := _keep_typical(found, measure))}
    references = None if base is None else next(arm.labels for arm in arms if arm.name == base)
    several = len({arm.labels.get("data.name") for arm in arms}) > 1
    sizes = {cell: arm.parameters for cell, arm in planned.items() if arm.parameters is not None}
    main, interactions = (
        estimate_effects(factors, outcomes, order, references=references, criteria=rules)
        if len(factors) > 1 and not several
        else ()
        for order in (1, 2)
    )
    shares = analyze_variance(factors, cells) if len(factors) > 1 and not several else ()
    contrasts = () if several else _compare(arms, family, base, rules, seeds)
    planned_pairs = max(len(family) - 1 if base else math.comb(len(family), 2), 1)
    uncompared = {} if several else dict(_list_uncompared(arms, base, contrasts, rules, seeds))
    return Findings(
        title=title,
        facts=tuple(facts),
        command=command,
        rules=rules,
        factors=factors,
        arms=_summarize(arms, family, measure, has_front=not several),
        base=base,
        contrasts=contrasts,
        uncompared=uncompared,
        shares=shares,
        split=split_variance(factors, cells) if shares else None,
        effects=main,
        interactions=interactions,
        at_equal_size=adjust_for_size(factors, outcomes, sizes, references=references, criteria=rules)
        if not several and len(sizes) == len(planned)
        else (),
        over_datasets=_compare_over_datasets(arms, base, family, rules) if several else (),
        ranks=rank_over_datasets(arms, values, rules) if several else None,
        images=images and add_noise(images, contrasts, planned_pairs, rules, all_pairs=base is None),
        draws=draws or {},
        new_training=_judge_new_training(contrasts, draws or {}, planned_pairs, rules, all_pairs=base is None),
        provenance=tuple(provenance),
        remarks=(*remarks, *(f"not compared: {name}: {why}" for name, why in uncompared.items())),
    )


def _judge_new_training(
    contrasts: Sequence[Contrast], draws: Mapping[str, TrainingDraw], k: int, rules: Rules, *, all_pairs: bool
) -> dict[tuple[str, str], WiderVerdict]:
    """Returns the verdicts for new training images of those comparisons whose arms draw them alike."""
    verdicts = {}
    for each in contrasts:
        draw = draws.get(each.first)
        if draw is not None and draw == draws.get(each.second):
            verdict = decide_for_new_training(each, draw, k, rules, all_pairs=all_pairs)
            if verdict is not None:
                verdicts[each.first, each.second] = verdict
    return verdicts


def _keep_typical(outcomes: Outcomes, measure: Measure) -> dict[int, float]:
    """Returns the values of the runs that trained; of an arm in which none did, of all that completed."""
    return complete(mark_collapsed(outcomes, measure))


def _keep_first(values: Outcomes, seeds: Sequence[int]) -> Outcomes:
    """Returns the values of these seeds, or all values if no seeds are given; factors are judged at the first look."""
    return {seed: value for seed, value in values.items() if seed in seeds} if seeds else values


def _list_uncompared(
    arms: Sequence[Arm], base: str | None, contrasts: Sequence[Contrast], rules: Rules, seeds: Sequence[int]
) -> Iterator[tuple[str, str]]:
    """Yields the name of every valid arm that is in no comparison, and why."""
    compared = {name for contrast in contrasts for name in (contrast.first, contrast.second)}
    for arm in arms:
        if arm.name not in compared and arm.name != base and arm.problem is None:
            lost = {status: arm.counts[status] for status in WITHOUT_SCORE if arm.counts[status]}
            what = " and ".join(f"{count} {status}" for status, count in lost.items())
            hint = "; --retry-failed runs again what has failed" if rules.looks and "failed" in lost else ""
            if sum(lost.values()) == arm.counts.total():
                why = f"all {what}" if len(lost) == 1 else f"{what}, none completed"
            elif rules.looks and not set(seeds[: rules.looks[0]]) <= set(arm.ended):
                why = f"before its first look, at {rules.looks[0]} seeds"
            else:
                both = arm.completed.keys() & next((each.completed.keys() for each in arms if each.name == base), ())
                why = f"no seed {'trained' if both else 'is completed'}{' both here and in the baseline' * bool(base)}"
            yield arm.name, f"{why}{hint}"


def _compare(
    arms: Sequence[Arm],
    family: Mapping[str, Outcomes],
    base: str | None,
    rules: Rules,
    seeds: Sequence[int],
) -> tuple[Contrast, ...]:
    """Compares the arms that have results; all valid arms count in the family."""
    if base is None:
        arms_with_values = sum(bool(complete(outcomes)) for outcomes in family.values())
        if arms_with_values > MOST_FOR_PAIRS:
            raise InputError(
                f"all pairs: of at most {MOST_FOR_PAIRS} arms; {arms_with_values} have results; choose a baseline"
            )
        return compare_all_pairs(family, rules)
    if not rules.looks:
        return compare_with_baseline(family, base, rules)
    ended = {arm.name: arm.ended for arm in arms}
    return compare_in_looks(family, base, ended, seeds, rules.looks, rules, at_any_time=rules.at_any_time)


def _summarize(
    arms: Sequence[Arm], family: Mapping[str, Outcomes], measure: Measure, has_front: bool
) -> tuple[ArmResult, ...]:
    typical = {name: kept for name, outcomes in family.items() if (kept := _keep_typical(outcomes, measure))}
    means = {name: estimate_score(scores.values(), measure) for name, scores in typical.items()}
    sized = [arm for arm in arms if has_front and arm.name in means and arm.parameters is not None]
    front = pareto_front([arm.parameters or 0 for arm in sized], [measure.sign * means[arm.name].mean for arm in sized])
    on_front = {sized[index].name for index in front}
    results = []
    for arm in arms:
        outcomes = family.get(arm.name, {})
        scores, collapsed = complete(outcomes), find_collapsed(outcomes, measure)
        results.append(
            ArmResult(
                arm,
                scores,
                means.get(arm.name),
                interquartile_mean(typical[arm.name].values()) if arm.name in typical else None,
                arm.name in on_front,
                tuple(seed for seed in scores if collapsed[seed]),
                estimate_rate(sum(collapsed.values()), len(collapsed)),
            )
        )
    return tuple(results)


def rank_over_datasets(
    arms: Sequence[Arm], values: Mapping[str, Mapping[int, float]], rules: Rules
) -> tuple[tuple[str, ...], Ranks] | None:
    """Ranks arms by their mean scores on every dataset; arms that differ only in the dataset are one arm.

    Args:
        arms: the arms, each with a label of ``data.name``.
        values: the scores of an arm by seed, by the name of the arm; arms without any are absent.
        rules: the level of the critical difference, and which direction is better.

    Returns:
        The names of the ranked arms, and their ranks; ``None`` unless at least two arms have a mean score on each of
        at least two datasets.
    """
    everywhere = _group_over_datasets(arms, values)
    if len(everywhere) < 2:
        return None
    means = [[np.mean([*values[arm.name].values()]) for arm in group.values()] for group in everywhere.values()]
    return tuple(everywhere), rank_arms(rules.measure.sign * np.array(means).T, rules.alpha)


def _group_over_datasets(arms: Sequence[Arm], names: Collection[str]) -> dict[str, dict[str, Arm]]:
    """Returns the arms of these names by dataset, in the same order, by what else they are, if all datasets have it."""
    datasets = list(dict.fromkeys(arm.labels[DATASET] for arm in arms))
    groups: dict[str, dict[str, Arm]] = {}
    for arm in arms:
        if arm.name in names:
            groups.setdefault(name_design(arm), {})[arm.labels[DATASET]] = arm
    return {
        name: {dataset: group[dataset] for dataset in datasets}
        for name, group in groups.items()
        if len(group) == len(datasets)
    }


def name_design(arm: Arm, names: Mapping[str, str] | None = None) -> str:
    """Returns the name of an arm without its dataset; `names` are other names of the factors, by their own."""
    labels = {factor: label for factor, label in arm.labels.items() if factor != DATASET}
    return ", ".join(f"{names[factor] if names else factor}={label}" for factor, label in labels.items())


def _compare_over_datasets(
    arms: Sequence[Arm], base: str | None, family: Mapping[str, Outcomes], rules: Rules
) -> tuple[DatasetContrast, ...]:
    """Compares arms over all datasets, if not too many; those that differ only in the dataset are one arm."""
    groups = _group_over_datasets(arms, family)
    baseline = next((name_design(arm) for arm in arms if arm.name == base), None)
    if not 2 <= len(groups) <= MOST_FOR_PAIRS or (baseline is not None and baseline not in groups):
        return ()
    outcomes = {name: {dataset: family[arm.name] for dataset, arm in group.items()} for name, group in groups.items()}
    return compare_over_datasets(outcomes, baseline, rules)
