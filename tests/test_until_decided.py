"""Running until decided: seed by seed, by a plan that is stored first and holds, and the report on it."""

import json
import shutil
import sqlite3
from dataclasses import replace

import pytest

from ablations import run_study
from ablations.execution.topping_up import TopUp
from ablations.python import StudyResult
from ablations.report import main as report
from ablations.run import main as run
from ablations.study.grid import choose_cell, expand
from ablations.study.reading import load_study
from cnnjax import CorruptionError, InputError, Interrupted
from cnnjax.reports.plans import SequentialPlan, list_plans
from cnnjax.reports.rules import Rules
from cnnjax.runs.store import Store
from cnnjax.statistics.any_time import find_levels
from experiments.compare import main as compare
from grid_helpers import ScriptedExecutor, draw_runs, make_packed, stop_after

STUDY = """
title = "Does width matter?"
seeds = 3
[base]
model.filters = []
model.dense = [8]
train.epochs = 1
[sweep.grid]
model.dense = [[8], [9], [10]]
"""
MEANS = {8: 0.9, 9: 0.9025, 10: 0.95}
TRIALS = {8: 16, 9: 16, 10: 6}
"""Seeds that every width gets: the far one is decided as soon as six seeds can, the near one later or never."""
train = draw_runs(MEANS)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "widths.toml").write_text(STUDY)
    return tmp_path


def run_until(folder, most=16, script=train, rules=None, at_any_time=True):
    study = load_study(str(folder / "widths.toml"))
    baseline = choose_cell(["model.dense=[8]"], expand(study), "--baseline")
    executor = ScriptedExecutor(script)
    counts = run_study(
        study,
        folder / "runs",
        make_executor=lambda: executor,
        top_up=TopUp(baseline, most, rules or Rules(), at_any_time),
        command="test",
    )
    return counts, [trial for group in executor.given for trial in group]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A folder with the study and a store into which it was run until decided."""
    path = tmp_path_factory.mktemp("ended")
    (path / "widths.toml").write_text(STUDY)
    run_until(path)
    return path


@pytest.fixture
def decided(ended, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(ended, tmp_path / "decided")


def count_seeds(trials):
    return {width: sum(trial.config.model.dense == (width,) for trial in trials) for width in MEANS}


def judge(folder, capsys, *options):
    assert report([str(folder / "widths.toml"), "--out", str(folder / "runs"), "--format", "json", *options]) == 0
    values = json.loads(capsys.readouterr().out)
    return values, {each["first"]: each for each in values["contrasts"]}


def test_undecided_cells_get_one_seed_after_the_other_until_they_are_decided(folder, capsys):
    counts, trials = run_until(folder)
    assert count_seeds(trials) == TRIALS
    assert counts == {"completed": sum(TRIALS.values())} | dict.fromkeys(counts.keys() - {"completed"}, 0)
    values, contrasts = judge(folder, capsys)
    far, near = contrasts["model.dense=[10]"], contrasts["model.dense=[9]"]
    assert (far["verdict"]["word"], len(far["comparison"]["seeds"])) == ("better", 6)
    assert far["level"] == find_levels(6, 0.05 / 2)[0]
    assert (near["verdict"]["word"], len(near["comparison"]["seeds"])) == ("undecided", 16)
    assert values["rules"]["looks"] == list(range(6, 17))
    assert values["rules"]["at_any_time"] is True
    (said,) = (text for text in values["summary"] if "hold at any time" in text)
    assert "after every seed from 6 to 16" in said
    assert run_until(folder) == (counts, [])


@pytest.mark.parametrize("trained", [0, 4, 9, 17, 18, 30])
def test_the_same_call_continues_wherever_it_was_stopped(folder, trained):
    with pytest.raises(Interrupted):
        run_until(folder, script=stop_after(trained, train))
    counts, trials = run_until(folder)
    assert len(trials) == sum(TRIALS.values()) - trained
    assert +counts == {"completed": sum(TRIALS.values())}
    assert len(list_plans(Store(folder / "runs"))) == 1


def test_a_diverged_run_leaves_a_pair_out_and_the_looks_go_on(folder, capsys):
    def script(config):
        return (
            make_packed(config, status="diverged") if (config.seed, config.model.dense) == (4, (10,)) else train(config)
        )

    assert run_until(folder, 8, script)[0]["diverged"] == 1
    _, contrasts = judge(folder, capsys)
    far = contrasts["model.dense=[10]"]
    assert far["verdict"]["word"] == "better"
    assert far["comparison"]["seeds"] == [0, 1, 2, 3, 5, 6]


@pytest.mark.parametrize("at_any_time", [True, False])
def test_a_cell_without_a_seed_at_which_both_trained_gets_more_seeds(folder, capsys, at_any_time):
    (folder / "widths.toml").write_text(STUDY.replace("[[8], [9], [10]]", "[[8], [10]]"))

    def script(config):
        first_trains = config.seed == 0 if config.model.dense == (8,) else config.seed == 1
        return train(config) if first_trains or config.seed > 6 else make_packed(config, status="diverged")

    _, trials = run_until(folder, 14, script, at_any_time=at_any_time)
    assert max(trial.config.seed for trial in trials if trial.config.model.dense == (10,)) > 8
    _, contrasts = judge(folder, capsys, *([] if at_any_time else ["--top-up", "14", "--baseline", "model.dense=[8]"]))
    far = contrasts["model.dense=[10]"]
    assert far["comparison"]["seeds"][0] == 7
    assert far["verdict"]["label"].startswith("better of the runs that trained")


def test_all_looks_are_one_grid_of_the_store(decided):
    grids = {grid.name: grid for grid in Store(decided / "runs").list_grids()}
    assert grids.keys() == {"widths", "widths-until-decided"}
    assert len(grids["widths-until-decided"].trials) == sum(TRIALS.values()) - 9


CHANGES = [
    ({"most": 30}, "the most seeds are 16, not 30"),
    ({"rules": Rules(margin=0.005)}, r"--margin is 0\.2, not 0\.5"),
    ({"rules": Rules(alpha=0.1)}, r"--alpha is 0\.05, not 0\.1"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_the_first_plan_holds(decided, change, message):
    with pytest.raises(InputError, match=rf"the study widths has a plan, .* holds: {message}"):
        run_until(decided, **change)
    assert len(list_plans(Store(decided / "runs"))) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[[8], [9], [10]]", "[[8], [9]]", "the number of arms is 3, not 2"),
        ("[[8], [9], [10]]", "[[8], [9], [11]]", "the arms are others"),
        ("seeds = 3", "seeds = 4", r"the seeds at first are \[0, 1, 2\], not \[0, 1, 2, 3\]"),
    ],
)
def test_a_study_that_shares_a_comparison_with_a_plan_must_have_that_plan_whatever_its_name(decided, old, new, message):
    path = decided / "fewer.toml"
    path.write_text(STUDY.replace(old, new))
    with pytest.raises(InputError, match=rf"--until-decided 16: the study widths has a plan, .*: {message}"):
        run([str(path), "--out", str(decided / "runs"), "--until-decided", "16"])


def test_a_plan_names_the_first_thing_that_another_one_would_change(decided):
    (plan,) = list_plans(Store(decided / "runs"))
    assert plan.find_change(plan) is None
    metric = replace(plan.measure, name="f1", is_accuracy=False)
    assert plan.find_change(replace(plan, measure=metric)) == "what is compared is test accuracy, not the metric f1"
    assert replace(plan, measure=metric).find_change(
        replace(plan, measure=replace(metric, higher_is_better=False))
    ) == ("--lower-is-better is False, not True")
    assert SequentialPlan.from_json(plan.to_json()) == plan


def test_other_settings_are_other_comparisons_with_a_plan_of_their_own(decided):
    path = decided / "widths.toml"
    path.write_text(STUDY.replace("epochs = 1", "epochs = 2"))
    run_until(decided, most=12)
    assert [len(plan.seeds) for plan in list_plans(Store(decided / "runs"))] == [16, 12]


def test_planned_looks_and_looks_at_any_time_refuse_each_other(folder, decided):
    run_until(folder, most=6, at_any_time=False)
    with pytest.raises(InputError, match=r"--until-decided 16: the study was looked at by the plan of --top-up 6, "):
        run_until(folder)
    with pytest.raises(InputError, match=r"--top-up 12: the study widths is run until it is decided by a stored plan"):
        run_until(decided, most=12, at_any_time=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--until-decided", "1"], r"--until-decided 1: must be > 3, the seeds of the study"),
        (["--until-decided", "0"], r"--until-decided=0: must be >= 1"),
        (["--until-decided", "5"], r"--until-decided 5: must be >= 6, the fewest seeds that can decide one of 2 comp"),
        (["--until-decided", "9", "--top-up", "9"], r"--top-up and --until-decided: give one of them"),
        (["--until-decided", "9", "--budget", "halving"], r"--until-decided: needs every cell trained to its end"),
        (["--until-decided", "9", "--by", "f1"], r"\[8\]: --by='f1': must be one of test, validation"),
        (["--until-decided", "9", "--baseline", "model.dense=[7]"], r"--baseline model.dense='\[7\]': must be one of"),
        (["--until-decided", "9000"], r"--until-decided 9000: may come to 27,000 trials; must be at most"),
    ],
)  # fmt: skip
def test_a_study_that_cannot_be_run_until_decided_is_refused_and_nothing_is_stored(folder, arguments, message):
    with pytest.raises(InputError, match=message):
        run([str(folder / "widths.toml"), "--out", str(folder / "runs"), *arguments])
    assert not (folder / "runs").exists()


def test_without_a_cell_that_equals_the_base_a_baseline_is_asked_for(folder):
    (folder / "widths.toml").write_text(STUDY.replace("dense = [8]\n", "dense = [7]\n"))
    with pytest.raises(InputError, match=r"--until-decided: no cell equals the base of the study; needs --baseline"):
        run([str(folder / "widths.toml"), "--out", str(folder / "runs"), "--until-decided", "9"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--margin", "0.5"], r"--margin 0\.5: the study widths is run until it is decided by a stored plan "),
        (["--alpha", "0.1"], r"--alpha 0\.1: .* which holds"),
        (["--by", "validation"], r"--by validation: .* which holds"),
        (["--pairs"], r"--pairs: .* only comparisons with its baseline can be made"),
        (["--baseline", "model.dense=[9]"], r"--baseline model.dense=\[9\]: .* must be its baseline"),
        (["--seeds", "9"], r"--seeds 9: .* which holds"),
        (["--top-up", "16", "--baseline", "model.dense=[8]"], r"--top-up 16: .* leave the option out"),
    ],
)  # fmt: skip
def test_a_report_that_asks_for_another_judgement_than_that_of_the_plan_is_refused(decided, options, message):
    with pytest.raises(InputError, match=message):
        report([str(decided / "widths.toml"), "--out", str(decided / "runs"), *options])


def test_the_report_is_the_same_with_the_options_of_the_plan_a_filter_or_without_a_study(decided, capsys):
    _, whole = judge(decided, capsys)
    assert judge(decided, capsys, "--margin", "0.2", "--seeds", "3", "--baseline", "model.dense=[8]")[1] == whole
    _, part = judge(decided, capsys, "--filter", "model.dense!=[9]")
    assert part == {"model.dense=[10]": whole["model.dense=[10]"]}
    assert report(["--out", str(decided / "runs")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "after every seed from 6 to 16, by tests that hold at any time" in text
    assert "the verdicts are those of its plan: the study widths is run until it is decided by a stored plan" in text
    assert "intervals of single arms and of their rates, and p values, are those of a number of seeds that" in text


def test_a_report_on_a_part_of_the_arms_says_that_their_seeds_depend_on_their_results(decided, capsys):
    (decided / "fewer.toml").write_text(STUDY.replace("[[8], [9], [10]]", "[[8], [9]]"))
    assert report([str(decided / "fewer.toml"), "--out", str(decided / "runs")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "the seeds of some arms depend on their results: the study widths is run until it is decided" in text


def test_a_comparison_in_python_says_that_the_seeds_depend_on_the_results(decided):
    result = StudyResult(load_study(str(decided / "widths.toml")), Store(decided / "runs"))
    assert "the seeds of some arms depend on their results" in str(result.compare("dense=[8]"))


def test_two_arms_are_compared_as_the_report_of_the_whole_study_does(decided, capsys):
    _, contrasts = judge(decided, capsys)
    arms = ["--a", "model.dense=[10]", "--b", "model.dense=[8]", "--out", str(decided / "runs"), "--format", "json"]
    assert compare(arms) == 0
    values = json.loads(capsys.readouterr().out)
    (found,), whole = values["contrasts"], contrasts["model.dense=[10]"]
    assert [found[each] for each in ("low", "high", "level")] == [whole[each] for each in ("low", "high", "level")]
    assert found["comparison"]["seeds"] == whole["comparison"]["seeds"]
    assert any("as one of 2 comparisons" in remark for remark in values["remarks"])
    for options in (["--margin", "0.5"], ["--seeds", "5"], ["--run"]):
        with pytest.raises(InputError, match=rf"{' '.join(options)}: the study widths is run until .* which holds"):
            compare([*arms, *options])


def test_a_comparison_that_is_none_of_the_plan_says_that_the_seeds_depend_on_the_results(decided, capsys):
    arms = ["--a", "model.dense=[10]", "--b", "model.dense=[9]", "--out", str(decided / "runs"), "--format", "json"]
    assert compare(arms) == 0
    (remark,) = (each for each in json.loads(capsys.readouterr().out)["remarks"] if "seeds" in each)
    assert remark.startswith("the seeds of some arms depend on their results: the study widths is run until")


def test_a_plan_that_cannot_be_read_is_a_damaged_store(decided):
    store = Store(decided / "runs")
    for content in ("{}", "x", json.dumps({**json.loads(store.list_plans()[0]), "baseline": "none"})):
        with sqlite3.connect(store.path) as connection:
            connection.execute("UPDATE plans SET content = ?", (content,))
        connection.close()
        with pytest.raises(CorruptionError, match="a stored plan cannot be read"):
            list_plans(store)
