"""Topping up: more seeds for undecided comparisons only, and the report on them."""

import json
import sqlite3

import pytest

from ablations import run_study
from ablations.execution.topping_up import TopUp, check_top_up, extend_seeds
from ablations.execution.work import Policy
from ablations.report import main as report
from ablations.run import main as run
from ablations.study.grid import choose_cell, expand
from ablations.study.reading import load_study
from cnnjax import InputError, Interrupted
from cnnjax.reports.rules import Rules, make_rules
from cnnjax.runs.store import Store
from cnnjax.statistics import spend
from cnnjax.statistics.families import sidak
from grid_helpers import ScriptedExecutor, draw_runs, stop_after

STUDY = """
title = "Does width matter?"
seeds = 3
[base]
model.filters = []
train.epochs = 1
[sweep.grid]
model.dense = [[8], [9], [10]]
"""
MEANS = {8: 0.9, 9: 0.902, 10: 0.95}
train = draw_runs(MEANS)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "widths.toml").write_text(STUDY)
    return tmp_path


def top_up(folder, most, script=train, policy=None, out="runs"):
    study = load_study(str(folder / "widths.toml"))
    baseline = choose_cell(["model.dense=[8]"], expand(study), "--baseline")
    executor = ScriptedExecutor(script)
    counts = run_study(
        study,
        folder / out,
        make_executor=lambda: executor,
        top_up=TopUp(baseline, most, Rules()),
        policy=policy,
        command="test",
    )
    return counts, [trial for group in executor.given for trial in group]


def count_seeds(trials):
    return {width: sum(trial.config.model.dense == (width,) for trial in trials) for width in MEANS}


def test_only_the_baseline_and_undecided_cells_get_more_seeds(folder):
    counts, trials = top_up(folder, 12)
    assert count_seeds(trials) == {8: 12, 9: 12, 10: 3}
    assert +counts == {"completed": 27}


def test_stored_trials_are_neither_run_nor_counted_again(folder):
    counts, _ = top_up(folder, 12)
    assert top_up(folder, 12) == (counts, [])


@pytest.mark.parametrize("trained", range(27))
def test_the_same_call_continues_wherever_it_was_stopped(folder, trained):
    with pytest.raises(Interrupted):
        top_up(folder, 12, stop_after(trained, train))
    counts, trials = top_up(folder, 12)
    assert len(trials) == 27 - trained
    assert +counts == {"completed": 27}


def test_a_higher_maximum_continues_from_a_lower_one(folder):
    _, first = top_up(folder, 6)
    counts, second = top_up(folder, 12)
    assert count_seeds(first) == {8: 6, 9: 6, 10: 3}
    assert count_seeds(second) == {8: 6, 9: 6, 10: 0}
    assert +counts == {"completed": 27}


def test_a_plan_changed_after_a_look_is_reported_and_the_same_plan_is_not(folder, capsys):
    top_up(folder, 6)
    assert not any("topped up" in remark for remark in judge(folder, capsys, "6")[0]["remarks"])
    top_up(folder, 12)
    (told,) = (remark for remark in judge(folder, capsys)[0]["remarks"] if "topped up" in remark)
    assert "--top-up 6" in told
    assert "2 times" in told
    arguments = [str(folder / "widths.toml"), "--out", str(folder / "runs"), "--baseline", "model.dense=[8]"]
    assert report(arguments) == 0
    assert "was topped up (--top-up 6, --top-up 12)" in " ".join(capsys.readouterr().out.split())
    assert run([*arguments, "--top-up", "12", "--quiet"]) == 0
    assert "--top-up 6" in capsys.readouterr().err


def test_retry_failed_runs_failures_of_a_later_look_again_and_the_looks_go_on(folder):
    counts, _ = top_up(folder, 12, lambda config: ("boom",) if config.seed == 4 else train(config))
    assert +counts == {"completed": 13, "failed": 2}
    assert top_up(folder, 12) == (counts, [])
    counts, trials = top_up(folder, 12, policy=Policy(retry_failed=True))
    assert count_seeds(trials) == {8: 7, 9: 7, 10: 0}
    assert +counts == {"completed": 27}


def test_fail_fast_starts_no_further_look_and_the_same_call_continues(folder):
    def script(config):
        return ("boom",) if config.model.dense == (10,) and config.seed == 2 else train(config)

    whole, _ = top_up(folder, 12, script, out="whole")
    assert +whole == {"completed": 26, "failed": 1}
    policy = Policy(fail_fast=True, max_retries=9)  # so many that it fails for good when nothing is left but it
    counts, _ = top_up(folder, 12, script, policy)
    assert +counts == {"completed": 8, "failed": 1}
    counts, trials = top_up(folder, 12, script, policy)
    assert counts == whole
    assert len(trials) == 18


def test_the_report_shows_the_look_that_decided(folder, capsys):
    top_up(folder, 12)
    arguments = [str(folder / "widths.toml"), "--out", str(folder / "runs"), "--baseline", "model.dense=[8]"]
    assert report([*arguments, "--top-up", "12", "--format", "json"]) == 0
    values = json.loads(capsys.readouterr().out)
    seen = {each["first"]: (each["verdict"]["word"], len(each["comparison"]["seeds"])) for each in values["contrasts"]}
    assert seen["model.dense=[10]"] == ("better", 3)
    assert seen["model.dense=[9]"][1] == 12
    assert values["rules"]["looks"] == [3, 6, 12]


def test_failed_trials_end_the_looks(folder):
    counts, trials = top_up(folder, 12, lambda config: ("boom",) if config.model.dense == (9,) else train(config))
    assert count_seeds(trials)[8] == 3
    assert counts["failed"] == 3


def test_seeds_are_extended_by_the_smallest_unused_ones():
    assert extend_seeds((0, 1, 7), 5) == (0, 1, 7, 2, 3)
    assert extend_seeds((0, 1), 2) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top-up", "9"], r"--top-up and --baseline: each needs the other"),
        (["--baseline", "model.dense=[8]"], r"--top-up and --baseline: each needs the other"),
        (["--top-up", "3", "--baseline", "model.dense=[8]"], r"--top-up 3: must be > 3, the seeds of the study"),
        (["--top-up", "9", "--baseline", "model.dense=[7]"], r"--baseline model.dense='\[7\]': must be one of"),
        (["--top-up", "9", "--baseline", "model.dense!=[8]"], r"leaves 2 cells, must leave one; they differ in"),
        (["--top-up", "9", "--baseline", "model.dense=[8]", "--budget", "halving"], r"--top-up: needs every cell"),
        (["--top-up", "9", "--baseline", "model.dense=[8]", "--by", "validation"], r"--by validation: all cells must"),
        (["--top-up", "9", "--baseline", "model.dense=[8]", "--by", "f1"], r"\[8\]: --by='f1': must be one of test, "),
        (["--top-up", "9000", "--baseline", "model.dense=[8]"], r"--top-up 9000: may come to 27,000 trials; must"),
        (["--alpha", "0.1"], r"--alpha 0.1: judges a comparison; give --top-up and --baseline"),
    ],
)  # fmt: skip
def test_a_study_that_cannot_be_topped_up_is_refused(folder, arguments, message):
    with pytest.raises(InputError, match=message):
        run([str(folder / "widths.toml"), "--out", str(folder / "runs"), *arguments])
    assert Store(folder / "runs").list_keys() == []


def test_cells_that_name_the_metric_can_be_topped_up_by_it(folder):
    (folder / "metrics.py").write_text("def f1(logits, labels):\n    return 0.5\n")
    path = folder / "widths.toml"
    path.write_text(path.read_text().replace("[base]", f'[base]\ntrain.metrics = ["{folder}/metrics.py:f1"]'))
    grid = expand(load_study(str(path)))
    check_top_up(grid, TopUp(grid.cells[0], 9, make_rules(by="f1")))
    with pytest.raises(InputError, match=r"--by='f2': must be one of test, validation, loss, f1"):
        check_top_up(grid, TopUp(grid.cells[0], 9, make_rules(by="f2")))


def judge(folder, capsys, most="12"):
    arguments = [str(folder / "widths.toml"), "--out", str(folder / "runs"), "--baseline", "model.dense=[8]"]
    assert report([*arguments, "--top-up", most, "--format", "json"]) == 0
    values = json.loads(capsys.readouterr().out)
    return values, {each["first"]: each for each in values["contrasts"]}


def test_a_study_that_was_not_topped_up_is_judged_at_its_first_look(folder, capsys):
    study = load_study(str(folder / "widths.toml"))
    executor = ScriptedExecutor(train)
    run_study(study, folder / "runs", make_executor=lambda: executor, command="test")
    _, contrasts = judge(folder, capsys)
    near = contrasts["model.dense=[9]"]
    assert (near["comparison"]["seeds"], near["verdict"]["word"]) == ([0, 1, 2], "undecided")
    assert (near["verdict"]["seeds_needed"], near["level"]) == (6, spend((3, 6, 12), sidak(0.05, 2))[0])


def test_a_look_that_is_half_run_is_not_judged(folder, capsys):
    top_up(folder, 12)
    store = sqlite3.connect(folder / "runs" / "runs.sqlite")
    store.execute("DELETE FROM runs WHERE seed = 4")
    store.commit()
    _, contrasts = judge(folder, capsys)
    assert contrasts["model.dense=[9]"]["comparison"]["seeds"] == [0, 1, 2]


def test_arms_before_their_first_look_are_named(folder, capsys):
    top_up(folder, 12, lambda config: ("boom",) if config.model.dense == (9,) else train(config))
    values, contrasts = judge(folder, capsys)
    assert list(contrasts) == ["model.dense=[10]"]
    (remark,) = (remark for remark in values["remarks"] if "model.dense=[9]" in remark)
    assert "all 3 failed" in remark
    assert "--retry-failed" in remark
    assert contrasts["model.dense=[10]"]["level"] == spend((3, 6, 12), sidak(0.05, 2))[0]  # the family is what it was
