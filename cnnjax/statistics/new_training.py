"""Verdicts for new training images, where each seed draws its training images from those there are.

The differences of such seeds vary with the images that were drawn, so their interval holds for other draws from the
same images. New images are more than that: all seeds drew from the same ones, and what these have in common is in every
seed and in no spread. An interval for new training images adds the most that this can be.
"""

import math
from dataclasses import dataclass

import numpy as np

from cnnjax.statistics.families import DEFAULT, Contrast
from cnnjax.statistics.new_images import WiderVerdict, decide_by_interval
from cnnjax.statistics.verdicts import Criteria


@dataclass(frozen=True)
class TrainingDraw:
    """How every seed draws its training images.

    Attributes:
        drawn: number of training images of a run.
        available: number of images that they are drawn from; more than `drawn` without replacement.
        with_replacement: whether an image may be drawn again, as in a bootstrap.
    """

    drawn: int
    available: int
    with_replacement: bool

    @property
    def ratio(self) -> float:
        """Variance of a mean over all images there are, by the variance over draws of a mean over those drawn.

        Of images of variance `v`, the first is ``v / available``; the second is ``v / drawn`` with replacement, and
        ``v / drawn - v / available`` without.

        Example:
            >>> TrainingDraw(5_000, 60_000, with_replacement=False).ratio
            0.09090909090909091
        """
        return self.drawn / (self.available if self.with_replacement else self.available - self.drawn)


def half_widths_for_new_training(
    spread: np.ndarray | float, n: int, level: float, draw: TrainingDraw
) -> np.ndarray | float:
    """Returns the half width ``t s √(1/n + ratio)`` of an interval of the mean for new training images.

    It has its confidence exactly if all noise is from the training images and normal, and more otherwise.

    Args:
        spread: standard deviation of the differences.
        n: number of differences.
        level: one less its confidence.
        draw: how the training images were drawn.

    References:
        Nadeau and Bengio, "Inference for the generalization error", 2003 (the correction for samples that share
        examples); Bouthillier et al., "Accounting for variance in machine learning benchmarks", 2021.

    Example:
        >>> draw = TrainingDraw(60_000, 60_000, with_replacement=True)
        >>> f"{half_widths_for_new_training(0.002, n=5, level=0.05, draw=draw):.4f}"
        '0.0061'
    """
    from scipy.special import stdtrit

    half: np.ndarray | float = stdtrit(n - 1, 1 - level / 2) * spread * math.sqrt(1 / n + draw.ratio)
    return half


def decide_for_new_training(
    contrast: Contrast, draw: TrainingDraw, k: int, criteria: Criteria = DEFAULT, *, all_pairs: bool = False
) -> WiderVerdict | None:
    """Decides whether the verdict on a comparison holds for new training images too.

    Levels and rules are those of `decide_for_new_images`.

    Args:
        contrast: the comparison, as a member of its family, of arms whose seeds draw their training images.
        draw: how they draw them.
        k: number of planned comparisons in the family.
        criteria: level and margin of the family.
        all_pairs: whether the family is that of all pairs.

    Returns:
        The verdict: ``undecided`` wherever that for these training images is; ``None`` without a spread.

    Example:
        >>> from cnnjax.statistics import compare_with_baseline
        >>> arms = {"same": {0: 0.972, 1: 0.975, 2: 0.971}, "valid": {0: 0.962, 1: 0.965, 2: 0.960}}
        >>> (contrast,) = compare_with_baseline(arms, "valid")
        >>> subset = TrainingDraw(5_000, 60_000, with_replacement=False)
        >>> contrast.verdict.word, decide_for_new_training(contrast, subset, k=1).word
        ('better', 'better')
    """
    comparison = contrast.comparison
    spread = comparison.spread
    if spread is None:
        return None

    def find_interval(confidence: float) -> tuple[float, float]:
        half = float(half_widths_for_new_training(spread, comparison.n, 1 - confidence, draw))
        return comparison.mean - half, comparison.mean + half

    return decide_by_interval(contrast, find_interval, k, criteria, all_pairs=all_pairs)
