"""A run divided among devices equals the run on one device, up to rounding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnnjax import RunConfig
from cnnjax.data.loading import load_data_info
from cnnjax.models.own_module import ModuleConfig
from cnnjax.training.fit import choose_run_devices

TRAIN = """
import dataclasses, json, sys
import numpy as np
from cnnjax import DataConfig, ModelConfig, RunConfig, TrainConfig, fit
from cnnjax.models.own_module import ModuleConfig

given, devices, images, split = json.loads(sys.argv[1])
model = ModuleConfig.from_dict(given) if "module" in given else ModelConfig(kernel_size=3, **given)
train = TrainConfig(epochs=2, batch_size=48, learning_rate=0.1, momentum=0.9, label_smoothing=0.1)
config = RunConfig(model, dataclasses.replace(train, validation_split=split), DataConfig(train_size=images))
runs = {n: fit(config, out=None, devices=n) for n in (1, *devices)}
one = runs[1]
for n, run in runs.items():
    for layer, values in run.params.items():
        for name, array in values.items():
            np.testing.assert_allclose(array, one.params[layer][name], atol=2e-5, err_msg=f"{n} {layer} {name}")
    for layer, values in run.batch_stats.items():
        for name, array in values.items():
            np.testing.assert_allclose(array, one.batch_stats[layer][name], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(run.history, one.history, strict=True):
        assert ours.accuracy == theirs.accuracy and ours.val_accuracy == theirs.val_accuracy, n
        assert abs(ours.loss - theirs.loss) < 1e-4, n
        assert not split or abs(ours.val_loss - theirs.val_loss) < 1e-4, n
    assert (run.predictions == one.predictions).mean() > 0.999
    assert run.record.provenance["execution"] == ("solo" if n == 1 else f"{n} devices")
again = fit(config, out=None, devices=n)
for layer, values in again.params.items():
    for name, array in values.items():
        np.testing.assert_array_equal(array, runs[n].params[layer][name])
"""
TINY = ["--model.filters", "[4]", "--train.epochs", "2", "--data.train-size", "200"]


def run_program(*words, cpu_devices=None):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment.pop("JAX_NUM_CPU_DEVICES", None)
    environment |= {"JAX_NUM_CPU_DEVICES": str(cpu_devices)} if cpu_devices else {}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)


NETWORKS = Path(__file__).parent.parent / "experiments/networks"
COUPLED = """
import flax.linen as nn

class Net(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, images):
        x = images.reshape(len(images), -1)
        return nn.Dense(self.classes)(x - x.mean(0))
"""
RUNS = {
    "plain": ({"filters": [4]}, (2, 8), 192, 0.0),
    "whole": ({"filters": [4], "batch_norm": True, "dense": [8], "dropout": 0.5}, (8,), 250, 0.1),
    "own": ({"module": f"{NETWORKS}/lenet.py:LeNet5"}, (2,), 225, 0.0),
    "own with batch normalisation and dropout": (
        {"module": f"{NETWORKS}/vgg.py:VGG", "blocks": [1, 1], "width": 4, "dense": 8, "dropout": 0.5},
        (8,),
        225,
        0.0,
    ),
    "maps": (
        {
            "filters": [4, 5],
            "norm": "group",
            "residual": True,
            "padding": "same",
            "spatial_dropout": 0.5,
            "global_pool": "avg",
        },
        (2,),
        225,
        0.0,
    ),
}
"""Networks, the numbers of devices, images and the share of them to validate on.

225 images leave a last batch of 33, which neither number divides; each program more takes seconds to compile, so not
every run has one.
"""


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_a_run_on_2_or_8_devices_equals_that_on_one_and_repeats_bit_for_bit(run):
    result = run_program("-c", TRAIN, json.dumps(run), cpu_devices=8)
    assert result.returncode == 0, result.stderr


def test_the_command_divides_the_batch_and_says_so(tmp_path):
    results = [
        run_program("-m", "experiments.train", *TINY, "--json", "--out", str(tmp_path / n), "--devices", n)
        for n in ("1", "2")
    ]
    assert [result.returncode for result in results] == [0, 0], results[1].stderr
    one, two = (json.loads(result.stdout) for result in results)
    assert [record["provenance"]["execution"] for record in (one, two)] == ["solo", "2 devices"]
    assert one["config"] == two["config"]
    assert two["test_loss"] == pytest.approx(one["test_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("3", "--devices=3: must divide train.batch_size=100"),
        ("0", "--devices=0: must be >= 1"),
    ],
)
def test_an_invalid_number_of_devices_is_refused_before_anything_is_written(tmp_path, devices, message):
    result = run_program("-m", "experiments.train", *TINY, "--out", str(tmp_path / "out"), "--devices", devices)
    assert result.returncode == 2
    assert f"error: {message}" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_module_that_couples_examples_by_itself_is_trained_on_one_device(tmp_path):
    (tmp_path / "nets.py").write_text(COUPLED)
    words = ["-m", "experiments.train", "--model", str(tmp_path / "nets.py:Net"), *TINY[2:], "--json"]
    refused = run_program(*words, "--out", str(tmp_path / "out"), "--devices", "2")
    assert refused.returncode == 2
    assert "error: devices=2: must be 1, of one process, as shares of a batch give another result" in refused.stderr
    assert not (tmp_path / "out").exists()
    alone = run_program(*words, "--out", str(tmp_path / "out"))
    assert json.loads(alone.stdout)["provenance"]["execution"] == "solo"


def test_more_devices_than_the_process_has_are_refused():
    program = "from cnnjax import RunConfig, fit; fit(RunConfig(), out=None, devices=4)"
    result = run_program("-c", program, cpu_devices=2)
    assert "InputError: devices=4: must be >= 1 and <= 2, the cpu devices of this process" in result.stderr


def test_an_interrupted_run_on_two_devices_resumes_bit_for_bit(tmp_path):
    program = """
import sys
import numpy as np
from cnnjax import DataConfig, Interrupted, ModelConfig, RunConfig, TrainConfig, fit
from cnnjax.runs.history import Silence
import os, signal

config = RunConfig(ModelConfig(filters=(4,)), TrainConfig(epochs=3, momentum=0.9), DataConfig(train_size=400))
class Stopper(Silence):
    def end_epoch(self, metrics):
        if metrics.epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
whole = fit(config, out=None, devices=2)
try:
    fit(config, out=sys.argv[1], devices=2, observer=Stopper())
except Interrupted:
    pass
resumed = fit(config, out=sys.argv[1], devices=2, resume=True)
for layer, values in whole.params.items():
    for name, array in values.items():
        np.testing.assert_array_equal(array, resumed.params[layer][name])
print("resumed")
"""
    result = run_program("-c", program, str(tmp_path), cpu_devices=2)
    assert (result.returncode, result.stdout) == (0, "resumed\n"), result.stderr


def test_whether_a_module_can_be_divided_is_not_tried_for_one_device(monkeypatch):
    monkeypatch.setattr(ModuleConfig, "can_be_divided", lambda *_: pytest.fail("tried"))
    config = RunConfig(ModuleConfig.from_dict({"module": "experiments.networks.lenet:LeNet5"}))
    assert choose_run_devices(config, load_data_info(config.data), devices=1) == 1
