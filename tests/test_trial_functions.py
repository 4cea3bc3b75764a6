"""A function of the user is run as a network is: checked, stored once, retried, compared; its key has its source."""

import json
import math
import re
import statistics
import textwrap
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

from ablations import Study, expand, read_dict, read_toml, run_study
from ablations.execution.in_process import InProcessExecutor
from ablations.execution.local import LocalExecutor, Slot
from ablations.execution.work import Policy
from ablations.plan import main as plan
from ablations.report import main as report
from ablations.status import main as status
from cnnjax import DataConfig, InputError, ModelConfig, RunConfig, Store, TrainConfig, fit, fit_many, summarize
from cnnjax.runs.record import Record
from cnnjax.runs.selection import find_contexts, read_selectors
from cnnjax.settings.schema import flatten
from cnnjax.statistics.measures import ACCURACY
from experiments.compare import main as compare
from experiments.explain import main as explain
from experiments.train import main as train

PAGE = (Path(__file__).parent.parent / "docs/studies.md").read_text()
TRIAL = """
    import time
    from typing import Literal

    def trial(seed: int, width: int, norm: Literal["group", "none"] = "none", scale: float = 0.01):
        if width == 13:
            raise ValueError("unlucky")
        if width == 60:
            time.sleep(60)
        bonus = 0.1 if norm == "group" else 0.0
        return {"accuracy": 0.5 + scale * width + bonus + 0.001 * seed, "loss": float("nan") if width == 7 else 2.0}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Returns a function that writes ``my_trials.py`` in the current folder."""
    monkeypatch.chdir(tmp_path)

    def write_source(text=TRIAL, path="my_trials.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(textwrap.dedent(text))

    return write_source


def read(function="my_trials.py:trial", seed=0, **arguments):
    return RunConfig.from_dict({"trial": {"function": function, **arguments}, "seed": seed})


def make_study(widths=(1, 2), **levels):
    grid = {"trial.width": list(widths), "trial.norm": ["group", "none"], **levels}
    base = {"trial": {"function": "my_trials.py:trial", "scale": 0.02}}
    return read_dict({"title": "Does it matter?", "seeds": 3, "base": base, "sweep": {"grid": grid}}, "mine")


def run(study, **options):
    return run_study(study, "runs", make_executor=InProcessExecutor, policy=Policy(max_retries=1), **options)


def test_every_trial_has_the_scores_that_the_function_returns(write):
    write()
    assert run(make_study())["completed"] == 12
    for record in Store("runs").find_all().values():
        arguments = json.loads(record.config.trial.fields)
        bonus = 0.1 if arguments["norm"] == "group" else 0.0
        accuracy = 0.5 + 0.02 * arguments["width"] + bonus + 0.001 * record.config.seed
        assert record.scores == {"accuracy": pytest.approx(accuracy), "loss": 2.0}
        assert record.test_accuracy == record.scores["accuracy"]
        assert record.provenance["code"]["my_trials.py:trial"]["files"] == {"my_trials.py": textwrap.dedent(TRIAL)}
        assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_stored_trial_is_not_called_again_until_the_source_changes(write):
    write()
    study = make_study()
    run(study)
    before = Store("runs").list_statuses()
    assert run(study)["completed"] == 12
    assert Store("runs").list_statuses() == before
    write(TRIAL + "\n    # edited\n")
    assert run(make_study())["completed"] == 12
    assert len(Store("runs").list_statuses()) == 24


def test_the_key_has_the_arguments_the_seed_and_the_source_but_not_the_folder(write):
    write()
    write(path="folder/my_trials.py")
    write(TRIAL + "\n    # edited\n", "other/my_trials.py")
    config = read(width=3)
    assert config.key == read("folder/my_trials.py:trial", width=3).key == read(width=3, norm="none").key
    others = [read(width=4), read(width=3, seed=1), read("other/my_trials.py:trial", width=3)]
    assert len({config.key, *(other.key for other in others)}) == 4
    assert RunConfig.from_json(config.to_json()) == RunConfig.from_toml(config.to_toml()) == config


def test_what_is_stored_of_a_function_has_no_settings_of_networks(write):
    write()
    config = read(width=3)
    assert config.to_dict() == {"trial": {**config.trial.to_dict()}, "seed": 0}
    assert [*flatten(config)] == [f"trial.{name}" for name in ("function", "source", *json.loads(config.trial.fields))]
    assert "trial" not in RunConfig().to_dict()


def test_a_study_of_a_function_is_read_back_and_needs_no_base_for_what_its_factors_set(write):
    write()
    study = make_study()
    assert read_toml(study.to_toml(), "mine") == study
    assert [cell.name for cell in expand(study).cells][:2] == [
        "trial.width=1, trial.norm=group",
        "trial.width=1, trial.norm=none",
    ]


def test_failures_are_retried_and_infinite_scores_are_divergences(write):
    write()
    counts = run(make_study([1, 7, 13]))
    assert (counts["completed"], counts["diverged"], counts["failed"]) == (6, 6, 6)
    for record in Store("runs").find_all().values():
        width = json.loads(record.config.trial.fields)["width"]
        if width == 13:
            assert record.reason == "trial.function: ValueError: unlucky, at the last of 2 attempts"
            assert "my_trials.py" in record.output
        if width == 7:
            assert record.reason == "not a finite number: loss=nan"
            assert record.scores["loss"] is None
            assert record.test_accuracy is None


def test_workers_call_functions_within_the_time_limit(write):
    write()
    slots = [Slot(number, None, {"JAX_PLATFORMS": "cpu"}) for number in range(2)]
    study = replace(make_study([1, 60], **{"trial.norm": ["none"]}), seeds=(0,))
    policy = Policy(max_retries=0)
    counts = run_study(study, "runs", make_executor=lambda: LocalExecutor(slots, timeout=10), policy=policy)
    assert (counts["completed"], counts["failed"]) == (1, 1)
    reasons = {record.reason for record in Store("runs").find_all().values()}
    assert reasons == {None, "ran longer than 10 s"}


def test_plan_status_and_report_show_a_study_of_a_function(write, capsys):
    write()
    Path("mine.toml").write_text(make_study().to_toml())
    assert plan(["mine.toml"]) == 0
    assert "4 cells x 3 seeds = 12 trials, 12 to run" in capsys.readouterr().out
    run(make_study())
    assert status([]) == 0
    assert re.search(r"mine +12 +0 +12", capsys.readouterr().out)
    assert report(["--format", "json", "--baseline", "width=1", "--baseline", "norm=none"]) == 0
    found = json.loads(capsys.readouterr().out)
    differences = {each["first"]: each["comparison"]["mean"] for each in found["contrasts"]}
    assert differences["trial.width=2, trial.norm=group"] == pytest.approx(0.12)
    assert report([]) == 0
    assert "dataset" not in capsys.readouterr().out.splitlines()[1]


def test_a_plan_says_of_a_function_only_what_its_own_runs_show(write, capsys):
    write()
    study, other = (
        replace(make_study(widths, **{"trial.norm": ["none"]}), seeds=tuple(range(5))) for widths in ([1, 2], [3, 4])
    )
    Path("mine.toml").write_text(study.to_toml())
    assert plan(["mine.toml"]) == 0
    before = capsys.readouterr().out
    assert not re.search("mnist|images|epochs|parameters|FLOPs|program|standard deviation|points", before)
    assert "the difference that is found is not known: too few runs of this function" in before
    assert plan(["mine.toml", "--json"]) == 0
    sensitivity = json.loads(capsys.readouterr().out)["sensitivity"]
    assert [sensitivity[name] for name in ("standard_deviation", "basis", "difference")] == [None] * 3
    run(study)
    assert plan(["mine.toml"]) == 0
    after = capsys.readouterr().out
    deviation = statistics.stdev(0.001 * seed for seed in range(5))
    found = re.search(r"standard deviation over seeds ([\d.]+), typical of 2 configurations of this study", after)
    assert float(found[1]) == pytest.approx(deviation / math.sqrt(chi2.median(8) / 8), abs=1e-4)
    Path("mine.toml").write_text(other.to_toml())
    assert plan(["mine.toml"]) == 0
    assert "typical of 2 configurations of the same function" in capsys.readouterr().out


def test_every_score_of_a_function_is_shown_and_compared_and_no_test_images_are_spoken_of(write, capsys):
    write("def trial(seed, width: int = 1): return {'loss': 1 / width + seed, 'steps': 10 * width}")
    result = Study("my_trials.py:trial", grid={"width": [1, 2]}, seeds=3).run("runs", workers=1, quiet=True)
    (table,) = result.to_document().tables
    shown = dict(zip([column.heading for column in table.columns], zip(*table.rows, strict=True), strict=True))
    assert shown["loss"] == ("2 ± 1", "1.5 ± 1")
    assert shown["steps"] == ("10 ± 0", "20 ± 0")
    assert report(["--format", "json"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [cell["scores"]["loss"]["mean"] for cell in cells] == [2.0, 1.5]
    for by, measure in (("test", "accuracy"), ("validation", "validation accuracy")):
        with pytest.raises(InputError, match=f"metric {measure}: .* must be one of loss, steps$"):
            result.compare("width=1", by=by)
    found = result.compare("width=1", by="loss", margin=0.1)
    assert found.contrasts["trial.width=2"].comparison.mean == pytest.approx(-0.5)
    assert report([]) == 0
    text = f"{capsys.readouterr().out} {result} {found} {found.write('markdown')}"
    page = re.sub("<style>.*?</style>|<script>.*?</script>|<svg.*?</svg>", "", found.write("html"), flags=re.DOTALL)
    assert "not drawn" in page
    assert not re.search("test set|images|validation|epoch|mnist|initialisation", text + page)
    with pytest.raises(InputError, match="--select: picks by validation accuracy, which a trial function has not"):
        report(["--select"])


def test_a_function_is_studied_from_python(write, tmp_path, monkeypatch):
    write(path="trials_of_a_module.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    import trials_of_a_module

    study = Study(trials_of_a_module.trial, base={"scale": 0.02}, grid={"width": [1, 2]}, seeds=3)
    result = study.run("runs", workers=1, quiet=True)
    assert result["width=2"].scores(ACCURACY) == pytest.approx({seed: 0.54 + 0.001 * seed for seed in range(3)})
    assert result.compare("width=1").contrasts["trial.width=2"].comparison.mean == pytest.approx(0.02)
    with pytest.raises(InputError, match="data='cifar10': a trial function loads its own data"):
        Study(trials_of_a_module.trial, "cifar10", grid={"width": [1]})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def trial(width): return 1", "must have a parameter seed"),
        ("def trial(seed, *widths): return 1", r"\*widths cannot be a setting; must be given by its name"),
        ("def trial(seed, source): return 1", "a parameter cannot be called source"),
        ("class trial: pass", "must be a function"),
        ("trial = 3", "must be a function"),
        ("def other(seed): return 1", "my_trials.py has no trial"),
        ("def trial(seed, widht): return 1", "unknown key 'width'; did you mean 'widht'"),
        ("def trial(seed, width: str): return 1", "trial.width=1: must be a string"),
        ("def trial(seed, width, depth): return 1", "trial.depth: must be given"),
    ],
)
def test_a_function_that_cannot_be_a_trial_is_refused_in_one_line(write, source, message):
    write(source)
    with pytest.raises(InputError, match=message) as refusal:
        read(width=1)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("returned", "scores"),
    [
        ("0.25", {"accuracy": 0.25}),
        ("np.float32(0.25)", {"accuracy": 0.25}),
        ("{'f1': np.array(0.5), 'steps': 3}", {"f1": 0.5, "steps": 3.0}),
        ("'good'", "returned 'good'; must return a number, or numbers by name"),
        ("{'ok': True}", "must return a number"),
        ("{}", "returned no score"),
        ("None", "must return a number"),
        ("{'accuracy': 93}", "accuracy=93.0: must be >= 0 and <= 1"),
    ],
)
def test_what_a_function_may_return(write, returned, scores):
    write(f"import numpy as np\ndef trial(seed): return {returned}\n")
    config = read().trial
    if isinstance(scores, dict):
        assert config.call(0) == scores
    else:
        with pytest.raises(InputError, match=re.escape(scores)):
            config.call(0)


def test_an_edited_function_stops_the_study_without_failed_trials(write):
    write()
    study = make_study()

    class Editing(InProcessExecutor):
        def submit(self, slot, group):
            write(TRIAL + "\n    # edited\n")
            super().submit(slot, group)

    with pytest.raises(InputError, match="its source is not the one of this run"):
        run_study(study, "runs", make_executor=Editing)
    assert not Store("runs").list_statuses()


@pytest.mark.parametrize("name", ["part", "jitted", "callable_object"])
def test_partial_and_jitted_functions_and_callable_objects_are_studied(write, name):
    write(
        """
        import functools
        import jax

        def trial(seed: int, width: int, scale: float = 1.0): return {"loss": scale * width + seed}

        class Trial:
            def __call__(self, seed: int, width: int): return {"loss": 1.0 * width + seed}

        part, jitted, callable_object = functools.partial(trial, scale=1.0), jax.jit(trial), Trial()
        """
    )
    study = Study(f"my_trials.py:{name}", grid={"width": [1, 2]}, seeds=2)
    assert {*study.config.settings} == {"trial.function"}
    assert run(study.config)["completed"] == 4
    for record in Store("runs").find_all().values():
        assert record.scores == {"loss": json.loads(record.config.trial.fields)["width"] + record.config.seed}
    with pytest.raises(InputError, match=r"trial.width.*='wide': must be an integer"):
        Study(f"my_trials.py:{name}", grid={"width": ["wide"]})


def test_two_arms_of_a_function_are_compared_by_the_command(write, capsys):
    write()
    run(make_study())
    arms = ["--a", "trial.width=2", "--b", "trial.width=1", "--set", "trial.function=my_trials.py:trial"]
    assert compare([*arms, "--set", "trial.norm=group", "--format", "json"]) == 0
    (contrast,) = json.loads(capsys.readouterr().out)["contrasts"]
    assert contrast["comparison"]["mean"] == pytest.approx(0.02)


def test_a_function_is_refused_in_one_line_where_a_network_is_needed(write, capsys):
    write()
    config = read(width=1)
    Path("run.toml").write_text(config.to_toml())
    calls = "calls a trial function, which has no network"
    for name, refused in {"model": ModelConfig((8,)), "train": TrainConfig(2), "data": DataConfig("cifar10")}.items():
        with pytest.raises(InputError, match=f"{name}: has no effect on trial.function='my_trials.py:trial'"):
            replace(config, **{name: refused})
    for use, message in {
        lambda: fit_many([RunConfig(), config], None): rf"configs\[1\]: {calls}",
        lambda: summarize(config): f"config: {calls}",
        lambda: train(["--config", "run.toml", "--model.padding", "same"]): f"--config run.toml: {calls}",
        lambda: train(["--trial", "my_trials.py:trial"]): "--trial: there is no such option",
        lambda: train(["--set", "trial.function=my_trials.py:trial"]): "unknown setting 'trial.function'",
        lambda: explain(["--where", "trial.function=my_trials.py:trial"]): "--where: unknown setting 'trial.function'",
    }.items():
        with pytest.raises(InputError, match=message):
            use()
    with pytest.raises(SystemExit):
        train(["--help-all"])
    assert "trial" not in capsys.readouterr().out


def test_commands_for_networks_pass_over_functions(write):
    write()
    run(make_study())
    records = Store("runs").find_all()
    with pytest.raises(InputError, match="no completed run of a network is in"):
        explain(["--where", "trial.function=my_trials.py:trial"])
    selectors = read_selectors(["model.padding=same"], ["model.padding=valid"], [])
    assert find_contexts(selectors, records) == {}
    with pytest.raises(InputError, match="completed and has no network: it called a function"):
        Store("runs").load(next(iter(records)))
    with pytest.raises(InputError, match="calls a trial function, which has no network"):
        fit(read(width=1), "runs")
    with pytest.raises(InputError, match="--budget halving: a function of yours has no epochs"):
        run(make_study(), budget="halving")


def test_the_example_of_the_page_is_a_study(write):
    source = re.search(r"```python\n(import .*?def trial.*?)```", PAGE, re.DOTALL)[1]
    write(source)
    (text,) = (block for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "trial.function" in block)
    study = read_dict(tomllib.loads(text), "page")
    assert run(study)["completed"] == len(expand(study).trials)


def test_a_function_that_leaves_its_folder_or_returns_a_huge_number_loses_no_result(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "away.py").write_text(
        "import os\ndef trial(seed):\n    os.chdir('/')\n    return {'accuracy': 0.5, 'loss': 10**400}\n"
    )
    (tmp_path / "here.py").write_text("import os\ndef trial(seed):\n    os.chdir('/')\n    return 0.5\n")
    away, here = (
        RunConfig.from_dict({"trial": {"function": f"{name}.py:trial"}}).trial.call(seed=0) for name in ("away", "here")
    )
    assert (away, here) == ({"accuracy": 0.5, "loss": np.inf}, {"accuracy": 0.5})
    assert Path.cwd() == tmp_path


def test_a_report_after_an_edit_says_that_the_code_has_changed(write):
    write()
    run_study(make_study(), "runs", make_executor=InProcessExecutor)
    assert report([]) == 0
    Path("my_trials.py").write_text(Path("my_trials.py").read_text() + "# edited\n")
    with pytest.raises(InputError, match="the runs of the study mine are of other code or images than there are now"):
        report([])
