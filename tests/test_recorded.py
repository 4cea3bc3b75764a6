"""What earlier versions wrote stays valid: run keys, and a store with every kind of run in it.

``recorded/keys.jsonl`` has random settings with the keys of their runs; ``recorded/store`` was written by
``ablations.run`` and ``experiments.train``, and ``recorded/records.jsonl`` says what was in it. None of them is ever
made again: a change that needs new ones breaks the stores that people have.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cnnjax import RunConfig, Store, fit, load_run
from cnnjax.data.loading import load
from cnnjax.runs.record import FINAL, Record

RECORDED = Path(__file__).parent / "recorded"


def _read(name):
    return [json.loads(line) for line in (RECORDED / name).read_text().splitlines()]


KEYS, RECORDS = _read("keys.jsonl"), _read("records.jsonl")


@pytest.fixture
def folder(tmp_path):
    shutil.copy(RECORDED / "store/runs.sqlite", tmp_path)
    return tmp_path


def test_settings_keep_the_run_keys_they_had():
    assert len(KEYS) >= 200
    assert [RunConfig.from_dict(each["settings"]).key for each in KEYS] == [each["key"] for each in KEYS]


def test_what_a_configuration_writes_has_the_key_it_had():
    configs = [RunConfig.from_dict(each["settings"]) for each in KEYS]
    for read, write in ((RunConfig.from_json, RunConfig.to_json), (RunConfig.from_toml, RunConfig.to_toml)):
        assert [read(write(config)).key for config in configs] == [each["key"] for each in KEYS]


def test_an_earlier_store_is_read_with_all_that_it_held(folder):
    found = Store(folder).find_all()
    assert list(found) == [each["key"] for each in RECORDS]
    assert list(found.values()) == [Record.from_dict(each) for each in RECORDS]


def test_an_earlier_store_can_be_written_to(folder):
    store = Store(folder)
    before = store.find_all()
    store.create()
    assert store.find_all() == before


@pytest.mark.parametrize("key", [each["key"] for each in RECORDS if each["status"] == "completed"])
def test_the_networks_of_an_earlier_store_predict_what_they_predicted(folder, key):
    run = load_run(key, folder)
    predicted = run.predict(load("mnist").test.images[:200])
    assert np.mean(predicted == run.predictions[:200]) >= 0.99  # another processor may round a tie the other way


def test_the_runs_of_an_earlier_store_are_not_run_again(folder):
    for recorded in RECORDS:
        if recorded["status"] in FINAL:
            config = RunConfig.from_dict(recorded["config"])
            assert fit(config, folder).record.to_dict()["seconds"] == recorded["seconds"]


def test_the_grid_of_an_earlier_store_still_names_its_trials(folder):
    (grid,) = Store(folder).list_grids()
    assert set(grid.trials) < {each["key"] for each in RECORDS}
    assert len(grid.trials) == 8
