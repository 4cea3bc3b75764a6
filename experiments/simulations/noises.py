"""Noise of runs, and accuracies made of it.

Every noise has a mean of zero, so that arms differ by what is added to them and by nothing else.
"""

from collections.abc import Callable

import numpy as np

from cnnjax.comparison.paired import least_spread

STEP = 1e-4
"""Accuracies are multiples of it: those of 10,000 test images."""
SPREAD = 0.002
"""Standard deviation of the noise of a run, where its name does not say otherwise."""
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
"""Draws noise in units of `SPREAD`."""


def draw_normal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws normal noise."""
    return random.standard_normal(shape)


def draw_heavy(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws Student's t of three degrees of freedom, of unit variance."""
    noise: np.ndarray = random.standard_t(3, shape) / np.sqrt(3)
    return noise


def draw_skewed(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws exponential noise with its long tail below."""
    return 1 - random.exponential(1, shape)


def draw_wide_skewed(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws such noise three times as wide."""
    return 3 * draw_skewed(random, shape)


def draw_small(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws noise of half a step: most accuracies of an arm are equal."""
    return random.standard_normal(shape) * 0.5 * STEP / SPREAD


def collapse(share: float) -> Draw:
    """Returns normal noise in which a share of the runs ends ten standard deviations lower."""

    def draw(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.where(random.random(shape) < share, -10.0, 0.0) + 10 * share + random.standard_normal(shape)

    return draw


RARELY, OFTEN = collapse(0.05), collapse(0.1)
NOISES: dict[str, tuple[Draw, Draw]] = {
    "normal": (draw_normal, draw_normal),
    "t of 3 degrees": (draw_heavy, draw_heavy),
    "skewed (exponential)": (draw_skewed, draw_skewed),
    "1 run in 20 collapses": (RARELY, RARELY),
    "1 run in 10 collapses": (OFTEN, OFTEN),
    "half a step": (draw_small, draw_small),
    "one arm skewed, three times as wide": (draw_wide_skewed, draw_normal),
    "one arm collapses 1 run in 20": (RARELY, draw_normal),
    "one arm collapses 1 run in 10": (OFTEN, draw_normal),
}
"""Noise of the first and of the second arm, by what it is like."""
FAMILIES: dict[str, tuple[Draw, Draw]] = {
    **{name: draws for name, draws in NOISES.items() if not name.startswith("one arm")},
    "arms skewed": (draw_skewed, draw_normal),
    "base skewed, three times as wide": (draw_normal, draw_wide_skewed),
    "arms collapse 1 run in 20": (RARELY, draw_normal),
    "arms collapse 1 run in 10": (OFTEN, draw_normal),
    "base collapses 1 run in 20": (draw_normal, RARELY),
    "base collapses 1 run in 10": (draw_normal, OFTEN),
}
"""Noise of the arms and of their base."""


def draw_accuracies(
    random: np.random.Generator, draws: tuple[Draw, Draw], difference: float, correlation: float, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the accuracies of two arms, (studies, seeds) each, in whole steps.

    Args:
        random: the source of all noise.
        draws: noise of the arms.
        difference: by which the mean of the first is above that of the second.
        correlation: of normal arms over the seeds.
        shape: (studies, seeds).
    """
    common = draws[1](random, shape)
    arms = (np.sqrt(correlation) * common + np.sqrt(1 - correlation) * draw(random, shape) for draw in draws)
    first, second = (0.97 + SPREAD * arm for arm in arms)
    return np.rint((first + difference) / STEP) * STEP, np.rint(second / STEP) * STEP


def draw_differences(
    random: np.random.Generator, draws: tuple[Draw, Draw], difference: float, correlation: float, shape: tuple[int, int]
) -> np.ndarray:
    """Returns the differences between two arms, (studies, seeds), in whole steps; arguments as `draw_accuracies`."""
    first, second = draw_accuracies(random, draws, difference, correlation, shape)
    differences: np.ndarray = np.rint((first - second) / STEP) * STEP
    return differences


def summarize(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the means and the spreads of studies, as `compare_paired` has them."""
    return differences.mean(-1), np.maximum(differences.std(-1, ddof=1), least_spread(STEP))
