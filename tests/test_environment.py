"""Environment variables for JAX, matplotlib and Python change no result, or are refused in one line."""

import dataclasses
import gc
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cnnjax import DataConfig, ModelConfig, RunConfig, TrainConfig, fit, fit_many
from cnnjax.data.loading import load
from cnnjax.figures.geometry import draw_stack
from cnnjax.figures.style import encode_figure
from cnnjax.machine import compilation
from cnnjax.runs.provenance import describe_source

ROOT = Path(__file__).parent.parent
CONFIG = RunConfig(
    model=ModelConfig(filters=(2,), dropout=0.2),
    train=TrainConfig(epochs=1, learning_rate=0.1, batch_size=50, validation_split=0.1),
    data=DataConfig(train_size=150),
)
DIVERGING = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, learning_rate=1e30))
SETTINGS = {
    "jax_check_tracer_leaks": True,
    "jax_debug_infs": True,
    "jax_debug_key_reuse": True,
    "jax_debug_nans": True,
    "jax_default_prng_impl": "rbg",
    "jax_disable_jit": True,
    "jax_enable_checks": True,
    "jax_enable_custom_prng": True,
    "jax_legacy_prng_key": "error",
    "jax_no_execution": True,
    "jax_no_tracing": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_transfer_guard": "disallow",
}
"""Settings of JAX, each with a value under which programs do not run, run differently, or are checked."""


DRAW = """
import hashlib, os
from cnnjax import ModelConfig
from cnnjax.figures.geometry import draw_stack
from cnnjax.figures.style import encode_figure
from cnnjax.runs.provenance import describe_source
picture = encode_figure(draw_stack((28, 28, 1), ModelConfig().list_layers((28, 28, 1), 10), "a network"), ".png")
import matplotlib
chosen = dict.get(matplotlib.rcParams, "backend")  # without choosing one where none is chosen
print(hashlib.sha256(picture).hexdigest(), os.environ["MPLBACKEND"], chosen if isinstance(chosen, str) else "none")
"""
STOPPING = ("jax_debug_nans", "jax_disable_jit", "jax_numpy_rank_promotion", "jax_transfer_guard")
"""Those of them that end a run which they reach."""


@pytest.fixture(scope="module")
def usual():
    return fit(CONFIG, out=None, devices=1)


@pytest.fixture
def setting(request):
    old = getattr(jax.config, request.param)
    compilation._compile.cache_clear()
    gc.freeze()  # JAX, where it looks for leaks, collects garbage dozens of times, in all that earlier tests have left
    jax.config.update(request.param, SETTINGS[request.param])
    yield
    jax.config.update(request.param, old)
    gc.unfreeze()


@pytest.mark.parametrize("setting", SETTINGS, indirect=True)
def test_a_setting_of_jax_changes_no_result(usual, setting):
    run = fit(CONFIG, out=None, devices=1)
    assert run.record.test_loss == usual.record.test_loss
    jax.tree.map(np.testing.assert_array_equal, run.params, usual.params)


@pytest.mark.parametrize("setting", STOPPING, indirect=True)
def test_runs_in_one_program_and_predictions_are_made_whatever_jax_is_set_to(setting):
    run, _ = fit_many([CONFIG, dataclasses.replace(CONFIG, seed=1)], out=None, at_once=2)
    np.testing.assert_array_equal(run.predict(load("mnist").test.images), run.predictions)


@pytest.mark.parametrize("setting", ["jax_debug_nans", "jax_debug_infs"], indirect=True)
def test_a_run_that_diverges_is_recorded_whatever_jax_is_set_to(setting):
    assert fit(DIVERGING, out=None, devices=1).record.status == "diverged"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [("JAX_PLATFORMS", "cuda"), ("XLA_FLAGS", "--nonsense"), ("XLA_FLAGS", "--xla_cpu_enable_fast_math=maybe")],
)
def test_jax_that_cannot_start_is_one_sentence_of_a_run_and_of_a_grid(tmp_path, name, value):
    train = ["experiments.train", "--model.filters", "[]", "--quiet", "--out", tmp_path / "run"]
    grid = ["ablations.run", "--axis", "model.padding=valid", "--seeds", "1", "--out", tmp_path / "grid"]
    environment = {**os.environ, name: value}
    for words in (train, grid):
        line = [sys.executable, "-m", *map(str, words)]
        result = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
        assert re.fullmatch(f"error: JAX cannot start: .*{re.escape(value)}.*\n", result.stderr)
        assert result.returncode == 4
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("backend", "chosen"),
    [
        ("module://no_such_package.backend", "module://no_such_package.backend"),
        ("unknown", "none"),
        ("webagg", "webagg"),
    ],
)
def test_pictures_are_the_same_whatever_the_user_shows_his_own_with(tmp_path, backend, chosen):
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nsavefig.dpi: 20\nsavefig.bbox: tight\nlines.linewidth: 9\n")
    environment = {**os.environ, "MPLBACKEND": backend, "MATPLOTLIBRC": str(tmp_path)}
    line = [sys.executable, "-c", DRAW]
    result = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300, check=True)
    picture = encode_figure(draw_stack((28, 28, 1), ModelConfig().list_layers((28, 28, 1), 10), "a network"), ".png")
    assert result.stdout.split() == [hashlib.sha256(picture).hexdigest(), backend, chosen]


def test_grids_do_without_the_package_experiments_which_one_of_the_users_may_hide(tmp_path):
    for name in ("ablations", "cnnjax", "experiments"):
        shutil.copytree(ROOT / name, tmp_path / "ours" / name, ignore=shutil.ignore_patterns("__pycache__", "*.gz"))
    (tmp_path / "project/experiments").mkdir(parents=True)
    (tmp_path / "project/experiments/__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "ours")}
    line = [sys.executable, "-m", "ablations.plan", "--help"]
    assert not subprocess.run(line, capture_output=True, cwd=tmp_path / "project", env=environment).returncode


def test_the_commit_of_the_source_is_told_inside_a_hook_of_another_repository_too(tmp_path, monkeypatch):
    if not (ROOT / ".git").exists():
        pytest.skip("not in a git repository")
    line = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    commit = subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()
    describe_source.cache_clear()
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert describe_source()["commit"] == commit
