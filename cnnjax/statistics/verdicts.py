"""Verdicts on comparisons: better, worse, equivalent or undecided, each with its reason.

`Criteria` are the level, the margin and the power by which comparisons are decided. The power functions compute how
many seeds are needed to decide.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np

from cnnjax.errors import InputError
from cnnjax.settings.checking import Interval, check
from cnnjax.statistics.losses import Losses, name_compared
from cnnjax.statistics.measures import ACCURACY, Measure
from cnnjax.statistics.paired import PairedComparison

MARGIN = 0.002
"""Default margin of equivalence: differences of accuracy below 0.2 percentage points count as none."""
MOST_SEEDS = 1000
"""Largest number of seeds that is planned for."""
LEAST_SEEDS = 3
"""Fewest common seeds for a verdict."""
REASONABLE_SEEDS = 40
"""If the margin needs more than `MOST_SEEDS`, the margin that this many seeds (or twice those run) decide is given."""
FLIPS_DECIDE = 6
"""Fewest pairs with which a distribution-free test can reach 5%: ``2 ** (1 - 6)`` is 0.03."""
_NODES = 400
"""Quantiles of chi over which the power of equivalence is integrated."""
Word = Literal["better", "worse", "equivalent", "undecided"]
DEPENDENCE: Mapping[str, str] = {"better": "depends", "worse": "depends", "equivalent": "adds up"}
"""Labels of interactions: what one factor does depends on the other, or their effects add up."""


@dataclass(frozen=True)
class Criteria:
    """The level, margin and power of decisions, and what is compared.

    Attributes:
        alpha: probability of any false claim of a difference, and of any false claim of equivalence.
        margin: margin of equivalence: smaller differences of the measure count as none.
        power: probability with which the planned seeds decide.
        measure: what is compared.
    """

    alpha: float = 0.05
    margin: float = MARGIN
    power: float = 0.8
    measure: Measure = ACCURACY


@dataclass(frozen=True)
class Levels:
    """Levels of the tests of one comparison, as a member of its family.

    Attributes:
        interval: level of the interval of the difference, at which a difference above the margin is judged too.
        equivalence: level of each of the two one-sided tests of equivalence.
        difference: level of the test of a difference: `interval`, or above it by a step-down test.
        rates: level of the test of how often runs collapse.
        worst: level of the test of a difference, and of each of the one-sided tests, in the worst case of lost runs.
    """

    interval: float
    equivalence: float
    difference: float
    rates: float
    worst: tuple[float, float]

    @classmethod
    def of_one(cls, alpha: float) -> "Levels":
        """Returns the levels of a single comparison, which are all alike."""
        return cls(alpha, alpha, alpha, alpha, (alpha, alpha))


@dataclass(frozen=True)
class Verdict:
    """A decision.

    Attributes:
        word: verdict on the first arm against the second, for programs.
        label: the verdict for readers, with its qualifications: that it holds only for the runs that trained or
            completed, that an arm is more or less reliable or never trained, that the difference is not shown to exceed
            the margin, or that both arms are at chance.
        reason: one sentence that gives the reason.
        survives_losses: whether the verdict holds whatever the lost runs would have reached; true if none was lost.
        restriction: the runs that the verdict holds for if not for all, such as ``of the runs that trained``.
        by_step_down: whether a difference was found by a step-down test although its interval, which holds together
            with those of the whole family, includes zero.
        reliability: ``more reliable`` or ``less reliable`` if the first arm is shown to collapse less or more often.
        seeds_needed: for an undecided comparison, total number of seeds that would detect a true difference as large as
            the margin, and would show equivalence if there is none, each with the given power and if the observed
            spread is the true one; ``None`` if that takes more than `MOST_SEEDS`.
        seeds_for_seen: likewise, number of seeds that would detect a true difference as large as the observed one.
        decidable_margin: if `seeds_needed` is ``None``, the margin that `REASONABLE_SEEDS` would decide.
    """

    word: Word
    label: str
    reason: str
    survives_losses: bool = True
    restriction: str = ""
    reliability: str = ""
    by_step_down: bool = False
    seeds_needed: int | None = None
    seeds_for_seen: int | None = None
    decidable_margin: float | None = None

    @property
    def in_short(self) -> str:
        """The verdict with what lost runs add to it, but without numbers: ``better of the runs that trained``."""
        return " ".join(filter(None, (self.word, self.restriction))) + _join_reliability(self.word, self.reliability)

    @property
    def label_word(self) -> str:
        """The first word of the label, such as ``depends`` of an interaction that is ``better`` for programs."""
        return re.split(r"[ ;]", self.label, maxsplit=1)[0]


def decide(
    comparison: PairedComparison,
    alpha: float = 0.05,
    margin: float = MARGIN,
    power: float = 0.8,
    *,
    levels: Levels | None = None,
    losses: Losses | None = None,
    least: int = LEAST_SEEDS,
    labels: Mapping[str, str] | None = None,
    scope: str = "",
    plans: bool = True,
    measure: Measure = ACCURACY,
) -> Verdict:
    """Decides by Student's paired t test for a difference, and two one-sided t tests for equivalence.

    For independent, normally distributed differences, the probability of claiming a difference where there is none is
    at most `alpha`. So is that of claiming equivalence where the true difference is as large as the margin.

    Args:
        comparison: comparison of values of the measure, from `compare_paired`.
        alpha: level of the tests, > 0 and < 0.5.
        margin: margin of equivalence, in units of the measure, > 0.
        power: probability with which `seeds_needed` seeds decide, > alpha and < 1.
        levels: levels of a member of a family, in place of `alpha`.
        losses: runs of both arms, including lost ones; by default none was lost.
        least: fewest common seeds for a verdict.
        labels: labels that replace the words, such as `DEPENDENCE`.
        scope: what the levels are adjusted for, such as ``as one of 14 comparisons``; becomes part of the reason.
        plans: whether the reason of an undecided comparison says how many seeds would decide it.
        measure: what is compared: which direction is better, and how numbers are written.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> from cnnjax.statistics.paired import compare_paired
        >>> valid, same = {0: 0.970, 1: 0.971, 2: 0.968, 3: 0.969}, {0: 0.980, 1: 0.982, 2: 0.979, 3: 0.978}
        >>> decide(compare_paired(same, valid)).word
        'better'

    References:
        Schuirmann, "A comparison of the two one-sided tests procedure and the power approach", 1987; Lakens,
        "Equivalence tests", 2017.
    """
    levels = levels or Levels.of_one(alpha)
    alpha = levels.difference
    check(alpha, Annotated[float, Interval(0, 0.5, open_low=True, open_high=True)], "alpha")
    check(margin, Annotated[float, Interval(0, open_low=True)], "margin")
    if not alpha < power < 1:
        raise InputError(f"power={power}: must be > alpha ({alpha}) and < 1")
    n, mean, spread = comparison.n, comparison.mean, comparison.spread
    rates = losses.rates if losses else None
    reliability = rates.reliability(levels.rates) if rates else ""
    if n < least:
        if losses and name_compared(losses.first, losses.second) == "trained":
            found = (
                f"{n} seeds at which both arms trained tell" if n > 1 else "one seed at which both arms trained tells"
            )
            needed = f"{least} are needed"
        else:
            found = f"{n} common seeds tell" if n > 1 else "one common seed tells"
            needed = f"run {least}"
        reason = f"{found} too little of the spread: {needed}{_remark_rates(losses)}"
        return _leave_open(reason, reliability=reliability)
    if losses and losses.both_at_chance:
        return _leave_open(
            "no run of either arm is shown to do better than guessing", label="undecided; both at chance"
        )
    if spread is None:
        return _leave_open("all differences are equal: without their resolution the spread is unknown")
    halves = half_widths(np.asarray(spread), n, alpha, levels.equivalence)
    wide, narrow = map(float, half_widths(np.asarray(spread), n, levels.interval, levels.equivalence))
    interval = _describe(mean, wide, 1 - levels.interval, measure)
    differs, is_equivalent = map(bool, judge(np.asarray(mean), halves, margin))
    remarks = _remark(comparison, losses, scope, measure)
    limit = measure.write_margin(margin)
    if not differs and not is_equivalent:
        found = f"{interval} holds zero, and is too wide for the margin of ±{limit}"
        if not plans:
            return _leave_open(f"{found}{remarks}", reliability=reliability)
        plan = _plan(comparison, spread, (alpha, levels.equivalence), margin, power, measure, reliability)
        return replace(plan, reason=f"{found}; {plan.reason}{remarks}")
    if is_equivalent:
        word: Word = "equivalent"
        also = ", although zero is outside the wider interval of a difference" if abs(mean) > wide else ""
        found = (
            f"{_describe(mean, narrow, 1 - 2 * levels.equivalence, measure)} lies within the margin of ±{limit}{also}"
        )
    else:
        word = "better" if (mean > 0) == measure.higher_is_better else "worse"
        found = f"{interval} leaves zero out"
    by_step_down = not is_equivalent and abs(mean) <= wide
    if by_step_down:
        found = (
            f"{interval} holds zero together with all others, but p = {comparison.t_p:.2g} is below {alpha:.2g}, the "
            "level that is left once the clearer differences are found"
        )
    holds = losses is None or survives(word, losses, levels.worst, margin, measure.higher_is_better)
    label, restriction = (labels or {}).get(word, word), ""
    if losses and not holds:
        restriction = f"of the runs that {name_compared(losses.first, losses.second)}"
        label += f" {restriction} ({_count_both(losses)})"
    label += _join_reliability(word, reliability)
    if losses and losses.rates and not (losses.first.trained and losses.second.trained):
        label += "; never trained" if losses.second.trained else "; the other never trained"
    if by_step_down:
        label += "; found step by step"
    elif word != "equivalent" and abs(mean) - wide <= margin:
        label += f"; by more than {limit} not shown"
    return Verdict(word, label, f"{found}{remarks}", holds, restriction, reliability, by_step_down)


def _leave_open(reason: str, label: str = "undecided", reliability: str = "", **plan: Any) -> Verdict:
    label += _join_reliability("undecided", reliability)
    return Verdict("undecided", label, reason, reliability=reliability, **plan)


def _join_reliability(word: Word, reliability: str) -> str:
    """Returns what stands behind a verdict on the typical run: `` and more reliable``, or `` but less reliable``."""
    if not reliability:
        return ""
    disagrees = (word, reliability) in (("better", "less reliable"), ("worse", "more reliable"))
    return f"{'; ' if word == 'undecided' else ' but ' if disagrees else ' and '}{reliability}"


def _plan(
    comparison: PairedComparison,
    spread: float,
    levels: tuple[float, float],
    margin: float,
    power: float,
    measure: Measure,
    reliability: str,
) -> Verdict:
    """Returns an undecided verdict whose reason says how many seeds would decide."""
    limit = f"{measure.write_margin(margin)}{measure.points}"
    n, mean = comparison.n, abs(comparison.mean)
    needed = plan_seeds(spread, margin, levels[0], power, levels[1])
    for_seen = plan_detection(spread, mean, levels[0], power) if mean else None
    for_seen = for_seen and max(for_seen, n + 1)
    chance = f"with {power:.0%} probability{{}}, if the spread seen is the true one"
    seen = f"{for_seen} seeds would find a true difference as large as seen" if for_seen else ""
    if needed:
        needed = max(needed, n + 1)
        reason = f"{needed} seeds in all would find a true difference of {limit}, or that there is none, "
        reason += chance.format(" each")
        return _leave_open(reason, reliability=reliability, seeds_needed=needed, seeds_for_seen=for_seen)
    seeds = max(REASONABLE_SEEDS, 2 * n)
    decidable = find_margin(spread, seeds, levels[0], power, levels[1])
    reason = (
        f"more than {MOST_SEEDS:,} seeds are needed for a true difference of {limit}; "
        f"{seeds} would decide by a margin of {measure.scale * decidable:.2g}{f', and {seen}' if seen else ''}, "
    )
    reason += chance.format(" each" if seen else "")
    return _leave_open(reason, reliability=reliability, seeds_for_seen=for_seen, decidable_margin=decidable)


def half_widths(
    spread: np.ndarray, n: int | np.ndarray, alpha: float, equivalence_alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the half widths of two intervals of the mean: that for a difference, and that for equivalence.

    Args:
        spread: standard deviation of the differences.
        n: number of differences.
        alpha: level of the two-sided test.
        equivalence_alpha: level of the one-sided tests.
    """
    from scipy.special import stdtrit

    wide, narrow = (stdtrit(n - 1, 1 - tail) * spread / np.sqrt(n) for tail in (alpha / 2, equivalence_alpha))
    return wide, narrow


def judge(mean: np.ndarray, halves: tuple[np.ndarray, np.ndarray], margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether the tests find a difference, and whether they find equivalence, which takes precedence.

    A difference is found if the first interval excludes zero; equivalence, if the second lies within the margin.

    Args:
        mean: mean of the differences.
        halves: half widths of the two intervals, from `half_widths`.
        margin: margin of equivalence.
    """
    wide, narrow = halves
    return np.abs(mean) > wide, np.abs(mean) + narrow < margin


def survives(
    word: Word, losses: Losses, levels: tuple[float, float], margin: float, higher_is_better: bool = True
) -> bool:
    """Returns whether a claim also holds in the worst case of the lost runs, by the same tests.

    Args:
        word: the claim, not ``undecided``.
        losses: runs of the comparison.
        levels: level of the test of a difference, and of each of the one-sided tests of equivalence.
        margin: margin of equivalence.
        higher_is_better: whether a higher value is better.
    """
    if losses.lowest is None or losses.highest is None:
        return True
    if len(losses.lowest) < LEAST_SEEDS:
        return False
    ends = np.array([losses.lowest, losses.highest])
    mean, n = ends.mean(1), ends.shape[1]
    wide, narrow = half_widths(ends.std(1, ddof=1), n, *levels)
    if word == "equivalent":
        return bool((np.abs(mean) + narrow < margin).all())
    is_higher = (word == "better") == higher_is_better
    return bool(mean[0] > wide[0] if is_higher else mean[1] < -wide[1])


def equivalence_p(comparison: PairedComparison, margin: float) -> float | None:
    """Returns the p value of equivalence: the larger one of the two one-sided tests; ``None`` without a spread."""
    from scipy.special import stdtr

    if comparison.spread is None:
        return None
    error = comparison.spread / math.sqrt(comparison.n)
    return float(stdtr(comparison.n - 1, (abs(comparison.mean) - margin) / error))


def _describe(mean: float, half: float, confidence: float, measure: Measure) -> str:
    written, low, high = (measure.write_difference(each, 3) for each in (mean, mean - half, mean + half))
    return f"{written}{measure.points}: the {100 * confidence:.4g}% interval [{low}, {high}]"


def _count_both(losses: Losses) -> str:
    return f"{losses.first} against {losses.second}" if losses.second.lost else str(losses.first)


def _remark(comparison: PairedComparison, losses: Losses | None, scope: str, measure: Measure) -> str:
    remarks = [scope] if scope else []
    if comparison.n < FLIPS_DECIDE:
        least = comparison.least_sign_flip_p
        remarks.append(f"with {comparison.n} seeds this rests on normality (a sign-flip test gives {least:g} at best)")
    did = name_compared(losses.first, losses.second) if losses else "completed"
    if losses and losses.lowest is not None:
        remarks.append(f"of the runs that {did}, {losses.first} against {losses.second}")
    if losses and losses.lowest and losses.highest:
        low, high = (measure.write_difference(float(np.mean(ends)), 3) for ends in (losses.lowest, losses.highest))
        remarks.append(f"what the others would have reached could move the mean to between {low} and {high}")
    if comparison.unpaired:
        seeds = ", ".join(map(str, comparison.unpaired))
        has = "at which one arm alone trained" if did == "trained" else "that one arm alone has a result for"
        remarks.append(f"seeds {has} are left out: {seeds}")
    return "".join(f"; {remark}" for remark in remarks) + _remark_rates(losses)


def _remark_rates(losses: Losses | None) -> str:
    """Returns how many runs of each arm collapsed and how the rates compare; empty if none did."""
    rates = losses.rates if losses else None
    if rates is None or not rates.first.collapsed + rates.second.collapsed:
        return ""
    counts = " against ".join(f"{rate.collapsed} of {rate.runs}" for rate in (rates.first, rates.second))
    return f"; collapsed {counts} (equal rates: p = {rates.p:.3g})"


def plan_seeds(
    spread: float, margin: float, alpha: float = 0.05, power: float = 0.8, equivalence_alpha: float | None = None
) -> int | None:
    """Returns the fewest seeds that detect a difference as large as the margin, and show equivalence if there is none.

    Args:
        spread: standard deviation of the differences, > 0.
        margin: margin of equivalence, > 0.
        alpha: level of the t test.
        power: probability with which the t test detects a true difference of `margin`, and with which the two one-sided
            tests find equivalence if there is no difference.
        equivalence_alpha: level of the one-sided tests; by default `alpha`.

    Returns:
        At least 3; ``None`` if `MOST_SEEDS` are too few.
    """
    for n in range(3, MOST_SEEDS + 1):
        finds = power_of_difference(margin, spread, n, alpha) >= power
        if finds and power_of_equivalence(0.0, spread, n, margin, equivalence_alpha or alpha) >= power:
            return n
    return None


def plan_detection(spread: float, difference: float, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """Returns the fewest seeds, at least 3, with which the t test detects a true difference with this power.

    ``None`` if `MOST_SEEDS` are too few.
    """
    seeds = range(3, MOST_SEEDS + 1)
    return next((n for n in seeds if power_of_difference(difference, spread, n, alpha) >= power), None)


def find_margin(spread: float, n: int, alpha: float, power: float, equivalence_alpha: float) -> float:
    """Returns the smallest margin that `n` seeds decide, in the sense of `plan_seeds`."""
    from scipy.optimize import brentq

    def lack(margin: float) -> float:
        finds = power_of_difference(margin, spread, n, alpha)
        return power - min(finds, power_of_equivalence(0.0, spread, n, margin, equivalence_alpha))

    high = spread
    while lack(high) > 0:
        high *= 2
    return float(brentq(lack, 0, high))


def power_of_difference(difference: float, spread: float, n: int, alpha: float = 0.05) -> float:
    """Returns the probability that the two-sided paired t test finds a true mean difference."""
    from scipy.special import ncfdtr, stdtrit

    # The square of a noncentral t is a noncentral F. SciPy returns nan for a probability too small for a float.
    missed = ncfdtr(1, n - 1, n * (difference / spread) ** 2, stdtrit(n - 1, 1 - alpha / 2) ** 2)
    return float(1 - np.nan_to_num(missed))


def power_of_equivalence(difference: float, spread: float, n: int, margin: float, alpha: float = 0.05) -> float:
    """Returns the probability that the two one-sided t tests find equivalence, given the true mean difference.

    For a given sample standard deviation, both tests reject if the sample mean is far enough inside the margin. The
    probability of that is integrated over quantiles of the standard deviation, which has a chi distribution with
    ``n - 1`` degrees of freedom.

    References:
        Phillips, "Power of the two one-sided tests procedure in bioequivalence", 1990.
    """
    from scipy.special import ndtr, stdtrit
    from scipy.stats import chi2

    error = spread / math.sqrt(n)
    quantiles = (np.arange(_NODES) + 0.5) / _NODES
    left = margin - stdtrit(n - 1, 1 - alpha) * error * np.sqrt(chi2.ppf(quantiles, n - 1) / (n - 1))
    reached = ndtr((left - difference) / error) - ndtr((-left - difference) / error)
    return float(np.mean(np.where(left > 0, reached, 0.0)))
