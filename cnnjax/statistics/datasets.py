"""Comparisons over several datasets: on each, averaged over these, and for other datasets like these.

The average over the datasets of a study is compared at equal seeds, like results on one dataset: its noise is that of
the seeds. A claim for other datasets has the spread between datasets as its noise, so it rests on as many numbers as
there are datasets. With two or three of them it is seldom possible, and no statistic can change that.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from cnnjax.statistics.families import (
    DEFAULT,
    Contrast,
    compare_all_pairs,
    compare_planned,
    compare_with_baseline,
)
from cnnjax.statistics.losses import Outcomes, mark_collapsed
from cnnjax.statistics.measures import Measure
from cnnjax.statistics.new_images import WiderVerdict, decide_by_interval
from cnnjax.statistics.verdicts import Criteria


@dataclass(frozen=True)
class DatasetContrast:
    """A comparison of two arms over several datasets.

    Attributes:
        average: the comparison of their means over the datasets, at equal seeds.
        on_each: the comparison on each dataset, by its name; together those of all pairs are one family.
        shrunken: the difference on each dataset, drawn towards the average the more, the less the datasets are shown to
            differ: the better guess of the true one.
        other_datasets: the verdict for other datasets like these.
    """

    average: Contrast
    on_each: Mapping[str, Contrast]
    shrunken: Mapping[str, float]
    other_datasets: WiderVerdict


def average_outcomes(outcomes: Mapping[str, Outcomes]) -> Outcomes:
    """Returns the mean over the datasets of an arm's outcomes, for every seed that has ended on all of them.

    A seed whose run collapsed on a dataset, or was lost there for another reason, has no mean.

    Args:
        outcomes: outcomes by seed, from `mark_collapsed`, by dataset.

    Example:
        >>> average_outcomes({"mnist": {0: 0.98, 1: 0.97}, "letters": {0: 0.90, 1: math.nan}})
        {0: 0.94, 1: nan}
    """
    first, *others = outcomes.values()
    averaged: dict[int, float | None] = {}
    for seed in first:
        if all(seed in each for each in others):
            values = [value for each in (first, *others) if (value := each[seed]) is not None]
            averaged[seed] = math.fsum(values) / len(outcomes) if len(values) == len(outcomes) else None
    return averaged


def compare_over_datasets(
    arms: Mapping[str, Mapping[str, Outcomes]], baseline: str | None = None, criteria: Criteria = DEFAULT
) -> tuple[DatasetContrast, ...]:
    """Compares arms that have outcomes on the same datasets.

    The probability of any false claim is at most `criteria.alpha` for the averages, and likewise for the single
    datasets, and for other datasets. The interval for other datasets is that of `half_widths_for_other_datasets`; it
    supposes that the datasets are a sample of those that it speaks of.

    Args:
        arms: outcomes by seed, by dataset, by arm; every arm has at least two datasets, the same.
        baseline: the arm that the others are compared with; ``None`` compares all pairs.
        criteria: level, margin and power of each family, and what is compared.

    Returns:
        One comparison for each pair of arms that share a seed that completed on all datasets.

    Raises:
        InputError: as `compare_with_baseline`.

    Example:
        >>> seeds = range(5)
        >>> on_each = {"mnist": 0.97, "fashion_mnist": 0.88, "letters": 0.90}
        >>> valid = {name: {seed: mean + 0.001 * (seed % 2) for seed in seeds} for name, mean in on_each.items()}
        >>> same = {name: {seed: mean + 0.01 + 0.001 * (seed % 3) for seed in seeds} for name, mean in on_each.items()}
        >>> (found,) = compare_over_datasets({"same": same, "valid": valid}, "valid")
        >>> found.average.verdict.word, found.other_datasets.word
        ('better', 'better')

    References:
        Hartung and Knapp, "A refined method for the meta-analysis of controlled clinical trials with binary outcome",
        2001 (the interval, here at equal weights); Efron and Morris, "Data analysis using Stein's estimator and its
        generalizations", 1975 (the shrunken differences); Demsar, "Statistical comparisons of classifiers over multiple
        data sets", 2006.
    """
    arms = {
        name: {dataset: mark_collapsed(each, criteria.measure) for dataset, each in by_dataset.items()}
        for name, by_dataset in arms.items()
    }
    averaged = {name: average_outcomes(by_dataset) for name, by_dataset in arms.items()}
    of_averages = replace(criteria, measure=_average_measure(criteria.measure, len(next(iter(arms.values())))))
    if baseline is None:
        averages = compare_all_pairs(averaged, of_averages)
        planned = math.comb(len(arms), 2)
    else:
        averages = compare_with_baseline(averaged, baseline, of_averages)
        planned = len(arms) - 1
    singles = _compare_on_each(arms, baseline, criteria)
    return tuple(
        _contrast_over_datasets(each, singles[each.first, each.second], planned, criteria, baseline is None)
        for each in averages
    )


def half_widths_for_other_datasets(
    spread: np.ndarray | float, n: int, of_seeds: np.ndarray | float, level: float
) -> np.ndarray | float:
    """Returns the half width of an interval of the mean difference over all datasets like `n` datasets.

    That of Student's interval of the differences on the datasets, and that of the seeds, add up as squares: what a seed
    does on all datasets alike makes no spread between them.

    Args:
        spread: standard deviation of the differences on the datasets.
        n: number of datasets.
        of_seeds: half width, at the same level, of Student's interval of the average difference of a seed.
        level: one less the confidence.

    Example:
        >>> f"{half_widths_for_other_datasets(0.002, n=3, of_seeds=0.001, level=0.05):.4f}"
        '0.0051'
    """
    from scipy.special import stdtrit

    half: np.ndarray | float = np.hypot(stdtrit(n - 1, 1 - level / 2) * spread / math.sqrt(n), of_seeds)
    return half


def _average_measure(measure: Measure, datasets: int) -> Measure:
    """Returns the measure of a mean over so many datasets, whose values have smaller steps."""
    return replace(measure, resolution=measure.resolution and measure.resolution / datasets)


def _compare_on_each(
    arms: Mapping[str, Mapping[str, Outcomes]], baseline: str | None, criteria: Criteria
) -> dict[tuple[str, str], dict[str, Contrast]]:
    """Returns the comparisons on each dataset, which are one family by Holm's procedure, by pair."""
    pairs = [*combinations(arms, 2)] if baseline is None else [(name, baseline) for name in arms if name != baseline]
    planned = [(pair, dataset) for pair in pairs for dataset in next(iter(arms.values()))]
    contrasts = compare_planned([((a, b), arms[a][dataset], arms[b][dataset]) for (a, b), dataset in planned], criteria)
    by_pair: dict[tuple[str, str], dict[str, Contrast]] = {pair: {} for pair in pairs}
    for (pair, dataset), contrast in zip(planned, contrasts, strict=True):
        if contrast:
            by_pair[pair][dataset] = contrast
    return by_pair


def _contrast_over_datasets(
    average: Contrast,
    on_each: Mapping[str, Contrast],
    k: int,
    criteria: Criteria,
    all_pairs: bool,
) -> DatasetContrast:
    """Adds the single datasets to the comparison of the averages, as one of `k` comparisons."""
    seeds = average.comparison.seeds
    by_seed = {
        dataset: dict(zip(each.comparison.seeds, each.comparison.differences, strict=True))
        for dataset, each in on_each.items()
    }
    values = {dataset: np.array([each[seed] for seed in seeds]) for dataset, each in by_seed.items()}
    means = np.array([each.mean() for each in values.values()])
    mean, n = float(means.mean()), len(means)
    between = float(means.std(ddof=1))

    def find_interval(confidence: float) -> tuple[float, float]:
        low, high = average.comparison.interval(confidence)
        of_seeds = (high - low) / 2 if low is not None and high is not None else 0.0
        half = float(half_widths_for_other_datasets(between, n, of_seeds, 1 - confidence))
        return mean - half, mean + half

    noise = np.mean([each.var(ddof=1) for each in values.values()]) / len(seeds) if len(seeds) > 1 else between**2
    kept = max(1 - float(noise) / between**2, 0.0) if between else 0.0
    shrunken = {name: mean + kept * float(own - mean) for name, own in zip(values, means, strict=True)}
    verdict = decide_by_interval(average, find_interval, k, criteria, all_pairs=all_pairs)
    return DatasetContrast(average, on_each, shrunken, verdict)
