"""The findings in sentences, with short names for arms and factors, and numbers as they are written."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import get_args

import numpy as np

from cnnjax.console.tables import capitalize
from cnnjax.reports.arms import Arm
from cnnjax.reports.findings import DATASET, Findings, name_design
from cnnjax.settings.checking import plural, write_count
from cnnjax.settings.schema import shorten_paths
from cnnjax.statistics import Contrast, Effect, Measure, Rate, WiderVerdict
from cnnjax.statistics.estimates import Estimate
from cnnjax.statistics.losses import name_compared
from cnnjax.statistics.measures import ACCURACY
from cnnjax.statistics.verdicts import LEAST_SEEDS, Word

_MOST = 6
"""Largest number of items that a sentence lists."""
_ON_LOG_ODDS = {"depends": "shown too", "reversed": "the other way round", "undecided": "not shown"}
"""What is said of an interaction by the word of its log-odds; what is said last qualifies the pairs before it."""


def name_arms(findings: Findings) -> dict[str, str]:
    """Returns the short name of every arm, such as ``padding=same, strides=2``, by its full name."""
    factors = shorten_paths(findings.factors)
    return {
        result.arm.name: ", ".join(f"{factors[factor]}={label}" for factor, label in result.arm.labels.items())
        or result.arm.name
        for result in findings.arms
    }


def name_designs(findings: Findings) -> dict[str, str]:
    """Returns the short name of every arm without its dataset, by the name that comparisons over datasets have."""
    factors = shorten_paths([factor for factor in findings.factors if factor != DATASET])
    return {name_design(result.arm): name_design(result.arm, factors) for result in findings.arms}


def name_contrasts(findings: Findings, contrasts: Sequence[Contrast]) -> list[str]:
    """Returns a name for every contrast: how the arm differs from the base, or both arms if there is no base."""
    if findings.base is None:
        names = name_arms(findings)
        return [f"{names[each.first]} less {names[each.second]}" for each in contrasts]
    factors, base = shorten_paths(findings.factors), findings.arm(findings.base).arm.labels
    arms = [findings.arm(each.first).arm for each in contrasts]
    return [
        ", ".join(f"{factors[factor]}={label}" for factor, label in arm.labels.items() if label != base[factor])
        or arm.name
        for arm in arms
    ]


def name_effect(findings: Findings, effect: Effect) -> str:
    """Returns a name for an effect or interaction: ``padding: same - valid x strides: 2 - 1``."""
    factors = shorten_paths(findings.factors)
    changes = zip(effect.factors, effect.labels, effect.references, strict=True)
    return " x ".join(f"{factors[factor]}: {label} - {reference}" for factor, label, reference in changes)


def shorten_level(level: str, factors: Mapping[str, str]) -> str:
    """Returns ``padding=same`` for ``model.padding=same``; `factors` are from `shorten_paths`."""
    factor, sign, label = level.partition("=")
    return f"{factors.get(factor, factor)}{sign}{label}"


def write_counts(numbers: Iterable[int], noun: str) -> str:
    """Returns ``5 seeds``, or ``3 to 5 seeds`` if the numbers differ."""
    found = sorted(set(numbers))
    if not found:
        return f"no {plural(noun, 0)}"
    if len(found) == 1:
        return write_count(found[0], noun)
    return f"{found[0]:,} to {write_count(found[-1], noun)}"


def write_summary(findings: Findings) -> tuple[str, ...]:
    """Returns the conclusions, each in one or two sentences."""
    return (
        *_say_verdicts(findings),
        *_say_datasets(findings),
        *_say_collapses(findings),
        *_say_ranks(findings),
        *_say_shares(findings),
        *_say_effects(findings),
        *_say_interactions(findings),
        *_say_size(findings),
        *_say_noise(findings),
        *_say_new_training(findings),
        *_say_runs_without_score(findings),
        *_say_measure(findings),
    )


def write_interval(low: float | None, high: float | None, measure: Measure = ACCURACY) -> str:
    """Returns an interval of a difference: ``[+0.10, +0.52]``; an empty text without one.

    That of a share is in percentage points, and cut at ±100.
    """
    if low is None or high is None:
        return ""
    ends = (max(low, -1.0), min(high, 1.0)) if measure.is_share else (low, high)
    return f"[{', '.join(map(measure.write_difference, ends))}]"


def write_mean(estimate: Estimate, measure: Measure = ACCURACY) -> str:
    """Returns a mean with its standard deviation over seeds, if there is one: ``0.9730 ± 0.0012``."""
    spread = estimate.standard_deviation
    return f"{estimate.mean:{measure.digits}}" + ("" if spread is None else f" ± {spread:{measure.digits}}")


def write_mean_interval(estimate: Estimate | None, measure: Measure = ACCURACY) -> str | None:
    """Returns the interval of a mean: ``[0.9712, 0.9748]``; ``None`` without one."""
    if estimate is None or estimate.low is None:
        return None
    return f"[{estimate.low:{measure.digits}}, {estimate.high:{measure.digits}}]"


def write_runs(contrast: Contrast) -> str:
    """Returns the number of seeds of a comparison; if runs were lost, how many completed on each side."""
    first, second = contrast.first_runs, contrast.second_runs
    if first.lost or second.lost:
        return f"{first} against {second}"
    return str(contrast.comparison.n)


def write_rate(rate: Rate) -> str:
    """Returns how many runs collapsed, with the 95% interval of the rate: ``1 of 10 [0.3%, 45%]``."""
    low, high = (f"{100 * end:.{int(end < 0.01)}f}%" if 0 < end < 1 else f"{end:.0%}" for end in (rate.low, rate.high))
    return f"{rate.collapsed} of {rate.runs} [{low}, {high}]"


def write_posterior(contrast: Contrast) -> str | None:
    """Returns the probabilities of better, within the margin and worse: ``31 / 68 / 1%``; ``None`` unless undecided.

    Nor is there any of too few seeds, or where no run of either arm trained.
    """
    posterior, has_trained = contrast.posterior, contrast.first_runs.trained or contrast.second_runs.trained
    is_open = contrast.verdict.word == "undecided" and contrast.comparison.n >= LEAST_SEEDS and has_trained
    if posterior is None or not is_open:
        return None
    return " / ".join(f"{100 * each:.0f}" for each in (posterior.better, posterior.within, posterior.worse)) + "%"


def write_worst_case(contrast: Contrast) -> str:
    """Returns the verdict that holds whatever the lost runs count as: that on the typical run, or ``undecided``."""
    return contrast.verdict.word if contrast.verdict.survives_losses else "undecided"


def write_scope(measure: Measure, arms: Collection[Arm]) -> str:
    """Returns what verdicts and intervals on the measure of these arms are valid for."""
    if not measure.split:
        return "over seeds alone"
    drawing = sum(arm.draws_training for arm in arms)
    if not drawing:
        return f"over seeds, for one training and one {measure.split} set"
    which = "" if drawing == len(arms) else ", where an arm makes them,"
    return f"over seeds and their draws{which} from one set of training images, for one {measure.split} set"


def write_images(arms: Iterable[Arm]) -> str:
    """Returns for which images a mean of each of these arms alone is valid."""
    is_drawing = any(arm.draws_training for arm in arms)
    return "draws from these training images and these test images" if is_drawing else "these training and test images"


def _say_verdicts(findings: Findings) -> Iterator[str]:
    contrasts = findings.contrasts
    if not contrasts and findings.ranks is None:
        yield "Nothing could be compared: no two arms of one dataset have completed runs with a seed in common."
    if not contrasts:
        return
    names, margin = name_arms(findings), _say_margin(findings)
    if len(contrasts) == 1:
        label = contrasts[0].verdict.label
        yield f"{capitalize(label)}: {_say_contrast(findings, contrasts[0], names)} ({margin})."
    else:
        counted = _count_verdicts(contrasts)
        if findings.base is None:
            yield f"Of {write_count(len(contrasts), 'pair')} of arms, the first is {counted} ({margin})."
        else:
            yield f"Against {names[findings.base]}, of {len(contrasts)} arms {counted} ({margin})."
        yield from _say_largest(findings, contrasts, names)
    yield from _say_steps(contrasts)
    yield f"This holds {write_scope(findings.rules.measure, [each.arm for each in findings.arms])}."
    yield from _say_looks(findings)
    yield from _say_seeds(findings)
    if any(map(write_posterior, contrasts)):
        yield (
            "Help where undecided, no verdict: the table has the probabilities of better, within the margin and worse, "
            "if every difference was equally likely before."
        )


def _say_steps(contrasts: Sequence[Contrast]) -> Iterator[str]:
    stepped = sum(each.verdict.by_step_down for each in contrasts)
    if stepped:
        yield (
            f"{stepped} of these differences {'is' if stepped == 1 else 'are'} found step by step, where each that "
            "is found makes the next easier to find, although the interval includes zero: intervals hold all together, "
            "whatever is found."
        )


def _write_margin(findings: Findings) -> str:
    measure = findings.rules.measure
    return f"{measure.write_margin(findings.rules.margin)}{measure.points}"


def _say_margin(findings: Findings) -> str:
    return f"within ±{_write_margin(findings)} counts as equivalent"


def _count_verdicts(contrasts: Sequence[Contrast]) -> str:
    counts = Counter(each.verdict.in_short for each in contrasts)
    words = {each.verdict.in_short: each.verdict.word for each in contrasts}
    return ", ".join(
        f"{counts[short]} {short}"
        for word in get_args(Word)
        for short in sorted(words, key=len)
        if words[short] == word
    )


def _say_largest(findings: Findings, contrasts: Sequence[Contrast], names: Mapping[str, str]) -> Iterator[str]:
    for word, sign in (("better", -findings.rules.measure.sign), ("worse", findings.rules.measure.sign)):
        found = [contrast for contrast in contrasts if contrast.verdict.word == word]
        if found:
            most = min(
                found, key=lambda contrast: (not contrast.verdict.survives_losses, sign * contrast.comparison.mean)
            )
            said = _say_contrast(findings, most, names)
            yield f"The largest difference among the {word}: {said}: {most.verdict.label}."


def _say_contrast(findings: Findings, contrast: Contrast, names: Mapping[str, str]) -> str:
    return f"{names[contrast.first]} less {names[contrast.second]} is {_say_difference(findings, contrast)}"


def _say_difference(findings: Findings, contrast: Contrast) -> str:
    measure = findings.rules.measure
    difference = f"{measure.write_difference(contrast.comparison.mean)}{measure.points}"
    points = f"{difference} {write_interval(*contrast.decisive_interval, measure)}".rstrip()
    first, second = contrast.first_runs, contrast.second_runs
    lost = f", as {first} runs {name_compared(first, second)} against {second}" if first.lost or second.lost else ""
    return f"{points} with {write_count(contrast.comparison.n, 'seed')}{lost}"


def _say_looks(findings: Findings) -> Iterator[str]:
    looks = findings.rules.looks
    if not looks or not findings.contrasts:
        return
    if findings.rules.at_any_time:
        when = f"after every seed from {looks[0]} to {looks[-1]}, by tests that hold at any time"
    else:
        when = f"at {', '.join(map(str, looks))} seeds, at levels that account for looking again"
    open_ones = sum(each.verdict.seeds_needed is not None for each in findings.contrasts)
    left = f"; {write_count(open_ones, 'comparison')} may still be decided by more seeds" if open_ones else ""
    yield f"Arms are compared {when}, and a comparison ends at the first look that decides it{left}."


def _say_seeds(findings: Findings) -> Iterator[str]:
    undecided = [each for each in findings.contrasts if each.verdict.word == "undecided"]
    needed = sorted(each.verdict.seeds_needed for each in undecided if each.verdict.seeds_needed)
    if findings.rules.looks or not undecided:
        return
    listed = f"{needed[0]} to {needed[-1]}" if needed and needed[0] < needed[-1] else "".join(map(str, needed[:1]))
    measure = findings.rules.measure
    margins = [each.verdict.decidable_margin for each in undecided if each.verdict.decidable_margin]
    ways = [
        *([(len(needed), f"by {listed} seeds in all")] if needed else []),
        *(
            [(len(margins), f"only by a `--margin` of {measure.scale * min(margins):.2g}{measure.points} or more")]
            if margins
            else []
        ),
    ]
    if not ways:
        return
    if len(undecided) == 1:
        said = f"The undecided comparison would be decided {ways[0][1]}"
    else:
        (count, way), *others = ways
        further = "".join(f", {count} {way}" for count, way in others)
        said = f"Of {len(undecided)} undecided comparisons, {count} would be decided {way}{further}"
    yield (
        f"{said}, with "
        f"{findings.rules.power:.0%} probability each, if the spread seen is the true one and the true difference is "
        f"nothing or {_write_margin(findings)}; "
        "looking again with more seeds makes false claims more likely, "
        "unless the looks were planned, as `ablations.run --top-up` does."
    )


def _say_collapses(findings: Findings) -> Iterator[str]:
    names = name_arms(findings)
    collapsed = [f"{write_rate(each.rate)} of {names[each.arm.name]}" for each in findings.arms if each.rate.collapsed]
    if not collapsed:
        return
    listed = "; ".join(collapsed[:_MOST]) + (f"; and of {len(collapsed) - _MOST} more" * (len(collapsed) > _MOST))
    contrasts = findings.contrasts
    shown = sum(bool(each.verdict.reliability) for each in contrasts)
    found = (
        f"in {shown} of {write_count(len(contrasts), 'comparison')} one arm is shown to collapse more often"
        if shown
        else "no arm is shown to collapse more often than another"
    )
    yield (
        f"Runs collapsed, with 95% intervals of the rate: {listed}; {found}. Means and differences are of the runs "
        f"that trained{'; effects of factors say nothing of how often runs collapse' * bool(findings.effects)}."
    )


def _say_datasets(findings: Findings) -> Iterator[str]:
    found = findings.over_datasets
    if not found:
        return
    over = f"Averaged over the {len(findings.list_labels(DATASET))} datasets"
    names, margin, averages = name_designs(findings), _say_margin(findings), [each.average for each in found]
    if len(found) == 1:
        label = averages[0].verdict.label
        yield f"{capitalize(label)}: {over.lower()}, {_say_contrast(findings, averages[0], names)} ({margin})."
    else:
        counted = _count_verdicts(averages)
        if findings.base is None:
            yield f"{over}, of {len(found)} pairs of arms the first is {counted} ({margin})."
        else:
            yield f"{over}, against {names[averages[0].second]}, of {len(found)} arms {counted} ({margin})."
        yield from _say_largest(findings, averages, names)
    scope = write_scope(findings.rules.measure, [each.arm for each in findings.arms])
    wider = sum(each.other_datasets.word != "undecided" for each in found)
    decided = f"{write_count(wider, 'comparison')} {'is' if wider == 1 else 'are'}" if wider else "no comparison is"
    yield f"This holds {scope}, of each of these datasets; for other datasets like these, {decided} decided."


def _say_ranks(findings: Findings) -> Iterator[str]:
    if findings.ranks is None:
        return
    designs, ranks = findings.ranks
    order, names = np.argsort(ranks.mean, kind="stable"), name_designs(findings)
    listed = ", ".join(f"{names[designs[index]]} {ranks.mean[index]:.2f}" for index in order[:_MOST])
    critical = ranks.critical_difference
    found = (
        "no two are shown to differ" if critical is None else f"two arms differ where their ranks do by {critical:.2f}"
    )
    yield (
        f"Mean ranks over the datasets: {listed}; if all were equal, ranks would differ as much with probability "
        f"{ranks.p:.3g}, so {found}."
    )


def list_sources(findings: Findings) -> list[tuple[str, float]]:
    """Returns the sources of the variance between runs with their shares: the factors, largest first, seed and rest."""
    if findings.split is None:
        return []
    short, split = shorten_paths(findings.factors), findings.split
    factors = sorted(split.factors.items(), key=lambda item: -item[1])
    return [*((short[factor], share) for factor, share in factors), ("the seed", split.seeds), ("the rest", split.rest)]


def _say_shares(findings: Findings) -> Iterator[str]:
    sources = list_sources(findings)
    if sources and any(share.low > 0 for share in findings.shares):
        listed = ", ".join(f"{name} {share:.0%}" for name, share in sources)
        yield f"The variance between runs comes from: {listed} (an interaction is divided among its factors)."


def _say_effects(findings: Findings) -> Iterator[str]:
    short = shorten_paths(findings.factors)
    for effect in findings.effects[:_MOST]:
        contrast = effect.contrast
        difference = _say_difference(findings, contrast)
        over = write_count(effect.possible, "combination")
        part = f"{effect.combinations} of " if effect.combinations < effect.possible else ""
        apart = "" if effect.is_common else ", which are not those of the other levels"
        yield (
            f"{short[effect.factors[0]]} {effect.labels[0]} instead of {effect.references[0]}: "
            f"{difference}, over {part}{over} of the other factors{apart}: {contrast.verdict.label}."
        )


def _say_interactions(findings: Findings) -> Iterator[str]:
    interactions, short = findings.interactions, shorten_paths(findings.factors)
    found = [effect for effect in interactions if depends(effect)]
    if found:
        for restriction in sorted({effect.contrast.verdict.restriction for effect in found}):
            some = [effect for effect in found if effect.contrast.verdict.restriction == restriction]
            pairs = dict.fromkeys(" and ".join(short[factor] for factor in effect.factors) for effect in some)
            said = f", {restriction}" if restriction else ""
            yield f"What one factor does depends on the other for {', '.join(pairs)}{said}."
        yield from _say_log_odds(found, short)
    elif interactions:
        undecided = sum(effect.contrast.verdict.word == "undecided" for effect in interactions)
        yield f"No interaction stands out of the noise; {undecided} of {len(interactions)} are undecided."


def depends(effect: Effect) -> bool:
    """Returns whether an interaction is found: whether what one factor does depends on the other."""
    return len(effect.factors) > 1 and effect.contrast.verdict.word in ("better", "worse")


def _say_log_odds(found: Sequence[Effect], short: Mapping[str, str]) -> Iterator[str]:
    pairs: dict[str, list[str]] = {}
    for effect in found:
        if effect.log_odds:
            pairs.setdefault(" and ".join(short[factor] for factor in effect.factors), []).append(effect.log_odds.word)
    said: dict[str, list[str]] = {}
    for pair, words in pairs.items():
        word = next((word for word in ("depends", "reversed") if word in words), "undecided")
        said.setdefault(_ON_LOG_ODDS[word], []).append(pair)
    if said:
        listed = "; ".join(f"{word} for {', '.join(names)}" for word, names in said.items())
        may = ", where it may be only that values near 100% leave little room" * (_ON_LOG_ODDS["undecided"] in said)
        yield f"In log-odds, where values near 100% have as much room as others, this is {listed}{may}."


def _say_size(findings: Findings) -> Iterator[str]:
    front = sorted((each for each in findings.arms if each.on_front), key=lambda each: each.arm.parameters or 0)
    if len(front) > 1:
        names, measure = name_arms(findings), findings.rules.measure
        listed = "; ".join(
            f"{names[each.arm.name]} ({each.arm.parameters:,} parameters, {each.estimate.mean:{measure.digits}})"
            for each in front[:_MOST]
            if each.estimate
        )
        more = f" and {len(front) - _MOST} more" if len(front) > _MOST else ""
        good = "accurate" if measure.is_accuracy else f"good by {measure.name}"
        yield f"By their means, untested, no smaller network is as {good} as {listed}{more}."


def _say_noise(findings: Findings) -> Iterator[str]:
    if findings.images is None:
        return
    noises = findings.images.noise.values()
    shares = [noise.share_of_seeds for noise in noises if noise.share_of_seeds is not None]
    if shares:
        share = float(np.median(shares))
        said = _say_new_images(findings.images.verdicts.values())
        yield (
            f"Of the variance of a difference, {share:.0%} comes from training, which more seeds lessen, and "
            f"{1 - share:.0%} from the choice of the {findings.images.test_size:,} test images, which they do not"
            f"{' (medians over the arms)' if len(shares) > 1 else ''}. {said}"
        )


def _say_new_images(verdicts: Collection[WiderVerdict]) -> str:
    return f"{_name_verdicts(verdicts)} for these test images; for new images too: {_count_labels(verdicts)}."


def _say_new_training(findings: Findings) -> Iterator[str]:
    verdicts = findings.new_training.values()
    if verdicts:
        sizes = write_counts({draw.available for draw in findings.draws.values()}, "image")
        yield (
            f"{_name_verdicts(verdicts)} for training images drawn from the same {sizes}; for new training images too: "
            f"{_count_labels(verdicts)}."
        )


def _name_verdicts(verdicts: Collection[WiderVerdict]) -> str:
    return "The verdict is" if len(verdicts) == 1 else "The verdicts are"


def _count_labels(verdicts: Collection[WiderVerdict]) -> str:
    """Returns how many verdicts have each label: ``2 worse, 1 undecided``; of a single one, its label."""
    if len(verdicts) == 1:
        return next(iter(verdicts)).label
    counts = Counter(each.label for each in verdicts)
    return ", ".join(
        f"{counts[label]} {label}"
        for word in get_args(Word)
        for label in sorted(counts, key=len)
        if label.startswith(word)
    )


def _say_runs_without_score(findings: Findings) -> Iterator[str]:
    counts, name = sum((each.arm.counts for each in findings.arms), Counter[str]()), findings.rules.measure.name
    listed = [f"{count} {status}" for status, count in counts.items() if status != "completed"]
    if listed:
        yield f"Not counted, because they have no {name}: {', '.join(listed)} of {counts.total()} runs."


def _say_measure(findings: Findings) -> Iterator[str]:
    measure = findings.rules.measure
    if measure.split == "validation":
        yield f"Compared by {measure.title}; the test accuracy of what is picked is still to be looked at, once."
    else:
        other = "validation accuracy" if measure.is_accuracy else "scores of other examples"
        then = f"on new images; pick by {other}" if measure.split else "elsewhere; pick by other scores"
        yield (
            f"Compared by {measure.title}: this tells what the choices do, but an arm that is picked here for its "
            f"{measure.title} is likely to look better here than {then}."
        )
