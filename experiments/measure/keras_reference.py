"""Trains the textbook network with Keras, with the same recipe and images, and compares it with stored cnnjax runs.

Needs ``pip install tensorflow-cpu keras``, and cnnjax runs of the same seeds in the store::

    for seed in 0 1 2 3 4 5 6 7 8 9; do python -m experiments.train --quiet --seed $seed; done
    python -m experiments.measure.keras_reference --seeds 10
"""

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cnnjax.console.arguments import ADVANCED, parse_arguments
from cnnjax.console.terminal import run_command, say
from cnnjax.data.dataset import Dataset
from cnnjax.data.loading import load
from cnnjax.errors import InputError, UnavailableError
from cnnjax.runs.config import RunConfig
from cnnjax.runs.store import Store
from cnnjax.settings.checking import Interval, check
from cnnjax.statistics.verdicts import MARGIN

PROG = "python -m experiments.measure.keras_reference"


@dataclass(frozen=True)
class KerasArguments:
    """Compares the test accuracy of the textbook recipe in cnnjax and in Keras::

    python -m experiments.measure.keras_reference --seeds 10
    """

    seeds: int = 5
    """Number of seeds, counted from 0."""
    out: Path = Path("runs")
    """Folder of the store with the cnnjax runs."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    arguments = parse_arguments(KerasArguments, argv, PROG, KerasArguments())
    check(arguments.seeds, Annotated[int, Interval(2)], "--seeds")
    ours = _read_ours(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import keras
    except ImportError:
        raise UnavailableError("Keras is not installed; pip install tensorflow-cpu keras") from None
    dataset = load("mnist")
    theirs = []
    for seed in range(arguments.seeds):
        start = time.perf_counter()
        theirs.append(_train_keras(dataset, seed))
        say(f"keras seed {seed}: {theirs[-1]:.4f} ({time.perf_counter() - start:.0f} s)", sys.stdout)
    say(_compare(ours, theirs, f"keras {keras.__version__} on {keras.backend.backend()}"), sys.stdout)
    return 0


def _read_ours(arguments: KerasArguments) -> list[float]:
    store = Store(arguments.out)
    accuracies = []
    for seed in range(arguments.seeds):
        record = store.find(replace(RunConfig(), seed=seed).key)
        if record is None or record.test_accuracy is None:
            raise InputError(f"{store.path}: no run of seed {seed}; python -m experiments.train --seed {seed}")
        accuracies.append(record.test_accuracy)
    return accuracies


def _train_keras(dataset: Dataset, seed: int) -> float:
    import keras

    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input(dataset.image_shape),
            keras.layers.Conv2D(32, 5, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 5, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(dataset.classes, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    train, test = dataset.train, dataset.test
    model.fit(train.images.astype("float32") / 255, train.labels, batch_size=100, epochs=5, verbose=0)
    return float(model.evaluate(test.images.astype("float32") / 255, test.labels, verbose=0)[1])


def _compare(ours: list[float], theirs: list[float], name: str) -> str:
    import numpy as np
    from scipy import stats

    tested = stats.ttest_ind(ours, theirs, equal_var=False)
    wide, narrow = tested.confidence_interval(0.95), tested.confidence_interval(0.9)
    rows = [
        f"{arm}: mean test accuracy {np.mean(values):.4f}, standard deviation {np.std(values, ddof=1):.4f}, "
        f"n {len(values)}"
        for arm, values in (("cnnjax", ours), (name, theirs))
    ]
    difference = np.mean(ours) - np.mean(theirs)
    if max(-narrow.low, narrow.high) < MARGIN:
        verdict = "equivalent"
    else:
        verdict = "undecided" if wide.low <= 0 <= wide.high else "better" if difference > 0 else "worse"
    return "\n".join(
        [
            *rows,
            f"difference of means {difference:+.4f}, 95% Welch interval [{wide.low:+.4f}, {wide.high:+.4f}]",
            f"two one-sided Welch tests at 5%: 90% interval [{narrow.low:+.4f}, {narrow.high:+.4f}], margin "
            f"±{MARGIN:g}: {verdict}",
        ]
    )


if __name__ == "__main__":
    run_command(main)
