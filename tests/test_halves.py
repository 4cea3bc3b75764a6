"""Cells compared with themselves: halves of the seeds, and random divisions of the runs."""

import re

import numpy as np
import pytest

from ablations.arguments import StudyArguments, read_study
from ablations.study.grid import expand
from cnnjax import InputError
from cnnjax.runs.store import Store
from experiments.measure.halves import main
from grid_helpers import make_packed

SEEDS = 12
STUDY = ["--axis", "model.kernel_size=3,5", "--set", "model.filters=[2]", "--seeds", str(SEEDS)]
GRID = expand(read_study(StudyArguments(axis=(STUDY[1],), set=(STUDY[3],), seeds=STUDY[5])))


def store_runs(folder, *accuracies):
    """Stores the runs of both cells of the study, with these accuracies by seed; ``nan`` diverged."""
    by_name = dict(zip((cell.name for cell in GRID.cells), accuracies, strict=True))
    runs = []
    for trial in GRID.trials:
        accuracy = by_name[trial.cell.name][trial.config.seed]
        runs.append(make_packed(trial.config, accuracy, "diverged" if np.isnan(accuracy) else "completed"))
    Store(folder).add_all(runs)


def tabulate(folder, *arguments):
    assert main([*STUDY, "--out", str(folder), "--markdown", str(folder / "halves.md"), *arguments]) == 0
    rows = [line.strip("| ").split(" | ") for line in (folder / "halves.md").read_text().splitlines() if "|" in line]
    return [dict(zip(rows[0], map(str.strip, row), strict=True)) for row in rows[2:]]


def test_halves_are_compared_and_random_divisions_claim_as_often_as_the_level_says(tmp_path, capsys):
    drawn = np.random.default_rng(3).normal(0.9, 0.01, (2, SEEDS)).round(4)
    drawn[1, 4], drawn[1, 11] = np.nan, 0.1
    store_runs(tmp_path, *drawn)
    first, second = tabulate(tmp_path, "--divisions", "4000")
    mean = drawn[0, : SEEDS // 2].mean() - drawn[0, SEEDS // 2 :].mean()
    assert float(first["difference"]) == pytest.approx(100 * mean, abs=0.006)
    assert (first["verdict"], first["collapsed"][:6], first["against"][:6]) == ("undecided", "0 of 6", "0 of 6")
    assert 3 < float(first["random divisions: better or worse"].rstrip("%")) < 8
    assert (second["collapsed"][:6], second["against"][:6]) == ("1 of 6", "1 of 6")
    # The seeds 4 and 5 + 6 are left out, with those that they are paired with.
    kept = [seed for seed in range(SEEDS // 2) if seed not in (4, 5)]
    mean = np.mean([drawn[1, seed] - drawn[1, seed + SEEDS // 2] for seed in kept])
    assert float(second["difference"]) == pytest.approx(100 * mean, abs=0.006)
    assert "Claims about arms that do not differ" in capsys.readouterr().out


def test_runs_are_needed_for_all_seeds_and_three_for_each_half(tmp_path):
    store_runs(tmp_path, *np.full((2, SEEDS), 0.9))
    with pytest.raises(InputError, match=re.escape("--seeds: must be at least 6, 3 for each half")):
        main([*STUDY[:-1], "5", "--out", str(tmp_path)])
    with pytest.raises(InputError, match=r"model.kernel_size=3: some of its trials have no result"):
        main([*STUDY[:-1], "14", "--out", str(tmp_path)])
