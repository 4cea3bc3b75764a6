"""Real runs whose comparison has a known answer: a network against itself, and against a much smaller one."""

import pytest

from cnnjax import DataConfig, ModelConfig, RunConfig, TrainConfig, fit_many
from cnnjax.statistics import Criteria, Measure, compare_all_pairs

SEEDS, IMAGES = 8, 10_000


def train(filters, first_seed, out):
    configs = [
        RunConfig(
            ModelConfig(filters, kernel_size=3),
            TrainConfig(epochs=3, learning_rate=0.1),
            DataConfig(train_size=IMAGES),
            seed=seed,
        )
        for seed in range(first_seed, first_seed + SEEDS)
    ]
    runs = fit_many(configs, out=out)
    return {index: run.record.test_accuracy for index, run in enumerate(runs)}


@pytest.mark.slow
def test_a_network_is_not_better_than_itself_and_two_filters_are_worse(tmp_path):
    arms = {
        "8 filters": train((8, 8), 0, tmp_path),
        "8 filters, other seeds": train((8, 8), SEEDS, tmp_path),
        "2 filters": train((2, 2), 0, tmp_path),
    }
    contrasts = compare_all_pairs(arms, Criteria(measure=Measure("accuracy", resolution=1e-4)))
    verdicts = {frozenset((each.first, each.second)): each for each in contrasts}
    same = verdicts[frozenset(("8 filters", "8 filters, other seeds"))]
    assert same.verdict.word in ("equivalent", "undecided")
    for name in ("8 filters", "8 filters, other seeds"):
        crippled = verdicts[frozenset((name, "2 filters"))]
        assert crippled.verdict.word == ("worse" if crippled.first == "2 filters" else "better")
        assert crippled.low * crippled.high > 0
