"""The last training examples validate and the first ones train, whatever the size of the training set."""

import dataclasses

import numpy as np
import pytest

from cnnjax import DataConfig, InputError, RunConfig, TrainConfig
from cnnjax.data.dataset import Dataset, Split, content_hash
from cnnjax.runs.splits import split_sizes, take_splits


def make_config(validation_split=0.0, train_size=None):
    return RunConfig(train=TrainConfig(validation_split=validation_split), data=DataConfig(train_size=train_size))


@pytest.mark.parametrize(
    ("validation_split", "train_size", "sizes"),
    [
        (0.0, None, (60000, 0)),
        (0.1, None, (54000, 6000)),
        (0.25, 1000, (1000, 15000)),
        (0.0, 60000, (60000, 0)),
    ],
)
def test_split_sizes_are_those_of_keras(validation_split, train_size, sizes):
    assert split_sizes(make_config(validation_split, train_size), 60000) == sizes


@pytest.mark.parametrize(
    ("config", "examples", "message"),
    [
        (make_config(0.9), 5, r"train.validation_split=0.9: leaves 0 examples to train and 5 to validate"),
        (make_config(train_size=11), 10, r"data.train_size=11: must be <= 10, the training examples of mnist"),
        (make_config(0.5, train_size=6), 10, r"data.train_size=6: must be <= 5"),
    ],
)
def test_a_split_that_leaves_nothing_is_refused(config, examples, message):
    with pytest.raises(InputError, match=message):
        split_sizes(config, examples)


def test_training_takes_the_first_examples_and_validation_the_last():
    labels = np.arange(10, dtype=np.int32)
    images = np.zeros((10, 2, 2, 1), np.uint8)
    split = Split(images, labels)
    dataset = Dataset("toy", "1", split, split, 10, content_hash(split, split), "file")
    for train_size, first in ((None, 7), (3, 3)):
        config = dataclasses.replace(make_config(0.3), data=DataConfig(train_size=train_size))
        splits = take_splits(config, dataset)
        assert splits["train"].labels.tolist() == list(range(first))
        assert splits["validation"].labels.tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (make_config(train_size=100), "class '1' is not among the 100 training examples; shuffle the training arrays"),
        (make_config(0.3), "class '0' is not among the 90 validation examples"),
        (make_config(0.4), "class '0' is not among the 120 validation examples"),
    ],
)
def test_a_part_of_arrays_that_are_sorted_by_class_is_refused(config, message):
    labels = np.repeat(np.arange(3, dtype=np.int32), 100)
    split = Split(np.zeros((300, 2, 2, 1), np.uint8), labels)
    dataset = Dataset("toy", "1", split, split, 3, content_hash(split, split), "file")
    with pytest.raises(InputError, match=message):
        take_splits(config, dataset)
    shuffled = Split(split.images, np.random.default_rng(0).permutation(labels))
    take_splits(config, dataclasses.replace(dataset, train=shuffled))
