"""Datasets through TFDS: preparing with TensorFlow in a process of its own, reading without it. No network is used."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cnnjax.data import mnist
from cnnjax.data.dataset import Dataset, Split
from cnnjax.data.loading import load, load_info, load_tfds
from cnnjax.errors import CorruptionError, InputError, UnavailableError

pytestmark = pytest.mark.slow
pytest.importorskip("tensorflow", reason="preparing datasets needs TensorFlow")

ROOT = Path(mnist.__file__).parents[2]
FASHION_MNIST = ROOT.parent / "shared" / "data" / "fashion_mnist"

# Run in another process, as it imports TensorFlow: what it defines is found here by its files only.
MAKE_TOYS = """
import sys
import numpy as np
import tensorflow_datasets as tfds

def toy(name, image, label, splits, example):
    class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        def _info(self):
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            keys = ("image", "label")
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=keys)
        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(n) for split, n in splits.items()}
        def _generate_examples(self, n):
            for i in range(n):
                yield i, example(i)
    Toy.name = name
    file_format = "tfrecord" if name == "old" else "array_record"
    Toy(data_dir=sys.argv[1]).download_and_prepare(file_format=file_format)

def picture(height, width, channels):
    return lambda i: {"image": np.full((height, width, channels), i, np.uint8), "label": i % 3}

Image, labels = tfds.features.Image, tfds.features.ClassLabel(num_classes=3)
both = {"train": 30, "test": 12}
toy("rgb", Image(shape=(5, 7, 3)), labels, both, picture(5, 7, 3))
toy("loose", Image(shape=(None, None, 4)), labels, {"train": 30, "validation": 9}, picture(4, 6, 4))
toy("ragged", Image(shape=(None, None, 1)), labels, both, lambda i: picture(4, 4 + (i == 5), 1)(i))
toy("text", tfds.features.Text(), labels, both, lambda i: {"image": "a", "label": 0})
toy("deep", Image(shape=(4, 4, 1), dtype=np.uint16), labels, both,
    lambda i: {"image": np.zeros((4, 4, 1), np.uint16), "label": 0})
toy("unlabelled", Image(shape=(4, 4, 1)), labels, both, lambda i: picture(4, 4, 1)(i) | {"label": -1})
toy("whole", Image(shape=(4, 4, 1)), labels, {"every": 30}, picture(4, 4, 1))
toy("old", Image(shape=(4, 4, 1)), labels, both, picture(4, 4, 1))
"""


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    subprocess.run([sys.executable, "-c", MAKE_TOYS, str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CNNJAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


@pytest.fixture(scope="module")
def prepared_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TFDS's own mnist, prepared from the bundled files."""
    folder = tmp_path_factory.mktemp("mnist")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNJAX_CACHE_DIR", str(folder / "cache"))
        patch.setenv("TFDS_DATA_DIR", str(folder / "tfds"))
        load_tfds("mnist", manual_dir=mnist.FOLDER)
    return folder


def use(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))


def in_common_order(split: Split) -> np.ndarray:
    rows = np.column_stack([split.labels.astype(np.uint8), split.images.reshape(len(split), -1)])
    return np.sort(rows.view(f"S{rows.shape[1]}").ravel())


class TestMnist:
    def test_tfds_holds_the_bundled_examples_in_its_own_order(
        self, prepared_mnist: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CNNJAX_CACHE_DIR", str(prepared_mnist / "cache"))
        ours, theirs = load("mnist"), load_tfds("mnist")
        assert (theirs.name, theirs.version, theirs.order) == ("mnist", "3.0.1", "tfds")
        assert (theirs.classes, theirs.image_shape) == (ours.classes, ours.image_shape)
        for one, other in ((ours.train, theirs.train), (ours.test, theirs.test)):
            np.testing.assert_array_equal(in_common_order(one), in_common_order(other))
        assert ours.sha256 != theirs.sha256

    def test_the_second_load_is_mapped_from_the_cache(
        self, prepared_mnist: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CNNJAX_CACHE_DIR", str(prepared_mnist / "cache"))
        for name in ("mnist", "mnist:3.0.1"):
            assert isinstance(load_tfds(name).train.images, np.memmap)

    @pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
    def test_a_damaged_prepared_file_is_refused(
        self, damage: str, prepared_mnist: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        shutil.copytree(prepared_mnist / "tfds" / "mnist", tmp_path / "tfds" / "mnist")
        [path] = (tmp_path / "tfds").rglob("mnist-train.array_record*")
        content = bytearray(path.read_bytes())
        content[100_000] ^= 0xFF
        if damage == "remove":
            path.unlink()
        else:
            path.write_bytes(content if damage == "flip" else content[: len(content) // 2])
        with pytest.raises(CorruptionError, match=r"'mnist': train in .*3\.0\.1 cannot be read .*; delete that folder"):
            load_tfds("mnist")

    @pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
    def test_damaged_metadata_is_refused(self, name: str, toys: Path, tmp_path: Path) -> None:
        shutil.copytree(toys / "rgb", tmp_path / "tfds" / "rgb")
        (tmp_path / "tfds" / "rgb" / "1.0.0" / name).write_text('{"splits')
        with pytest.raises(CorruptionError, match=r"data\.name='rgb' is prepared but unreadable"):
            load("rgb")


class TestToys:
    def test_a_colour_set_that_is_not_square_is_read_and_cached(
        self, toys: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        use(monkeypatch, toys)
        first = load("rgb")
        assert (first.image_shape, first.classes, len(first.train), len(first.test)) == ((5, 7, 3), 3, 30, 12)
        np.testing.assert_array_equal(first.train.images[:, 0, 0, 0] % 3, first.train.labels)
        use(monkeypatch, tmp_path)
        assert load("rgb:1.0.0").info == load_info("rgb") == first.info

    def test_undeclared_sizes_that_agree_are_read_and_validation_stands_in_for_test(
        self, toys: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(monkeypatch, toys)
        info = load_info("loose")
        assert (info.image_shape, info.train_size, info.test_size) == ((4, 6, 4), 30, 9)

    @pytest.mark.parametrize(
        ("name", "error", "message"),
        [
            ("ragged", InputError, r"images vary in size, \(4, [45], 1\) and \(4, [45], 1\) in train"),
            ("text", InputError, "'text' is not images with class labels"),
            ("deep", InputError, "images are uint16; they must be uint8"),
            ("unlabelled", CorruptionError, r"train example 0 has label -1; labels must be in 0\.\.2"),
            ("whole", InputError, "has the splits every; it must have train, and test or validation"),
            ("old", UnavailableError, "is prepared in .* as tfrecord, not array_record; move that folder away"),
            ("rbg", InputError, "'rbg' is not a known dataset"),
        ],
    )
    def test_what_cannot_be_used_is_refused_and_nothing_is_cached(
        self,
        name: str,
        error: type[Exception],
        message: str,
        toys: Path,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        use(monkeypatch, toys)
        with pytest.raises(error, match=message):
            load(name)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    def test_a_damaged_cache_is_made_again_from_the_prepared_files(
        self, toys: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        use(monkeypatch, toys)
        info = load("rgb").info
        path = tmp_path / "cache" / "datasets" / "rgb" / "_" / "1.0.0" / "train_images.npy"
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert load("rgb").info == info
        assert path.read_bytes() == whole

    def test_a_cache_that_cannot_be_written_costs_a_warning_only(
        self, toys: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        use(monkeypatch, toys)
        (tmp_path / "file").touch()
        monkeypatch.setenv("CNNJAX_CACHE_DIR", str(tmp_path / "file"))
        with pytest.warns(RuntimeWarning, match="cannot be written, so 'rgb' is decoded at every start"):
            assert len(load("rgb").train) == 30


class TestPreparing:
    def test_without_network_it_is_said_soon_and_nothing_is_left(self, tmp_path: Path) -> None:
        start = time.monotonic()
        with pytest.raises(UnavailableError, match=r"'kmnist' cannot be prepared: no network, or the server is down"):
            load("kmnist")
        assert time.monotonic() - start < 60
        assert list(tmp_path.iterdir()) == []

    def test_a_damaged_download_is_refused_and_nothing_half_made_is_left(self, tmp_path: Path) -> None:
        manual = shutil.copytree(mnist.FOLDER, tmp_path / "manual")
        with (manual / "train-labels-idx1-ubyte.gz").open("r+b") as file:
            file.write(b"\0")
        with pytest.raises(CorruptionError, match=r"cannot be prepared: .*train-labels.* has wrong checksum"):
            load_tfds("mnist", manual_dir=manual)
        assert list((tmp_path / "tfds").rglob("*.tmp.*")) == []
        assert not (tmp_path / "tfds" / "mnist").exists()

    def test_a_data_folder_that_cannot_be_written_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        use(monkeypatch, tmp_path / "file")
        with pytest.raises(UnavailableError, match=r"cannot be prepared in .*file: File exists"):
            load_tfds("mnist", manual_dir=mnist.FOLDER)

    def test_an_interrupt_stops_the_child_and_leaves_nothing_half_made(self, tmp_path: Path) -> None:
        code = "import sys; from cnnjax.data.loading import load_tfds; load_tfds('mnist', manual_dir=sys.argv[1])"
        command = [sys.executable, "-c", code, str(mnist.FOLDER)]
        parent = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True)
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob("tfds/mnist/incomplete*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        parent.send_signal(signal.SIGINT)
        _, errors = parent.communicate(timeout=300)
        assert b"KeyboardInterrupt" in errors
        with pytest.raises(ProcessLookupError):
            os.killpg(parent.pid, 0)
        assert not (tmp_path / "tfds" / "mnist").exists()

    @pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="no copy of Fashion-MNIST's files")
    def test_fashion_mnist_is_prepared_from_its_files_without_network(self) -> None:
        first: Dataset = load("fashion_mnist", manual_dir=FASHION_MNIST)
        assert (len(first.train), len(first.test), first.image_shape) == (60000, 10000, (28, 28, 1))
        assert np.bincount(first.train.labels).tolist() == [6000] * 10
        second = load("fashion_mnist")
        assert isinstance(second.train.images, np.memmap)
        assert second.info == first.info
