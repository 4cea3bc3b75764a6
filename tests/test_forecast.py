"""The arithmetic of a plan: trials left, sizes, times, and detectable differences."""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, nct, t, ttest_1samp

from ablations.execution.costs import count_images, find_size
from ablations.execution.work import find_work
from ablations.forecast.plans import MOST_LINES, MOST_ROWS, describe_plan, forecast, make_plan
from ablations.forecast.sensitivity import ASSUMED, find_sensitivity, space_evenly
from ablations.forecast.timing import LEAST_IMAGES, find_timing, fit_line, learn_timing, read_precedents, shorten
from ablations.study.grid import Cell, Grid
from cnnjax import DataConfig, ModelConfig, RunConfig, TrainConfig, summarize
from cnnjax.runs.history import EpochMetrics
from cnnjax.runs.store import Store
from cnnjax.statistics.estimates import smallest_detectable_difference
from cnnjax.statistics.planning import plan_equivalence
from cnnjax.statistics.verdicts import Criteria
from grid_helpers import make_grid, make_packed, tiny

WORKER = {"backend": "cpu", "kind": "cpu", "count": 1, "cpu_threads": 1}
SECONDS = {"load": 0.5, "compile": 2.0, "train": 3.0, "evaluate": 0.25, "total": 5.75}


def make_record(config, accuracy=0.9, device=WORKER, **seconds):
    record = make_packed(config, accuracy).record
    return dataclasses.replace(
        record, flops=find_size(config)[1], seconds=SECONDS | seconds, provenance={"device": device}
    )


def plan_of(grid, tmp_path, packed=(), workers=2, timing=None):
    store = Store(tmp_path)
    if packed:
        store.add_all(packed)
    return make_plan("?", grid, find_work(grid, store), workers, timing, find_sensitivity(grid, {}))


def test_counts_add_up_to_the_trials(tmp_path):
    grid = make_grid(widths=(8, 16), seeds=(0, 1, 2), problems=(999,))
    first, second, third = (trial.config for trial in grid.trials[:3])
    failed = dataclasses.replace(make_packed(third).record, status="failed", reason="?", test_accuracy=None)
    packed = [
        make_packed(first),
        make_packed(second, status="diverged"),
        dataclasses.replace(make_packed(third), record=failed),
    ]
    plan = plan_of(grid, tmp_path, packed)
    assert plan.counts == {"completed": 1, "diverged": 1, "failed": 1, "invalid": 3, "waiting": 3}
    assert sum(plan.counts.values()) == len(grid.trials)
    assert [cell.counts["waiting"] for cell in plan.cells] == [0, 3, 0]


def test_a_valid_cell_has_the_size_of_its_layer_table_and_an_invalid_one_has_none(tmp_path):
    valid, invalid = plan_of(make_grid(widths=(8,), problems=(999,)), tmp_path).to_dict()["cells"]
    summary = summarize(tiny())
    assert (valid["parameters"], valid["flops"], valid["activation_bytes"]) == (
        summary.parameters,
        summary.flops,
        summary.activation_bytes,
    )
    assert (invalid["parameters"], invalid["flops"], invalid["activation_bytes"]) == (None, None, None)
    assert invalid["problem"] == "too wide"


def test_a_program_is_shared_by_trials_that_differ_in_data_alone(tmp_path):
    cells = tuple(Cell({"rate": str(rate)}, tiny(learning_rate=rate)) for rate in (0.1, 0.2))
    grid = Grid("rates", ("rate",), (*cells, Cell({"rate": "-"}, tiny(dense=(16,)))), (0, 1))
    assert plan_of(grid, tmp_path).programs == 2
    stored = [make_packed(trial.config) for trial in grid.trials[:4]]
    assert plan_of(grid, tmp_path, stored).programs == 1


def test_without_timing_the_time_is_unknown_unless_nothing_waits(tmp_path):
    grid = make_grid()
    assert plan_of(grid, tmp_path).forecast is None
    done = plan_of(grid, tmp_path, [make_packed(trial.config) for trial in grid.trials])
    assert (done.forecast.wall, done.forecast.work) == (0, 0)


def test_a_plan_adds_the_seconds_of_its_trials_and_of_each_program_once_a_worker(tmp_path):
    grid = make_grid(widths=(8, 16), seeds=range(4))
    timing = learn_timing([make_record(trial.config) for trial in grid.trials], "by hand")
    plan = plan_of(grid, tmp_path, workers=1, timing=timing)
    assert [cell.seconds for cell in plan.cells] == pytest.approx([3.75, 3.75])
    assert plan.forecast.wall == plan.forecast.work == pytest.approx(8 * 3.75 + 2 * 2.0)
    assert plan.basis == "by hand"


@pytest.mark.parametrize(("compiling", "wall", "work"), [(0, 10, 18), (1, 13, 23)])
def test_the_longest_trial_goes_first_to_the_worker_that_is_free_first(compiling, wall, work):
    # Without compiling: 5, 3 and 4, 3, 3. With it: 6, 4 and 5, 4, 4.
    seconds = {8: 3, 16: 5, 24: 3, 32: 4, 40: 3}
    grid = make_grid(widths=tuple(seconds), seeds=(0,))
    found = forecast(grid.trials, 2, lambda trial: seconds[trial.config.model.dense[0]], lambda trial: compiling)
    assert (found.wall, found.work) == (wall, work)


def test_every_worker_compiles_a_program_once():
    grid = make_grid(widths=(8,), seeds=range(4))
    found = forecast(grid.trials, 2, lambda trial: 2, lambda trial: 1)
    assert (found.wall, found.work) == (5, 10)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 5))
def test_a_forecast_lies_between_its_bounds(seconds, workers):
    grid = make_grid(widths=range(1, len(seconds) + 1), seeds=(0,))
    found = forecast(grid.trials, workers, lambda trial: seconds[trial.config.model.dense[0] - 1], lambda trial: 0)
    best = max(max(seconds), math.ceil(sum(seconds) / workers))
    assert found.work == sum(seconds)
    assert best <= found.wall <= best * 4 / 3 + max(seconds)


@given(st.floats(1e-7, 1e-2), st.floats(1e-13, 1e-8))
def test_a_line_through_points_that_follow_it_is_recovered(start, slope):
    line = fit_line([(flops, start + slope * flops) for flops in (83_520, 645_120, 7_495_680, 21_387_520)])
    for flops in (83_520, 1_000_000, 21_387_520):
        assert line.at(flops) == pytest.approx(start + slope * flops, rel=1e-6)


def test_a_fitted_line_is_never_below_zero():
    line = fit_line([(1e6, 1e-5), (2e6, 5e-5), (4e6, 2e-4)])
    assert line.start == 0
    assert line.slope > 0


def test_one_network_alone_makes_a_line_through_the_origin():
    assert fit_line([(1e6, 2.0), (1e6, 4.0)]).at(2e6) == pytest.approx(6.0)


def test_a_timed_network_is_predicted_by_its_mean_and_others_by_the_line():
    small, large = tiny(dense=(8,)), tiny(dense=(32,))
    timing = learn_timing(
        [make_record(small, train=1.0), make_record(tiny(1, (8,)), train=2.0), make_record(large, train=6.0)], "?"
    )
    assert timing.run_seconds(small) == pytest.approx(0.5 + 1.5 + timing.evaluate.at(find_size(small)[1]))
    between = tiny(dense=(16,))
    flops = find_size(between)[1]
    assert timing.run_seconds(between) == pytest.approx(0.5 + 500 * timing.train.at(flops) + timing.evaluate.at(flops))
    assert timing.run_seconds(small) < timing.run_seconds(between) < timing.run_seconds(large)


def test_training_grows_with_the_images_seen():
    timing = learn_timing([make_record(tiny())], "?")
    extra = timing.run_seconds(tiny(epochs=3)) - timing.run_seconds(tiny())
    assert extra == pytest.approx(2 * SECONDS["train"])


def test_a_run_that_stopped_early_counts_with_its_completed_epochs():
    config = tiny(epochs=10, validation_split=0.5, early_stopping_patience=1)
    config = dataclasses.replace(config, data=DataConfig(train_size=500))
    record = make_record(config)
    stopped = dataclasses.replace(record, history=tuple(EpochMetrics(e, 0.5, 0.8, 0.5, 0.8, 0.1) for e in (1, 2)))
    timing = learn_timing([stopped], "?")
    assert timing.run_seconds(config) == pytest.approx(0.75 + SECONDS["train"] * 10 / 2)


def test_the_first_run_of_a_program_gives_the_time_of_compilation():
    runs = [make_record(tiny(seed), compile=seconds) for seed, seconds in enumerate((0.01, 4.0, 0.01, 0.02))]
    assert learn_timing(runs, "?").compile_seconds(tiny(9)) == 4.0
    runs.append(make_record(tiny(dense=(16,)), compile=6.0))
    assert learn_timing(runs, "?").compile_seconds(tiny(dense=(24,))) == 5.0


def test_workers_are_timed_by_runs_on_one_core_or_else_by_other_runs():
    grid = make_grid()
    many_cores, gpu = WORKER | {"cpu_threads": 8}, WORKER | {"backend": "gpu", "kind": "H"}
    alone = [make_record(tiny(seed), device=WORKER) for seed in range(2)]
    others = [make_record(tiny(7), device=many_cores, train=9.0), make_record(tiny(8), device=gpu, train=99.0)]
    assert find_timing(grid, alone + others, False, "S").basis == "2 runs in S"
    assert find_timing(grid, others, False, "S").basis == "1 run in S, which had more cores than the one of a worker"
    assert find_timing(grid, alone + others, True, "S").known_train.popitem()[1] == pytest.approx(99 / 500)
    assert find_timing(grid, others[1:], False, "S") is None


def test_runs_that_did_not_complete_or_saw_other_images_are_ignored():
    record = make_record(tiny())
    elsewhere = dataclasses.replace(record, config=dataclasses.replace(tiny(), data=DataConfig("cifar10", 500)))
    diverged = dataclasses.replace(record, status="diverged")
    untimed = dataclasses.replace(record, seconds={})
    assert find_timing(make_grid(), [elsewhere, diverged, untimed], False, "S") is None


@pytest.mark.parametrize(
    ("width", "is_known"), [(8, True), (30, True), (33, False), (600, False), (2, True), (1, False)]
)
def test_times_are_not_extrapolated_to_networks_far_from_the_timed_ones(width, is_known):
    timed = [make_record(tiny(seed)) for seed in range(3)]  # of width 8
    assert (find_timing(make_grid(widths=(8, width)), timed, False, "S") is not None) == is_known
    assert find_timing(make_grid(widths=(8, width)), [*timed, make_record(tiny(dense=(width,)))], False, "S")


def test_precedents_are_the_runs_of_the_grid_and_then_the_newest(tmp_path, monkeypatch):
    monkeypatch.setattr("ablations.forecast.timing.MOST", 3)
    store, grid = Store(tmp_path), make_grid(widths=(8,), seeds=(0, 1))
    others = [tiny(seed, (64,)) for seed in range(3)]
    store.add_all([make_packed(config) for config in (grid.trials[0].config, *others, grid.trials[1].config)])
    statuses = {key: run.status for key, run in store.list_statuses().items()}
    found = read_precedents(grid, store, statuses)
    assert set(found) == {grid.trials[0].key, grid.trials[1].key, others[-1].key}
    assert read_precedents(grid, Store(tmp_path / "nowhere"), {}) == {}


def keyed(*records):
    return {record.key: record for record in records}


def spread_records(config_of, deviation, seeds):
    """Returns runs whose accuracies have this standard deviation over the seeds."""
    values = np.linspace(-1, 1, len(seeds))
    values *= deviation / values.std(ddof=1)
    return [make_record(config_of(seed), 0.9 + value) for seed, value in zip(seeds, values, strict=True)]


def test_the_spread_is_the_typical_one_of_the_cells_of_the_study():
    grid = make_grid(widths=(8, 16), seeds=range(5))
    own = [spread_records(lambda seed, w=width: tiny(seed, (w,)), 0.02, range(5)) for width in (8, 16)]
    other = spread_records(lambda seed: tiny(seed, (64,)), 0.4, range(5))
    found = find_sensitivity(grid, keyed(*own[0], *own[1], *other))
    assert found.standard_deviation == pytest.approx(0.02 / math.sqrt(chi2.median(4) / 4))
    reach = "0.0200 to 0.0200 by empirical Bayes"
    assert found.basis == f"typical of 2 configurations of this study, {reach}, 8 degrees of freedom"


def test_without_runs_of_the_study_the_spread_is_that_of_like_runs_or_assumed():
    grid = make_grid(widths=(8, 16), seeds=range(5))
    alike = spread_records(lambda seed: tiny(seed, (64,)), 0.01, range(9))
    longer = spread_records(lambda seed: tiny(seed, (64,), epochs=2), 0.3, range(9))
    found = find_sensitivity(grid, keyed(*alike, *longer))
    assert found.standard_deviation == pytest.approx(0.01 / math.sqrt(chi2.median(8) / 8))
    assert found.basis.startswith("typical of 1 configuration of the same dataset, training examples and epochs, 8 deg")
    too_few = find_sensitivity(grid, keyed(*longer, *alike[:8]))
    assert (too_few.standard_deviation, too_few.freedom) == (ASSUMED.deviation, 9)
    assert too_few.basis.startswith("an assumption")


def test_the_difference_that_five_seeds_find_is_found_in_four_of_five_studies():
    found = find_sensitivity(make_grid(seeds=range(5)), {})
    noncentrality = found.difference * math.sqrt(5) / (math.sqrt(2) * 0.0019)
    critical = t.ppf(0.975, 4)
    power = nct.sf(critical, 4, noncentrality) + nct.cdf(-critical, 4, noncentrality)
    assert power == pytest.approx(0.8, abs=1e-6)
    assert found.difference == pytest.approx(0.00452, abs=1e-5)
    assert (found.comparisons, find_sensitivity(make_grid(seeds=(0, 1)), {}).difference) == (1, None)


def test_many_cells_are_planned_for_at_the_level_of_their_family():
    found = find_sensitivity(make_grid(widths=tuple(range(1, 22)), seeds=range(5)), {})
    spread, level = math.sqrt(2) * 0.0019, 1 - 0.95 ** (1 / 20)
    samples = np.random.default_rng(0).normal(found.difference, spread, (20_000, 5))
    assert found.comparisons == 20
    assert np.mean(ttest_1samp(samples, 0, axis=1).pvalue < level) == pytest.approx(0.8, abs=0.01)
    assert found.difference == pytest.approx(0.0101, abs=5e-5)


def test_every_figure_of_a_plan_is_at_the_level_of_its_family():
    found = find_sensitivity(make_grid(widths=tuple(range(1, 22)), seeds=range(5)), {}, Criteria(0.1, 0.004, 0.9))
    spread, level = math.sqrt(2) * 0.0019, 1 - 0.9 ** (1 / 20)

    def find_rate(difference, n):
        critical, shift = t.ppf(1 - level / 2, n - 1), difference / spread * math.sqrt(n)
        # SciPy's cdf is nan where it is too small for a float.
        return nct.sf(critical, n - 1, shift) + np.nan_to_num(nct.cdf(-critical, n - 1, shift))

    assert find_rate(found.difference, 5) == pytest.approx(0.9, abs=1e-6)
    assert [point.power for point in found.curve] == pytest.approx(
        [find_rate(point.difference, 5) for point in found.curve]
    )
    assert found.curve[-2].power < 0.9 <= found.curve[-1].power
    assert found.equivalence.seeds == plan_equivalence(spread, 0.004, 0.1 / 20, 0.9)
    needed, as_planned = found.find(0.005)
    assert find_rate(0.005, needed.seeds - 1) < 0.9 <= find_rate(0.005, needed.seeds)
    assert needed.low < needed.seeds < needed.high
    assert as_planned.power == pytest.approx(find_rate(0.005, 5))
    # An interval of 80% of a variance with 9 degrees of freedom: 4.168 and 14.684 from any table of chi².
    assert found.difference_low / found.difference == pytest.approx(math.sqrt(9 / 14.684), abs=1e-4)
    assert found.difference_high / found.difference == pytest.approx(math.sqrt(9 / 4.168), abs=1e-4)


@given(st.floats(1e-6, 1e3))
def test_a_power_curve_has_four_to_eight_points_that_reach_the_difference(difference):
    points = space_evenly(difference)
    assert 4 <= len(points) <= 8
    assert points[-2] < difference <= points[-1] * (1 + 1e-6)


def test_equal_accuracies_leave_a_difference_that_their_steps_hide():
    grid = make_grid(widths=(8, 16), seeds=range(5))
    equal = [make_record(tiny(seed, (width,)), 0.9) for width in (8, 16) for seed in range(5)]
    found = find_sensitivity(grid, keyed(*equal))
    assert found.standard_deviation == pytest.approx(1e-4 / math.sqrt(12))
    assert found.difference == pytest.approx(1e-4 / math.sqrt(6) * smallest_detectable_difference(1, 5))


def test_a_calibration_trains_the_network_as_it_is_on_fewer_images():
    config = RunConfig(train=TrainConfig(epochs=9, batch_size=64, validation_split=0.5, early_stopping_patience=2))
    short = shorten(config)
    assert (short.model, short.train.batch_size, short.train.epochs) == (config.model, 64, 1)
    assert LEAST_IMAGES <= count_images(short) < 10_000
    assert count_images(shorten(RunConfig(model=ModelConfig(filters=())))) == 60_000
    assert count_images(shorten(dataclasses.replace(config, data=DataConfig(train_size=300)))) == 300


def test_a_large_plan_is_cut_and_says_by_how_much(tmp_path):
    grid = make_grid(widths=range(1, MOST_ROWS + 3), seeds=(0,), problems=range(900, 900 + MOST_LINES + 1))
    plan = plan_of(grid, tmp_path)
    document = describe_plan(plan)
    assert len(document.tables[0].rows) == MOST_ROWS
    assert document.notes[0] == f"... and {len(grid.cells) - MOST_ROWS} more cells; --all shows them"
    assert Counter(note.split(":")[0] for note in document.notes)["invalid"] == MOST_LINES
    whole = describe_plan(plan, complete=True)
    assert len(whole.tables[0].rows) == len(grid.cells)
    assert not any("--all" in note for note in whole.notes)
