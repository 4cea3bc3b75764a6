"""The two sources of noise: hand-worked cases, statsmodels' analysis of variance, and simulations."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from cnnjax import InputError
from cnnjax.statistics import compare_paired, mcnemar_p, split_noise


def test_the_variance_components_of_a_hand_worked_table():
    # Rows (seeds) 1 1 0 0, 1 0 0 0, 1 1 1 0: means 2/4, 1/4, 3/4; columns 1, 2/3, 1/3, 0; mean 1/2.
    table = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]])
    (noise,) = split_noise([table])
    rows = 4 * (1 / 16 + 1 / 16) / 2  # mean square of seeds 1/4
    columns = 3 * (1 / 4 + 1 / 36 + 1 / 36 + 1 / 4) / 3  # of images 5/9
    rest = (3.0 - 0.5 - 5 / 3) / 6  # all squares are 12 * 1/4
    assert (noise.seeds, noise.images, noise.mean) == (3, 4, 0.5)
    assert noise.from_seeds == pytest.approx((rows - rest) / 12)
    assert noise.from_images == pytest.approx((columns - rest) / 12)
    assert noise.from_both == pytest.approx(rest / 12)
    total = noise.from_seeds + noise.from_images + noise.from_both
    assert noise.share_of_seeds == pytest.approx((noise.from_seeds + noise.from_both) / total)
    seeds, images = stats.t.ppf(0.975, 2) ** 2 * rows, stats.norm.ppf(0.975) ** 2 * (columns - rest)
    assert noise.high - noise.mean == pytest.approx(math.sqrt((seeds + images) / 12))


def test_mean_squares_agree_with_statsmodels():
    api = pytest.importorskip("statsmodels.formula.api")
    anova = pytest.importorskip("statsmodels.stats.anova")
    pandas = pytest.importorskip("pandas")
    random = np.random.default_rng(0)
    table = (random.random((4, 30)) < random.random(30)).astype(int)
    rows = [(value, f"s{i}", f"m{j}") for i, row in enumerate(table) for j, value in enumerate(row)]
    frame = pandas.DataFrame(rows, columns=["value", "seed", "image"])
    result = anova.anova_lm(api.ols("value ~ seed + image", frame).fit())
    (noise,) = split_noise([table])
    seeds, images, rest = (result["mean_sq"][name] for name in ("seed", "image", "Residual"))
    assert noise.from_both == pytest.approx(rest / table.size)
    assert noise.from_seeds == pytest.approx(max(seeds - rest, 0) / table.size)
    assert noise.from_images == pytest.approx(max(images - rest, 0) / table.size)


def simulate(random, seeds, images):
    """A table of normal numbers, whose mean has variances 1e-4 from seeds, 2e-4 from images and 0.5e-4 from both."""
    size = seeds * images
    return (
        random.normal(0, math.sqrt(1e-4 * seeds), (seeds, 1))
        + random.normal(0, math.sqrt(2e-4 * images), (1, images))
        + random.normal(0, math.sqrt(0.5e-4 * size), (seeds, images))
    )


def test_the_components_and_the_coverage_are_right_on_average():
    random = np.random.default_rng(0)
    tables = [simulate(random, 5, 60) for _ in range(300)]
    noises = split_noise(tables)
    assert np.mean([noise.from_seeds for noise in noises]) == pytest.approx(1e-4, rel=0.25)
    assert np.mean([noise.from_images for noise in noises]) == pytest.approx(2e-4, rel=0.1)
    assert np.mean([noise.from_both for noise in noises]) == pytest.approx(0.5e-4, rel=0.1)
    assert 0.92 <= np.mean([noise.low <= 0 <= noise.high for noise in noises]) <= 0.99
    assert 0.88 <= np.mean([noise.bootstrap[0] <= 0 <= noise.bootstrap[1] for noise in noises]) <= 0.99


def test_all_tables_share_the_same_bootstrap_resamples():
    table = np.random.default_rng(1).integers(0, 2, (3, 50))
    first, second = split_noise([table, table])
    assert first == second


def test_a_constant_table_has_only_the_noise_that_steps_of_one_image_hide():
    (noise,) = split_noise([np.ones((3, 10), bool)])
    assert (noise.mean, noise.share_of_seeds, noise.bootstrap) == (1.0, None, (1.0, 1.0))
    assert noise.high - 1 == pytest.approx(stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(6) / math.sqrt(3))


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.9987])
@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_new_images_never_make_the_interval_narrower_than_new_seeds_alone(n, confidence):
    random = np.random.default_rng(n)
    for images, rate in itertools.product((20, 2000), (0.002, 0.05, 0.5)):
        hard = random.random(images) < 0.1
        first, second = (random.random((n, images)) > np.where(hard, rate, rate / 20) for _ in range(2))
        accuracies = (dict(enumerate(map(float, side.mean(1)))) for side in (first, second))
        alone = compare_paired(*accuracies, confidence, resolution=1 / images)
        (noise,) = split_noise([first.astype(np.int8) - second.astype(np.int8)], confidence)
        assert noise.mean == pytest.approx(alone.mean, abs=1e-12)
        assert noise.low <= alone.low + 1e-12
        assert noise.high >= alone.high - 1e-12


@pytest.mark.parametrize("shapes", [[(1, 5)], [(5, 1)], [(2, 3), (3, 2)], [(4,)]])
def test_tables_of_other_shapes_are_refused(shapes):
    with pytest.raises(InputError, match=r"tables: must be \(seeds, images\) of one shape, at least 2 x 2"):
        split_noise([np.zeros(shape) for shape in shapes])


def test_mcnemars_test_on_a_hand_worked_case():
    first = np.array([1, 1, 1, 1, 0, 0, 1], bool)
    second = np.array([0, 0, 0, 1, 0, 1, 1], bool)
    # Three images are the first's alone and one the second's: 2 * (1 + 4) / 16.
    assert mcnemar_p(first, second) == pytest.approx(0.625)
    assert mcnemar_p(first, first) == 1.0


def test_mcnemar_agrees_with_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    random = np.random.default_rng(0)
    first, second = random.random((2, 200)) < np.array([[0.9], [0.8]])
    counts = [[np.sum(first & second), np.sum(first & ~second)], [np.sum(~first & second), np.sum(~first & ~second)]]
    assert mcnemar_p(first, second) == pytest.approx(tables.mcnemar(counts, exact=True).pvalue)
