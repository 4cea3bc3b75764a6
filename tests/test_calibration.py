"""Simulated studies: they have the differences and correlations asked for, and the command tabulates them."""

import itertools

import numpy as np
import pytest

from cnnjax.statistics.verdicts import MARGIN
from experiments.measure.calibration import main
from experiments.measure.factor_simulations import CHANGE, combine, draw_cells, find_log_odds, tabulate_interactions
from experiments.measure.family_simulations import TRUTHS, claim, draw_family
from experiments.measure.posterior_simulations import tabulate_posteriors
from experiments.measure.simulations import (
    FAMILIES,
    NOISES,
    SPREAD,
    STEP,
    draw_accuracies,
    draw_differences,
    summarize,
    summarize_trained,
    tabulate_collapses,
    tabulate_family_collapses,
    tabulate_looks,
    tabulate_losses,
    tabulate_stopping,
)


@pytest.mark.parametrize("draw", list(dict.fromkeys(draw for draws in (NOISES | FAMILIES).values() for draw in draws)))
def test_every_kind_of_noise_has_mean_zero(draw):
    noise = draw(np.random.default_rng(0), (1_000_000,))
    assert abs(noise.mean()) < 5 * noise.std() / 1000


@pytest.mark.parametrize(("noise", "times"), list(itertools.product(NOISES, (-1, 0, 1))))
def test_simulated_arms_differ_by_the_difference_asked_for(noise, times):
    differences = draw_differences(np.random.default_rng(1), NOISES[noise], times * MARGIN, 0.7, (2000, 20))
    assert differences.mean() == pytest.approx(times * MARGIN, abs=5 * differences.std() / 200)
    assert differences / STEP == pytest.approx(np.rint(differences / STEP), abs=1e-6)


def test_normal_arms_have_the_correlation_asked_for():
    first, second = draw_accuracies(np.random.default_rng(2), NOISES["normal"], 0.0, 0.7, (2000, 20))
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] == pytest.approx(0.7, abs=0.02)


def test_an_arm_that_loses_its_low_runs_is_rarely_called_better_without_a_qualification():
    for row in tabulate_losses(300).rows:
        share, seeds, looks_better, better, worse, *_ = row
        assert max(better, worse) < 0.05
        if seeds == 20 and "23%" in share:
            assert looks_better > 0.1


def test_trained_runs_are_summarized_as_if_the_others_did_not_exist():
    random = np.random.default_rng(3)
    differences, is_left_out = STEP * np.rint(random.normal(0, 20, (40, 8))), random.random((40, 8)) < 0.5
    mean, spread, n = summarize_trained(differences, is_left_out)
    for study, kept in enumerate(~is_left_out):
        assert n[study] == max(kept.sum(), 2)
        if kept.sum() >= 3:
            assert (mean[study], spread[study]) == pytest.approx(summarize(differences[study][kept]))
        else:
            assert np.isinf(spread[study])


def test_collapsed_runs_make_no_part_of_a_result_wrong_more_often_than_its_level_says():
    studies = 300
    most = 0.05 + 4 * np.sqrt(0.05 * 0.95 / studies)
    for _, _, better, worse, covers, above, below, _, _, more, _, rate_covers, _ in tabulate_collapses(studies).rows:
        assert max(better + worse, above, below, more) < most
        assert min(covers, rate_covers) > 1 - most
    for _, _, differs, above, below, reliable, _ in tabulate_family_collapses(60).rows:
        assert max(differs, above, below, reliable) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 30)


def test_looks_at_any_time_are_wrong_no_more_often_than_their_level_says_and_decide_large_differences_sooner():
    rows = {row[:2]: row[2:] for row in tabulate_looks(200).rows if not row[0].startswith("one arm")}
    for (noise, looks), (*wrong, unspent) in rows.items():
        assert max(wrong) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 200)
        assert (noise, looks[:11]) != ("normal", "at any time") or unspent > 0.1
    for _, points, planned, _, seeds, decided, *_ in tabulate_stopping(200).rows:
        if points in (0.3, 0.4, 0.6):
            assert seeds < planned
            assert decided > 0.95


def test_the_command_writes_its_tables(tmp_path, capsys):
    assert main(["--studies", "2", "--markdown", str(tmp_path / "tables.md")]) == 0
    text = (tmp_path / "tables.md").read_text()
    for heading in (
        "Two arms",
        "14 arms",
        "Looking again",
        "until decided",
        "diverge",
        "collapse",
        "by gaps",
        "new images",
        "power of 80%",
        "pilot",
    ):
        assert heading in text
    assert "Two arms" in capsys.readouterr().out


@pytest.mark.parametrize("interaction", [0.0, 0.3, -0.3])
def test_simulated_factors_have_the_interaction_asked_for_in_log_odds(interaction):
    cells = draw_cells(np.random.default_rng(4), 0.97, CHANGE, interaction, (500, 20))
    assert combine(find_log_odds(cells)).mean() == pytest.approx(interaction, abs=0.006)
    assert combine(cells).mean() < -0.003


def test_effects_that_add_up_in_log_odds_depend_in_points_alone():
    for accuracy, _, seeds, points, false, *_ in tabulate_interactions(300).rows:
        assert false < 0.1
        if seeds == 10 and accuracy < 0.99:
            assert points > 0.9


def test_stepping_down_finds_more_of_a_family_of_the_differences_asked_for():
    random, truths = np.random.default_rng(5), np.array(TRUTHS["all but one far"])
    families = [draw_family(random, NOISES["normal"], truths, 5) for _ in range(150)]
    assert np.mean(families, axis=(0, 2)) == pytest.approx(SPREAD * truths, abs=5 * 4 * SPREAD / 27)
    signs, alone = (np.array(each) for each in zip(*map(claim, families), strict=True))
    assert np.all(signs[alone != 0] == alone[alone != 0])
    assert np.count_nonzero(signs) > np.count_nonzero(alone)
    assert np.mean(signs[:, truths == 0] != 0) < 0.12


def test_what_is_said_to_be_probable_is_so():
    for _, seeds, *rates in tabulate_posteriors(400).rows:
        for low, rate in zip((0.0, 0.2, 0.4, 0.6, 0.8), rates, strict=True):
            if seeds > 3 and rate is not None:
                assert low - 0.1 < rate < low + 0.3
