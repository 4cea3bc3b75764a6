"""Datasets without TensorFlow: the bundled MNIST, IDX files, names, content hash and cache."""

import gzip
import hashlib
import json
import multiprocessing
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cnnjax.data import cache, tfds
from cnnjax.data import mnist as mnist_files
from cnnjax.data.dataset import Dataset, Split, content_hash, make_dataset
from cnnjax.data.loading import find_info, load, load_info, load_tfds
from cnnjax.data.mnist import parse_idx, read_idx
from cnnjax.data.settings import DataConfig, Reference, parse_name
from cnnjax.data.tfds import _raise_answer, _tidied_after_failure
from cnnjax.errors import CorruptionError, InputError, UnavailableError


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CNNJAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    return load("mnist")


def make_split(n: int, shape: tuple[int, ...] = (5, 4, 3), classes: int = 7, seed: int = 0) -> Split:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (n, *shape), np.uint8)
    return Split(images, random.integers(0, classes, n).astype(np.int32))


def make_small(name: str = "toy", version: str = "1.0.0", seed: int = 0) -> Dataset:
    return make_dataset(name, version, make_split(20, seed=seed), make_split(6, seed=seed + 1), 7, "tfds")


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_gzip(path: Path, content: bytes) -> str:
    path.write_bytes(gzip.compress(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestBundledMnist:
    def test_has_the_known_sizes_types_and_label_counts(self, mnist: Dataset) -> None:
        assert mnist.train.images.shape == (60000, 28, 28, 1)
        assert mnist.test.images.shape == (10000, 28, 28, 1)
        assert mnist.train.images.dtype == np.uint8
        assert mnist.train.labels.dtype == np.int32
        assert (len(mnist.train), len(mnist.test), mnist.classes) == (60000, 10000, 10)
        counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert np.bincount(mnist.train.labels).tolist() == counts
        assert mnist.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
        assert mnist.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
        assert round(mnist.train.images.mean() / 255, 4) == 0.1307

    def test_info_is_known_without_reading_and_equals_what_is_read(self, mnist: Dataset) -> None:
        assert load_info("mnist") == mnist.info
        assert mnist.order == "file"

    def test_is_read_only(self, mnist: Dataset) -> None:
        with pytest.raises(ValueError, match="read-only"):
            mnist.train.images[0] = 0

    def test_imports_neither_tensorflow_nor_tfds_nor_jax(self) -> None:
        code = (
            "import sys, cnnjax.data.loading as d; d.load('mnist');"
            "print([m for m in ('tensorflow', 'tensorflow_datasets', 'jax', 'PIL') if m in sys.modules])"
        )
        root = Path(mnist_files.__file__).parents[2]
        done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
        assert (done.stdout.strip(), done.stderr) == ("[]", "")

    @pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
    def test_a_damaged_file_is_named_and_reinstalling_advised(self, tmp_path: Path, damage: str) -> None:
        for name in mnist_files.SHA256:
            (tmp_path / name).write_bytes((mnist_files.FOLDER / name).read_bytes())
        path = tmp_path / "t10k-labels-idx1-ubyte.gz"
        content = bytearray(path.read_bytes())
        content[1000] ^= 1
        if damage == "remove":
            path.unlink()
        else:
            path.write_bytes(content if damage == "flip" else content[:-1])
        with pytest.raises(CorruptionError, match=r"data\.name='mnist': .*t10k-labels.*; reinstall cnnjax$"):
            mnist_files.load_mnist(tmp_path)


class TestIdx:
    @pytest.mark.parametrize("shape", [(0,), (7,), (3, 2), (2, 3, 4), (2, 1, 3, 2)])
    def test_reading_undoes_writing(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        sha256 = write_gzip(tmp_path / "x.gz", idx_bytes(array))
        read = read_idx(tmp_path / "x.gz", sha256=sha256)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, array)

    def test_a_wrong_hash_is_refused_before_parsing(self, tmp_path: Path) -> None:
        (tmp_path / "x.gz").write_bytes(b"not gzip")
        with pytest.raises(CorruptionError, match=r"x\.gz has SHA-256 .*; it must be 00$"):
            read_idx(tmp_path / "x.gz", sha256="00")

    def test_a_truncated_gzip_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "x.gz"
        write_gzip(path, idx_bytes(np.zeros(1000, np.uint8)))
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(CorruptionError, match=r"x\.gz is not a whole gzip file"):
            read_idx(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())

    def test_the_file_is_named_when_its_content_is_refused(self, tmp_path: Path) -> None:
        sha256 = write_gzip(tmp_path / "x.gz", b"hello")
        with pytest.raises(CorruptionError, match=r"x\.gz: IDX magic number is '68656c6c'"):
            read_idx(tmp_path / "x.gz", sha256=sha256)

    def test_a_folder_in_place_of_the_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError, match="cannot be read: Is a directory"):
            read_idx(tmp_path, sha256="00")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "magic number is ''"),
            (b"\0\0\x08", "magic number is '000008'"),
            (b"\0\x01\x08\x01\0\0\0\x01a", "magic number is '00010801'"),
            (b"\0\0\x0d\x01\0\0\0\x01abcd", "type code is 0x0d; it must be 0x08"),
            (b"\0\0\x08\x02\0\0\0\x01", "header of 2 axes needs 12 bytes; there are 8"),
            (b"\0\0\x08\x01\0\0\0\x02a", r"states 2 values of shape \(2,\); there are 1"),
            (b"\0\0\x08\x01\0\0\0\x02abc", r"states 2 values of shape \(2,\); there are 3"),
            (b"\0\0\x08\x02\xff\xff\xff\xff\xff\xff\xff\xffa", "states 18446744065119617025 values"),
        ],
    )
    def test_bytes_that_are_not_idx_are_refused(self, content: bytes, message: str) -> None:
        with pytest.raises(CorruptionError, match=message):
            parse_idx(content)


class TestArrays:
    @pytest.mark.parametrize(
        ("images", "labels", "message"),
        [
            (np.full((2, 3, 3, 1), 0.3, np.float32), np.zeros(2, np.int32), "images are float32 in"),
            (np.full((2, 3, 3, 1), -1), np.zeros(2, np.int32), r"images are int64 in \[-1, -1\]"),
            (np.full((2, 3, 3, 1), 256), np.zeros(2, np.int32), r"must be whole numbers in 0\.\.255"),
            (np.full((2, 3, 3, 1), np.nan), np.zeros(2, np.int32), "images are float64 in"),
            (np.zeros((2, 3), np.uint8), np.zeros(2, np.int32), r"images are uint8 \(2, 3\)"),
            (np.zeros((2, 3, 3, 5), np.uint8), np.zeros(2, np.int32), "1 to 4 channels"),
            (np.zeros((2, 3, 3, 1), bool), np.zeros(2, np.int32), "images are bool"),
            ([[[1], [2, 3]]], np.zeros(1, np.int32), "images are not an array of numbers"),
            ([["a"]], np.zeros(1, np.int32), "images are <U1"),
            (np.zeros((2, 3, 3, 1), np.uint8), np.zeros(2), "labels are float64"),
            (np.zeros((2, 3, 3, 1), np.uint8), np.eye(2, dtype=np.int32), "one class number an image"),
            (np.zeros((2, 3, 3, 1), np.uint8), np.array([0, 2**31]), "labels are in"),
            (np.zeros((2, 3, 3, 1), np.uint8), np.zeros(3, np.int32), "2 images but 3 labels"),
        ],
    )
    def test_malformed_splits_are_refused(self, images: np.ndarray, labels: np.ndarray, message: str) -> None:
        with pytest.raises(InputError, match=message):
            Split(images, labels)

    @pytest.mark.parametrize("kind", [np.int64, np.uint16, np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("unit", [1, 255])
    def test_arrays_as_people_have_them_are_the_images_and_labels_that_they_plainly_are(self, kind, unit) -> None:
        pixels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
        if unit == 255 and not np.issubdtype(kind, np.floating):
            pytest.skip("integers in [0, 1] are pixels 0 and 1")
        labels = np.array([[0], [1], [2], [1]])
        split = Split((pixels / unit).astype(kind), labels)
        assert np.array_equal(split.images, pixels[..., None])
        assert split.labels.tolist() == [0, 1, 2, 1]
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        listed = Split(pixels.tolist(), [0, 1, 2, 1])
        assert np.array_equal(listed.images, split.images)

    def test_the_arrays_of_the_caller_stay_writable(self) -> None:
        images, labels = np.zeros((2, 3, 3, 1), np.uint8), np.zeros(2, np.int32)
        split = Split(images, labels)
        make_dataset("toy", "1.0.0", split, split, 2, "file")
        assert images.flags.writeable
        assert labels.flags.writeable
        assert not split.images.flags.writeable
        assert split.images.base is images

    @pytest.mark.parametrize("label", [-1, 7])
    def test_a_label_out_of_range_is_refused(self, label: int) -> None:
        test = make_split(6)
        labels = test.labels.copy()
        labels[4] = label
        test = Split(test.images, labels)
        with pytest.raises(InputError, match=rf"'toy': test example 4 has label {label}; labels must be in 0\.\.6"):
            make_dataset("toy", "1.0.0", make_split(20), test, 7, "tfds")

    def test_splits_of_different_image_size_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"vary in size, \(5, 4, 3\) in train and \(4, 5, 3\) in test"):
            make_dataset("toy", "1.0.0", make_split(20), make_split(6, (4, 5, 3)), 7, "tfds")

    def test_an_empty_split_is_refused(self) -> None:
        with pytest.raises(InputError, match="test has no examples"):
            make_dataset("toy", "1.0.0", make_split(20), make_split(0), 7, "tfds")

    def test_content_hash_ignores_memory_layout_and_byte_order(self) -> None:
        train, test = make_split(20), make_split(6)
        fortran = Split(np.asfortranarray(train.images), train.labels.astype(">i4").astype(np.int32))
        strided = Split(np.repeat(train.images, 2, axis=0)[::2], np.repeat(train.labels, 2)[::2])
        assert content_hash(fortran, test) == content_hash(strided, test) == content_hash(train, test)

    def test_content_hash_is_the_documented_formula(self) -> None:
        train, test = make_split(2, (1, 1, 1)), make_split(1, (1, 1, 1))
        expected = b"train images uint8 (2, 1, 1, 1)\n" + train.images.tobytes()
        expected += b"train labels int32 (2,)\n" + train.labels.astype("<i4").tobytes()
        expected += b"test images uint8 (1, 1, 1, 1)\n" + test.images.tobytes()
        expected += b"test labels int32 (1,)\n" + test.labels.astype("<i4").tobytes()
        assert content_hash(train, test) == hashlib.sha256(expected).hexdigest()

    def test_content_hash_sees_values_order_shape_and_split(self) -> None:
        train, test = make_split(20), make_split(20, seed=1)
        pixel = train.images.copy()
        pixel[-1, -1, -1, -1] ^= 1
        variants = [
            (train, test),
            (test, train),
            (Split(pixel, train.labels), test),
            (Split(train.images[::-1], train.labels[::-1]), test),
            (Split(train.images.reshape(20, 4, 5, 3), train.labels), test),
            (Split(train.images, (train.labels + 1).astype(np.int32)), test),
        ]
        assert len({content_hash(*pair) for pair in variants}) == len(variants)


class TestNames:
    @pytest.mark.parametrize(
        ("name", "parts"),
        [
            ("mnist", ("mnist", None, None)),
            ("emnist/letters", ("emnist", "letters", None)),
            ("cifar10:3.0.2", ("cifar10", None, "3.0.2")),
            ("imagenet_resized/8x8:0.1.0", ("imagenet_resized", "8x8", "0.1.0")),
        ],
    )
    def test_parts_are_found_and_join_to_the_name(self, name: str, parts: tuple[str | None, ...]) -> None:
        reference = parse_name(name)
        assert (reference.name, reference.config, reference.version) == parts
        assert str(reference) == name

    @pytest.mark.parametrize(
        "name",
        [
            "",
            " ",
            "a b",
            "x/..",
            "x/.hidden",
            "hub:mnist",
            "mnist\0",
            "mnist\n",
            "-x",
            "~",
            "mnist/a/b",
            "ümnist",
            "x" * 300,
            "../../x",
            "mnist/../..",
            "/etc/passwd",
            "mnist/",
            "mnist:",
            "mnist:3",
            "mnist:*.*.*",
        ],
    )
    def test_anything_else_is_refused_before_touching_the_disk(self, name: str, tmp_path: Path) -> None:
        for function in (load, load_info, load_tfds):
            with pytest.raises(InputError, match=r"is not a dataset name; write name, name/config, name:1\.2\.3"):
                function(name)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
    def test_manual_dir_must_be_a_folder(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path in (tmp_path / "file", str(tmp_path / "nothing")):
            with pytest.raises(InputError, match=r"data\.manual_dir='.*' is not a folder"):
                load(name, manual_dir=path)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("fashon_mnist", "data.name='fashon_mnist' is not a known dataset; did you mean 'fashion_mnist'"),
            ("MNIST", "is not a known dataset; did you mean 'mnist'"),
            ("FashionMNIST", "is not a known dataset; did you mean 'fashion_mnist'"),
            ("qqqqqq", "is not a known dataset; it must be 'mnist' or one of TFDS's names"),
            ("emnist/lettres", "no configuration 'lettres'; there are 6, such as letters"),
            ("cifar10/x", "no configuration 'x'; the dataset has none"),
            ("cifar10:9.9.9", r"no version 9\.9\.9; there are 3\.0\.2"),
            ("imdb_reviews", "is not images with class labels"),
            ("celeb_a", "is not images with class labels"),
            ("cats_vs_dogs", r"declares images of varying size, \(None, None, 3\)"),
        ],
    )
    def test_impossible_datasets_are_refused_and_nothing_is_written(
        self, name: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(InputError, match=message):
            load(name)
        assert list(tmp_path.iterdir()) == []
        assert capfd.readouterr() == ("", "")


class TestPreparing:
    def test_a_missing_tensorflow_is_reported_at_once(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UnavailableError, match=r"'fashion_mnist' isn't prepared.*pip install 'cnnjax\[tfds\]'"):
            load("fashion_mnist")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("output", [b"", b"chatter\n", b"[]\n", b'{"kind": "x"}\n', b"\xff\n"])
    def test_a_child_that_dies_without_an_answer_is_reported(self, output: bytes) -> None:
        with pytest.raises(UnavailableError, match="toy: the process that prepares it ended with status -9"):
            _raise_answer(output, -9, "toy")

    @pytest.mark.parametrize(
        ("kind", "error"), [("input", InputError), ("corruption", CorruptionError), ("unavailable", UnavailableError)]
    )
    def test_the_last_line_says_which_error_to_raise(self, kind: str, error: type[Exception]) -> None:
        output = b"chatter\n" + json.dumps({"kind": kind, "message": "reason"}).encode()
        with pytest.raises(error, match="toy cannot be prepared: reason"):
            _raise_answer(output, 0, "toy")

    def test_only_what_a_failed_attempt_left_is_removed(self, tmp_path: Path) -> None:
        theirs = tmp_path / "downloads" / "toy" / "a.tmp.1"
        theirs.mkdir(parents=True)
        (tmp_path / "other" / "incomplete.2_1.0.0").mkdir(parents=True)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(KeyboardInterrupt), _tidied_after_failure(tmp_path, "toy"):  # noqa: PT012
            for folder in ("toy/incomplete.3_1.0.0", "downloads/toy/b.tmp.4", "downloads/extracted/incomplete.5"):
                (tmp_path / folder).mkdir(parents=True)
                (tmp_path / folder / "part").touch()
            (tmp_path / "downloads" / "extracted" / "incomplete.6").touch()
            raise KeyboardInterrupt
        assert sorted(tmp_path.rglob("*")) == before


def store_small(seed: int) -> str:
    return cache.store(make_small(seed=seed), ("toy", "toy:1.0.0")).sha256


class TestCache:
    def entry_folder(self, tmp_path: Path) -> Path:
        return tmp_path / "cache" / "datasets" / "toy" / "_" / "1.0.0"

    def test_a_stored_dataset_is_found_mapped_and_equal(self) -> None:
        dataset = make_small()
        cache.store(dataset, ("toy", "toy:1.0.0"))
        for name in ("toy", "toy:1.0.0"):
            found = load(name)
            assert found.info == dataset.info == load_info(name)
            assert isinstance(found.train.images.base, np.memmap)
            assert not found.train.images.flags.writeable
            np.testing.assert_array_equal(found.test.labels, dataset.test.labels)

    def test_remembered_metadata_is_complete_once_the_dataset_is_prepared(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = SimpleNamespace(
            name="toy", version="1.0.0", declared_shape=(5, 4, 3), classes=7, is_prepared=lambda: True
        )
        monkeypatch.setattr(tfds, "find_source", lambda reference: source)
        monkeypatch.setattr(tfds, "names_of", lambda source: ("toy",))
        monkeypatch.setattr(tfds, "decode", lambda source: make_small())
        assert find_info(DataConfig("toy")).train_size is None
        dataset = load("toy")
        assert find_info(DataConfig("toy")) == dataset.info
        find_info.cache_clear()

    def test_an_entry_answers_to_its_names_only_and_the_highest_version_wins(self) -> None:
        cache.store(make_small(version="1.9.0"), ("toy", "toy:1.9.0"))
        cache.store(make_small(version="1.10.0"), ("toy", "toy:1.10.0"))
        cache.store(make_small(version="2.0.0"), ("toy:2.0.0",))
        cache.store(make_small(name="toy/big"), ("toy/big",))
        assert load("toy").version == "1.10.0"
        assert load("toy:2.0.0").version == "2.0.0"
        assert load("toy/big").name == "toy/big"
        assert cache.find_entry(Reference("toy", "small")) is None

    def test_cached_datasets_load_without_tfds(self) -> None:
        cache.store(make_small(), ("toy",))
        code = (
            "import sys; from cnnjax.data.loading import load; load('toy'); print('tensorflow_datasets' in sys.modules)"
        )
        root = Path(mnist_files.__file__).parents[2]
        done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"

    @pytest.mark.parametrize("name", ["train_images.npy", "train_labels.npy", "test_images.npy", "metadata.json"])
    @pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove", "extend"])
    def test_a_damaged_entry_counts_as_missing_and_is_replaced(self, name: str, damage: str, tmp_path: Path) -> None:
        dataset = make_small()
        cache.store(dataset, ("toy",))
        path = self.entry_folder(tmp_path) / name
        content = path.read_bytes()
        flipped = content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]
        damaged = {"flip": flipped, "truncate": content[:-20], "empty": b"", "extend": content * 2}
        if damage == "remove":
            path.unlink()
        else:
            path.write_bytes(damaged[damage])
        entry = cache.find_entry(Reference("toy"))
        found = entry and cache.load_entry(entry)
        if damage == "extend" and name != "metadata.json":
            assert found is None or found.info == dataset.info
        else:
            assert found is None
        cache.store(dataset, ("toy",))
        assert load("toy").info == dataset.info
        assert [path.name for path in self.entry_folder(tmp_path).parent.iterdir()] == ["1.0.0"]

    def test_swapped_arrays_are_noticed(self, tmp_path: Path) -> None:
        cache.store(make_small(), ("toy",))
        other = make_small(seed=5)
        np.save(self.entry_folder(tmp_path) / "train_images.npy", other.train.images)
        entry = cache.find_entry(Reference("toy"))
        assert entry is not None
        assert cache.load_entry(entry) is None

    def test_objects_are_never_unpickled(self, tmp_path: Path) -> None:
        cache.store(make_small(), ("toy",))
        np.save(self.entry_folder(tmp_path) / "train_images.npy", np.array([object()], object))
        entry = cache.find_entry(Reference("toy"))
        assert entry is not None
        assert cache.load_entry(entry) is None

    def test_a_failed_store_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            cache.store(make_small(), ("toy",))
        assert list(self.entry_folder(tmp_path).parent.iterdir()) == []

    def test_processes_that_store_at_once_all_succeed(self, tmp_path: Path) -> None:
        expected = make_small().sha256
        with multiprocessing.get_context("spawn").Pool(4) as pool:
            assert set(pool.map(store_small, [0] * 16, chunksize=1)) == {expected}
        assert load("toy").sha256 == expected
        assert [path.name for path in self.entry_folder(tmp_path).parent.iterdir()] == ["1.0.0"]

    def test_the_folder_follows_the_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert cache.cache_folder() == tmp_path / "cache" / "datasets"
        monkeypatch.delenv("CNNJAX_CACHE_DIR")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache.cache_folder() == tmp_path / "xdg" / "cnnjax" / "datasets"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache.cache_folder() == Path.home() / ".cache" / "cnnjax" / "datasets"

    def test_metadata_that_lies_about_the_classes_is_noticed(self, tmp_path: Path) -> None:
        cache.store(make_small(), ("toy",))
        path = self.entry_folder(tmp_path) / "metadata.json"
        path.write_text(path.read_text().replace('"classes": 7', '"classes": 9'))
        assert cache.find_entry(Reference("toy")) is None

    def test_info_differs_where_the_order_does(self) -> None:
        dataset = make_small()
        assert replace(dataset, order="file").info != dataset.info
