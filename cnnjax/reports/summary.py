"""The findings in sentences, the most important first."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from cnnjax.comparison import Contrast, Effect, Share
from cnnjax.reports.findings import ArmResult, Findings
from cnnjax.reports.names import name_arms

WORDS = ("better", "worse", "equivalent", "undecided")
_MOST = 6


def write_summary(findings: Findings) -> tuple[str, ...]:
    """Returns what a reader should take away, one sentence or two each."""
    return (
        *_say_verdicts(findings),
        *_say_ranks(findings),
        *_say_shares(findings.shares),
        *_say_effects(findings.effects),
        *_say_interactions(findings.interactions),
        *_say_size(findings),
        *_say_noise(findings),
        *_say_missing(findings.arms),
        *_say_measure(findings),
    )


def write_points(value: float) -> str:
    """Returns a difference of accuracy in percentage points: ``+0.31``."""
    return f"{100 * value:+.2f}"


def write_interval(low: float | None, high: float | None) -> str:
    """Returns an interval in percentage points: ``[+0.10, +0.52]``; nothing where there is none."""
    return "" if low is None or high is None else f"[{write_points(low)}, {write_points(high)}]"


def _say_verdicts(findings: Findings) -> Iterator[str]:
    contrasts = findings.contrasts
    if not contrasts and findings.ranks is None:
        yield "Nothing could be compared: no two arms of one dataset have completed runs with a seed in common."
    if not contrasts:
        return
    counts = Counter[str](contrast.verdict.word for contrast in contrasts)
    counted = ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
    margin = f"within ±{100 * findings.rules.margin:g} points counts as equivalent"
    if findings.base is None:
        yield f"Of {_count(len(contrasts), 'pair')} of arms, the first is {counted} ({margin})."
    elif len(contrasts) == 1:
        yield f"{_say_contrast(findings, contrasts[0])}: {contrasts[0].verdict.word} ({margin})."
    else:
        yield f"Against {name_arms(findings)[findings.base]}, of {_count(len(contrasts), 'arm')} {counted} ({margin})."
    if len(contrasts) > 1:
        for word, sign in (("better", -1), ("worse", 1)):
            found = [contrast for contrast in contrasts if contrast.verdict.word == word]
            if found:
                most = min(found, key=lambda contrast: sign * contrast.comparison.mean)
                said = f"{_say_contrast(findings, most)}{_say_lost(findings, most)}"
                yield f"The largest difference among the {word}: {said}."
    yield from _say_seeds(findings)


def _say_contrast(findings: Findings, contrast: Contrast) -> str:
    names = name_arms(findings)
    interval = write_interval(contrast.low, contrast.high)
    points = f"{write_points(contrast.comparison.mean)} points {interval}".rstrip()
    return f"{names[contrast.first]} less {names[contrast.second]} is {points}"


def _say_seeds(findings: Findings) -> Iterator[str]:
    undecided = [each for each in findings.contrasts if each.verdict.word == "undecided"]
    needed = sorted(each.verdict.seeds_needed for each in undecided if each.verdict.seeds_needed)
    if findings.rules.looks or not undecided:
        return
    listed = f"{needed[0]} to {needed[-1]}" if needed and needed[0] < needed[-1] else "".join(map(str, needed[:1]))
    margins = [each.verdict.decidable_margin for each in undecided if each.verdict.decidable_margin]
    parts = [
        *([f"{len(needed)} would be decided by {listed} seeds in all"] if needed else []),
        *([f"{len(margins)} only by a --margin of {100 * min(margins):.2g} points or more"] if margins else []),
    ]
    if not parts:
        return
    yield (
        f"Of {_count(len(undecided), 'undecided comparison')}, {' and '.join(parts)}, with "
        f"{findings.rules.power:.0%} probability each, if the spread seen is the true one and the true difference is "
        f"nothing or {100 * findings.rules.margin:g} points; "
        "looking again with more seeds makes false claims more likely, unless it was planned so (--top-up)."
    )


def _say_lost(findings: Findings, contrast: Contrast) -> str:
    counts = findings.arm(contrast.first).arm.counts
    lost = counts.total() - counts["completed"]
    return f", of the {counts['completed']} of its {counts.total()} runs that completed" if lost else ""


def _say_ranks(findings: Findings) -> Iterator[str]:
    if findings.ranks is None:
        return
    names, ranks = findings.ranks
    order = np.argsort(ranks.mean, kind="stable")
    listed = ", ".join(f"{names[index]} {ranks.mean[index]:.2f}" for index in order[:_MOST])
    critical = ranks.critical_difference
    found = (
        "no two are shown to differ" if critical is None else f"two arms differ where their ranks do by {critical:.2f}"
    )
    yield (
        f"Mean ranks over the datasets: {listed}; ranks at random differ as much with probability {ranks.p:.3g}, "
        f"so {found}."
    )


def _say_shares(shares: Sequence[Share]) -> Iterator[str]:
    clear = [share for share in shares if share.low > 0][:3]
    if clear:
        listed = ", then ".join(f"{' x '.join(share.factors)} ({share.omega_squared:.0%})" for share in clear)
        yield f"What explains most of the variance between runs: {listed}."


def _say_effects(effects: Sequence[Effect]) -> Iterator[str]:
    for effect in effects[:_MOST]:
        contrast = effect.contrast
        interval = write_interval(contrast.low, contrast.high)
        over = f"over {_count(effect.combinations, 'combination')} of the other factors"
        yield (
            f"{effect.factors[0]} {effect.labels[0]} instead of {effect.references[0]}: "
            f"{write_points(contrast.comparison.mean)} points {interval}, {over}: {contrast.verdict.word}."
        )


def _say_interactions(interactions: Sequence[Effect]) -> Iterator[str]:
    found = [effect for effect in interactions if effect.contrast.verdict.word in ("better", "worse")]
    if found:
        pairs = dict.fromkeys(" and ".join(effect.factors) for effect in found)
        yield f"What one factor does depends on the other for {', '.join(pairs)}."
    elif interactions:
        undecided = sum(effect.contrast.verdict.word == "undecided" for effect in interactions)
        yield f"No interaction of two factors stands out of the noise; {undecided} of {len(interactions)} are open."


def _say_size(findings: Findings) -> Iterator[str]:
    front = sorted((each for each in findings.arms if each.on_front), key=lambda each: each.arm.parameters or 0)
    if len(front) > 1:
        names = name_arms(findings)
        listed = "; ".join(
            f"{names[each.arm.name]} ({each.arm.parameters:,} parameters, {each.estimate.mean:.4f})"
            for each in front[:_MOST]
            if each.estimate
        )
        more = f" and {len(front) - _MOST} more" if len(front) > _MOST else ""
        yield f"By their means, untested, no smaller network is as accurate as {listed}{more}."


def _say_noise(findings: Findings) -> Iterator[str]:
    if findings.images is None:
        return
    noises = findings.images.noise.values()
    clear = sum(noise.low > 0 or noise.high < 0 for noise in noises)
    shares = [noise.share_of_seeds for noise in noises if noise.share_of_seeds is not None]
    if shares:
        share = float(np.median(shares))
        yield (
            f"Of the variance of a difference, {share:.0%} comes from training, which more seeds lessen, and "
            f"{1 - share:.0%} from the choice of the {findings.images.test_size:,} test images, which they do not"
            f"{' (medians over the arms)' if len(shares) > 1 else ''}. The verdicts are for these test images; for new "
            f"ones too, at the same level, the intervals of {clear} of {len(noises)} differences leave zero out."
        )


def _say_missing(arms: Sequence[ArmResult]) -> Iterator[str]:
    counts = sum((each.arm.counts for each in arms), Counter[str]())
    listed = [f"{count} {status}" for status, count in counts.items() if status != "completed"]
    if listed:
        yield f"Left out, for they have no accuracy: {', '.join(listed)} of {counts.total()} runs."


def _say_measure(findings: Findings) -> Iterator[str]:
    if findings.rules.measure == "test":
        yield (
            "Compared by test accuracy: this tells what the choices do, but an arm that is picked here for its test "
            "accuracy will do worse on new images; pick by validation accuracy."
        )
    else:
        yield "Compared by validation accuracy; the test accuracy of what is picked is still to be looked at, once."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
