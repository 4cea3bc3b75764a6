"""Runs that cannot fit the machine's memory or cores are refused before anything starts, and others are not."""

import dataclasses
import json
import subprocess
import sys

import pytest

from ablations.execution.launching import run_study
from ablations.plan import main as plan
from ablations.study.reading import read_dict
from cnnjax import DataConfig, ModelConfig, RunConfig, TrainConfig, fit
from cnnjax.data.loading import load_info
from cnnjax.errors import InputError, UnavailableError
from cnnjax.machine.processes import check_cpu_devices, count_cores, find_memory
from cnnjax.training.memory import check_memory, estimate_least_bytes
from experiments.train import main as train

INFO = load_info("mnist")
SMALL = RunConfig(
    ModelConfig(filters=(), dense=(8,)), TrainConfig(epochs=1, learning_rate=0.1), DataConfig(train_size=200)
)
TOO_LARGE = {"filters": [8], "padding": 65536}
WIDE = {"title": "wide", "seeds": 1, "base": {"model.filters": [8]}, "sweep": {"grid": {"model.padding": [0, 65536]}}}


def change(config, part, **values):
    return dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **values)})


def test_the_least_memory_of_a_run_equals_a_hand_count():
    config = RunConfig(ModelConfig(filters=(4,), pool="none", dense=(7,)))
    output = 4 * 24 * 24 * 4
    parameters = sum(layer.parameters for layer in config.model.list_layers((28, 28, 1), 10))
    images = 60_000 * 28 * 28
    assert estimate_least_bytes(config, INFO) == images + 4 * parameters + 10 * output
    adam = change(config, "train", optimizer="adam")
    assert estimate_least_bytes(adam, INFO) == images + 12 * parameters + 10 * output
    half = change(config, "train", precision="bfloat16")
    assert estimate_least_bytes(half, INFO) == images + 4 * parameters + 5 * output
    whole = change(change(config, "model", dropout=0.5), "train", batch_size=2**31 - 1)
    assert estimate_least_bytes(whole, INFO) == images + 4 * parameters + 60_000 * output


@pytest.mark.parametrize("settings", [{"batch_norm": True}, {"dense": (512,)}])
def test_the_least_memory_of_a_run_is_less_than_what_xla_uses(settings, monkeypatch):
    from cnnjax.machine import compilation

    taken = []

    def remember(compiled):
        analysis = compiled.memory_analysis()
        taken.append(analysis.argument_size_in_bytes + analysis.temp_size_in_bytes + analysis.output_size_in_bytes)

    monkeypatch.setattr(compilation, "_check_memory", remember)
    compilation._compile.cache_clear()
    config = RunConfig(ModelConfig(**settings), TrainConfig(epochs=1, batch_size=200), DataConfig(train_size=200))
    fit(config, out=None)
    trained = dataclasses.replace(INFO, train_size=200)
    assert estimate_least_bytes(config, trained) < max(taken)
    compilation._compile.cache_clear()


def test_a_run_that_needs_more_memory_than_there_is_is_refused_with_both_figures():
    check_memory(SMALL, INFO, find_memory())
    config = RunConfig(ModelConfig(**TOO_LARGE))
    with pytest.raises(UnavailableError, match=r"out of memory; .* at least [\d,]+\.\d GiB are needed, and there are "):
        check_memory(config, INFO, find_memory())


def test_a_run_that_cannot_fit_writes_nothing(tmp_path):
    with pytest.raises(UnavailableError, match="out of memory"):
        fit(RunConfig(ModelConfig(**TOO_LARGE)), tmp_path / "out")
    assert not [*tmp_path.iterdir()]


def test_a_program_that_xla_says_cannot_fit_is_not_run(monkeypatch, tmp_path):
    from cnnjax.machine import compilation

    monkeypatch.setattr(compilation, "find_memory", lambda: 2**20)
    compilation._compile.cache_clear()
    with pytest.raises(UnavailableError, match=r"at least 0\.\d GiB are needed"):
        fit(SMALL, tmp_path / "out")


@pytest.mark.parametrize("start", [lambda study, out: run_study(study, out), None], ids=["run", "plan"])
def test_a_grid_lists_the_cells_that_cannot_fit_and_starts_none(start, tmp_path, monkeypatch):
    if start is None:
        monkeypatch.setenv("JAX_PLATFORMS", "cpu")
        axes = ["--axis", "model.padding=0,65536", "--set", "model.filters=[8]", "--seeds", "1"]
        start = lambda study, out: plan([*axes, "--out", str(out)])  # noqa: E731
    with pytest.raises(UnavailableError, match=r"cell model\.padding=65536: out of memory"):
        start(read_dict(WIDE, "wide"), tmp_path / "out")
    assert not [*tmp_path.iterdir()]


def test_planning_needs_no_jax_to_know_what_fits(tmp_path):
    program = "import sys; from ablations.plan import main; main(sys.argv[1:]); assert 'jax' not in sys.modules"
    words = ["--axis", "model.padding=0,2", "--out", str(tmp_path), "--json"]
    result = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["trials"] > 0


def test_more_devices_than_cores_are_refused_before_jax_makes_them(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    too_many = 50 * count_cores()
    with pytest.raises(InputError, match=rf"--devices={too_many}: must be <= {count_cores()}, the CPU cores"):
        train(["--devices", str(too_many), "--train.batch-size", str(too_many), "--quiet", "--out", str(tmp_path)])
    check_cpu_devices(count_cores())
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", str(too_many))
    check_cpu_devices(too_many)


def test_a_batch_size_beyond_the_training_set_trains_on_all_examples_at_once():
    whole, larger = (fit(change(SMALL, "train", batch_size=size), out=None) for size in (200, 2**31 - 1))
    assert larger.record.test_accuracy == whole.record.test_accuracy
    assert larger.history[0].loss == pytest.approx(whole.history[0].loss, rel=1e-5)
