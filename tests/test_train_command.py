"""The train command: what it prints and stores, how it refuses bad input, and how it stops and resumes."""

import json
import os
import pty
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cnnjax
from cnnjax.errors import CnnjaxError, InputError
from experiments.train import main

ROOT = Path(__file__).parent.parent
SMALL = ["--train.epochs", "2", "--data.train-size", "450", "--model.filters", "[2]", "--train.learning-rate", "0.1"]
SMALL += ["--devices", "1"]


def command(*arguments, module="experiments.train"):
    return [sys.executable, "-m", module, *map(str, arguments)]


def run(*arguments, **kwargs):
    return subprocess.run(command(*arguments), capture_output=True, text=True, cwd=ROOT, timeout=300, **kwargs)


@pytest.fixture
def run_here(capsys):
    """Runs the command in this process, which spares its start; returns its exit code, and what it printed."""

    def run(*arguments):
        capsys.readouterr()
        code = main([*map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "runs"
    return out, run(*SMALL, "--out", out)


def test_the_output_is_summary_epochs_history_and_accuracy(trained):
    out, result = trained
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["Layer", "(type)", "Output", "Shape", "Param", "#", "FLOPs", "Bytes"]
    assert any(
        re.fullmatch(r"epoch 2/2: loss \d\.\d{4}, accuracy 0\.\d{4}, seconds .* images/s", line) for line in lines
    )
    assert any(re.fullmatch(r"Stored as [0-9a-f]{12} in .*runs\.sqlite", line) for line in lines)
    assert re.fullmatch(r"Test accuracy: 0\.\d{4}", lines[-1])
    assert result.stderr == ""
    assert sorted(path.name for path in out.iterdir()) == ["runs.sqlite"]


def test_a_completed_run_is_shown_and_not_run_again(trained, run_here):
    out, first = trained
    code, printed, errors = run_here(*SMALL, "--out", out)
    assert code == 0
    assert re.search(r"run [0-9a-f]{12} is already in .*runs\.sqlite; --force", errors)
    assert printed.splitlines()[-1] == first.stdout.splitlines()[-1]


def test_force_runs_again_and_gives_the_same_result(trained, run_here):
    out, first = trained
    _, printed, _ = run_here(*SMALL, "--out", out, "--force", "--json")
    assert f"Test accuracy: {json.loads(printed)['test_accuracy']:.4f}" == first.stdout.splitlines()[-1]
    with sqlite3.connect(out / "runs.sqlite") as connection:
        assert connection.execute("SELECT COUNT(*) FROM runs").fetchone() == (1,)


def test_json_is_one_object_and_nothing_else(trained):
    out, _ = trained
    result = run(*SMALL, "--out", out, "--json", "--train.validation-split", "0.1")
    record = json.loads(result.stdout)
    assert set(record) == {
        "key", "config", "status", "reason", "parameters", "flops", "test_loss", "test_accuracy", "history", "seconds",
        "provenance", "output", "scores",
    }  # fmt: skip
    assert [set(epoch) for epoch in record["history"]] == [
        {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"}
    ] * 2
    assert set(record["seconds"]) == {"load", "compile", "train", "evaluate", "total"}
    assert record["key"] == cnnjax.RunConfig.from_dict(record["config"]).key
    assert record["provenance"]["dataset"]["order"] == "file"
    assert record["parameters"] == cnnjax.summarize(cnnjax.ModelConfig(filters=(2,))).parameters


def test_quiet_prints_the_accuracy_alone(trained, run_here):
    out, first = trained
    assert run_here(*SMALL, "--out", out, "--quiet")[1] == first.stdout.splitlines()[-1] + "\n"


def test_a_stored_run_predicts_what_it_predicted(trained):
    out, _ = trained
    with sqlite3.connect(out / "runs.sqlite") as connection:
        (key,) = connection.execute("SELECT key FROM runs WHERE config LIKE '%validation_split\": 0.0%'").fetchone()
    stored = cnnjax.load_run(key[:8], out)
    from cnnjax.data.loading import load

    test = load("mnist").test
    predictions = stored.predict(test.images)
    np.testing.assert_array_equal(predictions, stored.predictions)
    assert np.mean(predictions == test.labels) == stored.record.test_accuracy
    with pytest.raises(cnnjax.InputError, match=r"images: must be uint8 \(n, 28, 28, 1\), not float32"):
        stored.predict(test.images.astype(np.float32))


def test_the_same_run_from_python_stores_the_same_row(trained, tmp_path):
    out, _ = trained
    config = cnnjax.RunConfig(
        model=cnnjax.ModelConfig(filters=(2,)),
        train=cnnjax.TrainConfig(epochs=2, learning_rate=0.1),
        data=cnnjax.DataConfig(train_size=450),
    )
    ours = cnnjax.fit(config, tmp_path)
    theirs = cnnjax.load_run(config.key, out)
    assert ours.record.test_loss == theirs.record.test_loss
    np.testing.assert_array_equal(ours.predictions, theirs.predictions)
    np.testing.assert_array_equal(ours.params["Conv_0"]["kernel"], theirs.params["Conv_0"]["kernel"])
    assert cnnjax.fit(config, tmp_path).record == ours.record
    assert [epoch.loss for epoch in ours.history] == [epoch.loss for epoch in theirs.history]


def test_a_run_without_an_output_folder_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = cnnjax.RunConfig(
        model=cnnjax.ModelConfig(filters=()), train=cnnjax.TrainConfig(epochs=1), data=cnnjax.DataConfig(train_size=100)
    )
    assert cnnjax.fit(config, None).record.status == "completed"
    assert list(tmp_path.iterdir()) == []


REFUSALS = [
    (["--train.epochs", "0"], 2, "train.epochs=0: must be >= 1"),
    (["--train.epochs", "x"], 2, "train.epochs='x': must be an integer, not str"),
    (["--train.epochs", "1.5"], 2, "train.epochs=1.5: must be an integer, not float"),
    (["--train.learning-rate", "1e400"], 2, "train.learning_rate=inf: must be a finite number"),
    (["--data.train-size", "many"], 2, "data.train_size='many': must be an integer, not str"),
    (["--model.strides", "100000"], 2, "model.strides=100000: must be an integer >= 1 and <= 65536"),
    (["--train.epoch", "3"], 2, "--train.epoch: there is no such option; did you mean '--train.epochs'?"),
    (["--train.optimizer", "sdg"], 2, "must be one of sgd, adam, adamw, rmsprop, lion, lamb; did you mean 'sgd'?"),
    (["--train.learning-rate", "nan"], 2, "train.learning_rate=nan: must be a finite number"),
    (["--model.filters", "[32,64,64,64]"], 2, "model: Conv_2: its 5x5 window is larger than its 4x4 input"),
    (["--model.padding", "[same]"], 2, "model.padding=['same']: a list has one entry per block, but it has 1 for 2"),
    (["--model.padding", "[a"], 2, "'[a': must be a number, a word, or a list of them"),
    (["--data.train-size", "60001"], 2, "data.train_size=60001: must be <= 60000, the training examples of mnist"),
    (["--data.name", "../../etc"], 2, "data.name='../../etc' is not a dataset name"),
    (["--seed", "-1"], 2, "seed=-1: must be >= 0 and <= 4294967295"),
    (["--checkpoint-every", "0"], 2, "--checkpoint-every=0: must be >= 1"),
    (["--config", "missing.toml"], 2, "--config missing.toml: cannot be read"),
    (["--config", "README.md", "--config", "README.md"], 2, "--config: given 2 times, must be given once"),
    (["--config"], 2, "--config: expected one argument"),
    (["surplus"], 2, "'surplus': one argument too many"),
    (["--out", "README.md"], 4, "README.md is not a folder"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "message"), REFUSALS, ids=lambda value: "_".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_refused_in_one_line_before_anything_is_written(arguments, code, message, tmp_path, capsys):
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "runs")]
    with pytest.raises(CnnjaxError, match=re.escape(message)) as refused:
        main(["--json", *arguments, *out])
    assert refused.value.exit_code == code
    assert "\n" not in str(refused.value)
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "runs").exists()


def test_an_error_is_one_line_and_debug_adds_the_traceback():
    plain, debugged = (run("--train.epochs", "0", *more) for more in ([], ["--debug"]))
    assert (plain.returncode, plain.stdout, debugged.returncode) == (2, "", 2)
    assert re.fullmatch(r"error: train\.epochs=0: must be >= 1.*\n", plain.stderr)
    assert "Traceback" in debugged.stderr


def test_a_corrupt_store_is_refused_before_training(tmp_path):
    (tmp_path / "runs.sqlite").write_bytes(b"garbage" * 1000)
    result = run(*SMALL, "--quiet", "--out", tmp_path)
    assert result.returncode == 3
    assert re.fullmatch(r"error: .*runs\.sqlite: not a readable store: .*\n", result.stderr)


def test_a_configuration_file_is_the_base_that_options_change(tmp_path, run_here):
    config = cnnjax.RunConfig(model=cnnjax.ModelConfig(filters=(8,), padding="same"), seed=3)
    for name, text in (("run.toml", config.to_toml()), ("run.json", config.to_json())):
        (tmp_path / name).write_text(text)
        _, printed, _ = run_here("--config", tmp_path / name, "--model.filters", "[8,8]", "--summary-only")
        assert printed == f"{cnnjax.summarize(cnnjax.ModelConfig(filters=(8, 8), padding='same'))}\n"
    (tmp_path / "run.toml").write_text("[model]\nfilter = [8]\n")
    with pytest.raises(InputError, match=r"run.toml: model: unknown key 'filter'; did you mean 'filters'\?"):
        run_here("--config", tmp_path / "run.toml", "--summary-only")


@pytest.mark.parametrize(
    ("arguments", "total"),
    [
        (["--model.filters", "[32]", "--without-classifier"], "832"),
        (["--without-classifier"], "52,096"),
        ([], "62,346"),
    ],
)
def test_summary_only_prints_the_textbook_tables_and_trains_nothing(arguments, total, tmp_path, run_here):
    _, printed, _ = run_here("--summary-only", "--out", tmp_path / "runs", *arguments)
    assert re.search(rf"^Total params: {total} ", printed, re.MULTILINE)
    assert not (tmp_path / "runs").exists()


def test_words_such_as_none_are_read_as_values(run_here):
    words = ["--model.pool", "none", "--model.pool-strides", "None", "--data.train-size", "none"]
    assert run_here("--summary-only", *words)[1] == f"{cnnjax.summarize(cnnjax.ModelConfig(pool='none'))}\n"


def test_the_summary_is_one_json_object_where_json_is_asked_for(run_here):
    table = json.loads(run_here("--summary-only", "--json")[1])
    assert (table["parameters"], table["layers"][0]["name"]) == (62346, "Conv_0")


def _obeys_signals(process):
    """Whether a command has begun to catch SIGTERM, which Python itself does not."""
    (caught,) = re.findall(r"^SigCgt:\s+(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> signal.SIGTERM - 1 & 1)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("seconds", [0, 0.6, 1.2])
def test_an_interrupt_before_training_is_one_line(seconds, tmp_path):
    words = command("--quiet", "--train.epochs", "1000000", "--out", tmp_path)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    while not _obeys_signals(process):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert re.search(r"^error: interrupted", errors, re.MULTILINE), errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("closing", [">&-", "2>&-", ">/dev/full"])
def test_a_closed_or_full_stream_does_not_cost_the_run(closing, tmp_path):
    words = shlex.join(command(*SMALL[:4], "--model.filters", "[]", "--out", tmp_path))
    result = subprocess.run(f"{words} {closing}", shell=True, cwd=ROOT, timeout=300, capture_output=True, text=True)
    assert len(cnnjax.Store(tmp_path).list_keys()) == 1
    assert "Traceback" not in result.stderr


def test_output_lost_to_a_full_disk_is_an_error_and_the_run_is_stored(tmp_path):
    words = shlex.join(command(*SMALL[:4], "--model.filters", "[]", "--out", tmp_path, "--json"))
    result = subprocess.run(f"{words} > /dev/full", shell=True, cwd=ROOT, timeout=300, capture_output=True, text=True)
    assert result.returncode == 4
    assert result.stderr == "error: cannot write the output: <stdout>: No space left on device\n"
    assert len(cnnjax.Store(tmp_path).list_keys()) == 1


def test_errors_never_go_to_stdout(tmp_path):
    words = shlex.join(command("--train.epochs", "0", "--json"))
    result = subprocess.run(f"{words} 2>&-", shell=True, cwd=ROOT, timeout=300, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")


def test_a_stream_that_cannot_encode_a_character_escapes_it(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    result = run(*SMALL[:4], "--model.filters", "[]", "--out", tmp_path / "caf\u00e9", env=environment)
    assert r"caf\xe9" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("Test accuracy: ")


def test_a_backend_that_cannot_start_is_one_line(tmp_path):
    result = run(*SMALL, "--quiet", "--out", tmp_path, env={**os.environ, "JAX_PLATFORMS": "nonsense"})
    assert result.returncode == 4
    assert result.stderr.startswith("error: JAX cannot start: ")
    assert result.stderr.count("\n") == 1


def test_help_groups_the_options_and_imports_no_jax():
    result = run("--help")
    groups = ("--model.filters", "--train.learning-rate", "--data.name", "--seed", "--devices")
    assert sorted(groups, key=result.stdout[result.stdout.index("\n  --") :].index) == [*groups]
    code = "import sys, experiments.train; assert not {'jax', 'numpy', 'rich'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_diverging_run_stops_says_at_which_step_and_is_stored(tmp_path, run_here):
    words = ["--train.learning-rate", "1e30", "--data.train-size", "400", "--model.filters", "[2]", "--out", tmp_path]
    code, printed, errors = run_here(*words)
    assert code == 1
    assert re.search(r"^diverged: loss not finite at step \d+$", errors, re.MULTILINE)
    assert "Test accuracy" not in printed
    with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
        rows = connection.execute("SELECT status, test_accuracy FROM runs").fetchall()
    assert rows == [("diverged", None)]
    assert json.loads(run_here(*words, "--json")[1])["status"] == "diverged"


LONG = ["--train.epochs", "6", "--data.train-size", "9000", "--model.filters", "[2]", "--train.batch-size", "64"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert run(*LONG, "--out", out, "--quiet").returncode == 0
    return out


def assert_same_run(first, second):
    (one,), (two,) = (cnnjax.Store(out).list_keys() for out in (first, second))
    one, two = cnnjax.load_run(one, first), cnnjax.load_run(two, second)
    np.testing.assert_array_equal(one.predictions, two.predictions)
    for layer, arrays in one.params.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, two.params[layer][name])
    assert [(e.loss, e.accuracy) for e in one.history] == [(e.loss, e.accuracy) for e in two.history]
    assert one.record.test_loss == two.record.test_loss


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_a_checkpoint_and_says_how_to_resume(number, code, uninterrupted, tmp_path):
    process = subprocess.Popen(
        command(*LONG, "--out", tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    for line in process.stdout:
        if line.startswith("epoch 2"):
            process.send_signal(number)
            break
    _, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    assert re.search(r"error: interrupted after step \d+; saved .*; resume with: .* --resume\n$", errors)
    resume = shlex.split(errors.split("resume with: python ")[1])
    resumed = subprocess.run([sys.executable, *resume], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after step" in resumed.stderr
    assert_same_run(uninterrupted, tmp_path)


def test_a_closed_terminal_saves_a_checkpoint(tmp_path):
    controller, terminal = pty.openpty()
    arguments = command(*LONG, "--train.epochs", "100000", "--out", tmp_path)
    process = subprocess.Popen(arguments, stdout=terminal, stderr=terminal, cwd=ROOT)
    os.close(terminal)
    output = b""
    while b"Epoch 2/" not in output:
        output += os.read(controller, 4096)
    os.close(controller)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=300) == 129
    assert len(list(tmp_path.glob("checkpoints/*/*/manifest.json"))) == 1


def test_a_run_killed_and_resumed_equals_one_never_interrupted(uninterrupted, tmp_path):
    process = subprocess.Popen(command(*LONG, "--out", tmp_path, "--checkpoint-every", "1", "--quiet"), cwd=ROOT)
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("checkpoints/*/*/manifest.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert cnnjax.Store(tmp_path).list_keys() == []
    resumed = run(*LONG, "--out", tmp_path, "--checkpoint-every", "1", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after step" in resumed.stderr
    assert_same_run(uninterrupted, tmp_path)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_a_closed_pipe_does_not_cost_the_run(tmp_path):
    pipeline = f"{' '.join(command(*SMALL[:4], '--model.filters', '[]', '--out', tmp_path))} | true"
    subprocess.run(pipeline, shell=True, cwd=ROOT, timeout=300, check=False)
    assert len(cnnjax.Store(tmp_path).list_keys()) == 1
