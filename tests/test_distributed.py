"""Two processes train one run together, with the result of one process that has as many devices."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from cnnjax import InputError, Store, load_run
from cnnjax.layers.custom_calls import explain_missing
from cnnjax.machine.distributed import check_processes

RUN = ["--model.filters", "[4]", "--model.dense", "[8]", "--model.dropout", "0.3", "--model.batch-norm"]
RUN += ["--data.train-size", "230", "--train.validation-split", "0.1", "--train.batch-size", "40"]


def find_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(*words, **variables):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **variables}
    environment.pop("JAX_NUM_CPU_DEVICES", None)
    command = [sys.executable, "-m", "experiments.train", *RUN, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def start_both(*words, outs=(None, None)):
    address = f"127.0.0.1:{find_port()}"
    together = ["--devices", "1", "--coordinator", address, "--num-processes", "2"]
    folders = [["--out", str(out)] if out else [] for out in outs]
    return [start(*words, *together, "--process-id", str(index), *folder) for index, folder in enumerate(folders)]


def finish(processes):
    outputs = [process.communicate(timeout=300) for process in processes]
    return [process.returncode for process in processes], outputs


def test_two_processes_train_the_run_of_two_devices_and_only_the_first_writes_and_prints(tmp_path):
    epochs = ["--train.epochs", "2", "--json"]
    codes, outputs = finish(start_both(*epochs, "--out", str(tmp_path / "two")))
    assert codes == [0, 0], outputs
    assert outputs[1][0] == ""
    record = json.loads(outputs[0][0])
    assert record["provenance"]["execution"] == "2 devices of 2 processes"
    codes, outputs = finish([start(*epochs, "--out", str(tmp_path / "one"), "--devices", "2")])
    assert codes == [0], outputs
    one, two = (load_run(record["key"], tmp_path / name) for name in ("one", "two"))
    assert one.record.provenance["execution"] == "2 devices"
    for layer, values in one.params.items():
        for name, array in values.items():
            np.testing.assert_allclose(two.params[layer][name], array, atol=1e-5)
    assert [epoch.loss for epoch in two.history] == pytest.approx([epoch.loss for epoch in one.history], rel=1e-5)
    again, _ = finish(start_both(*epochs, "--out", str(tmp_path / "two")))
    assert again == [0, 0]  # both found it stored


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_they_resume_bit_for_bit(tmp_path):
    epochs = ["--train.epochs", "40"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    codes, outputs = finish(start_both(*epochs, "--quiet", "--out", str(whole)))
    assert codes == [0, 0], outputs
    processes = start_both(*epochs, "--out", str(stopped))
    for line in processes[0].stdout:
        if line.startswith("epoch 2/"):
            break
    processes[1].send_signal(signal.SIGTERM)
    codes, outputs = finish(processes)
    assert codes == [143, 143], outputs
    assert "saved" in outputs[0][1]
    codes, outputs = finish(start_both(*epochs, "--resume", "--out", str(stopped)))
    assert codes == [0, 0], outputs
    assert "resuming after step" in outputs[0][0] + outputs[0][1]
    (key,) = Store(whole).list_keys()
    one, other = (load_run(key, folder) for folder in (whole, stopped))
    assert one.record.test_loss == other.record.test_loss
    for layer, values in one.params.items():
        for name, array in values.items():
            np.testing.assert_array_equal(array, other.params[layer][name])


@pytest.mark.slow
def test_processes_that_see_other_folders_do_not_train(tmp_path):
    epochs = ["--train.epochs", "1"]
    codes, outputs = finish(start_both(*epochs, outs=(tmp_path / "a", tmp_path / "a")))
    assert codes == [0, 0], outputs
    codes, outputs = finish(start_both(*epochs, outs=(tmp_path / "a", tmp_path / "b")))
    assert codes == [4, 4], outputs
    for _, errors in outputs:
        assert "out: must be a folder that all processes see; whether the run is stored is 0 for one of them" in errors


@pytest.mark.slow
def test_processes_with_different_runs_do_not_train(tmp_path):
    port = find_port()
    words = [
        "--train.epochs",
        "1",
        "--out",
        str(tmp_path),
        "--coordinator",
        f"127.0.0.1:{port}",
        "--num-processes",
        "2",
    ]
    processes = [start(*words, "--process-id", str(index), "--seed", str(index)) for index in range(2)]
    codes, outputs = finish(processes)
    assert codes == [4, 4], outputs
    for _, errors in outputs:
        assert "all processes must be given the same run; the run is " in errors
    assert not (tmp_path / "runs.sqlite").exists()


@pytest.mark.slow
def test_processes_with_different_layers_do_not_train(tmp_path):
    if explain_missing():
        pytest.skip(explain_missing())
    words = ["--out", str(tmp_path), "--devices", "1", "--coordinator", f"127.0.0.1:{find_port()}"]
    words += ["--num-processes", "2", "--process-id"]
    codes, outputs = finish([start(*words, "0"), start(*words, "1", CXX="no-such-compiler")])
    assert codes == [4, 4], outputs
    for _, errors in outputs:
        assert "all processes must have the same oneDNN, or none (--no-fast-layers)" in errors
    assert not (tmp_path / "runs.sqlite").exists()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_if_one_process_is_killed_the_other_ends_and_both_resume_from_the_last_checkpoint(tmp_path, killed):
    epochs = ["--train.epochs", "4000", "--checkpoint-every", "1", "--out", str(tmp_path)]
    processes = start_both(*epochs)
    for line in processes[0].stdout:
        if line.startswith("epoch 3/"):
            break
    processes[killed].kill()
    _, errors = processes[1 - killed].communicate(timeout=120)
    assert processes[1 - killed].returncode == 4, errors
    assert "error: another of the processes has gone; start all again, with --resume" in errors
    assert "Traceback" not in errors
    processes[killed].communicate()
    processes = start_both(*epochs, "--resume")
    for line in processes[0].stdout:
        if line.startswith("epoch "):
            break
    for process in processes:
        process.terminate()
    codes, outputs = finish(processes)
    assert codes == [143, 143], outputs
    assert "resuming after step" in outputs[0][1]


@pytest.mark.slow
def test_no_process_waits_for_one_that_failed(tmp_path):
    (tmp_path / "file").write_text("")
    codes, outputs = finish(start_both("--train.epochs", "1", outs=(tmp_path / "file/runs", tmp_path / "other")))
    assert codes == [4, 4], outputs
    assert "another of the processes has failed" in outputs[1][1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("a:1", 2, None), "process_id: must be given with coordinator and num_processes"),
        ((None, 2, 0), "coordinator: must be given with num_processes and process_id"),
        (("a", 2, 0), "coordinator='a': must be host:port"),
        (("a:0", 2, 0), "coordinator='a:0': must be host:port, with a port >= 1 and <= 65535"),
        (("a:70000", 2, 0), "coordinator='a:70000'"),
        (("a:1", 0, 0), "num_processes=0: must be >= 1"),
        (("a:1", 10**9, 0), "num_processes=1000000000: must be >= 1 and <= 4096"),
        (("a:1", 2, 2), "process_id=2: must be >= 0 and < num_processes=2"),
        (("a:1", 2, -1), "process_id=-1"),
    ],
)
def test_invalid_process_options_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        check_processes(*given)


def test_a_waiting_process_says_at_once_what_it_waits_for_and_until_when():
    address = f"127.0.0.1:{find_port()}"
    expected = (f"2 other processes to come to {address}", f"the first process to answer at {address}")
    for index, waited in enumerate(expected):
        process = start("--quiet", "--coordinator", address, "--num-processes", "3", "--process-id", str(index))
        try:
            line = process.stderr.readline()
        finally:
            process.kill()
            process.communicate()
        assert re.fullmatch(rf"waiting for {waited}, until \d\d:\d\d:\d\d \(300 s\)\n", line)


def test_the_options_of_several_processes_must_be_given_together():
    check_processes(None, None, None)
    check_processes("[::1]:80", 1, 0)


def test_the_number_of_all_devices_must_divide_the_batch(tmp_path):
    codes, outputs = finish(start_both("--train.epochs", "1", "--train.batch-size", "41", "--out", str(tmp_path)))
    assert codes == [2, 2], outputs
    assert "devices=2, those of all 2 processes: must divide train.batch_size=41" in outputs[0][1]
    assert not [*tmp_path.iterdir()]
