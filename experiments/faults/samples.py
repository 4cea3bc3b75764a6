"""A small run, made without training, for those who damage and disturb."""

import numpy as np

from cnnjax.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from cnnjax.history import EpochMetrics
from cnnjax.records import Record, Run

CONFIG = RunConfig(
    ModelConfig(filters=(), dense=(4,)), TrainConfig(epochs=2, validation_split=0.1), DataConfig(train_size=50)
)


def make_run(config: RunConfig = CONFIG) -> Run:
    """Returns a small completed run of a configuration, made without training."""
    chance = np.random.default_rng(config.seed)
    history = tuple(EpochMetrics(epoch + 1, 0.5, 0.8, 0.6, 0.7, 0.1) for epoch in range(config.train.epochs))
    seconds = {"load": 0.1, "compile": 0.2, "train": 0.3, "evaluate": 0.1, "total": 0.7}
    provenance = {"python": "3.11", "dataset": {"name": "mnist", "image_shape": [28, 28, 1], "classes": 10}}
    record = Record(config, "completed", None, 3190, 6352, 0.3, 0.9, history, seconds, provenance)
    params = {"Dense_0": {"bias": chance.normal(size=4).astype(np.float32), "kernel": np.ones((28, 4), np.float32)}}
    return Run(record, params, {"BatchNorm_0": {"mean": np.zeros(4, np.float32)}}, np.zeros(10, np.uint8))
