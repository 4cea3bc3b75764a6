"""Parts of the reliability measurements: damaged inputs, kills at every write, and a hostile environment."""

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cnnjax.data.settings import DataConfig
from cnnjax.models.cnn import ModelConfig
from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import EpochMetrics
from cnnjax.runs.record import Record, Run
from cnnjax.runs.train_config import TrainConfig

CONFIG = RunConfig(
    ModelConfig(filters=(), dense=(4,)), TrainConfig(epochs=2, validation_split=0.1), DataConfig(train_size=50)
)


def make_run(config: RunConfig = CONFIG) -> Run:
    """Returns a small completed run of a configuration, made up without training."""
    chance = np.random.default_rng(config.seed)
    history = tuple(EpochMetrics(epoch + 1, 0.5, 0.8, 0.6, 0.7, 0.1) for epoch in range(config.train.epochs))
    seconds = {"load": 0.1, "compile": 0.2, "train": 0.3, "evaluate": 0.1, "total": 0.7}
    provenance = {"python": "3.11", "dataset": {"name": "mnist", "image_shape": [28, 28, 1], "classes": 10}}
    record = Record(config, "completed", None, 3190, 6352, 0.3, 0.9, history, seconds, provenance)
    params = {"Dense_0": {"bias": chance.normal(size=4).astype(np.float32), "kernel": np.ones((28, 4), np.float32)}}
    return Run(record, params, {"BatchNorm_0": {"mean": np.zeros(4, np.float32)}}, np.zeros(10, np.uint8))


BYTES = (b"\0", b"\xff" * 4, b"\x80", b"\n", b'"', b"'", b"[", b"]", b"{", b"}", b"=", b",", b".", b"(", b"#", b"\\")
WORDS = (b"nan", b"inf", b"-1", b"0", b"1e308", b"99999999999999999999", b"true", b"none", b"null", b"[[1,2],3]", b"''")
VALUES: tuple[Any, ...] = (None, True, -1, 0, 2**31, 10**30, 1.5, -0.0, 1e308, float("nan"), "", "x", "\0", "1", [], {})
VALUES += ([[1, 2], [3, 4]], {"a": 1}, [None], "[]", "same", "9" * 50)


def mutate_bytes(content: bytes, chance: random.Random) -> bytes:
    """Returns `content` after one to four pieces of damage: bits, bytes, slices and words."""
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        chance.choice(_DAMAGES)(damaged, chance)
    return bytes(damaged)


def mutate_value(value: Any, chance: random.Random) -> Any:
    """Returns a copy of JSON values in which one or two values, at any depth, are replaced, dropped or renamed."""
    damaged = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 2))):
        places = list(_list_places(damaged))
        if not places:
            return chance.choice(VALUES)
        parent, key = chance.choice(places)
        _damage_entry(parent, key, chance)
    return damaged if chance.random() > 0.02 else chance.choice(VALUES)


def _list_places(value: Any) -> Sequence[tuple[Any, Any]]:
    keys = [*value] if isinstance(value, dict) else [*range(len(value))] if isinstance(value, list) else []
    return [place for key in keys for place in ((value, key), *_list_places(value[key]))]


def _damage_entry(parent: Any, key: Any, chance: random.Random) -> None:
    kind = chance.random()
    if kind < 0.1:
        del parent[key]
    elif kind < 0.2 and isinstance(parent, dict):
        parent[f"{key}{chance.choice(('', 's', '.x'))}"] = parent.pop(key)
    elif kind < 0.3 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    else:
        parent[key] = copy.deepcopy(chance.choice(VALUES))


def _place(damaged: bytearray, chance: random.Random) -> int:
    return chance.randrange(len(damaged) + 1)


def _flip(damaged: bytearray, chance: random.Random) -> None:
    if damaged:
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)


def _insert(damaged: bytearray, chance: random.Random) -> None:
    at = _place(damaged, chance)
    damaged[at:at] = chance.choice((chance.choice(BYTES), chance.choice(WORDS), chance.randbytes(chance.randint(1, 8))))


def _overwrite(damaged: bytearray, chance: random.Random) -> None:
    at, word = _place(damaged, chance), chance.choice((chance.choice(BYTES), chance.choice(WORDS)))
    damaged[at : at + len(word)] = word


def _drop(damaged: bytearray, chance: random.Random) -> None:
    at = _place(damaged, chance)
    del damaged[at : at + int(2 ** chance.uniform(0, 8))]


def _truncate(damaged: bytearray, chance: random.Random) -> None:
    del damaged[_place(damaged, chance) :]


def _repeat(damaged: bytearray, chance: random.Random) -> None:
    at = _place(damaged, chance)
    damaged[at:at] = damaged[at : at + int(2 ** chance.uniform(0, 8))] * chance.choice((1, 1, 3))


def _clear(damaged: bytearray, chance: random.Random) -> None:
    at, length = _place(damaged, chance), min(int(2 ** chance.uniform(0, 12)), len(damaged))
    damaged[at : at + length] = bytes(len(damaged[at : at + length]))


_DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_flip, _flip, _insert, _overwrite, _drop, _truncate, _repeat, _clear),
)
