"""A result says how every trial of its cell ended; an accuracy comes from completed seeds alone."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.execution.arms import make_arms
from ablations.results import (
    Report,
    list_columns,
    make_data_table,
    make_pivot_tables,
    make_result_table,
    pick_cell,
    sort_cells,
)
from ablations.study.grid import Cell, Duplicate, Grid, read_choice
from cnnjax import InputError
from cnnjax.reports.arms import ACCURACIES, count_origins, describe_origins
from cnnjax.runs.record import TRIAL_STATUSES, Record
from grid_helpers import make_grid, make_packed, tiny

WIDTHS, RATES, SEEDS = ("8", "16", "4"), ("0.1", "0.01"), (0, 1, 7)
PROVENANCE = {
    "packages": {"jax": "0.8.1", "pillow": None},
    "python": "3.11.9",
    "device": {"backend": "cpu", "kind": "cpu", "count": 1},
    "execution": "solo",
    "git": {"commit": "0123456789abcdef", "dirty": False},
    "dataset": {"name": "mnist", "version": "bundled", "sha256": "f" * 64},
}


def make_two_factor_grid(problem="8"):
    cells = [
        Cell(
            {"model.dense": width, "train.learning_rate": rate},
            tiny(dense=(int(width),), learning_rate=float(rate)),
            "too wide" if width == problem and rate == "0.01" else None,
        )
        for width in WIDTHS
        for rate in RATES
    ]
    return Grid("tiny", ("model.dense", "train.learning_rate"), tuple(cells), SEEDS)


def make_records(grid, accuracy=lambda trial: 0.9, provenance=PROVENANCE):
    """Returns a completed record for every trial that can be run."""
    records = {}
    for index, trial in enumerate(trial for trial in grid.trials if not trial.cell.problem):
        record = make_packed(trial.config, accuracy(trial)).record
        records[trial.key] = dataclasses.replace(
            record, parameters=100 + index, seconds={"train": 2.0, "total": 3.0}, provenance=provenance
        )
    return records


def by_name(grid, records):
    return {cell.name: cell for cell in make_arms(grid, records)}


GRID = make_two_factor_grid()
CELL = "model.dense=16, train.learning_rate=0.1"


def test_a_cell_has_the_mean_and_every_accuracy_of_its_seeds():
    cell = by_name(GRID, make_records(GRID, lambda trial: 0.9 + trial.config.seed / 100))[CELL]
    assert cell.scores(ACCURACIES["test"]) == {0: 0.9, 1: 0.91, 7: 0.97}
    assert cell.accuracy.mean == pytest.approx(np.mean([0.9, 0.91, 0.97]))
    assert cell.accuracy.standard_deviation == pytest.approx(np.std([0.9, 0.91, 0.97], ddof=1))
    assert (cell.counts["completed"], len(cell.seeds), cell.train_seconds, cell.total_seconds) == (3, 3, 2.0, 9.0)
    assert {record.key for record in cell.records.values()} == {t.key for t in GRID.trials if t.cell.name == CELL}


@given(st.lists(st.sampled_from(["completed", "failed", "diverged", "pruned", "missing"]), min_size=3, max_size=3))
def test_every_trial_is_counted_once_and_none_without_a_result_becomes_a_number(statuses):
    records = make_records(GRID, lambda trial: 0.5)
    trials = [trial for trial in GRID.trials if trial.cell.name == CELL]
    for trial, status in zip(trials, statuses, strict=True):
        record = records.pop(trial.key)
        if status == "completed":
            records[trial.key] = record
        elif status != "missing":
            records[trial.key] = Record.without_result(trial.config, status, "boom", output="the last line")
    cell = by_name(GRID, records)[CELL]
    assert cell.counts == {status: statuses.count(status) for status in TRIAL_STATUSES}
    assert [failure.status for failure in cell.failures] == [s for s in statuses if s in ("failed", "diverged")]
    assert all((failure.reason, failure.output) == ("boom", "the last line") for failure in cell.failures)
    if "completed" in statuses:
        assert (cell.accuracy.n, cell.accuracy.mean) == (statuses.count("completed"), 0.5)
    else:
        assert (cell.accuracy, cell.train_seconds) == (None, None)


@pytest.mark.parametrize("is_stored", [False, True])
def test_an_invalid_cell_is_counted_and_has_its_reason(is_stored):
    invalid = [trial for trial in GRID.trials if trial.cell.problem]
    records = {trial.key: Record.without_result(trial.config, "invalid", "too wide") for trial in invalid}
    cell = by_name(GRID, records if is_stored else {})["model.dense=8, train.learning_rate=0.01"]
    assert (cell.counts["invalid"], cell.counts["missing"], cell.problem) == (3, 0, "too wide")
    assert (cell.parameters, cell.flops, cell.accuracy, cell.failures) == (None, None, None, ())


def test_records_of_other_runs_are_ignored():
    stranger = make_packed(tiny(seed=99)).record
    assert make_arms(GRID, {stranger.key: stranger}) == make_arms(GRID, {})


def labels(cells):
    return [tuple(cell.labels.values()) for cell in cells]


def filtered(*texts):
    is_shown = read_choice(texts, GRID, "--filter")
    return labels(cell for cell in make_arms(GRID, {}) if is_shown(cell.labels))


def test_filters_leave_the_cells_that_fit_all_of_them():
    assert filtered() == [(width, rate) for width in WIDTHS for rate in RATES]
    assert filtered("model.dense=16") == [("16", "0.1"), ("16", "0.01")]
    assert filtered("model.dense=16", "model.dense=4", "train.learning_rate=0.1") == [("16", "0.1"), ("4", "0.1")]
    assert filtered("model.dense != 8", "model.dense!=4", "train.learning_rate!=0.1") == [("16", "0.01")]
    assert filtered("model.dense=8", "model.dense!=8") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model.dens=8", r"--filter='model.dens': must be one of .*; did you mean 'model.dense'\?"),
        ("model.dense=9", r"--filter model.dense='9': must be one of 8, 16, 4"),
        ("model.dense", r"--filter 'model.dense': must be factor=label or factor!=label"),
        ("=8", r"--filter='': must be one of model.dense"),
    ],
)
def test_a_filter_that_names_no_factor_and_label_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        read_choice([text], GRID, "--filter")


def ordered(column, records):
    return labels(sort_cells(make_arms(GRID, records), column, GRID, list_columns(GRID, ())))


def test_cells_are_sorted_by_numbers_and_those_without_one_come_last():
    records = make_records(GRID, lambda trial: 0.8 + trial.config.model.dense[0] / 100)
    fours, eight, sixteens = [("4", "0.1"), ("4", "0.01")], [("8", "0.1")], [("16", "0.1"), ("16", "0.01")]
    assert ordered("accuracy", records) == fours + eight + sixteens + [("8", "0.01")]
    assert ordered("-accuracy", records) == sixteens + eight + fours + [("8", "0.01")]
    assert ordered("-invalid", records)[0] == ("8", "0.01")
    assert ordered("problem", records)[0] == ("8", "0.01")


def test_cells_are_sorted_by_a_factor_in_the_order_of_the_study():
    assert [width for width, _ in ordered("model.dense", {})] == ["8", "8", "16", "16", "4", "4"]
    assert [rate for _, rate in ordered("-train.learning_rate", {})] == ["0.01"] * 3 + ["0.1"] * 3
    assert ordered(None, {}) == [(width, rate) for width in WIDTHS for rate in RATES]


def test_an_unknown_column_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"--sort='acuracy': must be one of .*; did you mean 'accuracy'\?"):
        ordered("-acuracy", {})


def test_the_table_for_reading_rounds_and_shows_what_is_missing():
    records = make_records(GRID, lambda trial: 0.9 + trial.config.seed / 100)
    failed = next(trial for trial in GRID.trials if trial.cell.name == CELL)
    records[failed.key] = Record.without_result(failed.config, "failed", "boom")
    table = make_result_table(GRID, make_arms(GRID, records))
    headings = [column.heading for column in table.columns[2:]]
    assert headings == [
        "test accuracy", "95% interval", "parameters", "FLOPs", "train s", "completed", "failed", "invalid",
    ]  # fmt: skip
    rows = {row[:2]: (*row[2:4], *row[6:]) for row in table.rows}
    # By Student's interval 0.8326 to 1.0207, which no accuracy reaches.
    assert rows["16", "0.01"] == ("0.9267 ± 0.0379", "[0.8326, 1.0000]", 2.0, 3, None, None)
    assert rows["16", "0.1"][-3:] == (2, 1, None)
    assert rows["8", "0.01"] == (None, None, None, None, None, 3)


def test_without_stored_runs_a_table_has_only_labels_sizes_and_counts():
    table = make_result_table(GRID, make_arms(GRID, {}))
    assert [column.heading for column in table.columns] == [
        "dense",
        "learning_rate",
        "parameters",
        "FLOPs",
        "invalid",
        "missing",
    ]
    assert len(make_result_table(GRID, ()).columns) == 2


def test_the_data_table_has_every_column_unrounded():
    records = make_records(GRID, lambda trial: 1 / 3)
    table = make_data_table(GRID, make_arms(GRID, records))
    headings = [column.heading for column in table.columns]
    assert headings == [*GRID.factors, *list_columns(GRID, ())]
    assert {"accuracy_seed_0", "accuracy_seed_1", "accuracy_seed_7"} < set(headings)
    first = dict(zip(headings, table.rows[0], strict=True))
    assert (first["accuracy"], first["accuracy_seed_7"], first["completed"]) == (1 / 3, 1 / 3, 3)
    assert len(table.rows) == len(GRID.cells)


def test_a_pivot_has_an_entry_for_every_cell_and_a_table_for_every_combination_of_other_factors():
    cells = [
        dataclasses.replace(cell, labels={**cell.labels, "model.pool": pool}, config=config)
        for pool in ("max", "avg")
        for cell in GRID.cells
        for config in [dataclasses.replace(cell.config, seed=0)]
    ]
    grid = dataclasses.replace(GRID, factors=(*GRID.factors, "model.pool"), cells=tuple(cells), seeds=(0, 1))
    records = make_records(grid, lambda trial: 0.9 + trial.config.seed / 50)
    tables = make_pivot_tables(grid, make_arms(grid, records), "train.learning_rate", "model.dense")
    assert [table.title for table in tables] == [f"learning_rate by dense, pool={pool}" for pool in ("max", "avg")]
    for table in tables:
        assert [column.heading for column in table.columns] == ["learning_rate", "8", "16", "4"]
        # t(0.975, 1) = 12.7062, s / sqrt(2) = 0.01.
        mean = "0.9100 ± 0.0141"
        assert table.rows == (("0.1", mean, mean, mean), ("0.01", "2 invalid", mean, mean))


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (("model.dense", "train.learning"), r"--pivot='train.learning': .*did you mean 'train.learning_rate'\?"),
        (("model.dense", "model.dense"), r"--pivot model.dense model.dense: must be two factors"),
    ],
)
def test_a_pivot_of_anything_but_two_factors_is_refused(factors, message):
    with pytest.raises(InputError, match=message):
        make_pivot_tables(GRID, make_arms(GRID, {}), *factors)


def test_one_origin_is_one_line_and_what_is_unknown_is_left_out():
    lines = describe_origins(count_origins(make_records(GRID).values()))
    assert lines == [
        "made with device cpu (cpu), execution solo, commit 0123456789ab, dataset mnist bundled ffffffffffff, "
        "python 3.11.9, jax 0.8.1"
    ]


def test_results_of_several_machines_or_versions_are_noted():
    there = {**PROVENANCE, "device": {"backend": "gpu", "kind": "H200"}, "git": {"commit": "a" * 40, "dirty": True}}
    records = list(make_records(GRID).values())
    records[:2] = [dataclasses.replace(record, provenance=there) for record in records[:2]]
    lines = describe_origins(count_origins(records))
    assert "mixed device: H200 (gpu) (2 runs), cpu (cpu) (13 runs)" in lines
    assert "mixed commit: aaaaaaaaaaaa with changes (2 runs), 0123456789ab (13 runs)" in lines
    assert len(lines) == 3
    assert "jax 0.8.1" in lines[0]


def test_runs_that_never_started_training_have_no_origin():
    assert describe_origins(count_origins([Record.without_result(tiny(), "failed", "boom")])) == []
    assert count_origins(make_records(GRID, provenance={"python": "3.12"}).values())["device"] == {"unknown": 15}


def test_the_report_notes_failures_invalid_cells_and_duplicates():
    grid = dataclasses.replace(GRID, duplicates=(Duplicate("a=1", "a=2"),))
    records = make_records(grid)
    failed = next(trial for trial in grid.trials if trial.cell.name == CELL)
    records[failed.key] = Record.without_result(failed.config, "failed", "boom\nbang")
    cells = make_arms(grid, records)[:3]
    report = Report("Does it?", grid, cells, ("a remark",))
    document = report.to_document()
    assert document.title == "Does it?"
    assert document.facts == ("study tiny", "seeds 0 1 7", "18 trials", "dataset mnist", "epochs 1")
    assert document.notes[2:6] == (
        "3 of 6 cells are shown",
        f"failed: {CELL}, seed=0: boom\nbang",
        "invalid: model.dense=8, train.learning_rate=0.01: too wide",
        "duplicate: a=1 runs what a=2 runs",
    )
    assert document.notes[-1] == "a remark"
    assert report.origins["device"] == {"cpu (cpu)": 5}


def test_a_mean_that_counts_collapsed_runs_says_so():
    grid = make_grid(widths=(8, 16), seeds=(0, 1, 2), validation_split=0.5)

    def head(accuracies):
        records = {t.key: make_packed(t.config, accuracy=accuracies[t.config.seed]).record for t in grid.trials}
        cells = make_arms(grid, records)
        found = {column.heading for column in make_result_table(grid, cells).columns}
        return found, pick_cell(cells).to_document(grid, "?", ()), Report("?", grid, cells).to_document()

    headings, picked, report = head((0.8, 0.9, 0.9))
    assert {"validation accuracy", "test accuracy"} <= headings
    assert not any("collapsed" in note for note in report.notes)
    headings, picked, report = head((0.8, 0.9, 0.1))
    assert {"validation accuracy, collapsed runs too", "test accuracy, collapsed runs too"} <= headings
    assert picked.tables[0].columns[-1].heading == "validation accuracy, collapsed runs too"
    assert any(note.startswith("2 runs at chance: means count runs that collapsed") for note in report.notes)


def test_validation_accuracy_is_shown_if_there_is_any():
    grid = make_grid(widths=(8, 16), seeds=(0, 1), validation_split=0.5)
    records = {t.key: make_packed(t.config, accuracy=0.8 + t.config.seed / 10).record for t in grid.trials}
    first = make_arms(grid, records)[0]
    assert first.scores(ACCURACIES["validation"]) == {0: 0.8, 1: 0.9}
    assert first.val_accuracy.mean == pytest.approx(0.85)
    headings = [column.heading for column in make_result_table(grid, [first]).columns]
    assert headings.index("validation accuracy") < headings.index("test accuracy")
    plain = make_grid(widths=(8,), seeds=(0,))
    (cell,) = make_arms(plain, {plain.trials[0].key: make_packed(plain.trials[0].config).record})
    assert cell.val_accuracy is None
    assert "validation accuracy" not in [column.heading for column in make_result_table(plain, [cell]).columns]
