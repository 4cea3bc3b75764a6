"""Verdicts for new training images: the formula, what they are made for, what reports say, and simulated studies."""

import csv
import dataclasses
import functools
import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from cnnjax import DataConfig
from cnnjax.reports.arguments import write_findings
from cnnjax.reports.arms import find_training_draws
from cnnjax.reports.documents import make_document
from cnnjax.reports.images import compare_predictions
from cnnjax.reports.page import write_html
from cnnjax.reports.sentences import write_interval
from cnnjax.statistics import Criteria, TrainingDraw, compare_all_pairs, compare_with_baseline, decide_for_new_training
from cnnjax.statistics.measures import ACCURACY
from comparison_helpers import make_arms, make_findings, make_test_set, predict_all
from experiments.measure.simulations import SPREAD
from experiments.measure.training_simulations import AVAILABLE, DRAWS, draw_studies

SUBSET, BOOTSTRAP = DataConfig(train_size=5000, resample="subset"), DataConfig(resample="bootstrap")
TWENTIETH = TrainingDraw(10, 200, with_replacement=False)
CRITERIA = Criteria(measure=dataclasses.replace(ACCURACY, resolution=1e-4))


@pytest.mark.parametrize("drawn", [1, 2, 3, 4])
def test_the_ratio_is_that_of_all_possible_draws(drawn):
    values = np.array([0.3, 1.1, 4.0, 2.2, 2.9])
    of_all = values.var(ddof=1) / len(values)  # of the mean of five images, over sets of five
    subsets = [np.mean(each) for each in itertools.combinations(values, drawn)]
    ratio = TrainingDraw(drawn, 5, with_replacement=False).ratio
    assert ratio == pytest.approx(of_all / np.var(subsets))
    samples = [np.mean(each) for each in itertools.product(values, repeat=drawn)]
    ratio = TrainingDraw(drawn, 5, with_replacement=True).ratio
    assert ratio == pytest.approx(values.var() / len(values) / np.var(samples))


def make_contrast(mean, seeds=5, k=1, criteria=CRITERIA):
    differences = mean + 0.001 * np.round(stats.norm.ppf((np.arange(seeds) + 0.5) / seeds), 1)
    base = {seed: 0.9 for seed in range(seeds)}
    first = {seed: round(0.9 + float(each), 4) for seed, each in enumerate(differences)}
    family = {"base": base, "first": first} | {f"lost {index}": {} for index in range(k - 1)}
    (contrast,) = compare_with_baseline(family, "base", criteria)
    return contrast


@pytest.mark.parametrize("k", [1, 6])
@pytest.mark.parametrize("draw", [TWENTIETH, TrainingDraw(200, 200, with_replacement=True)])
def test_the_interval_is_that_of_a_sample_that_shares_images(draw, k):
    contrast = make_contrast(0.01, k=k)
    verdict = decide_for_new_training(contrast, draw, k, CRITERIA)
    deviation, level = np.std(contrast.comparison.differences, ddof=1), 1 - 0.95 ** (1 / k)
    half = stats.t.ppf(1 - level / 2, 4) * deviation * math.sqrt(1 / 5 + draw.ratio)
    assert (verdict.low, verdict.high) == pytest.approx((0.01 - half, 0.01 + half))
    assert verdict.low < contrast.low < contrast.high < verdict.high


@pytest.mark.parametrize(("sign", "word"), [(1, "better"), (-1, "worse")])
def test_a_bootstrap_says_less_of_new_images_than_small_subsets(sign, word):
    draws, words = (TWENTIETH, TrainingDraw(200, 200, with_replacement=True)), []
    criteria = dataclasses.replace(CRITERIA, margin=1e-5)
    for mean in (0.0005, 0.0015, 0.005):
        contrast = make_contrast(sign * mean, criteria=criteria)
        wider = [decide_for_new_training(contrast, draw, 1, criteria).word for draw in draws]
        words.append([contrast.verdict.word, *wider])
    assert words == [["undecided"] * 3, [word, word, "undecided"], [word] * 3]


@pytest.mark.parametrize("sign", [1, -1])
def test_equivalence_for_new_images_needs_a_margin_that_their_interval_fits_in(sign):
    words = []
    for margin in (0.0015, 0.004):
        criteria = dataclasses.replace(CRITERIA, margin=margin)
        contrast = make_contrast(sign * 0.0001, criteria=criteria)
        bootstrap = TrainingDraw(200, 200, with_replacement=True)
        words.append((contrast.verdict.word, decide_for_new_training(contrast, bootstrap, 1, criteria).word))
    assert words == [("equivalent", "undecided"), ("equivalent", "equivalent")]


def test_all_pairs_are_judged_at_the_least_level_of_holm():
    arms = {name: {seed: mean + 1e-4 * (seed % 3) for seed in range(5)} for name, mean in (("a", 0.9), ("b", 0.92))}
    arms["c"] = {seed: 0.95 - 1e-4 * (seed % 2) for seed in range(5)}
    contrasts = compare_all_pairs(arms, CRITERIA)
    verdicts = [decide_for_new_training(each, TWENTIETH, 3, CRITERIA, all_pairs=True) for each in contrasts]
    assert [verdict.level for verdict in verdicts] == pytest.approx([0.05 / 3] * 3)


def make_studied(*data):
    """Returns two arms whose data settings are given, and their predictions for test images."""
    dataset = make_test_set()
    arms, _ = make_arms({"model.padding": ("valid", "same")}, dataset=dataset, leave_out_last=False)
    labels = dataset.test.labels
    images = compare_predictions(predict_all(arms, labels), labels, arms[0].name, tuple("0123456789"))
    drawing = [
        dataclasses.replace(arm, config=dataclasses.replace(arm.config, data=each))
        for arm, each in zip(arms, data, strict=True)
    ]
    return drawing, images


@functools.cache
def find(data, others=None, base=True, has_images=True):
    arms, images = make_studied(data, others or data)
    draws = find_training_draws(arms)
    return make_findings(arms, arms[0].name if base else None, images if has_images else None, draws=draws)


def test_how_an_arm_draws_is_read_from_its_settings():
    for data, draw in ((SUBSET, (5000, 60_000, False)), (BOOTSTRAP, (60_000, 60_000, True)), (DataConfig(), None)):
        found = find_training_draws(make_studied(data, data)[0])
        assert set(found.values()) == (set() if draw is None else {TrainingDraw(*draw)})


@pytest.mark.parametrize("base", [True, False])
def test_every_format_says_which_training_images_a_claim_is_for(base):
    findings = find(SUBSET, base=base)
    (verdict,) = findings.new_training.values()
    assert verdict.word in ("better", "worse")
    for form in ("terminal", "markdown", "latex"):
        text = " ".join(write_findings(findings, form).split())
        assert "over seeds and their draws from one set of training images, for one test set" in text
        assert "for draws from these training images and these test images" in text
    lines = write_findings(findings, "markdown").splitlines()
    assert any("drawn from the same 60,000 images; for new training images too" in line for line in lines)
    place = next(index for index, line in enumerate(lines) if "| new training images too |" in line)
    headings, row = (lines[index].split(" | ") for index in (place, place + 2))
    assert row[headings.index("new training images too")] == verdict.label
    assert not base or write_html(findings).count(f'<span class="verdict {verdict.word}">') == 4
    table = next(each for each in make_document(findings).tables if each.title.startswith("New training images"))
    assert [row[2:] for row in table.rows] == [(write_interval(verdict.low, verdict.high), verdict.label)]
    (found,) = json.loads(write_findings(findings, "json"))["new_training"].values()
    assert (found["word"], found["low"]) == (verdict.word, verdict.low)
    (values,) = csv.DictReader(write_findings(findings, "csv").splitlines())
    assert (values["new_training"], float(values["new_training_low"])) == (verdict.word, verdict.low)


def test_the_sources_of_variance_have_their_shares_and_the_claims_that_cover_them():
    findings = find(SUBSET)
    lines = write_findings(findings, "markdown").splitlines()
    place = next(index for index, line in enumerate(lines) if line.startswith("| source of variance |"))
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines[place + 2 : place + 6]]
    (noise,) = findings.images.noise.values()
    parts = np.array([noise.from_seeds, noise.from_images, noise.from_both])
    assert [row[1] for row in rows] == [*(f"{share:.0%}" for share in parts / parts.sum()), "not known"]
    assert [row[2:] for row in rows] == [["yes"] * 3, ["no", "yes", "no"], ["yes"] * 3, ["no", "no", "yes"]]
    alone = write_findings(find(BOOTSTRAP, has_images=False), "markdown")
    assert "training images that all seeds draw from" in alone


def test_arms_that_draw_in_other_ways_have_no_verdict_for_new_training_images():
    findings = find(SUBSET, BOOTSTRAP)
    assert len(findings.draws) == 2
    assert not findings.new_training
    assert "new training images too" not in write_findings(findings, "terminal")
    text = " ".join(write_findings(find(DataConfig(), BOOTSTRAP), "terminal").split())
    assert "over seeds and their draws, where an arm makes them, from one set of training images" in text
    assert "source of variance" not in text


def test_without_draws_reports_say_nothing_of_them():
    text = " ".join(write_findings(find(DataConfig()), "terminal").split())
    assert "over seeds, for one training and one test set" in text
    assert "draw" not in text


@pytest.mark.parametrize("name", DRAWS)
def test_simulated_differences_vary_as_asked_for(name):
    random, draw = np.random.default_rng(0), DRAWS[name]
    studies = [draw_studies(random, draw, 0.7, (100, 4)) for _ in range(20)]
    differences = np.concatenate([each for each, _ in studies]) / (np.sqrt(2) * SPREAD)
    # a bootstrap repeats images, which adds their variance over draws to that over sets of images
    more = 0.7 * (1 - 1 / AVAILABLE) if draw is not None and draw.with_replacement else 0
    assert differences.var() == pytest.approx(1 + more, rel=0.06)
    common = 0.7 * (1 if draw is None else draw.drawn / AVAILABLE)  # what all images there are contribute
    assert np.mean(differences[:, 0] * differences[:, 1]) == pytest.approx(common, abs=4 * (1 + more) / np.sqrt(2000))
    assert np.var(np.concatenate([each for _, each in studies])) == pytest.approx(2 * SPREAD**2 * common, rel=0.15)
