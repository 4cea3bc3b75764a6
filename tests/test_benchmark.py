"""The benchmark: its measurements, its tables, and how it refuses bad input."""

import json
import subprocess
import sys

import pytest

from cnnjax.errors import InputError, UnavailableError
from experiments.measure.benchmark import main
from experiments.measure.contestants import TrialQueue, count_flops, list_trials
from experiments.measure.contestants.measuring import CONTESTANTS, GridResult, Result, describe, draw, started

RESULTS = [
    Result("torch", "cpu", 3.5, (12.0, 6.0, 9.0), (12.0, 12.0, 12.0), 800 * 2**20, 0.5),
    Result("cnnjax", "cpu", 2.5, (3.0, 4.5, 6.0), (6.0, 6.0, 6.0), 400 * 2**20, 0.5),
]
GRIDS = [GridResult("torch", (90.0, 110.0), 60, 0.9), GridResult("cnnjax", (50.0, 30.0), 60, 0.91)]


def test_the_table_holds_medians_ratios_and_rates():
    (table,) = describe(RESULTS, [], ["a note"], peak=2e11).tables
    first, second = table.rows
    assert first[:5] == ("cnnjax", 4.5, "3.0-6.0", 1.0, 60_000 / 4.5)
    assert second[:5] == ("torch", 9.0, "6.0-12.0", 2.0, 60_000 / 9)
    flops = 3 * 7_495_680 - 921_600
    assert first[5:7] == pytest.approx((60_000 * flops / 4.5 / 1e9, 100 * 60_000 * flops / 4.5 / 2e11))
    assert first[7:] == (6.0, 1.0, 2.5, 400.0)
    assert second[7:] == (12.0, 2.0, 3.5, 800.0)


def test_the_grids_have_a_table_of_their_own():
    _, table = describe(RESULTS, GRIDS, [], peak=2e11).tables
    assert table.rows == (
        ("cnnjax", 40.0, "30-50", 1.0, 5400.0, 0.91),
        ("torch", 100.0, "90-110", 2.5, 2160.0, 0.9),
    )


def test_without_cnnjax_the_table_has_no_ratios():
    first, second = describe(RESULTS[:1], GRIDS[:1], [], peak=2e11).tables
    assert (first.rows[0][3], first.rows[0][8], second.rows[0][3]) == (None, None, None)


def test_the_chart_is_a_picture():
    assert draw(RESULTS).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--contestant", "kears-jax"], r"--contestant='kears-jax': must be one of cnnjax, .*did you mean 'keras-jax'"),
        (["--contestant", "flax", "--contestant", "flax"], "must each be given once"),
        (["--grid-contestant", "flax"], "--grid-contestant flax: needs --grid IMAGES"),
        (
            ["--contestant", "flax", "--grid", "100", "--grid-contestant", "cnnjax"],
            "--grid-contestant='cnnjax': must be one of flax",
        ),
        (["--steps", "60"], "--steps=60: must be a multiple of 50"),
        (["--steps", "650"], "--steps=650: must be <= 600, the steps of an epoch"),
        (["--repeats", "0"], "--repeats=0: must be >= 1"),
        (["--markdown", "nowhere/table.md"], "--markdown nowhere/table.md: its folder does not exist"),
        (["--grid", "150"], "--grid=150: must be a multiple of 100 and <= 60000"),
        (["--grid", "0"], "--grid=0: must be >= 1"),
        (["--grid", "60100"], "--grid=60100: must be a multiple of 100 and <= 60000"),
        (["--grid-seeds", "0"], "--grid-seeds=0: must be >= 1"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(words, message):
    with pytest.raises(InputError, match=message):
        main(words)


def test_a_contestant_that_cannot_start_is_reported_with_the_last_line_of_its_log():
    broken = CONTESTANTS["flax"].__class__("broken", "no_such_network", ())
    with pytest.raises(UnavailableError, match=r"broken has ended: .*No module named"), started([broken]):
        pass


@pytest.mark.slow
def test_cnnjax_and_flax_are_measured_and_both_learn():
    words = ["--contestant", "cnnjax", "--contestant", "flax", "--steps", "50", "--repeats", "2", "--json"]
    words += ["--grid", "100", "--grid-seeds", "1"]
    result = subprocess.run(
        [sys.executable, "-m", "experiments.measure.benchmark", *words],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    assert [each["name"] for each in measured["results"]] == ["cnnjax", "flax"]
    for each in measured["results"]:
        assert len(each["epochs"]) == 2
        assert 0 < each["loss"] < 2.3  # less than of guessing among ten classes
        assert each["memory"] > 2**20
    assert measured["dot_flops_a_second"] > 0
    assert [(each["name"], each["trials"], len(each["seconds"])) for each in measured["grids"]] == [
        ("cnnjax", 12, 1),
        ("flax", 12, 1),
    ]
    assert all(0.03 < each["accuracy"] < 0.5 for each in measured["grids"])  # one step is close to guessing


def test_a_process_finishes_its_network_then_takes_the_most_expensive_one_and_finally_shares():
    queue = TrialQueue(3)
    dearest, second = sorted({network for network, _ in list_trials(1)}, key=count_flops, reverse=True)[:2]
    first = queue.take(None)
    assert first == (dearest, 0)
    assert queue.take(None) == (second, 0)
    assert [queue.take(dearest), queue.take(dearest)] == [(dearest, 1), (dearest, 2)]
    taken = [first, (second, 0), (dearest, 1), (dearest, 2)]
    last = dearest
    while trial := queue.take(last):
        taken.append(trial)
        last = trial[0]
    assert last == second  # which was begun, and is helped with when nothing else is left
    assert sorted(map(repr, taken)) == sorted(map(repr, list_trials(3)))
