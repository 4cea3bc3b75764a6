"""What a comparison says in one word, and why: better, worse, equivalent or undecided.

``equivalent`` is a claim of its own, not the lack of a difference: two one-sided tests have shown that the difference
is smaller than the margin. It is asked first, so a difference that is both significant and smaller than the margin is
equivalence, and the reason says so. Each verdict is about one comparison by itself.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from cnnjax.comparison.paired import PairedComparison
from cnnjax.comparison.power import plan_seeds
from cnnjax.errors import InputError
from cnnjax.rules import Interval, check

MARGIN = 0.002
"""Differences of accuracy below 0.2 points are taken to make no difference where nobody says otherwise."""
LEAST_SEEDS = 3
FLIPS_DECIDE = 6
"""Pairs from which on a test without distribution can reach 5% at all: ``2 ** (1 - 6)`` is 0.03."""
Word = Literal["better", "worse", "equivalent", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """A decision.

    Attributes:
        word: of the first arm against the second.
        reason: one sentence.
        seeds_needed: how many seeds in all would decide it with the power asked for; for an undecided comparison of at
            least three pairs; ``None`` where no reasonable number would.
    """

    word: Word
    reason: str
    seeds_needed: int | None = None


def decide(comparison: PairedComparison, alpha: float = 0.05, margin: float = MARGIN, power: float = 0.8) -> Verdict:
    """Decides by Student's paired t test, and two one-sided ones for equivalence, each at level `alpha`.

    For independent, normally distributed differences, a difference is claimed where there is none at most with
    probability `alpha`, and so is equivalence where the difference is the margin.

    Args:
        comparison: of accuracies, from `compare_paired`.
        alpha: the level, > 0 and < 0.5.
        margin: of equivalence, of accuracy, > 0.
        power: with which `seeds_needed` seeds decide, > alpha and < 1.

    Raises:
        InputError: an argument is out of range.

    References:
        Schuirmann, "A comparison of the two one-sided tests procedure and the power approach", 1987; Lakens,
        "Equivalence tests", 2017.
    """
    from scipy.special import stdtrit

    check(alpha, Annotated[float, Interval(0, 0.5, open_low=True, open_high=True)], "alpha")
    check(margin, Annotated[float, Interval(0, open_low=True)], "margin")
    if not alpha < power < 1:
        raise InputError(f"power={power}: must be > alpha ({alpha}) and < 1")
    n, mean, spread = comparison.n, comparison.mean, comparison.spread
    if n < LEAST_SEEDS:
        return Verdict("undecided", f"{n} common seed{'s' * (n > 1)} tell too little of the spread: run {LEAST_SEEDS}")
    if spread is None:
        return Verdict("undecided", "all differences are equal: without their resolution the spread is unknown")
    error = spread / math.sqrt(n)
    wide, narrow = (float(stdtrit(n - 1, 1 - level)) * error for level in (alpha / 2, alpha))
    differs = abs(mean) > wide
    remarks = _remark(comparison)
    if abs(mean) + narrow < margin:
        also = ", although zero is outside the wider interval of a difference" if differs else ""
        found = _describe(mean, narrow, 1 - 2 * alpha)
        return Verdict("equivalent", f"{found} lies within the margin of ±{100 * margin:g}{also}{remarks}")
    found = _describe(mean, wide, 1 - alpha)
    if differs:
        return Verdict("better" if mean > 0 else "worse", f"{found} leaves zero out{remarks}")
    planned = plan_seeds(spread, margin, alpha, power)
    needed = planned and max(planned, n + 1)
    more = f"{needed} seeds in all would decide it" if needed else "no reasonable number of seeds decides it"
    reason = f"{found} holds zero, and is too wide for the margin of ±{100 * margin:g}; {more}{remarks}"
    return Verdict("undecided", reason, needed)


def _describe(mean: float, half: float, confidence: float) -> str:
    low, high = 100 * (mean - half), 100 * (mean + half)
    return f"{100 * mean:+.3f} points: the {100 * confidence:g}% interval [{low:+.3f}, {high:+.3f}]"


def _remark(comparison: PairedComparison) -> str:
    remarks = []
    if comparison.n < FLIPS_DECIDE:
        least = comparison.least_sign_flip_p
        remarks.append(f"with {comparison.n} seeds this rests on normality (a sign-flip test gives {least:g} at best)")
    if comparison.unpaired:
        seeds = ", ".join(map(str, comparison.unpaired))
        remarks.append(f"seeds that one arm alone has a result for are left out: {seeds}")
    return "".join(f"; {remark}" for remark in remarks)
