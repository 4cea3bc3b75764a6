"""Two processes train one run together, and it is the run of one process with as many devices."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from cnnjax import InputError, load_run
from cnnjax.distributed import check_processes

RUN = ["--model.filters", "[4]", "--model.dense", "[8]", "--model.dropout", "0.3", "--model.batch-norm"]
RUN += ["--data.train-size", "230", "--train.validation-split", "0.1", "--train.batch-size", "40"]


def find_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(*words, cpu_devices):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(cpu_devices)}
    command = [sys.executable, "-m", "experiments.train", *RUN, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def start_both(*words):
    address = f"127.0.0.1:{find_port()}"
    together = ["--coordinator", address, "--num-processes", "2"]
    return [start(*words, *together, "--process-id", str(index), cpu_devices=1) for index in range(2)]


def finish(processes):
    outputs = [process.communicate(timeout=120) for process in processes]
    return [process.returncode for process in processes], outputs


def test_they_train_the_run_of_two_devices_and_the_first_one_alone_writes_and_prints(tmp_path):
    epochs = ["--train.epochs", "2", "--json"]
    codes, outputs = finish(start_both(*epochs, "--out", str(tmp_path / "two")))
    assert codes == [0, 0], outputs
    assert outputs[1][0] == ""
    record = json.loads(outputs[0][0])
    assert record["provenance"]["execution"] == "2 devices of 2 processes"
    codes, outputs = finish([start(*epochs, "--out", str(tmp_path / "one"), "--devices", "2", cpu_devices=2)])
    assert codes == [0], outputs
    one, two = (load_run(record["key"], tmp_path / name) for name in ("one", "two"))
    assert one.record.provenance["execution"] == "2 devices"
    for layer, values in one.params.items():
        for name, array in values.items():
            np.testing.assert_allclose(two.params[layer][name], array, atol=1e-5)
    assert [epoch.loss for epoch in two.history] == pytest.approx([epoch.loss for epoch in one.history], rel=1e-5)
    again, _ = finish(start_both(*epochs, "--out", str(tmp_path / "two")))
    assert again == [0, 0]  # both found it stored


def test_a_signal_to_one_stops_both_and_the_run_goes_on_from_one_checkpoint(tmp_path):
    long = ["--train.epochs", "2000", "--out", str(tmp_path)]
    processes = start_both(*long, "--checkpoint-every", "1")
    deadline = time.monotonic() + 90
    while not [*tmp_path.glob("checkpoints/*/[0-9]*")] and time.monotonic() < deadline:
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    codes, outputs = finish(processes)
    assert codes == [143, 143], outputs
    assert "saved" in outputs[0][1]
    resumed = start_both(*long, "--resume")
    time.sleep(15)
    resumed[0].send_signal(signal.SIGTERM)
    codes, outputs = finish(resumed)
    assert codes == [143, 143], outputs
    assert "resuming after step" in outputs[0][0] + outputs[0][1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("a:1", 2, None), "process_id: must be given with coordinator and num_processes"),
        ((None, 2, 0), "coordinator: must be given with num_processes and process_id"),
        (("a", 2, 0), "coordinator='a': must be host:port"),
        (("a:0", 2, 0), "coordinator='a:0': must be host:port, with a port >= 1 and <= 65535"),
        (("a:70000", 2, 0), "coordinator='a:70000'"),
        (("a:1", 0, 0), "num_processes=0: must be >= 1"),
        (("a:1", 2, 2), "process_id=2: must be >= 0 and < num_processes=2"),
        (("a:1", 2, -1), "process_id=-1"),
    ],
)
def test_what_cannot_be_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        check_processes(*given)


def test_all_or_none_are_given():
    check_processes(None, None, None)
    check_processes("[::1]:80", 1, 0)


def test_devices_are_all_of_all_processes(tmp_path):
    codes, outputs = finish(start_both("--train.epochs", "1", "--out", str(tmp_path), "--devices", "1"))
    assert codes == [2, 2], outputs
    assert "devices=1: must be 2, the cpu devices of all 2 processes" in outputs[0][1]
    assert not [*tmp_path.iterdir()]
