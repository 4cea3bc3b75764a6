"""Findings of runs that nobody trained: a study of three factors in which an arm diverged and another cannot exist."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np

from cnnjax import ModelConfig, RunConfig, TrainConfig
from cnnjax.data.dataset import Split, make_dataset
from cnnjax.reports.arms import Arm
from cnnjax.reports.findings import compare_arms
from cnnjax.reports.images import compare_on_images
from cnnjax.reports.rules import Rules
from cnnjax.runs.history import EpochMetrics
from cnnjax.runs.record import Record
from cnnjax.statistics.measures import ACCURACY

TEST_SIZE = 2000
RULES = Rules(measure=dataclasses.replace(ACCURACY, resolution=1 / TEST_SIZE))
FILTERS = {"[4,8]": (4, 8), "[8,16]": (8, 16), "[16,32]": (16, 32), "[32,64]": (32, 64)}
LEVELS = {"model.padding": ("valid", "same"), "model.strides": ("1", "2"), "model.filters": tuple(FILTERS)}
GAINS = {"valid": 0.0, "same": 0.008, "1": 0.0, "2": -0.02, "[4,8]": -0.01, "[8,16]": 0.0, "[16,32]": 0.006}
INVALID, DIVERGED = ("valid", "2", "[4,8]"), ("same", "2", "[16,32]")


def make_test_set(seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, TEST_SIZE).astype(np.int32)
    rows, columns = np.mgrid[:12, :12]
    shapes = np.stack([(rows * (k + 1) + columns * (10 - k)) % 12 < 4 for k in range(10)])
    noise = random.integers(0, 90, (TEST_SIZE, 12, 12))
    images = np.clip(shapes[labels] * 180 + noise, 0, 255).astype(np.uint8)[..., np.newaxis]
    split = Split(images, labels)
    return make_dataset("stripes", "1", split, split, 10, "file")


def predict(labels, accuracy, seed, random):
    """Predictions with errors on images that are hard for all, on some that are hard for the seed, and at random."""
    hardness = np.random.default_rng(7).normal(size=len(labels))
    hardness += np.random.default_rng(100 + seed).normal(0, 0.5, len(labels)) + random.normal(0, 0.5, len(labels))
    wrong = np.argsort(-hardness)[: round((1 - accuracy) * len(labels))]
    predictions = labels.copy()
    predictions[wrong] = (labels[wrong] + np.where(wrong % 3, 1, 4)) % 10
    return predictions


def predict_all(arms, labels):
    """Predictions of all runs of arms, by arm and seed."""
    random = np.random.default_rng(0)
    return {
        arm.name: {seed: predict(labels, record.test_accuracy, seed, random) for seed, record in arm.records.items()}
        for arm in arms
    }


def make_record(config, accuracy, status="completed", reason=None, parameters=1000, sha256="", validated=False):
    if status != "completed":
        return dataclasses.replace(
            Record.without_result(config, status, reason, (parameters, 10 * parameters)),
            history=(EpochMetrics(1, 2.3, 0.1, None, None, 0.1),) if status == "diverged" else (),
        )
    epochs = config.train.epochs
    levels = [1 - (1 - accuracy) * 6 ** ((epochs - epoch) / max(epochs - 1, 1)) for epoch in range(1, epochs + 1)]
    history = tuple(
        EpochMetrics(epoch, 1 - level, level, 1 - level if validated else None, level if validated else None, 0.1)
        for epoch, level in enumerate(levels, 1)
    )
    provenance = {"python": "3.11", "dataset": {"name": "stripes", "sha256": sha256}}
    return Record(config, status, None, parameters, 10 * parameters, 0.1, accuracy, history, {}, provenance)


def make_arms(levels=None, seeds=range(5), dataset=None, leave_out_last=True, epochs=5, validated=False):
    """Returns the arms and the predictions of their runs by key."""
    levels = levels or LEVELS
    cells = [dict(zip(levels, labels, strict=True)) for labels in itertools.product(*levels.values())]
    arms, predictions = [], {}
    for number, labels in enumerate(cells[:-1] if leave_out_last else cells):
        name = ", ".join(f"{factor}={label}" for factor, label in labels.items())
        cell, parameters = tuple(labels.values()), 3000 * (7 * number % 11 + 1) + 500 * number
        if cell == INVALID:
            problem = "model: MaxPool_1: its 2x2 window is larger than its 1x1 input (shape (1, 1, 8))"
            arms.append(Arm(name, labels, RunConfig(), {}, tuple(seeds), None, None, problem))
            continue
        records = {}
        for seed in seeds:
            config = RunConfig(ModelConfig(dense=(number + 1,)), TrainConfig(epochs=epochs), seed=seed)
            if cell == DIVERGED or (number == 6 and seed == 3):
                why = ("diverged", "loss not finite at step 3") if cell == DIVERGED else ("failed", "out of memory")
                records[seed] = make_record(config, None, *why, parameters)
                continue
            random = np.random.default_rng(1000 * number + seed)
            common = np.random.default_rng(seed).normal(0, 0.002)
            gain = sum(GAINS.get(label, 0.004) for label in cell)
            accuracy = round((0.955 + gain + common + random.normal(0, 0.0015)) * TEST_SIZE) / TEST_SIZE
            records[seed] = make_record(
                config, accuracy, parameters=parameters, sha256=dataset.sha256 if dataset else "", validated=validated
            )
            if dataset:
                predictions[config.key] = predict(dataset.test.labels, accuracy, seed, random)
        arms.append(Arm(name, labels, config, records, tuple(seeds), parameters, 10 * parameters))
    return arms, predictions


def make_findings(arms, base=None, images=None, **options):
    options = {"title": "Do padding, strides and filters matter?", "rules": RULES} | options
    return compare_arms(arms, base, options.pop("rules"), images=images, **options)


def make_example(dataset=None):
    """Returns the findings of the whole example: 3 factors, 15 arms, 5 seeds, with predictions."""
    dataset = dataset or make_test_set()
    arms, predictions = make_arms(dataset=dataset)
    base = "model.padding=valid, model.strides=1, model.filters=[8,16]"
    store = SimpleNamespace(load_predictions=lambda keys: {key: predictions[key] for key in keys})
    return make_findings(
        arms,
        base,
        compare_on_images(arms, base, store, dataset),
        facts=("study example", "seeds 0..4", "75 trials", "dataset stripes", "epochs 5"),
        command="python -m experiments.compare example --out runs --format html --output report.html",
        provenance=("made with device cpu (cpu), cpu_threads 1, python 3.11.7, cnnjax 0.1.0, jax 0.10.2",),
        remarks=("--seeds: 5 of 5 planned",),
    )
