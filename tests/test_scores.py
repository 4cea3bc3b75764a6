"""Scores of other frameworks: they are read from files, frames and mappings, and judged like the runs of a store."""

import dataclasses
import html
import inspect
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cnnjax import InputError, compare
from cnnjax.console.tables import Table
from cnnjax.reports.arguments import FORMATS, JudgingArguments, read_rules, write_findings
from cnnjax.reports.arms import Arm, complete_measure
from cnnjax.reports.documents import make_document, to_dict
from cnnjax.reports.findings import compare_arms
from cnnjax.reports.rules import Rules, make_rules
from cnnjax.statistics import Measure, mcnemar_p
from experiments.compare import main
from grid_helpers import make_packed, tiny
from odd_values import check_each

ROOT = Path(__file__).parent.parent


def draw(gains, seeds=6, spread=0.002):
    random = np.random.default_rng(0)
    common = random.normal(0.9, 0.003, seeds)
    return {
        name: {seed: round(float(common[seed] + gain + random.normal(0, spread)), 4) for seed in range(seeds)}
        for name, gain in gains.items()
    }


SCORES = draw({"batch": 0.0, "layer": 0.02, "none": -0.01, "group": 0.0004})
LOST = {**SCORES, "layer": {**SCORES["layer"], 2: None}}


def write_csv(path, scores, delimiter=",", start=""):
    rows = [("seed", "norm", "f1"), *((seed, arm, score) for arm in scores for seed, score in scores[arm].items())]
    lines = [delimiter.join("" if value is None else str(value) for value in row) for row in rows]
    path.write_text(start + "\n".join(lines) + "\n")
    return path


def find_table(findings, title) -> Table:
    (table,) = [table for table in make_document(findings, all_tests=True).tables if title in table.title]
    return table


@pytest.mark.parametrize("baseline", ["batch", None])
def test_scores_get_the_verdicts_of_stored_runs(baseline):
    arms = []
    for width, (name, scores) in enumerate(LOST.items(), 1):
        runs = {seed: tiny(seed, (width,)) for seed in scores}
        records = {
            seed: make_packed(config, scores[seed], "completed" if scores[seed] else "failed").record
            for seed, config in runs.items()
        }
        arms.append(Arm(name, {}, runs[0], records, tuple(scores), None, None))
    stored = compare_arms(arms, baseline, Rules(), title="?")
    found = compare(LOST, baseline=baseline).findings
    assert found.contrasts == stored.contrasts
    assert [each.estimate for each in found.arms] == [each.estimate for each in stored.arms]
    assert {contrast.verdict.word for contrast in found.contrasts} >= {"better", "worse"}


def test_a_file_a_frame_and_a_mapping_of_the_same_scores_are_compared_alike(tmp_path):
    found = compare(LOST, baseline="batch", score="f1").contrasts
    columns = {"arm": "norm", "score": "f1", "baseline": "batch"}
    for number, (delimiter, start) in enumerate([(",", ""), (";", "\ufeff"), ("\t", "")]):
        path = write_csv(tmp_path / f"{number}.csv", LOST, delimiter, start)
        assert compare(path, **columns).contrasts == found
        assert compare(pd.read_csv(path, sep=delimiter), **columns).contrasts == found
    lists = {name: list(scores.values()) for name, scores in LOST.items()}
    assert compare(lists, baseline="batch").contrasts == found


def mirror(scores):
    return {arm: {seed: value and 1 - value for seed, value in by_seed.items()} for arm, by_seed in scores.items()}


@pytest.mark.parametrize("scores", [SCORES, LOST])
@pytest.mark.parametrize("baseline", ["batch", None])
def test_errors_of_which_lower_is_better_are_judged_like_the_scores_that_they_leave(scores, baseline):
    up = compare(scores, baseline=baseline, chance=0.8).findings
    down = compare(mirror(scores), baseline=baseline, chance=0.2, lower_is_better=True).findings
    for higher, lower in zip(up.contrasts, down.contrasts, strict=True):
        assert lower.comparison.mean == pytest.approx(-higher.comparison.mean)
        assert (lower.verdict.word, lower.verdict.label) == (higher.verdict.word, higher.verdict.label)
        assert lower.verdict.survives_losses == higher.verdict.survives_losses
        assert lower.comparison.wins == higher.comparison.wins
        assert lower.comparison.probability_of_improvement == higher.comparison.probability_of_improvement
    assert find_table(down, "of each arm").bold == find_table(up, "of each arm").bold


def test_worst_cases_effects_and_ranks_follow_the_direction_that_is_better():
    frame = pd.DataFrame(
        [
            {"data.name": data, "norm": norm, "seed": seed, "score": SCORES[norm][seed] - 0.1 * (data == "b")}
            for data in ("a", "b")
            for norm in SCORES
            for seed in range(6)
        ]
    )
    errors = frame.assign(score=1 - frame.score)
    columns = {"arm": ["data.name", "norm"]}
    up, down = compare(frame, **columns).findings, compare(errors, **columns, lower_is_better=True).findings
    assert down.ranks == up.ranks
    against = compare(frame, **columns, baseline="norm=batch").findings
    assert against.base == "data.name=a, norm=batch"
    assert {each.average.second for each in against.over_datasets} == {"norm=batch"}
    columns = {"arm": ["data", "norm"], "baseline": "data=a, norm=batch"}
    frame, errors = (each.rename(columns={"data.name": "data"}) for each in (frame, errors))
    frame.loc[3, "score"] = errors.loc[3, "score"] = None
    up, down = compare(frame, **columns).findings, compare(errors, **columns, lower_is_better=True).findings
    for higher, lower in zip(up.effects, down.effects, strict=True):
        assert lower.contrast.verdict.label == higher.contrast.verdict.label
    for higher, lower in zip(up.interactions, down.interactions, strict=True):
        assert lower.contrast.verdict.word == higher.contrast.verdict.word
        assert lower.contrast.verdict.label == higher.contrast.verdict.label
        assert lower.contrast.comparison.mean == pytest.approx(-higher.contrast.comparison.mean)
        assert lower.log_odds.word == higher.log_odds.word
        assert lower.log_odds.difference == pytest.approx(-higher.log_odds.difference)


def test_a_score_in_its_own_unit_is_judged_like_a_share_of_another_scale():
    hundred = {arm: {seed: 100 * value for seed, value in by_seed.items()} for arm, by_seed in SCORES.items()}
    shares, own = compare(SCORES, baseline="batch"), compare(hundred, baseline="batch", unit="own", margin=0.2)
    for name, contrast in own.contrasts.items():
        assert contrast.comparison.mean == pytest.approx(100 * shares.contrasts[name].comparison.mean)
        assert contrast.verdict.label == shares.contrasts[name].verdict.label
        assert contrast.verdict.seeds_needed == shares.contrasts[name].verdict.seeds_needed
    assert own.findings.arms[0].estimate.high > 1


def test_without_a_bound_no_claim_survives_lost_runs():
    options = {"baseline": "batch", "unit": "own", "margin": 0.002}
    assert not compare(LOST, **options).contrasts["layer"].verdict.survives_losses
    assert compare(LOST, **options, chance=0.897).contrasts["layer"].verdict.survives_losses
    assert compare(SCORES, **options).contrasts["layer"].verdict.survives_losses


def test_lost_and_missing_runs_are_counted_and_listed_with_their_lines(tmp_path):
    text = "arm,seed,score,status\na,0,0.9,\na,1,,\na,2,0.8,diverged\na,3,nan,completed\nb,0,0.9,completed\nb,1,inf,\n"
    (tmp_path / "scores.csv").write_text(text)
    findings = compare(tmp_path / "scores.csv").findings
    counts = [+each.arm.counts for each in findings.arms]
    assert counts == [{"completed": 1, "failed": 2, "diverged": 1}, {"completed": 1, "failed": 1, "missing": 2}]
    notes = "\n".join(make_document(findings).notes)
    assert all(f"line {line} " in notes for line in (3, 4, 5, 7))
    assert "diverged: a, seed=2" in notes


def test_predictions_are_compared_by_their_accuracy_and_example_by_example():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 50)
    predictions = {
        name: [np.where(random.random(50) < right, labels, (labels + 1) % 3) for _ in range(4)]
        for name, right in (("a", 0.6), ("b", 0.9))
    }
    findings = compare(predictions, labels=labels, baseline="a").findings
    assert findings.arms[1].scores == {seed: np.mean(each == labels) for seed, each in enumerate(predictions["b"])}
    assert findings.rules.measure == Measure("accuracy", "", resolution=1 / 50, chance=np.bincount(labels).max() / 50)
    assert findings.images.mcnemar["b"][2] == mcnemar_p(predictions["b"][2] == labels, predictions["a"][2] == labels)
    assert findings.images.noise["b", "a"].mean == pytest.approx(findings.contrasts[0].comparison.mean)
    assert np.trace(findings.images.confusions["b"]) == sum((each == labels).sum() for each in predictions["b"])


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_names_the_score_and_no_accuracy(form):
    text = compare(LOST, score="f1", baseline="batch").write(form)
    assert "accuracy" not in text.lower()
    assert "layer" in text
    if form not in ("csv", "latex"):
        assert "f1" in text
    if form == "json":
        assert json.loads(text)["rules"]["measure"] == "f1"


def test_a_page_of_scores_in_their_own_unit_says_nothing_of_points_or_accuracy():
    rows = [
        (arm, width, seed, 10 * SCORES[arm][seed] + width) for arm in SCORES for width in (0, 2) for seed in SCORES[arm]
    ]
    frame = pd.DataFrame(rows, columns=["norm", "width", "seed", "loss"])
    options = {"arm": ["norm", "width"], "score": "loss", "unit": "own", "margin": 0.02, "lower_is_better": True}
    page = compare(frame, **options).write("html", all_tests=True)
    assert "units of loss" in page
    assert not re.search(
        r"points|accura|parameters|FLOPs", re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    )


def test_a_comparison_shows_itself_as_tables_and_in_a_notebook_as_its_page():
    found = compare(SCORES, baseline="batch")
    assert repr(found) == str(found) == found.write("terminal")
    assert found.write("html") in html.unescape(found._repr_html_())
    assert set(compare(SCORES).contrasts) == {(a, b) for i, a in enumerate(SCORES) for b in list(SCORES)[i + 1 :]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; must begin with a line of column names"),
        ("arm,seed,f1\na,0,1\n", r"column score='score': must be one of arm, seed, f1"),
        ("arm,seed,score\na,0,0.9\nb,0,high\n", r"line 3: score 'high': must be a number"),
        ("arm;seed;score\na;0;0,9\nb;0;0,8\n", r"line 2: score '0,9': must be a number such as 0.97"),
        ("arm,seed,score\na,0,0.9\nb,first,0.8\n", r"line 3: seed 'first': must be a whole number"),
        ("arm,seed,score,score\na,0,0.9,0.8\n", r"line 1: has a column twice: arm, seed, score, score"),
        ("arm,seed,score\na,0.5,0.9\nb,0,0.8\n", r"line 2: seed '0.5': must be a whole number"),
        ("arm,seed,score\na,,0.9\nb,0,0.8\n", r"line 2: seed '': must be a whole number"),
        ("arm,seed,score\n,0,0.9\nb,0,0.8\n", r"line 2: arm: is empty; must be the label of an arm"),
        ("arm,seed,score\na,0,0.9\nb,0,0.8\na,0,0.9\n", r"line 4: a has seed 0 twice, first in line 2"),
        ("arm,seed,score\na,0,0.9\na,1,0.8\n", r"must have at least two arms to compare; has 1"),
        ("arm,seed,score\na,0\n", r"line 2: must have 3 values, one for each column; has 2"),
        ('arm,seed,score\na,0,"0.9\n', r"line 2: not valid CSV"),
        ("arm,seed,score,status\na,0,0.9,done\n", r"line 2: status='done': must be one of completed, diverged, failed"),
        (b"arm,seed,score\n\xff,0,1\n", "must be UTF-8"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_compared_is_refused_with_the_line(tmp_path, text, message):
    path, report = tmp_path / "scores.csv", tmp_path / "report.html"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=rf"scores\.csv: {message}"):
        main([str(path), "--output", str(report)])
    assert not report.exists()


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        (3, {}, "scores: must be a data frame, a path or a mapping, not int"),
        ({"a": 0.9, "b": 0.8}, {}, r"scores\['a'\]=0.9: must be a mapping of seeds to scores, or a list of scores"),
        ({"a": [0.9], "b": [2.5]}, {}, r"scores\['b'\]\[0\]: score 2.5: must be from 0 to 1, as the unit is percent"),
        ({"a": [0.9], "b": [2.5]}, {"unit": "own"}, "^margin: must be given, in the unit of score: smaller difference"),
        (SCORES, {"unit": "points"}, "^unit='points': must be one of percent, own"),
        (SCORES, {"power": 0.01}, r"^power 0.01: must be > alpha \(0.05\) and < 1"),
        (SCORES, {"arm": ["norm", "width"]}, r"^arm=\['norm', 'width'\]: has no effect, as a mapping has no columns"),
        (SCORES, {"seed": "run"}, "^seed='run': has no effect, as a mapping has no columns"),
        (SCORES, {"status": "end"}, "^status='end': has no effect, as a mapping has no columns"),
        ({"a": [[0]], "b": [[0]]}, {"labels": [0], "score": "f1"}, "^score='f1': has no effect, as the accuracy is"),
        (SCORES, {"baseline": "bach"}, "baseline='bach': must be one of .*; did you mean 'batch'"),
        (SCORES, {"score": ""}, "the name of a score must not be empty"),
        (SCORES, {"chance": 10}, "^chance=10.*: must be"),
        ({"a": [[0, 1]], "b": [[0]]}, {"labels": [0, 1]}, r"scores\['b'\]\[0\]: must be classes"),
        ({"a": [[0, 1]], "b": [[0, 1]]}, {"labels": [0.5, 1]}, "labels: must be classes"),
        ("scores.csv", {"labels": [0, 1]}, "labels: need scores to be a mapping"),
        ({"a": np.array(0.9), "b": [0.8]}, {}, r"scores\['a'\]=array\(0.9\): must be a mapping of seeds"),
        ({"a": (s for s in [0.9]), "b": [0.8]}, {}, r"scores\['a'\]=<generator.*: must be a mapping of seeds"),
        ({"a": b"no", "b": [0.8]}, {}, r"scores\['a'\]=b'no': must be a mapping of seeds"),
        ({None: [0.9], "b": [0.8]}, {}, "scores: arm: is empty; must be the label of an arm"),
        ({("a", 1): [0.9], "b": [0.8]}, {}, r"scores: arm \['a', 1\]: must be a string or a number"),
        ({"a": {"first": 0.9}, "b": [0.8]}, {}, r"scores\['a'\]: seed 'first': must be a whole number"),
        ({"a": [[0.9]], "b": [0.8]}, {}, r"scores\['a'\]\[0\]: score \[0.9\]: must be a number such as 0.97"),
        ({"a": [10**400], "b": [0.8]}, {}, r"scores\['a'\]\[0\]: score 10{199} ...: must be a number"),
        ({"a": [[0], [1, 1]], "b": [[0]]}, {"labels": [[0], [1, 1]]}, "^labels: must be classes.*unequal lengths"),
        (pd.DataFrame(), {}, "column arm='arm': must be one of"),
        (pd.DataFrame({"arm": [["a"], ["b"]], "seed": 0, "score": 0.5}), {}, "row 0: arm .*: must be a string or a"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_compared_are_refused_in_one_line(scores, options, message):
    with pytest.raises(InputError, match=message) as refusal:
        compare(scores, **options)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", [*inspect.signature(compare).parameters])
def test_an_argument_of_any_type_is_taken_or_refused_in_one_line(name):
    frame = pd.DataFrame({"arm": ["a", "a", "b"], "seed": [0, 1, 0], "score": [0.1, 0.2, 0.3]})
    for scores in (SCORES, frame):
        check_each(lambda value, scores=scores: compare(**{"scores": scores, name: value}))


def test_the_command_compares_a_file_and_refuses_options_of_stored_runs(tmp_path, capsys):
    path = str(write_csv(tmp_path / "scores.csv", LOST))
    assert main([path, "--arm", "norm", "--score", "f1", "--baseline", "batch", "--margin", "0.5"]) == 0
    text = capsys.readouterr().out
    expected = compare(path, arm="norm", score="f1", baseline="batch", margin=0.5).write()
    assert text.splitlines()[3].startswith("Against batch, of 3 arms 1 better")
    assert expected.splitlines()[3] in " ".join(text.split())
    assert f"made by: python -m experiments.compare {path} --arm norm" in " ".join(text.split())
    for options, message in (
        (["--run"], "--run: is for stored runs; leave out SCORES.csv"),
        (["--by", "validation"], "--by validation: is for stored runs"),
        (["--arm", "norm", "--score", "f1", "--output", path], "scores.csv: is the file of the scores itself"),
    ):
        with pytest.raises(InputError, match=message):
            main([path, *options])
    with pytest.raises(InputError, match=r"--arm norm: is for scores; give SCORES\.csv"):
        main(["--a", "model.padding=same", "--b", "model.padding=valid", "--arm", "norm"])


def test_scores_are_compared_without_jax():
    code = f"import sys, cnnjax; print(cnnjax.compare({SCORES})); assert not {{'jax', 'matplotlib'}} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=300).returncode == 0


# Metrics that stored runs were evaluated by


def make_evaluated(name, scores, width):
    records = {}
    for seed, score in scores.items():
        record = make_packed(tiny(seed, (width,)), 0.5).record
        records[seed] = dataclasses.replace(record, scores={"macro_f1": score})
    return Arm(name, {}, tiny(0, (width,)), records, tuple(scores), 100 * width, 10)


def test_stored_runs_are_compared_by_a_metric():
    arms = [make_evaluated(name, scores, width) for width, (name, scores) in enumerate(SCORES.items(), 1)]
    rules = read_rules(JudgingArguments(by="macro_f1"))
    findings = compare_arms(arms, "batch", rules, title="?")
    assert findings.contrasts == compare(SCORES, baseline="batch").findings.contrasts
    assert find_table(findings, "Macro_f1 of each arm").columns[1].heading == "macro_f1"
    assert "Compared by test macro_f1" in "\n".join(make_document(findings).summary)
    assert "validation accuracy" not in "\n".join(make_document(findings).summary)
    assert to_dict(findings)["rules"]["measure"] == "test macro_f1"
    lower = read_rules(dataclasses.replace(JudgingArguments(by="macro_f1"), lower_is_better=True))
    front = [each.arm.name for each in compare_arms(arms, "batch", lower, title="?").arms if each.on_front]
    assert front == ["batch", "none"]


def test_a_metric_that_is_called_accuracy_is_not_the_accuracy():
    run = make_packed(tiny(), 0.5).record
    run = dataclasses.replace(run, scores={"accuracy": 0.75, "top accuracy": 0.8})
    arms = [Arm(name, {}, tiny(), {0: run}, (0,), None, None) for name in "ab"]
    for by, score in (("test", 0.5), ("accuracy", 0.75), ("top accuracy", 0.8)):
        rules = make_rules(by=by)
        assert arms[0].scores(rules.measure) == {0: score}
        assert complete_measure(rules.measure, arms) == rules.measure or by == "test"
        written = to_dict(compare_arms(arms, "a", rules, title="?"))["rules"]["measure"]
        assert written == ("test" if by == "test" else f"test {by}")


def make_lossy(name, losses, width, **train):
    records = {seed: make_packed(tiny(seed, (width,), **train), 0.5).record for seed in range(len(losses))}
    records = {seed: dataclasses.replace(records[seed], test_loss=loss) for seed, loss in enumerate(losses)}
    return Arm(name, {}, tiny(0, (width,), **train), records, (*records,), 100 * width, 10)


def test_stored_runs_are_compared_by_their_test_loss():
    arms = [make_lossy("small", [0.30, 0.31, 0.29, 0.30], 1), make_lossy("large", [0.20, 0.22, 0.20, 0.21], 2)]
    rules = make_rules(by="loss", margin=0.05)
    findings = compare_arms(arms, "small", rules, title="?")
    (contrast,) = findings.contrasts
    assert contrast.comparison.mean == pytest.approx(-0.0925)
    assert contrast.verdict.word == "better"
    summary = "\n".join(make_document(findings).summary)
    assert "Compared by test loss" in summary
    assert to_dict(findings)["rules"]["measure"] == "test loss"
    with pytest.raises(InputError, match=r"^margin: must be given, in the unit of loss"):
        make_rules(by="loss")
    with pytest.raises(InputError, match=r"^by loss: arms must have the same train.loss, and have cross_entropy and "):
        complete_measure(rules.measure, [*arms, make_lossy("other", [0.3], 3, loss="math:dist")])


def test_a_metric_that_no_run_of_an_arm_has_is_refused_with_those_that_it_has():
    arms = [make_evaluated(name, SCORES[name], width) for width, name in enumerate(("batch", "layer"), 1)]
    with pytest.raises(InputError, match=r"metric f1: batch: none of its runs .* of test, validation, loss, macro_f1"):
        compare_arms(arms, "batch", read_rules(JudgingArguments(by="f1")), title="?")
    arms[1] = make_evaluated("layer", dict.fromkeys(range(3)), 2)
    with pytest.raises(InputError, match=r"metric macro_f1: layer: is a finite number in none of its runs"):
        compare_arms(arms, "batch", read_rules(JudgingArguments(by="macro_f1")), title="?")


@pytest.mark.parametrize("form", FORMATS)
def test_a_run_without_a_value_of_the_metric_is_lost(form):
    layer = make_evaluated("layer", {0: 0.5, 1: None, 2: 0.95, 3: 0.96}, 2)
    layer.records[0].scores.clear()
    batch = make_evaluated("batch", {0: 0.90, 1: 0.91, 2: 0.90, 3: 0.90}, 1)
    findings = compare_arms([batch, layer], "batch", read_rules(JudgingArguments(by="macro_f1")), title="?")
    (contrast,) = findings.contrasts
    assert contrast.comparison.seeds == (2, 3)
    assert (str(contrast.first_runs), str(contrast.second_runs)) == ("2 of 4", "4 of 4")
    shown = write_findings(findings, form)
    if form == "json":
        assert json.loads(shown)["arms"][1]["counts"] == {"completed": 2, "unscored": 2}
    if form == "csv":
        assert ",2,2,4,0," in shown
    else:
        assert "2 unscored" in re.sub(r"\s+", " ", shown).replace('"unscored": 2', "2 unscored")
    if form in ("terminal", "markdown", "html"):
        for seed in (0, 1):
            assert f"seed={seed}: has no finite macro_f1" in re.sub(r"\\(?=_)", "", shown)


@pytest.mark.parametrize("option", [{"unit": "own"}, {"lower_is_better": True}, {"chance": 0.1}])
def test_what_is_known_of_accuracies_cannot_be_changed(option):
    with pytest.raises(InputError, match=r"--[\w-]+.*: describes a metric; give its name with --by"):
        read_rules(JudgingArguments(**option))


def test_the_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs/other_frameworks.md").read_text()
    scores, commands, code = (block for _, block in re.findall(r"```(\w*)\n(.*?)```", page, re.DOTALL))
    monkeypatch.chdir(tmp_path)
    Path("scores.csv").write_text(scores)
    for command in commands.splitlines():
        assert main(shlex.split(command.removeprefix("python -m experiments.compare "))) == 0
    assert Path("norm.html").exists()
    capsys.readouterr()
    exec(code, {})
    assert capsys.readouterr().out.splitlines()[-1].startswith("better 0.0")


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ({1: [0.9, 0.8], "1": [0.1, 0.2]}, {}, "there are two arms called 1"),
        ({"a": {0: 0.9, "0": 0.1}, "b": [0.5]}, {}, r"scores\['a'\]: has seed 0 twice"),
        ({"a": [], "b": [0.5], "c": [0.4]}, {}, r"scores\['a'\]: has no scores"),
        ({"a": [1e160, 2e160], "b": [1.0, 2.0]}, {"unit": "own", "margin": 1}, "must be 0, or from 1e-100 to 1e"),
        ({"a": [0.9, 0.8], "b": [0.5, 0.6]}, {"score": "seed"}, "is the name of another column"),
    ],
)
def test_scores_that_would_be_lost_or_mixed_up_are_refused(scores, options, message):
    with pytest.raises(InputError, match=message):
        compare(scores, **options)


def test_seeds_of_any_size_are_told_apart(tmp_path):
    lines = [f"{arm},{seed},{score}" for arm, score in (("a", 0.5), ("b", 0.6)) for seed in (2**53, 2**53 + 1)]
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(["arm,seed,score", *lines]))
    assert compare(path, baseline="a").contrasts["b"].comparison.n == 2


def test_confusions_of_thousands_of_classes_are_left_out():
    found = compare({"a": [[0, 1, 20000], [0, 1, 2]], "b": [[0, 1, 1], [0, 0, 2]]}, labels=[0, 1, 2])
    assert found.findings.images is None
