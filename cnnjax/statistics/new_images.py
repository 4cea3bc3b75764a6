"""Verdicts for new test images: whether a claim about two arms holds for images other than those that were tested.

The rules are those of verdicts on the images at hand, with the interval of `Noise`, which is for new seeds and new
images alike. It is never narrower, so a claim for new images is never easier to make.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cnnjax.statistics.families import DEFAULT, Contrast
from cnnjax.statistics.noise import Noise
from cnnjax.statistics.verdicts import Criteria, Word


@dataclass(frozen=True)
class WiderVerdict:
    """A decision for new seeds and for new images: of the test set, or of the training set.

    Attributes:
        word: verdict on the first arm against the second, for programs.
        label: the verdict for readers; it says where lost runs were left out.
        level, equivalence_level: level of the test of a difference, and of each of the two one-sided tests.
        low, high: interval that the verdict is based on: with confidence ``1 - level``, or, if the verdict is
            ``equivalent``, ``1 - 2 * equivalence_level``; ``None`` where the comparison itself has no interval.
    """

    word: Word
    label: str
    level: float
    equivalence_level: float
    low: float | None
    high: float | None


def decide_for_new_images(
    contrast: Contrast, noise: Noise, k: int, criteria: Criteria = DEFAULT, *, all_pairs: bool = False
) -> WiderVerdict:
    """Decides whether the verdict on a comparison holds for new images too.

    The probability of any false claim for new images in the family is at most `criteria.alpha`, for differences and for
    equivalence each. Against a baseline, and at looks, a difference has the level of the interval beside it.
    All pairs, and equivalence, have at most ``alpha / k``: the levels of Holm's procedure rise with the claims that
    were made, and those were for the images at hand.

    Args:
        contrast: the comparison, as a member of its family.
        noise: the noise of its differences, for its seeds.
        k: number of planned comparisons in the family.
        criteria: level and margin of the family.
        all_pairs: whether the family is that of all pairs.

    Returns:
        The verdict: ``undecided`` wherever that for the images at hand is.

    Example:
        >>> import numpy as np
        >>> from cnnjax.statistics import compare_with_baseline, split_noise
        >>> places = np.arange(1000) % 100
        >>> same, valid = (places >= np.array([wrong]).T for wrong in ([5, 6, 5], [9, 10, 10]))
        >>> arms = {name: dict(enumerate(each.mean(1))) for name, each in (("same", same), ("valid", valid))}
        >>> (contrast,) = compare_with_baseline(arms, "valid")
        >>> (noise,) = split_noise([same.astype(int) - valid])
        >>> contrast.verdict.word, decide_for_new_images(contrast, noise, k=1).word
        ('better', 'better')

    References:
        Graybill and Wang, "Confidence intervals on nonnegative linear combinations of variances", 1980; Schuirmann, "A
        comparison of the two one-sided tests procedure and the power approach", 1987.
    """
    return decide_by_interval(contrast, noise.interval, k, criteria, all_pairs=all_pairs)


def decide_by_interval(
    contrast: Contrast,
    find_interval: Callable[[float], tuple[float, float]],
    k: int,
    criteria: Criteria,
    *,
    all_pairs: bool,
) -> WiderVerdict:
    """Decides as `decide_for_new_images` does, by an interval never narrower than Student's, given its confidence."""
    level = min(contrast.level, criteria.alpha / k) if all_pairs else contrast.level
    narrow = min(contrast.equivalence_level, criteria.alpha / k)
    if contrast.low is None:
        return WiderVerdict("undecided", "undecided", level, narrow, None, None)
    low, high = find_interval(1 - level)
    narrow_low, narrow_high = find_interval(1 - 2 * narrow)
    word: Word = "undecided"
    if contrast.verdict.word == "undecided":
        pass
    elif -criteria.margin < narrow_low and narrow_high < criteria.margin:
        word, low, high = "equivalent", narrow_low, narrow_high
    elif low > 0 or high < 0:
        word = "better" if (low > 0) == criteria.measure.higher_is_better else "worse"
    is_partial = word != "undecided" and (contrast.first_runs.lost or contrast.second_runs.lost)
    return WiderVerdict(word, f"{word} of the runs compared" if is_partial else word, level, narrow, low, high)
