"""The benchmark measures what it says, and its table says what was measured."""

import json
import subprocess
import sys

import pytest

from cnnjax.errors import InputError, UnavailableError
from experiments.benchmark import Result, describe, draw, main
from experiments.contestants.processes import CONTESTANTS, started

RESULTS = [
    Result("torch", "cpu", 3.5, (2.0, 1.0, 1.5), (4.0, 4.0, 4.0), 800 * 2**20, 0.5),
    Result("cnnjax", "cpu", 2.5, (0.5, 0.75, 1.0), (2.0, 2.0, 2.0), 400 * 2**20, 0.5),
]


def test_the_table_holds_medians_ratios_and_rates():
    (table,) = describe(RESULTS, peak=2e11, steps=100).tables
    first, second = table.rows
    # 0.75 s for 100 of the 600 steps of an epoch; two processes do two epochs in the time of one.
    assert first[:5] == ("cnnjax", 4.5, "3.0-6.0", 1.0, 60_000 / 4.5)
    assert second[:5] == ("torch", 9.0, "6.0-12.0", 2.0, 60_000 / 9)
    flops = 3 * 7_495_680 - 921_600
    assert first[5:7] == pytest.approx((60_000 * flops / 4.5 / 1e9, 100 * 60_000 * flops / 4.5 / 2e11))
    assert first[7:] == (6.0, 1.0, 2.5, 400.0)
    assert second[7:] == (12.0, 2.0, 3.5, 800.0)


def test_the_chart_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    draw(RESULTS, 100, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--contestant", "kears-jax"], r"--contestant='kears-jax': must be one of cnnjax, .*did you mean 'keras-jax'"),
        (["--contestant", "flax", "--contestant", "flax"], "must each be given once"),
        (["--steps", "60"], "--steps=60: must be a multiple of 50"),
        (["--repeats", "0"], "--repeats=0: must be >= 1"),
        (["--chart", "nowhere/chart.png"], "nowhere is no folder"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(words, message):
    with pytest.raises(InputError, match=message):
        main(words)


def test_a_contestant_that_cannot_start_is_told_with_its_last_words():
    broken = CONTESTANTS["flax"].__class__("broken", "no_such_network", ())
    with pytest.raises(UnavailableError, match=r"broken has ended: .*No module named"), started([broken]):
        pass


@pytest.mark.slow
def test_ours_and_plain_flax_are_measured_and_both_learn():
    words = ["--contestant", "cnnjax", "--contestant", "flax", "--steps", "50", "--repeats", "2", "--json"]
    result = subprocess.run(
        [sys.executable, "-m", "experiments.benchmark", *words], capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    assert [each["name"] for each in measured["results"]] == ["cnnjax", "flax"]
    for each in measured["results"]:
        assert len(each["seconds"]) == 2
        assert 0 < each["loss"] < 2.3  # less than of guessing among ten classes
        assert each["memory"] > 2**20
    assert measured["dot_flops_a_second"] > 0
