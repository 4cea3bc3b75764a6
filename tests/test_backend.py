"""Environment settings of JAX: they do not change a run, or are refused before anything is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import cnnjax
from cnnjax import DataConfig, ModelConfig, RunConfig, TrainConfig, UnavailableError

ROOT = Path(__file__).parent.parent
SMALL = RunConfig(
    ModelConfig(filters=(), dropout=0.2), TrainConfig(epochs=1, learning_rate=0.1), DataConfig(train_size=200)
)
CODE = f"""
import json
from cnnjax import RunConfig, fit
print(json.dumps(fit(RunConfig.from_json({SMALL.to_json()!r}), out=None).record.to_dict()))
"""


def train(**settings):
    command = [sys.executable, "-c", CODE]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **settings})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_threefry_partitionable", False),
        ("jax_random_seed_offset", 3),
        ("jax_default_matmul_precision", "bfloat16"),
    ],
)
def test_a_setting_that_would_change_results_under_the_same_key_is_refused(tmp_path, name, value):
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        for call in (lambda: cnnjax.fit(SMALL, tmp_path / "one"), lambda: cnnjax.fit_many([SMALL], tmp_path / "many")):
            with pytest.raises(UnavailableError, match=f"{name.upper()}={value}: must be "):
                call()
    finally:
        jax.config.update(name, before)
    assert not any(tmp_path.iterdir())


def test_a_grid_refuses_a_setting_that_would_change_results(tmp_path):
    command = [
        sys.executable,
        "-m",
        "ablations.run",
        "--axis",
        "model.filters=[],[2]",
        "--seeds",
        "1",
        "--workers",
        "1",
    ]
    command += ["--set", "data.train_size=200", "--set", "train.epochs=1", "--out", tmp_path]
    environment = {**os.environ, "JAX_THREEFRY_PARTITIONABLE": "0"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert result.returncode == 4, result.stderr
    assert "JAX_THREEFRY_PARTITIONABLE=False: must be True" in result.stderr
    assert "Traceback" not in result.stderr
    assert cnnjax.Store(tmp_path).list_keys() == []


def test_jax_settings_for_random_numbers_and_precision_do_not_change_a_run():
    plain = train()
    others = train(
        JAX_DEFAULT_PRNG_IMPL="rbg",
        JAX_ENABLE_CUSTOM_PRNG="1",
        JAX_ENABLE_X64="1",
        JAX_DEFAULT_MATMUL_PRECISION="float32",
    )
    assert plain.returncode == others.returncode == 0, plain.stderr + others.stderr
    first, second = json.loads(plain.stdout), json.loads(others.stdout)
    assert first["test_loss"] == second["test_loss"]
    assert first["history"][0]["loss"] == second["history"][0]["loss"]
