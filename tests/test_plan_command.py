"""The plan command: it trains nothing, writes nothing, and describes the whole study."""

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from scipy.stats import nct, t

from ablations.plan import PROG, PlanArguments, main, read_plan
from cnnjax import InputError
from cnnjax.console.arguments import parse_arguments
from cnnjax.runs.store import Store
from grid_helpers import make_packed
from test_forecast import make_record

ROOT = Path(__file__).parent.parent
SMALL = ("--axis", "model.dense=[8],[16]", "--set", "model.filters=[]", "--set", "data.train_size=500", "--seeds", "3")
STRIDES = ("--axis", "model.padding=valid,same", "--axis", "model.strides=1,2")


def plan(*arguments, out, capsys):
    assert main([*arguments, "--out", str(out)]) == 0
    return capsys.readouterr().out


def plan_json(*arguments, out, capsys):
    return json.loads(plan(*arguments, "--json", out=out, capsys=capsys))


def trials(*arguments):
    return read_plan(parse_arguments(PlanArguments, [*arguments], PROG, PlanArguments())).grid.trials


def test_a_plan_creates_nothing(tmp_path, capsys):
    out = tmp_path / "nowhere"
    text = plan(*SMALL, out=out, capsys=capsys)
    assert "2 cells x 3 seeds = 6 trials, 6 to run" in text
    assert re.search("estimated time here: not known, .*--calibrate measures it", text)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_leaves_the_store_as_it_is(tmp_path, capsys):
    Store(tmp_path).add_all([make_packed(trial.config) for trial in trials(*SMALL)[:4]])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    found = plan_json(*SMALL, out=tmp_path, capsys=capsys)
    assert found["counts"] == {"completed": 4, "diverged": 0, "failed": 0, "invalid": 0, "waiting": 2}
    assert [cell["counts"]["completed"] for cell in found["cells"]] == [3, 1]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_plan_starts_no_jax_and_no_process(tmp_path):
    code = (
        "import subprocess, sys; from ablations.plan import main\n"
        "subprocess.Popen = None\n"
        f"main(['padding', '--out', {str(tmp_path / 'runs')!r}])\n"
        "sys.exit('jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_stored_runs_give_the_time(tmp_path, capsys):
    own = trials(*SMALL)
    Store(tmp_path).add_all(
        [dataclasses.replace(make_packed(each.config), record=make_record(each.config)) for each in own[:4]]
    )
    found = plan_json(*SMALL, "--workers", "1", out=tmp_path, capsys=capsys)
    assert found["basis"] == f"4 runs in {tmp_path / 'runs.sqlite'}"
    assert [cell["seconds"] for cell in found["cells"]] == pytest.approx([3.75, 3.75])
    assert found["forecast"] == pytest.approx({"wall": 2 * 3.75 + 2.0, "work": 2 * 3.75 + 2.0})
    text = plan(*SMALL, "--workers", "1", out=tmp_path, capsys=capsys)
    assert "estimated time here: 0:00:10 on 1 worker (0:00:10 of work), from 4 runs in" in text
    assert plan_json(*SMALL, "--workers", "2", out=tmp_path, capsys=capsys)["forecast"]["wall"] == pytest.approx(5.75)


def test_when_all_is_done_there_is_nothing_to_run(tmp_path, capsys):
    Store(tmp_path).add_all([make_packed(trial.config) for trial in trials(*SMALL)])
    text = plan(*SMALL, "--calibrate", out=tmp_path, capsys=capsys)
    assert "6 trials, 6 completed\n" in text
    assert "to compile: 0 programs\nestimated time here: none, there is nothing to run" in text


def test_invalid_cells_name_the_layer_and_its_shapes(tmp_path, capsys):
    found = plan_json(*STRIDES, out=tmp_path, capsys=capsys)
    assert found["counts"]["invalid"] == 5
    problems = {cell["name"]: cell["problem"] for cell in found["cells"] if cell["problem"]}
    assert list(problems) == ["model.padding=valid, model.strides=2"]
    text = plan(*STRIDES, out=tmp_path, capsys=capsys)
    line = next(line for line in text.splitlines() if line.startswith("invalid: "))
    assert line == f"invalid: model.padding=valid, model.strides=2: {problems['model.padding=valid, model.strides=2']}"
    assert "MaxPool_1: its 2x2 window is larger than its 1x1 input" in line


def test_duplicates_are_named_and_not_run(tmp_path, capsys):
    arguments = ("--axis", "model.kernel_size=5,[[5,5],[5,5]],3")
    text = plan(*arguments, out=tmp_path, capsys=capsys)
    assert "2 cells x 5 seeds = 10 trials" in text
    assert "duplicate: model.kernel_size=[[5,5],[5,5]] runs what model.kernel_size=5 runs" in text
    (duplicate,) = plan_json(*arguments, out=tmp_path, capsys=capsys)["duplicates"]
    assert duplicate["kept"] == "model.kernel_size=5"


def test_the_plan_says_which_difference_the_seeds_can_detect(tmp_path, capsys):
    text = plan(*STRIDES, out=tmp_path, capsys=capsys)
    assert "0.55 points of accuracy is found with 80% probability in each of the 2 comparisons" in text
    assert "standard deviation over seeds 0.0019, an assumption" in text
    assert "no comparison is decided" in plan(*STRIDES, "--seeds", "1", out=tmp_path, capsys=capsys)
    chapter = plan("chapter", out=tmp_path, capsys=capsys)
    assert "1.01 points of accuracy is found with 80% probability in each of the 20 comparisons" in chapter


def test_the_plan_says_how_many_seeds_and_hours_find_a_difference(tmp_path, capsys):
    own = trials(*SMALL)
    Store(tmp_path).add_all(
        [dataclasses.replace(make_packed(each.config), record=make_record(each.config)) for each in own[:4]]
    )
    arguments = (*SMALL, "--find", "0.5", "--power", "0.9", "--workers", "1")
    found = plan_json(*arguments, out=tmp_path, capsys=capsys)
    # SciPy's noncentral t: 6 seeds find 0.5 points at a spread of 0.19 * sqrt(2) with 92%, 5 with 85%.
    critical, shift = ({n: value(n) for n in (3, 5, 6)} for value in (lambda n: t.ppf(0.975, n - 1), find_shift))
    power = {n: nct.sf(critical[n], n - 1, shift[n]) + nct.cdf(-critical[n], n - 1, shift[n]) for n in (3, 5, 6)}
    assert power[5] < 0.9 <= power[6]
    assert found["find"]["needed"]["seeds"] == 6
    assert found["find"]["as_planned"]["power"] == pytest.approx(power[3])
    assert found["find"]["trials"] == 12 - 4
    assert found["find"]["forecast"]["wall"] == pytest.approx(8 * 3.75 + 2 * 2.0)
    text = plan(*arguments, out=tmp_path, capsys=capsys)
    assert re.search(
        r"to find a true difference of 0\.50 points with 90% probability .*: 6 seeds \(.*8 trials to run", text
    )
    assert "0.0094 hours on 1 worker" in text
    assert plan_json(*SMALL, out=tmp_path, capsys=capsys)["find"] is None


def find_shift(n):
    return 0.005 / (0.0019 * math.sqrt(2)) * math.sqrt(n)


def test_the_power_curve_is_a_table_on_the_terminal_in_markdown_and_in_json(tmp_path, capsys):
    curve = plan_json("chapter", out=tmp_path, capsys=capsys)["sensitivity"]["curve"]
    power = {f"{100 * point['difference']:.2f}": f"{point['power']:.0%}" for point in curve}
    assert list(power) == ["0.20", "0.40", "0.60", "0.80", "1.00", "1.20"]
    markdown = plan("chapter", "--markdown", out=tmp_path, capsys=capsys)
    terminal = plan("chapter", out=tmp_path, capsys=capsys)
    for difference, found in power.items():
        assert f"| {difference} | {found} |" in markdown
        assert re.search(rf"^ +{difference} +{found} ", terminal, re.MULTILINE)


def test_a_difference_that_more_seeds_than_can_be_planned_find_is_said_to_be_so(tmp_path, capsys):
    text = plan(*STRIDES, "--find", "0.001", out=tmp_path, capsys=capsys)
    assert "more than 1,000 seeds; more trials than can be planned" in text


def test_a_dataset_that_is_not_prepared_has_an_assumed_size(tmp_path, capsys):
    arguments = ("--axis", "data.name=mnist,fashion_mnist")
    found = plan_json(*arguments, out=tmp_path, capsys=capsys)
    assert found["unknown_datasets"] == ["fashion_mnist"]
    text = plan(*arguments, out=tmp_path, capsys=capsys)
    assert "fashion_mnist is not prepared: 50,000 training examples are assumed" in text
    with pytest.raises(InputError, match="--calibrate: the dataset fashion_mnist is not prepared"):
        main([*arguments, "--calibrate", "--out", str(tmp_path / "nowhere")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["padding", "--workers", "0"], "--workers=0: must be >= 1"),
        (["paddin"], "did you mean 'padding'"),
        ([], "STUDY: name one of"),
        (["padding", "--find", "0"], "--find=0.0: must be > 0"),
        (["padding", "--power", "0.01"], r"--power 0.01: must be > --alpha \(0.05\) and < 1"),
        (["padding", "--margin", "-1"], "--margin=-1.0: must be > 0"),
        (["padding", "--json", "--markdown"], "--json and --markdown: give one of them"),
        (["--axis", "model.padding=same", "--find", "1"], "--find 1: the study has one cell"),
        (["padding", "--max-trials", "3"], r"--max-trials 3: the study has 10 trials \(2 cells x 5 seeds\)"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_calibration_measures_and_stores_nothing(tmp_path):
    out = tmp_path / "runs"
    command = [sys.executable, "-m", "ablations.plan", *SMALL, "--calibrate", "--json", "--out", str(out)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("calibrating: ")
    found = json.loads(result.stdout)
    assert found["basis"] == "a calibration just now"
    assert 0 < found["forecast"]["wall"] <= found["forecast"]["work"]
    assert all(cell["seconds"] > 0 for cell in found["cells"])
    assert not out.exists()
