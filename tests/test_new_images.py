"""Verdicts for new images: the formula, the levels, the formats, and how often they are wrong in simulated studies."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

from cnnjax.reports.arguments import write_findings
from cnnjax.reports.images import compare_predictions
from cnnjax.reports.page import write_html
from cnnjax.statistics import Criteria, compare_all_pairs, compare_with_baseline, decide_for_new_images, split_noise
from cnnjax.statistics.families import compare_outcomes, make_contrast, sidak
from cnnjax.statistics.losses import find_losses
from cnnjax.statistics.measures import ACCURACY
from cnnjax.statistics.verdicts import Levels
from comparison_helpers import make_arms, make_findings, make_test_set, predict_all

IMAGES = 400
CRITERIA = Criteria(measure=dataclasses.replace(ACCURACY, resolution=1 / IMAGES))


def compare(first, second, criteria=CRITERIA, k=1):
    """Returns the contrast of two tables of correct answers, and the verdict for new images; plans no seeds."""
    arms = [dict(enumerate(map(float, each.mean(1)))) for each in (first, second)]
    compared = compare_outcomes(*arms, 0.95, criteria.measure)
    level, narrow = sidak(criteria.alpha, k), criteria.alpha / k
    levels = Levels(level, narrow, difference=level, rates=level, worst=(level, narrow))
    contrast = make_contrast(
        ("a", "b"), compared, find_losses(*arms, criteria.measure), levels, None, criteria, plans=False
    )
    (noise,) = split_noise([first.astype(int) - second], resample=False)
    return contrast, decide_for_new_images(contrast, noise, k, criteria)


def make_tables(images_of_first, images_of_second, seeds=5):
    """Correct answers of two arms: each is wrong on as many images, of which seeds shift one to another place."""
    tables = np.ones((2, seeds, IMAGES), bool)
    for table, wrong in zip(tables, (images_of_first, images_of_second), strict=True):
        for seed in range(seeds):
            table[seed, : wrong - seed % 2] = False
    return tables


def test_the_interval_is_that_of_both_mean_squares_at_the_level_of_the_family():
    first, second = make_tables(10, 30)
    table = first.astype(int) - second
    rows, columns, mean = table.mean(1), table.mean(0), table.mean()
    seeds = IMAGES * np.sum((rows - mean) ** 2) / 4
    images = 5 * np.sum((columns - mean) ** 2) / (IMAGES - 1)
    rest = np.sum((table - rows[:, None] - columns + mean) ** 2) / 4 / (IMAGES - 1)
    least = IMAGES * (1 / IMAGES) ** 2 / 6  # what steps of one image may hide
    for k in (1, 20):
        level = 1 - 0.95 ** (1 / k)
        arms = {"b": dict(enumerate(map(float, second.mean(1)))), "a": dict(enumerate(map(float, first.mean(1))))}
        family = arms | {f"lost {index}": {} for index in range(k - 1)}
        (contrast,) = compare_with_baseline(family, "b", CRITERIA)
        (noise,) = split_noise([table])
        verdict = decide_for_new_images(contrast, noise, k, CRITERIA)
        t, z = stats.t.ppf(1 - level / 2, 4), stats.norm.ppf(1 - level / 2)
        half = math.sqrt((t**2 * max(seeds, least) + z**2 * max(images - rest, 0)) / (5 * IMAGES))
        assert (verdict.low, verdict.high) == pytest.approx((mean - half, mean + half))
        assert verdict.low < contrast.low < contrast.high < verdict.high


def test_new_images_leave_undecided_what_a_few_images_decide_and_keep_what_many_do():
    few, verdict = compare(*make_tables(6, 8))
    assert (few.verdict.word, verdict.word) == ("better", "undecided")
    for tables, word in ((make_tables(10, 40), "better"), (make_tables(40, 10), "worse")):
        many, verdict = compare(*tables)
        assert (many.verdict.word, verdict.word, verdict.label) == (word, word, word)


@pytest.mark.parametrize("wrong", [(20, 22), (22, 20)])
def test_equivalence_for_new_images_needs_a_margin_that_their_interval_fits_in(wrong):
    words = []
    for margin in (0.008, 0.02):
        contrast, verdict = compare(*make_tables(*wrong), dataclasses.replace(CRITERIA, margin=margin))
        words.append((contrast.verdict.word, verdict.word))
        if verdict.word == "equivalent":
            assert -margin < verdict.low < verdict.high < margin
    assert words == [("equivalent", "undecided"), ("equivalent", "equivalent")]


def test_what_is_undecided_for_these_images_is_so_for_new_ones():
    contrast, verdict = compare(*make_tables(10, 40, seeds=2))
    assert (contrast.verdict.word, verdict.word) == ("undecided", "undecided")


def test_lost_runs_are_said():
    first, second = make_tables(10, 40)
    arms = {
        "a": dict(enumerate(map(float, first.mean(1)))) | {5: None},
        "b": dict(enumerate(map(float, second.mean(1)))),
    }
    (contrast,) = compare_with_baseline(arms | {"b": arms["b"] | {5: 0.9}}, "b", CRITERIA)
    (noise,) = split_noise([first.astype(int) - second], resample=False)
    assert decide_for_new_images(contrast, noise, 1, CRITERIA).label == "better of the runs compared"


def test_all_pairs_are_judged_at_the_least_level_of_holm():
    tables = {name: make_tables(wrong, wrong)[0] for name, wrong in (("a", 5), ("b", 30), ("c", 60))}
    contrasts = compare_all_pairs(
        {name: dict(enumerate(map(float, each.mean(1)))) for name, each in tables.items()}, CRITERIA
    )
    assert max(contrast.level for contrast in contrasts) > 0.05 / 3
    for contrast in contrasts:
        (noise,) = split_noise([tables[contrast.first].astype(int) - tables[contrast.second]], resample=False)
        verdict = decide_for_new_images(contrast, noise, 3, CRITERIA, all_pairs=True)
        assert verdict.level == pytest.approx(0.05 / 3)
        assert verdict.word == "better"


def simulate(random, difference, seeds=4, images=IMAGES):
    """Two tables of correct answers, whose true difference over all images, not only those drawn, is given."""
    hard = random.normal(0, 0.6, images) - stats.norm.ppf(0.1) * math.sqrt(1.53)
    own = random.normal(0, 1, (2, images))  # what single images are for one arm alone
    noise = random.normal(0, 0.1, (2, seeds, 1)) + random.normal(0, 0.4, (2, seeds, images))
    shift = np.array([difference / 2, -difference / 2])[:, None, None]
    return (hard + own[:, None] + noise) / math.sqrt(1.53) + shift > 0


@pytest.mark.parametrize("sign", [1, -1])
def test_no_more_than_the_level_of_equal_arms_are_called_different_for_new_images(sign):
    random, words, alone = np.random.default_rng(3), [], []
    for _ in range(600):
        contrast, verdict = compare(*simulate(random, 0.0)[::sign])
        alone.append(contrast.verdict.word in ("better", "worse"))
        words.append(verdict.word in ("better", "worse"))
    assert np.mean(words) < 0.06 < 0.1 < np.mean(alone)


@pytest.mark.parametrize(("sign", "word"), [(1, "better"), (-1, "worse")])
def test_a_large_difference_is_found_for_new_images(sign, word):
    random = np.random.default_rng(4)
    assert np.mean([compare(*simulate(random, 0.6 * sign))[1].word == word for _ in range(100)]) > 0.8


@pytest.fixture(scope="module")
def studied():
    dataset = make_test_set()
    arms, _ = make_arms({"model.padding": ("valid", "same")}, dataset=dataset, leave_out_last=False)
    labels = dataset.test.labels
    names = tuple("0123456789")
    return arms, compare_predictions(predict_all(arms, labels), labels, arms[0].name, names)


@pytest.mark.parametrize("has_base", [True, False])
def test_every_format_has_the_verdict_for_new_images(studied, has_base):
    arms, images = studied
    findings = make_findings(arms, arms[0].name if has_base else None, images)
    (verdict,) = findings.images.verdicts.values()
    assert verdict.word in ("better", "worse")
    for form in ("terminal", "markdown", "latex"):
        assert "new images too" in write_findings(findings, form)
    lines = write_findings(findings, "markdown").splitlines()
    place = next(index for index, line in enumerate(lines) if "| new images too |" in line)
    headings, row = (lines[index].split(" | ") for index in (place, place + 2))
    assert row[headings.index("new images too")] == verdict.label
    pages = write_html(findings), write_html(make_findings(arms, findings.base))
    said, without = (page.count(f'<span class="verdict {verdict.word}">') for page in pages)
    assert said == without + 1
    (found,) = json.loads(write_findings(findings, "json"))["new_images"].values()
    assert (found["word"], found["low"]) == (verdict.word, verdict.low)
    (values,) = csv.DictReader(write_findings(findings, "csv").splitlines())
    assert (values["new_images"], float(values["new_images_low"])) == (verdict.word, verdict.low)


def test_without_predictions_there_is_no_column(studied):
    findings = make_findings(studied[0], studied[0][0].name)
    assert "new images too" not in write_findings(findings, "terminal")
