"""Runs of one signature share every program; runs of different signatures do not."""

import dataclasses

import pytest

from cnnjax import fit
from cnnjax.machine import compilation
from cnnjax.models.cnn import ModelConfig
from cnnjax.runs.config import static_signature
from grid_helpers import tiny


def convolutional(spatial_dropout):
    return dataclasses.replace(tiny(), model=ModelConfig(filters=(2,), spatial_dropout=spatial_dropout))


def compiled(config):
    before = compilation._compile.cache_info().misses
    fit(config, out=None)
    return compilation._compile.cache_info().misses - before


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (tiny(), tiny(seed=5)),
        (tiny(), tiny(learning_rate=0.5)),
        (tiny(), tiny(label_smoothing=0.1)),
        (tiny(), tiny(epochs=2)),
        (tiny(momentum=0.9), tiny(momentum=0.5)),
        (tiny(weight_decay=0.1), tiny(weight_decay=0.01)),
        (tiny(dropout=0.5), tiny(dropout=0.2)),
        (convolutional(0.5), convolutional(0.2)),
    ],
)
def test_runs_of_one_signature_share_their_programs(first, second):
    assert static_signature(first) == static_signature(second)
    fit(first, out=None)
    assert compiled(second) == 0


@pytest.mark.parametrize(
    "other",
    [
        tiny(dense=(9,)),
        tiny(momentum=0.9),
        tiny(dropout=0.5),
        tiny(batch_size=50),
        tiny(optimizer="adam"),
        tiny(schedule="cosine"),
        tiny(schedule="cosine", epochs=2),
        tiny(validation_split=0.5),
        tiny(precision="bfloat16"),
        dataclasses.replace(tiny(), data=dataclasses.replace(tiny().data, train_size=501)),
    ],
)
def test_runs_of_different_signatures_do_not_share_programs(other):
    compilation._compile.cache_clear()
    fit(tiny(), out=None)
    assert static_signature(other) != static_signature(tiny())
    assert compiled(other) > 0


def test_the_signature_does_not_depend_on_where_images_were_prepared_from():
    elsewhere = dataclasses.replace(tiny(), data=dataclasses.replace(tiny().data, manual_dir="/downloads"))
    assert static_signature(elsewhere) == static_signature(tiny())
