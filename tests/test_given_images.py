"""Images given in Python: a run depends on their content and not only on their name, also in later processes."""

import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cnnjax
from ablations import read_dict, run_study
from cnnjax import DataConfig, Dataset, InputError, ModelConfig, RunConfig, Store, TrainConfig, fit
from cnnjax.data.dataset import Split, make_dataset
from cnnjax.data.loading import identify, load, load_data, load_data_info
from cnnjax.runs.checkpoints import Checkpoints

ROOT = Path(__file__).parent.parent
MINE = RunConfig(ModelConfig(filters=()), TrainConfig(epochs=1, batch_size=20, learning_rate=0.1), DataConfig("mine"))
KEYS = {
    "8b63c3f3dac5bb0b439590a62fd9d6bb1b265505181d8d6e6c59d5974cfb7f2d": RunConfig(),
    "1670cd456306d4fd4fad0eae63409d3ae6f149636dbc364c57b307b8c02054fc": RunConfig(
        data=DataConfig("fashion_mnist", train_size=500), seed=3
    ),
    "b12ed9a4ccaf654258ed61ad2116e188269092dcedafd48800021326ac005dd5": RunConfig(
        data=DataConfig("emnist/letters:3.1.0", manual_dir="/anywhere")
    ),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNJAX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_images(name="mine", flip=False, classes=3):
    """Returns images of which one row is bright, labelled by which; `flip` labels them the other way round."""
    labels = np.arange(60, dtype=np.int32) % classes
    images = np.zeros((60, 6, 6, 1), np.uint8)
    images[np.arange(60), labels] = 255
    split = Split(images, classes - 1 - labels if flip else labels)
    return make_dataset(name, "1.0.0", split, split, classes, "file")


def command(module, *arguments):
    line = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env={**os.environ})


def test_the_keys_of_runs_of_named_images_are_what_they_were():
    for key, config in KEYS.items():
        assert config.key == key


def test_two_datasets_of_one_name_are_two_runs(tmp_path):
    first = cnnjax.fit(MINE, tmp_path, dataset=make_images())
    other = cnnjax.fit(MINE, tmp_path, dataset=make_images(flip=True))
    more = cnnjax.fit(MINE, tmp_path, dataset=make_images(classes=4))
    again = cnnjax.fit(MINE, tmp_path, dataset=make_images())
    assert len({first.key, other.key, more.key}) == 3
    assert Store(tmp_path).list_keys() == [first.key, other.key, more.key]
    assert again.record == first.record
    assert not np.array_equal(first.predictions, other.predictions)
    assert first.record.config.data.sha256 == make_images().sha256
    (many,) = cnnjax.fit_many([MINE], tmp_path, dataset=make_images(flip=True))
    assert many.record == other.record


def test_images_called_like_a_known_dataset_are_not_taken_for_it(tmp_path):
    impostor = cnnjax.fit(replace(MINE, data=DataConfig()), tmp_path, dataset=make_images("mnist"))
    assert impostor.record.config.data.sha256 == make_images("mnist").sha256
    assert impostor.key != replace(MINE, data=DataConfig()).key
    assert identify(DataConfig(), load("mnist")) == DataConfig()


def test_images_must_have_the_hash_that_the_configuration_names():
    asked = DataConfig("mine", sha256=make_images(flip=True).sha256)
    with pytest.raises(InputError, match=r"dataset: has the sha256 .*, but the run's data\.sha256="):
        cnnjax.fit(replace(MINE, data=asked), None, dataset=make_images())
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        DataConfig("mine", sha256="F" * 64)


def test_splits_and_pairs_of_arrays_are_a_dataset_and_anything_else_is_refused():
    data = make_images()
    pair = (data.train.images[..., 0].astype(float) / 255, data.train.labels.astype(np.int64))
    run = cnnjax.fit(MINE, None, dataset=(pair, pair))
    assert run.key == cnnjax.fit(MINE, None, dataset=[data.train, data.test]).key
    assert run.record.config.data.sha256 == data.sha256
    for wrong in (pair, data.train, pair[0], "mnist", (pair, pair, pair), []):
        for call in (cnnjax.fit, lambda config, out, dataset: cnnjax.fit_many([config], out, dataset=dataset)):
            with pytest.raises(InputError, match="dataset: must be a Dataset, or"):
                call(MINE, None, dataset=wrong)


def test_stored_runs_say_what_they_can_without_the_images_and_name_them_where_they_cannot(tmp_path):
    data = make_images()
    runs = [cnnjax.fit(replace(MINE, seed=seed), tmp_path, dataset=data) for seed in range(2)]
    kept = runs[0].record.config.data
    assert load_data_info(kept) == data.info
    with pytest.raises(InputError, match=f"handed over in Python .*{data.sha256}.*give dataset="):
        load_data(kept)
    loaded = cnnjax.load_run(runs[0].key, tmp_path)
    assert np.array_equal(loaded.predict(data.test.images), runs[0].predictions)
    options = ("--set", "data.name=mine", "--set", f"data.sha256={data.sha256}", "--set", "train.epochs=1")
    options += ("--set", "train.batch_size=20", "--set", "train.learning_rate=0.1", "--out", tmp_path)
    report = command("ablations.report", "--axis", "model.filters=[]", "--seeds", "2", *options, "--format", "json")
    assert report.returncode == 0, report.stderr
    assert json.loads(report.stdout)["cells"][0]["counts"]["completed"] == 2
    explained = command("experiments.explain", "run", "--out", tmp_path, "--run", runs[0].key)
    assert explained.returncode == 2
    assert f"handed over in Python under this name (sha256 {data.sha256})" in explained.stderr


@pytest.mark.parametrize("as_arrays", [False, True], ids=["dataset", "arrays"])
def test_a_grid_runs_on_images_of_which_its_workers_have_a_copy(tmp_path, as_arrays):
    data = make_images()
    handed = ((data.train.images, data.train.labels), (data.test.images, data.test.labels)) if as_arrays else data
    base = {"data.name": "mine", "model.filters": [], "train.epochs": 1, "train.batch_size": 20}
    base["train.learning_rate"] = 0.1
    study = read_dict(
        {"title": "mine", "base": base, "seeds": 1, "sweep": {"grid": {"model.dense": [[], [4]]}}}, "mine"
    )
    counts = run_study(study, tmp_path / "grid", dataset=handed)
    assert counts["completed"] == 2
    records = Store(tmp_path / "grid").find_all().values()
    assert {record.config.data.sha256 for record in records} == {data.sha256}
    assert load_data(next(iter(records)).config.data).sha256 == data.sha256
    single = cnnjax.fit(MINE, tmp_path / "grid", dataset=data)
    assert single.key in {record.key for record in records}
    assert run_study(study, tmp_path / "grid", dataset=handed)["completed"] == 2
    explained = command("experiments.explain", "run", "--out", tmp_path / "grid", "--run", single.key)
    assert explained.returncode == 0, explained.stderr


def test_a_checkpoint_of_other_images_is_refused_with_both_named(tmp_path):
    arrays = {"a": np.zeros(3, np.float32)}
    Checkpoints(tmp_path, "key", "1" * 64).save(1, arrays, {})
    with pytest.raises(InputError, match="was trained on the images 111111111111, not 222222222222"):
        Checkpoints(tmp_path, "key", "2" * 64).restore()
    Checkpoints(tmp_path, "old").save(1, arrays, {})
    for images in ("1" * 64, None):
        assert Checkpoints(tmp_path, "key", "1" * 64).restore() is not None
        assert Checkpoints(tmp_path, "old", images).restore() is not None


class TestArrays:
    IMAGES = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
    LABELS = (0, 1, 2, 0, 1, 2)
    NAMES = ("cat", "dog", "eel")

    def make(self, images=None, labels=None, classes=None):
        images = self.IMAGES if images is None else images
        labels = self.LABELS if labels is None else labels
        return Dataset.from_arrays((images, labels), (images[:3], labels[:3]), classes)

    @pytest.mark.parametrize(
        "images",
        [
            IMAGES[..., None],
            IMAGES.astype(np.int64),
            IMAGES.astype(np.float64),
            IMAGES / np.float32(255),
            IMAGES / 255,
            (IMAGES / 255).astype(np.float16),
            IMAGES.tolist(),
        ],
    )
    def test_of_every_form_of_images_are_equal_to_the_canonical_one(self, images):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert self.make(images).sha256 == self.make().sha256

    @pytest.mark.parametrize(
        "labels",
        [
            np.array(LABELS, np.uint8),
            np.array(LABELS)[:, None],
            np.eye(3)[list(LABELS)],
            np.eye(3, dtype=bool)[list(LABELS)],
            [("cat", "dog", "eel")[label] for label in LABELS],
            [10 * label - 5 for label in LABELS],
        ],
    )
    def test_of_every_form_of_labels_are_equal_to_the_canonical_one(self, labels):
        assert self.make(labels=labels).sha256 == self.make().sha256

    def test_know_the_names_of_their_classes(self):
        words = [self.NAMES[label] for label in self.LABELS]
        assert self.make(labels=words).class_names == self.NAMES
        assert self.make(classes=self.NAMES).class_names == self.NAMES
        assert self.make(labels=words, classes=("eel", "dog", "cat")).train.labels.tolist() == [2, 1, 0, 2, 1, 0]
        assert self.make(labels=[5, 7, 9, 5, 7, 9]).class_names == ("5", "7", "9")

    def test_that_rounding_changes_are_rounded_with_a_warning(self):
        with pytest.warns(UserWarning, match=r"(train|test) images: rounded to multiples of 1/255, by 0.0020 at most"):
            dataset = self.make(np.full((6, 4, 4), 0.5))
        assert (dataset.train.images == 128).all()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"images": IMAGES - np.float32(50)}, "they must be whole numbers in 0..255"),
            ({"labels": [0.5] * 6}, "must be integers"),
            ({"labels": np.ones((6, 3))}, "or one-hot"),
            ({"labels": ["cat"] * 6, "classes": ("dog", "eel")}, "'cat' is not one of the classes dog, eel"),
            ({"labels": [0, 1, 2, 0, 1, 3], "classes": NAMES}, "has label 3; labels must be in 0..2"),
            ({"classes": ("cat", "cat", "dog")}, "must be different names"),
            ({"classes": 3}, "classes=3: must be a list of names"),
            ({"classes": "abc"}, "classes='abc': must be a list of names"),
            ({"labels": [0, 1]}, "6 images but 2 labels"),
        ],
    )
    def test_that_are_no_images_or_labels_are_refused(self, arguments, message):
        with pytest.raises(InputError, match=message):
            self.make(**arguments)

    def test_are_copied(self):
        images = self.IMAGES.copy()
        dataset = self.make(images)
        images[:] = 0
        assert (dataset.train.images[..., 0] == self.IMAGES).all()

    def test_name_the_dataset_of_a_run_that_names_none(self, tmp_path):
        dataset = self.make(classes=self.NAMES)
        config = RunConfig(ModelConfig(filters=(), dense=(4,)), TrainConfig(epochs=1, batch_size=3))
        run = fit(config, tmp_path, dataset=dataset)
        assert (run.record.config.data.name, run.record.config.data.sha256) == ("arrays", dataset.sha256)
        assert fit(config, tmp_path, dataset=dataset).key == run.key


def test_a_study_whose_training_examples_are_sorted_by_class_is_refused_before_anything_is_written(tmp_path):
    labels = np.repeat(np.arange(2), 50)
    images = np.zeros((100, 4, 4), np.uint8)
    handed = Dataset.from_arrays((images, labels), (images, labels))
    base, sweep = {"model": {"filters": []}}, {"data.train_size": [40, 100]}
    study = read_dict({"title": "How many?", "seeds": 1, "base": base, "sweep": {"grid": sweep}}, "size")
    with pytest.raises(InputError, match="class '1' is not among the 40 training examples"):
        run_study(study, tmp_path / "grid", dataset=handed)
    assert not (tmp_path / "grid").exists()
