"""The report command: what it shows of a store, in every format, and how it refuses."""

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.arguments import StudyArguments, read_study
from ablations.report import main
from ablations.study.grid import expand
from cnnjax import CorruptionError, InputError
from cnnjax.data.loading import load
from cnnjax.runs.record import PackedRun, Record
from cnnjax.runs.store import Store, StoredGrid
from grid_helpers import make_packed

ROOT = Path(__file__).parent.parent
STUDY = """
title = "Does padding matter?"
seeds = 3
[base]
model.filters = [2]
train.epochs = 1
[sweep.grid]
model.padding = ["valid", "same"]
model.kernel_size = [3, 5, 29]
"""
BEST = {"valid": 0.9, "same": 0.95}
LISTED = ["--sort", "model.padding"]
"""Lists the cells in the study's order, where they would be compared with the base."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study in a file, and a store in which one of its trials failed, one is missing and one cell is invalid."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "tiny.toml").write_text(STUDY)
    trials = [trial for trial in make_grid(folder).trials if not trial.cell.problem]
    runs = [
        make_packed(trial.config, BEST[trial.config.model.padding] + trial.config.seed / 1000) for trial in trials[:-1]
    ]
    failed = Record.without_result(trials[0].config, "failed", "out of memory", (1, 2), output="a\nb")
    Store(folder / "runs").add_all([PackedRun(failed), *runs[1:]])
    return folder


def make_grid(folder):
    return expand(read_study(StudyArguments(study=str(folder / "tiny.toml"))))


def report(capsys, folder, *arguments, study="tiny.toml"):
    study = [str(folder / study)] if study else []
    assert main([*study, "--out", str(folder / "runs"), *arguments]) == 0
    return capsys.readouterr().out


def test_the_terminal_shows_header_cells_and_all_that_went_wrong(folder, capsys):
    above, _, table, notes = report(capsys, folder, *LISTED).rstrip().split("\n\n")
    assert (
        above == "Does padding matter?\nstudy tiny, seeds 0..2, 18 trials, dataset mnist, epochs 1, model.filters [2]"
    )
    lines = table.splitlines()
    assert lines[0].split()[:4] == ["padding", "kernel_size", "test", "accuracy"]
    assert len(lines) == 2 + 6
    assert "0.9510 ± 0.0010  [0.9485, 0.9535]       3,950     36,064      0.3          3" in table
    assert lines[0].split()[-4:] == ["completed", "failed", "invalid", "missing"]
    assert lines[2].split()[-2:] == ["2", "1"]
    assert lines[4].split() == ["valid", "29", "3"]
    assert "95% t interval of the mean over seeds" in notes
    assert "failed: model.padding=valid, model.kernel_size=3, seed=0: out of memory" in notes
    assert "invalid: model.padding=valid, model.kernel_size=29: " in notes
    assert "made with python 3.11" in notes


def test_csv_has_every_cell_with_full_precision(folder, capsys):
    rows = list(csv.DictReader(io.StringIO(report(capsys, folder, "--format", "csv"))))
    assert len(rows) == 6
    row = next(row for row in rows if (row["model.padding"], row["model.kernel_size"]) == ("same", "3"))
    assert float(row["accuracy_seed_2"]) == 0.95 + 2 / 1000
    assert (row["completed"], row["missing"]) == ("3", "0")
    assert rows[0]["failed"] == "1"
    assert (rows[2]["accuracy"], rows[2]["invalid"]) == ("", "3")


def test_json_is_one_object_with_everything(folder, capsys):
    found = json.loads(report(capsys, folder, "--format", "json"))
    assert set(found) == {
        "study", "title", "seeds", "base", "factors", "confidence", "scope", "cells", "failures", "duplicates",
        "provenance", "remarks",
    }  # fmt: skip
    assert found["seeds"] == [0, 1, 2]
    assert found["factors"] == ["model.padding", "model.kernel_size"]
    assert [sum(cell["counts"].values()) for cell in found["cells"]] == [3] * 6
    assert found["failures"] == [
        {
            "cell": "model.padding=valid, model.kernel_size=3",
            "seed": 0,
            "status": "failed",
            "reason": "out of memory",
            "output": "a\nb",
        }
    ]
    first = found["cells"][0]
    assert first["accuracies"] == {"1": 0.901, "2": 0.902}
    assert set(first["keys"]) == {"0", "1", "2"}
    assert first["accuracy"]["n"] == 2
    assert found["cells"][2]["accuracy"] is None


def test_markdown_and_latex_show_the_same_numbers(folder, capsys):
    for form in ("markdown", "latex"):
        text = report(capsys, folder, "--format", form, "--filter", "model.kernel_size=3", *LISTED)
        assert "[0.9485, 0.9535]" in text or "{[}0.9485, 0.9535{]}" in text
        assert text.count("0.9510 ± 0.0010") + text.count(r"0.9510 $\pm$ 0.0010") == 1
        assert text.count("out of memory") == 1


def test_cells_are_filtered_and_sorted(folder, capsys):
    arguments = ["--filter", "model.kernel_size!=29", "--format", "csv"]
    for sort in (["--sort=-accuracy"], ["--sort", "-accuracy"]):
        rows = list(csv.DictReader(io.StringIO(report(capsys, folder, *arguments, *sort))))
        assert [row["model.padding"] for row in rows] == ["same", "same", "valid", "valid"]
    text = report(capsys, folder, "--filter", "model.padding=same", "--filter", "model.kernel_size=3")
    assert "1 of 6 cells are shown" in text


def test_a_pivot_sets_two_factors_against_each_other(folder, capsys):
    lines = report(capsys, folder, "--pivot", "model.padding", "model.kernel_size").splitlines()
    start = lines.index("padding by kernel_size")
    heading, _, valid, same = lines[start + 1 : start + 5]
    assert heading.split() == ["padding", "3", "5", "29"]
    assert valid.startswith("valid")
    assert valid.endswith("3 invalid")
    assert "0.9510 ± 0.0010" in same
    assert valid.split()[1:7] == ["0.9015", "±", "0.0007", "(2", "of", "3)"]
    assert "standard deviation over seeds" in lines[start + 6]


def test_the_output_file_is_replaced_as_a_whole(folder, tmp_path, capsys):
    path = tmp_path / "report.md"
    path.write_text("old")
    assert report(capsys, folder, "--format", "markdown", "--output", str(path)) == ""
    assert path.read_text(encoding="utf-8").startswith("## Does padding matter?")
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_without_results_is_an_error_and_makes_no_store(folder, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"nowhere/runs.sqlite: nothing is stored of the study tiny"):
        main([str(folder / "tiny.toml"), "--out", nowhere])
    with pytest.raises(InputError, match=r"nowhere/runs.sqlite: no grid was run into it; name a STUDY"):
        main(["--out", nowhere])
    with pytest.raises(InputError, match=r"nothing is stored of the study tiny with these settings and seeds"):
        main([str(folder / "tiny.toml"), "--out", str(folder / "runs"), "--seeds", "7..9"])
    assert list(tmp_path.iterdir()) == []


def store_grid(folder, name, text, command="run it", **options):
    """Puts a grid with the results of all its trials into a store; returns the grid."""
    (folder / f"{name}.toml").write_text(text)
    study = read_study(StudyArguments(study=str(folder / f"{name}.toml"), **options))
    grid, store = expand(study), Store(folder)
    keys = {trial.key: trial.name for trial in grid.trials}
    store.add_grid(StoredGrid(name, study.to_toml(), command, "2026-01-01T00:00:00+00:00", keys))
    runs = [trial for trial in grid.trials if not trial.cell.problem]
    store.add_all(
        [make_packed(trial.config, BEST[trial.config.model.padding] + trial.config.seed / 1000) for trial in runs]
    )
    (folder / f"{name}.toml").unlink()
    return grid


def test_a_grid_in_the_store_is_reported_by_its_name_and_can_be_changed_as_the_study(tmp_path, capsys):
    store_grid(tmp_path, "gone", STUDY, seeds="1")
    assert main(["gone", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "study gone, seeds 0," in text
    assert "0.9500" in text
    assert "other trials" not in text
    assert main(["gone", "--out", str(tmp_path), "--seeds", "2"]) == 0
    assert "the store has a grid of this name with other trials, run by: run it" in capsys.readouterr().out


def test_without_a_study_the_report_is_of_what_ran_last_as_it_was_run(tmp_path, capsys):
    store_grid(tmp_path, "gone", STUDY, seeds="4", set=("train.learning_rate=0.5",))
    assert main(["--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "study gone, seeds 0..3," in text
    assert "train.learning_rate 0.5" in text
    assert "other trials" not in text


def test_the_report_of_a_topped_up_grid_is_judged_by_the_plan_that_it_was_run_by(tmp_path, capsys):
    command = "python -m ablations.run gone --top-up 8 --margin 0.5 --baseline model.padding=valid"
    two = STUDY.replace("model.kernel_size = [3, 5, 29]\n", "")
    store_grid(tmp_path, "gone", two, command, seeds="4")
    assert main(["--out", str(tmp_path), "--pairs", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["rules"]["looks"] == []
    assert main(["--out", str(tmp_path), "--format", "json"]) == 0
    rules = json.loads(capsys.readouterr().out)["rules"]
    assert (rules["looks"], rules["margin"]) == ([4, 8], 0.005)


def test_the_cell_that_equals_the_base_is_the_baseline_and_the_report_begins_with_the_answer(tmp_path, capsys):
    two = STUDY.replace("model.kernel_size = [3, 5, 29]\n", "")
    store_grid(tmp_path, "gone", two)
    assert main(["--out", str(tmp_path)]) == 0
    first = capsys.readouterr().out.split("\n\n")[1]
    assert first.startswith("Better: padding=same less padding=valid is +5.00 points")


def test_without_a_cell_that_equals_the_base_the_cells_are_listed(tmp_path, capsys):
    store_grid(tmp_path, "gone", STUDY.replace("[3, 5, 29]", "[3, 7]"))
    assert main(["--out", str(tmp_path)]) == 0
    assert "--baseline FACTOR=LABEL or --pairs" in capsys.readouterr().out.split("\n\n")[1]


REFUSALS = [
    (["--sort", "acuracy"], r"--sort='acuracy': must be one of .*did you mean 'accuracy'"),
    (["--filter", "model.paddin=same"], r"--filter='model.paddin': must be one of .*did you mean 'model.padding'"),
    (["--filter", "model.padding=sam"], r"--filter model.padding='sam': must be one of valid, same; did you mean"),
    (["--filter", "model.padding=same", "--filter", "model.padding!=same"], r"--filter: leaves none of the 6 cells"),
    (["--pivot", "model.padding", "seed"], r"--pivot='seed': must be one of model.padding, model.kernel_size"),
    (["--pivot", "a", "b", "--format", "csv"], r"--pivot: makes tables to read; csv has every cell in full"),
    (["--format", "pdf"], r"--format='pdf': must be one of terminal"),
    (["--output", "no/such/folder.md"], r"--output no/such/folder.md: its folder does not exist"),
    (["--output", "."], r"--output \.: must be a file"),
    (["--output", os.devnull], r"--output .*: must be a file"),
    (["--max-trials", "5"], r"--max-trials 5: the study has 18 trials"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSALS, ids=[" ".join(case[0]) for case in REFUSALS])
def test_bad_arguments_are_refused_in_one_line(folder, arguments, message):
    with pytest.raises(InputError, match=message) as refusal:
        main([str(folder / "tiny.toml"), "--out", str(folder / "runs"), *arguments])
    assert len(str(refusal.value).splitlines()) == 1


def test_an_unknown_study_is_refused(folder):
    with pytest.raises(InputError, match=r"nothere: neither a file nor a shipped study"):
        main(["nothere", "--out", str(folder / "runs")])


def test_the_command_starts_without_jax_and_ends_with_its_exit_code(folder):
    code = "import sys; from ablations.report import main; main(sys.argv[1:]); assert 'jax' not in sys.modules"
    arguments = [str(folder / "tiny.toml"), "--out", str(folder / "runs")]
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True, timeout=300)
    result = subprocess.run(
        [sys.executable, "-m", "ablations.report", *arguments, "--sort", "x"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: --sort='x': must be one of model.padding")


def test_a_report_never_replaces_a_store_or_its_study(folder):
    study, store = folder / "tiny.toml", folder / "runs" / "runs.sqlite"
    before = study.read_bytes(), store.read_bytes()
    arguments = [str(study), "--out", str(folder / "runs"), "--output"]
    with pytest.raises(InputError, match=r"runs.sqlite: is a database; a report does not replace it"):
        main([*arguments, str(store)])
    with pytest.raises(InputError, match=r"tiny.toml: is the file of the study itself"):
        main([*arguments, str(study)])
    with pytest.raises(InputError, match=r"/dev/stdout: must be a file; without --output the report goes to"):
        main([*arguments, "/dev/stdout"])
    assert (study.read_bytes(), store.read_bytes()) == before


def test_sorting_tables_of_two_factors_is_refused(folder):
    with pytest.raises(InputError, match="tables of two factors keep the study's order"):
        main([str(folder / "tiny.toml"), "--pivot", "model.padding", "model.kernel_size", "--sort", "accuracy"])


def make_compared(folder, validation=False):
    """A store in which `same` is better than `valid` by half a point with kernel 3, and by nothing with 5."""
    settings = ("train.validation_split=0.1",) if validation else ()
    grid = expand(read_study(StudyArguments(study=str(folder / "tiny.toml"), seeds="6", set=settings)))
    gains = {("same", 3): 0.005, ("valid", 3): 0.0, ("same", 5): 0.001, ("valid", 5): 0.001}
    runs = [
        make_packed(trial.config, 0.9 + trial.config.seed % 4 / 1000 + gain + trial.config.seed % 2 / 10000)
        for trial in grid.trials
        if (gain := gains.get((trial.config.model.padding, trial.config.model.kernel_size))) is not None
    ]
    Store(folder / "compared").add_all(runs)
    arguments = ["--out", str(folder / "compared"), "--seeds", "6"]
    return [*arguments, *(["--set", *settings] if validation else [])]


BASELINE = ["--baseline", "model.padding=valid", "--baseline", "model.kernel_size=3"]


def test_a_baseline_is_compared_with_every_other_cell(folder, capsys):
    arguments = make_compared(folder)
    assert main([str(folder / "tiny.toml"), *arguments, *BASELINE, "--format", "json"]) == 0
    values = json.loads(capsys.readouterr().out)
    words = {each["first"]: each["verdict"]["word"] for each in values["contrasts"]}
    assert words == {
        "model.padding=valid, model.kernel_size=5": "equivalent",
        "model.padding=same, model.kernel_size=3": "better",
        "model.padding=same, model.kernel_size=5": "equivalent",
    }
    assert values["base"] == "model.padding=valid, model.kernel_size=3"
    assert "several" not in " ".join(values["remarks"])


def test_all_pairs_of_cells_are_compared_in_every_format(folder, capsys):
    arguments = make_compared(folder)
    for form in ("terminal", "markdown", "latex", "csv"):
        assert main([str(folder / "tiny.toml"), *arguments, "--pairs", "--format", form]) == 0
        assert "equivalent" in capsys.readouterr().out


def test_a_pick_reports_the_test_accuracy_of_the_picked_cell_alone(folder, capsys):
    arguments = [str(folder / "tiny.toml"), *make_compared(folder, validation=True), "--select"]
    assert main([*arguments, "--format", "json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["chosen"] == "model.padding=same, model.kernel_size=3"
    assert values["test_accuracy"]["n"] == 6
    assert len(values["ranked"]) == 4
    assert main(arguments) == 0
    assert "picked by validation accuracy: model.padding=same, model.kernel_size=3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--baseline", "model.padding=valid"], r"leaves 3 cells, must leave one; they differ in model.kernel_size"),
        ([*BASELINE, "--pairs"], r"--baseline and --pairs: give one of"),
        ([*BASELINE, "--sort", "accuracy"], r"--sort: arranges a plain report; leave it out with --baseline"),
        (["--format", "html", *LISTED], r"--format html: shows a comparison; give --baseline FACTOR=LABEL or --pairs"),
        (["--figures", "x", *LISTED], r"--figures: shows a comparison"),
        (["--top-up", "9"], r"--top-up 9: needs --baseline"),
        (["--select"], r"--select: no run has validation examples; run the study with --set train.validation_split"),
        (["--select", "--format", "csv"], r"--format csv: has every cell"),
        (["--by", "validation", *LISTED], r"--by validation: judges a comparison; give --baseline or --pairs"),
        ([*BASELINE, "--filter", "model.padding=valid", "--filter", "model.kernel_size=3"], r"1 arm: nothing"),
        (["--filter", "model.padding=same", *BASELINE], r"--baseline model.padding='valid': must be one of same"),
    ],
)  # fmt: skip
def test_an_impossible_comparison_is_refused(folder, arguments, message):
    with pytest.raises(InputError, match=message):
        main([str(folder / "tiny.toml"), *make_compared(folder), *arguments])


@pytest.mark.parametrize("family", [BASELINE, ["--pairs"], [*BASELINE, "--top-up", "20"]])
def test_a_filter_hides_comparisons_and_changes_none(folder, capsys, family):
    arguments = [str(folder / "tiny.toml"), *make_compared(folder), *family, "--format", "json"]
    assert main(arguments) == 0
    whole = json.loads(capsys.readouterr().out)
    assert main([*arguments, "--filter", "model.kernel_size=3"]) == 0
    shown = json.loads(capsys.readouterr().out)
    names = {"model.padding=valid, model.kernel_size=3", "model.padding=same, model.kernel_size=3"}
    assert {arm["name"] for arm in shown["arms"]} == names
    kept = [each for each in whole["contrasts"] if {each["first"], each["second"]} <= names]
    assert shown["contrasts"] == kept
    assert len(kept) == 1
    assert shown["effects"] == whole["effects"]
    assert any("2 of 6 arms are shown" in remark for remark in shown["remarks"])


def test_a_comparison_by_validation_accuracy_says_nothing_of_the_test_set(folder, capsys):
    arguments = [str(folder / "tiny.toml"), *make_compared(folder, validation=True), *BASELINE, "--by", "validation"]
    assert main([*arguments, "--format", "json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["noise"], values["mcnemar"]) == (None, None)
    assert any("compared by validation accuracy" in remark for remark in values["remarks"])


def test_predictions_that_are_damaged_are_corrupt(folder):
    arguments = [str(folder / "tiny.toml"), *make_compared(folder), *BASELINE]
    connection = sqlite3.connect(folder / "compared" / "runs.sqlite")
    connection.execute("UPDATE runs SET provenance = ?", (json.dumps({"dataset": {"sha256": load("mnist").sha256}}),))
    connection.commit()
    with pytest.raises(CorruptionError, match=r"run \w+ has 10 predictions up to class 0; the dataset has "):
        main(arguments)
    connection.execute("UPDATE arrays SET predictions = NULL")
    connection.commit()
    with pytest.raises(CorruptionError, match=r"runs.sqlite: the predictions of run \w+ are missing"):
        main(arguments)
