"""What TensorBoard, MLflow and Weights & Biases read back of what was logged, each through its own package."""

import json
import struct
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Read:
    """A run as a tool has it: its points as (name, step, value), its settings and its words."""

    points: list
    settings: dict
    words: dict
    status: str = ""


def read_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    runs = []
    for path in sorted((folder / "tensorboard").glob("*")):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        tags = events.Tags()
        points = [(tag, event.step, event.value) for tag in tags["scalars"] for event in events.Scalars(tag)]
        settings, words = {}, {}
        if "record/text_summary" in tags["tensors"]:
            (text,) = events.Tensors("record/text_summary")[-1].tensor_proto.string_val
            words = dict(line.removeprefix("    ").split(": ", 1) for line in text.decode().splitlines())
            content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
            hparams = HParamsPluginData.FromString(content).session_start_info.hparams
            settings = {name: getattr(value, value.WhichOneof("kind")) for name, value in hparams.items()}
        runs.append(Read(points, settings, words))
    return runs


READ_MLFLOW = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1], registry_uri=sys.argv[1])
runs = client.search_runs([client.get_experiment_by_name("cnnjax").experiment_id], order_by=["attributes.start_time"])
print("\\n" + json.dumps([
    {
        "points": [
            (point.key, point.step, point.value)
            for name in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, name)
        ],
        "settings": run.data.params,
        "words": run.data.tags,
        "status": run.info.status,
    }
    for run in runs
]))
"""


def read_mlflow(folder):
    database = folder.resolve() / "mlflow/mlflow.db"
    if not database.exists():
        return []
    command = [sys.executable, "-c", READ_MLFLOW, f"sqlite:///{database}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return [
        Read([tuple(point) for point in run.pop("points")], **run) for run in json.loads(result.stdout.splitlines()[-1])
    ]


def read_wandb(folder):
    from wandb.proto.wandb_internal_pb2 import Record

    runs = []
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        points, settings, words, status = [], {}, {}, ""
        for record in map(Record.FromString, _split_leveldb(path.read_bytes())):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                settings |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "history":
                row = {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                points += [(name, record.history.step.num, row[name]) for name in row if not name.startswith("_")]
            elif kind == "summary":
                changes = {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.summary.update}
                words |= changes
            elif kind == "exit":
                status = str(record.exit.exit_code)
        runs.append(Read(points, settings, words, status))
    return runs


def _split_leveldb(content):
    """Yields the records of a file in LevelDB's log format: blocks of 32 KiB, pieces of records after seven bytes."""
    place, whole = 7, b""  # after the header of the file
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


READERS = {"tensorboard": read_tensorboard, "mlflow": read_mlflow, "wandb": read_wandb}
