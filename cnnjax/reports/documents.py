"""Findings as documents to read, and as data: one table and one JSON object with every number unrounded."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from cnnjax.console.tables import Column, Document, Table, Value, capitalize
from cnnjax.reports.arms import describe_invalid_arms, describe_lost_runs
from cnnjax.reports.findings import DATASET, ArmResult, Findings, name_design
from cnnjax.reports.sentences import (
    depends,
    list_sources,
    name_arms,
    name_contrasts,
    name_designs,
    name_effect,
    shorten_level,
    write_images,
    write_interval,
    write_mean,
    write_mean_interval,
    write_posterior,
    write_rate,
    write_runs,
    write_scope,
    write_summary,
    write_worst_case,
)
from cnnjax.settings.schema import shorten_paths
from cnnjax.statistics import Contrast, Measure, WiderVerdict
from cnnjax.statistics.measures import ACCURACY

NEW_IMAGES = "new images too"
"""The heading of the verdicts for new images."""
NEW_TRAINING = "new training images too"
"""The heading of the verdicts for new training images."""
OTHER_DATASETS = "other datasets too"
"""The heading of the verdicts for other datasets."""
_SEEDS_AS_PLANNED = (
    "verdicts, and intervals of differences, allow for the looks; intervals of single arms and of their rates, and p "
    "values, are those of a number of seeds that no result has changed"
)


def list_meanings(findings: Findings) -> tuple[str, ...]:
    """Returns what the numbers of the tables mean."""
    images = write_images(each.arm for each in findings.arms)
    of_means, of_differences = (
        (f", for {images},", ", and for these test images") if findings.rules.measure.split else ("", "")
    )
    return (
        f"±: standard deviation over seeds; 95% intervals of means are of each arm alone{of_means} and need three "
        "seeds",
        f"differences are paired by seed{of_differences}; an interval is the one that its verdict rests on: at "
        "the confidence at which better and worse are decided among all comparisons of the table, or, of what is "
        "equivalent, that of the two one-sided tests (TOST)",
        *([_SEEDS_AS_PLANNED] if findings.rules.looks else []),
    )


def make_document(findings: Findings, all_tests: bool = False) -> Document:
    """Returns the findings as a document: arms, comparisons, effects, shares of variance.

    Args:
        findings: the findings of a comparison.
        all_tests: adds every test of significance, and the reason of every verdict.
    """
    tables = (
        _make_arm_table(findings, all_tests),
        make_contrast_table(findings, all_tests),
        _make_collapse_table(findings),
        _make_effect_table(findings, all_tests),
        _make_variance_table(findings),
        _make_share_table(findings),
        _make_size_table(findings),
        _make_dataset_table(findings),
        _make_rank_table(findings),
        _make_noise_table(findings),
        _make_training_table(findings),
        _make_source_table(findings),
    )
    has_reasons = all_tests or len(findings.contrasts) == 1
    reasons = [f"{compared}: {reason}" for compared, reason in list_reasons(findings)] if has_reasons else []
    notes = (
        *list_meanings(findings),
        *reasons,
        *list_losses(findings),
        *findings.provenance,
        *findings.remarks,
    )
    filled = tuple(table for table in tables if table.rows)
    return Document(findings.title, findings.facts, filled, notes, write_summary(findings), findings.command)


def _make_arm_table(findings: Findings, all_tests: bool) -> Table:
    """Returns a table with one row per arm: labels, mean, size if it is known; the best mean is in bold."""
    arms, measure = findings.arms, findings.rules.measure
    short = shorten_paths(findings.factors)
    has_sizes = findings.has_sizes
    columns = (
        *map(Column, short.values() or ("arm",)),
        Column(measure.name, right=True),
        Column("95% interval", right=True),
        Column("seeds", "", True),
        *([Column("collapsed")] if findings.has_collapses else []),
        *((Column("parameters", ",", True), Column("FLOPs", ",", True), Column("Pareto front")) if has_sizes else ()),
        *([Column("interquartile mean", measure.digits, True)] if all_tests else []),
    )
    rows = (
        (
            *([each.arm.labels[factor] for factor in findings.factors] or [each.arm.name]),
            None if each.estimate is None else write_mean(each.estimate, measure),
            write_mean_interval(each.estimate, measure),
            _write_part(each.estimate.n if each.estimate else 0, len(each.arm.seeds)),
            *([write_rate(each.rate)] if findings.has_collapses else []),
            *((each.arm.parameters, each.arm.flops, "yes" if each.on_front else None) if has_sizes else ()),
            *([each.interquartile_mean] if all_tests else []),
        )
        for each in arms
    )
    means = [each.estimate.mean if each.estimate else None for each in arms]
    known = [mean for mean in means if mean is not None]
    best = measure.choose_best(known) if known else None
    of_one_dataset = len({each.arm.labels.get("data.name") for each in arms}) == 1
    place = len(short) or 1
    bold = {(row, place) for row, mean in enumerate(means) if known and mean == best and of_one_dataset}
    return Table(columns, tuple(rows), f"{capitalize(measure.name)} of each arm", frozenset(bold))


def make_contrast_table(findings: Findings, all_tests: bool = False) -> Table:
    """Returns a table with one row per comparison: difference, interval, verdicts and number of runs."""
    verdicts = _read_new_images(findings)
    has_posteriors = any(map(write_posterior, findings.contrasts))
    columns = (
        *([Column("arm")] if findings.base else [Column("first"), Column("second")]),
        Column("difference", right=True),
        Column("interval", right=True),
        Column("verdict"),
        *([Column(NEW_IMAGES)] if verdicts else []),
        *([Column(NEW_TRAINING)] if findings.new_training else []),
        *([Column("better / within / worse", right=True)] if has_posteriors else []),
        Column("seeds needed", "", True),
        Column("runs"),
        *(_TESTS if all_tests else {}),
    )
    names, measure = name_arms(findings), findings.rules.measure
    compared = (
        [(name,) for name in name_contrasts(findings, findings.contrasts)]
        if findings.base
        else [(names[each.first], names[each.second]) for each in findings.contrasts]
    )
    rows = (
        (
            *name,
            measure.write_difference(each.comparison.mean),
            write_interval(*each.decisive_interval, measure),
            each.verdict.label,
            *(
                _label_wider(found.get((each.first, each.second)))
                for found in (verdicts, findings.new_training)
                if found
            ),
            *([write_posterior(each)] if has_posteriors else []),
            each.verdict.seeds_needed,
            write_runs(each),
            *(read(each) for read in (_TESTS.values() if all_tests else ())),
        )
        for name, each in zip(compared, findings.contrasts, strict=True)
    )
    title = f"Differences to {names[findings.base]}" if findings.base else "Differences of all pairs"
    return Table(columns, tuple(rows), f"{title}, in {measure.unit_of_differences}")


def _read_new_images(findings: Findings) -> Mapping[tuple[str, str], WiderVerdict]:
    return findings.images.verdicts if findings.images else {}


def _label_wider(verdict: WiderVerdict | None) -> str | None:
    return verdict.label if verdict else None


_TESTS: Mapping[Column, Callable[[Contrast], Value]] = {
    Column("p of all", ".3g", True): lambda contrast: contrast.adjusted_p,
    Column("t test p", ".3g", True): lambda contrast: contrast.comparison.t_p,
    Column("sign-flip p", ".3g", True): lambda contrast: contrast.comparison.sign_flip_p,
    Column("Wilcoxon p", ".3g", True): lambda contrast: contrast.comparison.wilcoxon_p,
    Column("TOST p", ".3g", True): lambda contrast: contrast.equivalence_p,
    Column("effect size", ".2f", True): lambda contrast: contrast.comparison.effect_size,
    Column("P(improves)", ".2f", True): lambda contrast: contrast.comparison.probability_of_improvement,
}
"""Columns of further tests, and how each is read."""


def _make_collapse_table(findings: Findings) -> Table:
    """Returns a table with one row per comparison of which a run collapsed: typical run, rates, worst case."""
    columns = (
        Column("compared"),
        Column("typical run", right=True),
        Column("interval", right=True),
        Column("verdict"),
        Column("collapsed"),
        Column("against"),
        Column("p of equal rates", ".3g", True),
        Column("worst case"),
    )
    measure = findings.rules.measure
    rows = (
        (
            name,
            measure.write_difference(each.comparison.mean),
            write_interval(*each.decisive_interval, measure),
            each.verdict.in_short,
            write_rate(each.rates.first),
            write_rate(each.rates.second),
            each.rates.p,
            write_worst_case(each),
        )
        for name, each in zip(name_contrasts(findings, findings.contrasts), findings.contrasts, strict=True)
        if each.rates and each.rates.first.collapsed + each.rates.second.collapsed
    )
    title = f"Runs that collapsed, with 95% intervals of the rate; typical run in {measure.unit_of_differences}"
    return Table(columns, tuple(rows), title)


def list_reasons(findings: Findings) -> list[tuple[str, str]]:
    """Returns the name of every comparison with the reason of its verdict."""
    reasons = (each.verdict.reason for each in findings.contrasts)
    return list(zip(name_contrasts(findings, findings.contrasts), reasons, strict=True))


def list_losses(findings: Findings) -> list[str]:
    """Returns a line for every run without a score or at chance, and for every arm that cannot exist."""
    arms, names, measure = [each.arm for each in findings.arms], name_arms(findings), findings.rules.measure
    at_chance = (
        f"at chance: {names[each.arm.name]}, seed={seed}: {measure.name} {each.scores[seed]:{measure.digits}} is not "
        f"shown to be better than guessing, {measure.worst:{measure.digits}}"
        for each in findings.arms
        for seed in each.at_chance
    )
    return [*describe_lost_runs(arms, names), *at_chance, *describe_invalid_arms(arms, names)]


def _write_part(count: int, of: int) -> str | int:
    """Returns ``4 of 5``, or only the number if none is missing."""
    return f"{count} of {of}" if count < of else count


def _make_effect_table(findings: Findings, all_tests: bool) -> Table:
    effects = (*findings.effects, *findings.interactions)
    has_log_odds = any(effect.log_odds and depends(effect) for effect in effects)
    columns = (
        Column("effect"),
        Column("difference", right=True),
        Column("interval", right=True),
        Column("verdict"),
        *([Column("in log-odds")] if has_log_odds else []),
        Column("runs"),
        Column("over", right=True),
        *(_TESTS if all_tests else {}),
    )
    measure = findings.rules.measure
    rows = (
        (
            name_effect(findings, effect),
            measure.write_difference(effect.contrast.comparison.mean),
            write_interval(*effect.contrast.decisive_interval, measure),
            effect.contrast.verdict.label,
            *([effect.log_odds.word if effect.log_odds and depends(effect) else None] if has_log_odds else []),
            write_runs(effect.contrast),
            _write_part(effect.combinations, effect.possible),
            *(read(effect.contrast) for read in (_TESTS.values() if all_tests else ())),
        )
        for effect in effects
    )
    title = "Effects of levels, and interactions (x), over combinations of the other factors"
    return Table(columns, tuple(rows), f"{title}, in {measure.unit_of_differences}")


def _make_variance_table(findings: Findings) -> Table:
    columns = (Column("source"), Column("share", ".1%", True))
    title = "Where the variance between runs comes from; an interaction is divided among its factors"
    return Table(columns, tuple(list_sources(findings)), title)


def _make_share_table(findings: Findings) -> Table:
    columns = (
        Column("factor"),
        Column("df", "", True),
        Column("F", ".1f", True),
        Column("p", ".3g", True),
        Column("omega²", ".3f", True),
        Column("partial omega²", ".3f", True),
        Column("95% interval", right=True),
    )
    short = shorten_paths(findings.factors)
    rows = (
        (
            " x ".join(short[factor] for factor in share.factors),
            share.freedom,
            share.F,
            share.p,
            share.omega_squared,
            share.partial,
            f"[{share.low:.3f}, {share.high:.3f}]",
        )
        for share in findings.shares
    )
    return Table(
        columns,
        tuple(rows),
        "What explains the variance between runs (type II; shares overlap where cells are missing)",
    )


def _make_size_table(findings: Findings) -> Table:
    columns = (Column("level"), Column("against"), Column("difference", right=True), Column("interval", right=True))
    short, measure = shorten_paths(findings.factors), findings.rules.measure
    rows = (
        (
            shorten_level(each.first, short),
            shorten_level(each.second, short),
            measure.write_difference(each.comparison.mean),
            write_interval(*each.decisive_interval, measure),
        )
        for each in findings.at_equal_size
    )
    return Table(columns, tuple(rows), f"Effects at equal numbers of parameters, in {measure.unit_of_differences}")


def _make_dataset_table(findings: Findings) -> Table:
    """Returns a table with one row per comparison over datasets: the difference on each, and their average."""
    found, measure = findings.over_datasets, findings.rules.measure
    datasets = [*found[0].shrunken] if found else []
    columns = (
        Column("first"),
        Column("second"),
        *(Column(f"on {dataset}") for dataset in datasets),
        Column("average", right=True),
        Column("interval", right=True),
        Column("verdict"),
        Column(OTHER_DATASETS),
        Column("for other datasets", right=True),
    )
    names = name_designs(findings)
    rows = (
        (
            names[each.average.first],
            names[each.average.second],
            *(_write_single(each.on_each[dataset], measure) for dataset in datasets),
            measure.write_difference(each.average.comparison.mean),
            write_interval(*each.average.decisive_interval, measure),
            each.average.verdict.label,
            each.other_datasets.label,
            write_interval(each.other_datasets.low, each.other_datasets.high, measure),
        )
        for each in found
    )
    return Table(columns, tuple(rows), f"Differences over the datasets, in {measure.unit_of_differences}")


def _write_single(contrast: Contrast, measure: Measure) -> str:
    return f"{measure.write_difference(contrast.comparison.mean)} {contrast.verdict.word}"


def _make_rank_table(findings: Findings) -> Table:
    arms, ranks = findings.ranks or ((), None)
    means, names = ranks.mean if ranks else (), name_designs(findings)
    columns = (Column("arm"), Column("mean rank over datasets", ".2f", True))
    rows = ((names[arm], mean) for arm, mean in zip(arms, means, strict=True))
    return Table(columns, tuple(rows), "Ranks over the datasets")


def _make_noise_table(findings: Findings) -> Table:
    columns = (
        Column("arm"),
        Column("difference", right=True),
        Column("for new seeds and images", right=True),
        Column("bootstrap", right=True),
        Column("from seeds", ".0%", True),
        Column("McNemar p of a seed"),
    )
    images, verdicts, names = findings.images, _read_new_images(findings), name_arms(findings)
    mcnemar = images.mcnemar if images else {}
    rows = (
        (
            names[first] if findings.base else f"{names[first]} less {names[second]}",
            ACCURACY.write_difference(noise.mean),
            write_interval(verdicts[first, second].low, verdicts[first, second].high),
            write_interval(*noise.bootstrap) if noise.bootstrap else None,
            noise.share_of_seeds,
            _write_range(mcnemar[first].values()) if first in mcnemar else None,
        )
        for (first, second), noise in (images.noise.items() if images else ())
    )
    return Table(
        columns,
        tuple(rows),
        "Two sources of noise: differences in percentage points, intervals at the level of the verdicts",
    )


def _make_training_table(findings: Findings) -> Table:
    """Returns a table with one row per comparison that has a verdict for new training images."""
    columns = (
        Column("compared"),
        Column("difference", right=True),
        Column("for new training images", right=True),
        Column("verdict"),
    )
    measure, contrasts = findings.rules.measure, findings.contrasts
    rows = (
        (
            name,
            measure.write_difference(each.comparison.mean),
            write_interval(verdict.low, verdict.high, measure),
            verdict.label,
        )
        for name, each in zip(name_contrasts(findings, contrasts), contrasts, strict=True)
        if (verdict := findings.new_training.get((each.first, each.second)))
    )
    title = f"New training images: differences in {measure.unit_of_differences}, intervals at the level of the verdicts"
    return Table(columns, tuple(rows), title)


def _make_source_table(findings: Findings) -> Table:
    """Returns a table with one row per source of variance, where all arms draw training images; empty otherwise.

    What a seed draws is one source, training images included: such runs do not tell its parts from each other.
    """
    verdicts, training = _read_new_images(findings), findings.new_training
    noises = findings.images.noise.values() if findings.images else ()
    of_each = [(each.from_seeds, each.from_images, each.from_both) for each in noises]
    parts = [sum(part) for part in zip(*of_each, strict=True)]
    total = sum(parts)
    shares: list[Value] = [*(part / total for part in parts), "not known"] if total else [None] * 4
    sources = (
        ("seed: initialisation, data order, draw of training images", shares[0], "yes", "yes", "yes"),
        ("test images", shares[1], "no", "yes", "no"),
        ("seed at single test images", shares[2], "yes", "yes", "yes"),
        ("training images that all seeds draw from", shares[3], "no", "no", "yes"),
    )
    columns = (
        Column("source of variance"),
        Column("share", ".0%", True),
        Column("in the verdict"),
        Column(f"in {NEW_IMAGES}"),
        Column(f"in {NEW_TRAINING}"),
    )
    shown = [0, 1, 2, *([3] if verdicts else []), *([4] if training else [])]
    is_drawing = bool(findings.contrasts) and all(each.arm.draws_training for each in findings.arms)
    rows = tuple(tuple(source[place] for place in shown) for source in sources) if is_drawing else ()
    title = "Sources of the variance of mean differences, and whether a claim allows for them"
    return Table(tuple(columns[place] for place in shown), rows, title)


def _write_range(values: Collection[float]) -> str:
    low, high = f"{min(values):.2g}", f"{max(values):.2g}"
    return low if low == high else f"{low} to {high}"


def make_data_table(findings: Findings) -> Table:
    """Returns a table with one row per comparison: all numbers unrounded, and the scores of both arms by seed.

    Of several datasets, there is a row for the average over them, and one for each dataset.
    """
    seeds = sorted({seed for each in findings.arms for seed in each.scores})
    columns = (
        *("first", "second", "pairs", "difference", "low", "high", "level", "verdict_level"),
        *("adjusted_p", "t_p", "sign_flip_p", "wilcoxon_p"),
        *("equivalence_p", "effect_size", "correlation", "wins"),
        *("probability_of_improvement", "verdict", "label"),
        *("survives_losses", "seeds_needed", "equivalence_low", "equivalence_high"),
        *("first_completed", "first_lost", "second_completed", "second_lost", "scope"),
        *(f"{side}_{what}" for side in ("first", "second") for what in ("collapsed", "collapse_low", "collapse_high")),
        *("collapse_p", "reliability", "worst_case"),
        *(f"{what}{end}" for what in ("new_images", "new_training") for end in ("", "_low", "_high")),
        *("p_better", "p_within", "p_worse"),
        *("dataset", "other_datasets", "other_datasets_low", "other_datasets_high"),
        *(f"{side}_seed_{seed}" for side in ("first", "second") for seed in seeds),
    )
    by_arm = {(each.arm.name, None): each.scores for each in findings.arms}
    by_design = {(name_design(each.arm), each.arm.labels.get(DATASET)): each.scores for each in findings.arms}
    scores: Mapping[tuple[str, str | None], Mapping[int, float]] = by_design | by_arm
    verdicts = _read_new_images(findings)
    scope = write_scope(findings.rules.measure, [each.arm for each in findings.arms])
    rows = (
        (
            *(each.first, each.second, each.comparison.n, each.comparison.mean, each.low, each.high, each.level),
            each.verdict_level,
            *(each.adjusted_p, each.comparison.t_p, each.comparison.sign_flip_p, each.comparison.wilcoxon_p),
            *(each.equivalence_p, each.comparison.effect_size, each.comparison.correlation, each.comparison.wins),
            *(each.comparison.probability_of_improvement, each.verdict.word, each.verdict.label),
            *(each.verdict.survives_losses, each.verdict.seeds_needed, each.equivalence_low, each.equivalence_high),
            *(each.first_runs.completed, each.first_runs.lost, each.second_runs.completed, each.second_runs.lost),
            scope,
            *_list_rates(each),
            write_worst_case(each),
            *_list_wider(verdicts.get((each.first, each.second))),
            *_list_wider(findings.new_training.get((each.first, each.second))),
            *(dataclasses.astuple(each.posterior) if each.posterior else (None,) * 3),
            *(dataset, *_list_wider(other_datasets)),
            *(scores.get((name, dataset), {}).get(seed) for name in (each.first, each.second) for seed in seeds),
        )
        for each, dataset, other_datasets in _list_compared(findings)
    )
    return Table(tuple(map(Column, columns)), tuple(rows))


def _list_compared(findings: Findings) -> Iterator[tuple[Contrast, str | None, WiderVerdict | None]]:
    """Yields every comparison, with the dataset that it is on, or ``average``, and its verdict for other datasets."""
    yield from ((each, None, None) for each in findings.contrasts)
    for over in findings.over_datasets:
        yield over.average, "average", over.other_datasets
        yield from ((each, dataset, None) for dataset, each in over.on_each.items())


def _list_wider(verdict: WiderVerdict | None) -> tuple[Value, ...]:
    """Returns the word and the ends of the interval of a verdict."""
    return (None,) * 3 if verdict is None else (verdict.word, verdict.low, verdict.high)


def _list_rates(contrast: Contrast) -> tuple[Value, ...]:
    """Returns the collapsed runs and the ends of the interval of both arms, the p value, and which is more reliable."""
    rates = contrast.rates
    assert rates is not None  # arms have rates, effects have none
    ends = (value for rate in (rates.first, rates.second) for value in (rate.collapsed, rate.low, rate.high))
    return (*ends, rates.p, contrast.verdict.reliability)


def to_dict(findings: Findings) -> dict[str, Any]:
    """Returns the findings as JSON values, unrounded; without the images. ``accuracies`` are values of any measure."""
    images, measure = findings.images, findings.rules.measure
    by = measure.split if measure.is_accuracy else measure.title
    return {
        "title": findings.title,
        "facts": list(findings.facts),
        "command": findings.command,
        "rules": {**dataclasses.asdict(findings.rules), "measure": by},
        "factors": list(findings.factors),
        "base": findings.base,
        "scope": write_scope(measure, [each.arm for each in findings.arms]),
        "uncompared": dict(findings.uncompared),
        "arms": [_arm_to_dict(each) for each in findings.arms],
        "contrasts": [dataclasses.asdict(each) for each in findings.contrasts],
        "shares": [dataclasses.asdict(each) for each in findings.shares],
        "split": findings.split and dataclasses.asdict(findings.split),
        "effects": [dataclasses.asdict(each) for each in findings.effects],
        "interactions": [dataclasses.asdict(each) for each in findings.interactions],
        "at_equal_size": [dataclasses.asdict(each) for each in findings.at_equal_size],
        "over_datasets": [dataclasses.asdict(each) for each in findings.over_datasets],
        "ranks": findings.ranks and {"arms": list(findings.ranks[0]), **dataclasses.asdict(findings.ranks[1])},
        "noise": images
        and {_name_pair(findings, pair): dataclasses.asdict(each) for pair, each in images.noise.items()},
        "new_images": images
        and {_name_pair(findings, pair): dataclasses.asdict(each) for pair, each in images.verdicts.items()},
        "new_training": {
            _name_pair(findings, pair): dataclasses.asdict(each) for pair, each in findings.new_training.items()
        },
        "mcnemar": images and {name: _by_seed(values) for name, values in images.mcnemar.items()},
        "summary": list(write_summary(findings)),
        "provenance": list(findings.provenance),
        "remarks": list(findings.remarks),
    }


def _name_pair(findings: Findings, pair: tuple[str, str]) -> str:
    return pair[0] if findings.base else " less ".join(pair)


def _arm_to_dict(each: ArmResult) -> dict[str, Any]:
    return {
        **each.arm.to_dict(),
        "estimate": each.estimate and dataclasses.asdict(each.estimate),
        "interquartile_mean": each.interquartile_mean,
        "on_front": each.on_front,
        "collapse": dataclasses.asdict(each.rate),
        "accuracies": _by_seed(each.scores),
        "keys": {str(seed): record.key for seed, record in each.arm.records.items()},
        "counts": {status: runs for status, runs in each.arm.counts.items() if runs},
    }


def _by_seed(values: Mapping[int, float]) -> dict[str, float]:
    return {str(seed): value for seed, value in values.items()}
