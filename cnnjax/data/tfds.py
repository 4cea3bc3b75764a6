"""Sets of TensorFlow Datasets (TFDS): found by name, prepared once with TensorFlow, decoded without it.

TFDS is imported inside the functions, because that takes a second. It describes and reads datasets without TensorFlow.
A dataset is prepared in a child process with TensorFlow, which leaves no unfinished files behind if it fails. Records
are read in chunks and decoded by Pillow.
"""

import contextlib
import difflib
import fcntl
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnjax.data.cache import make_array
from cnnjax.data.dataset import Dataset, Split, check_labels, make_dataset
from cnnjax.data.settings import Reference, full_name
from cnnjax.errors import CnnjaxError, CorruptionError, InputError, UnavailableError
from cnnjax.machine.processes import python_command, python_environment, quiet

INSTALL_TENSORFLOW = "install the extra with: pip install 'cnnjax[tfds]' (or pip install -e '.[tfds]' in a checkout)"
_CHUNK = 1000
"""Number of records that are read at once."""
_ERRORS: dict[str, type[CnnjaxError]] = {
    "input": InputError,
    "corruption": CorruptionError,
    "unavailable": UnavailableError,
}


@dataclass(frozen=True)
class Source:
    """A TFDS builder and the features to read from it.

    Attributes:
        builder: a `tensorflow_datasets.core.DatasetBuilder`.
        name: name with the configuration, as TFDS resolved it.
        version: version, as TFDS resolved it.
        image_key: name of the image feature.
        label_key: name of the label feature.
        classes: number of classes.
        declared_shape: (height, width, channels) of the images; None for a size that varies or is not declared.
    """

    builder: Any
    name: str
    version: str
    image_key: str
    label_key: str
    classes: int
    declared_shape: tuple[int | None, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels; empty if TFDS does not have them."""
        names = tuple(self.builder.info.features[self.label_key].names or ())
        return names if len(names) == self.classes else ()

    def is_prepared(self) -> bool:
        """Whether TFDS has the prepared dataset on the disk, in any file format."""
        with quiet():
            return bool(self.builder.is_prepared())


def find_source(reference: Reference) -> Source:
    """Finds the dataset in TFDS's catalogue, or prepared in its data folder.

    Raises:
        InputError: the name, configuration or version is not known, or the dataset is not uint8 images with labels.
        CorruptionError: the metadata of the prepared dataset is damaged.
        UnavailableError: the dataset's definition needs a package that is not installed.
    """
    builder = _find_builder(reference)
    image_key, label_key = _image_and_label(builder, str(reference))
    image, label = builder.info.features[image_key], builder.info.features[label_key]
    name = full_name(builder.name, builder.builder_config_name)
    return Source(builder, name, str(builder.version), image_key, label_key, label.num_classes, tuple(image.shape))


def names_of(source: Source) -> tuple[str, ...]:
    """Returns the names with which TFDS now finds this source: with and without its configuration and its version."""
    base, _, config = source.name.partition("/")
    references = {Reference(base, c, v) for c in (None, config or None) for v in (None, source.version)}
    return tuple(sorted(str(reference) for reference in references if _leads_to(reference, source)))


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message without its full stop, or its type's name if it has no message.

    Example:
        >>> first_line(ValueError("not a number."))
        'not a number'
    """
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(" .:") if lines else type(error).__name__


def _find_builder(reference: Reference) -> Any:
    import tensorflow_datasets as tfds

    try:
        # A builder whose module imports TensorFlow prints a banner if TensorFlow is not installed.
        with quiet(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            # The variable is passed here because TFDS itself reads it only once, when it is imported.
            builder = tfds.builder(str(reference), data_dir=os.environ.get("TFDS_DATA_DIR"))
    except tfds.core.registered.DatasetNotFoundError:
        raise _unknown_name(reference) from None
    except ImportError as error:
        if "No module named 'tensorflow" in str(error):
            raise UnavailableError(f"data.name='{reference}' needs TensorFlow; {INSTALL_TENSORFLOW}") from None
        raise UnavailableError(f"data.name='{reference}': {first_line(error)}") from None
    except (ValueError, AssertionError) as error:
        raise _unknown_variant(reference, error) from None
    except Exception as error:
        raise CorruptionError(f"data.name='{reference}' is prepared but unreadable: {first_line(error)}") from None
    if builder.name != reference.name:
        raise _unknown_name(reference)
    return builder


def _unknown_name(reference: Reference) -> InputError:
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(reference.name.lower(), known, n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "it must be 'mnist' or one of TFDS's names"
    return InputError(f"data.name='{reference}' is not a known dataset; {hint}")


def _unknown_variant(reference: Reference, error: Exception) -> CnnjaxError:
    import tensorflow_datasets as tfds

    try:
        with quiet():
            catalogued = tfds.builder_cls(reference.name)
    except ValueError:
        return CorruptionError(f"data.name='{reference}' is prepared but unreadable: {first_line(error)}")
    configs = list(catalogued.builder_configs)
    if reference.config is not None and reference.config not in configs:
        near = difflib.get_close_matches(reference.config, configs, n=5, cutoff=0.0)
        legal = f"there are {len(configs)}, such as {', '.join(near)}" if near else "the dataset has none"
        return InputError(f"data.name='{reference}': no configuration {reference.config!r}; {legal}")
    if reference.version is not None:
        versions = sorted({str(catalogued.VERSION), *map(str, catalogued.SUPPORTED_VERSIONS)})
        return InputError(f"data.name='{reference}': no version {reference.version}; there are {', '.join(versions)}")
    return CorruptionError(f"data.name='{reference}': {first_line(error)}")


def _image_and_label(builder: Any, name: str) -> tuple[str, str]:
    import tensorflow_datasets as tfds

    features = builder.info.features
    keys = builder.info.supervised_keys
    for candidate in (keys, ("image", "label")):
        if not isinstance(candidate, tuple) or len(candidate) != 2 or not all(isinstance(k, str) for k in candidate):
            continue
        if not all(key in features for key in candidate):
            continue
        image, label = (features[key] for key in candidate)
        if isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel):
            if image.np_dtype != np.uint8:
                raise InputError(f"data.name={name!r}: images are {np.dtype(image.np_dtype)}; they must be uint8")
            return candidate
    raise InputError(f"data.name={name!r} is not images with class labels")


def _leads_to(reference: Reference, source: Source) -> bool:
    try:
        found = find_source(reference)
    except CnnjaxError:
        return False
    return (found.name, found.version) == (source.name, source.version)


def decode(source: Source) -> Dataset:
    """Reads the splits `train` and `test` (`validation` if there is no `test`) of a prepared dataset.

    Raises:
        InputError: a split is missing or empty, or images vary in size.
        CorruptionError: a file is missing, truncated or damaged, or a label is out of range.
        UnavailableError: the dataset was prepared in a format that only TensorFlow reads, or Pillow or array_record is
            missing.
    """
    where = f"data.name={source.name!r}"
    _check_format(source, where)
    train, test = _split_names(source, where)
    with quiet():
        first, second = (_read_split(source, split, where) for split in (train, test))
    return make_dataset(source.name, source.version, first, second, source.classes, "tfds", source.class_names)


def _check_format(source: Source, where: str) -> None:
    formats = {form.value for form in source.builder.info.available_file_formats()}
    if "array_record" not in formats:
        raise UnavailableError(
            f"{where} is prepared in {source.builder.data_dir} as {' and '.join(sorted(formats))}, not array_record; "
            "move that folder away, or set TFDS_DATA_DIR to another folder, to have it prepared again"
        )


def _split_names(source: Source, where: str) -> tuple[str, str]:
    splits = list(source.builder.info.splits)
    test = "test" if "test" in splits else "validation"
    if "train" not in splits or test not in splits:
        raise InputError(f"{where} has the splits {', '.join(splits)}; it must have train, and test or validation")
    return "train", test


def _read_split(source: Source, split: str, where: str) -> Split:
    count = source.builder.info.splits[split].num_examples
    images: NDArray[np.uint8] | None = None
    labels = np.empty(count, np.int32)
    for index, (image, label) in enumerate(_examples(source, split, where)):
        if images is None:
            images = make_array((count, *image.shape))
        if image.shape != images.shape[1:]:
            raise InputError(
                f"{where}: images vary in size, {images.shape[1:]} and {image.shape} in {split}; "
                "they must all have one (height, width, channels)"
            )
        images[index], labels[index] = image, label
    if images is None:
        raise InputError(f"{where}: {split} has no examples; there must be at least one")
    try:
        check_labels(f"{where}: {split}", labels, source.classes)
    except InputError as error:
        raise CorruptionError(str(error)) from None
    return Split(images, labels)


def _examples(source: Source, split: str, where: str) -> Iterator[tuple[NDArray[Any], int]]:
    try:
        records = source.builder.as_data_source(split=split, file_format="array_record")
        for start in range(0, len(records), _CHUNK):
            for record in records.__getitems__(list(range(start, min(start + _CHUNK, len(records))))):
                yield record[source.image_key], record[source.label_key]
    except ImportError as error:
        raise UnavailableError(f"{where}: {first_line(error)}") from None
    except MemoryError:
        raise
    except Exception as error:
        folder = source.builder.data_dir
        raise CorruptionError(
            f"{where}: {split} in {folder} cannot be read ({first_line(error)}); delete that folder to prepare it again"
        ) from None


def prepare(source: Source, manual_dir: Path | None) -> None:
    """Downloads and prepares a dataset as array_record in TFDS's data folder.

    Args:
        source: the dataset; it must declare one size of its images.
        manual_dir: folder of files downloaded by hand, which TFDS uses instead of downloading.

    Raises:
        InputError: the images vary in size, or the files must be downloaded by hand and `manual_dir` is None.
        CorruptionError: a downloaded file has a wrong checksum or is truncated.
        UnavailableError: TensorFlow, the network, a permission or disk space is missing.
    """
    where = f"data.name={source.name!r}"
    _check_preparable(source, manual_dir, where)
    data_dir = Path(source.builder.data_dir_root)
    version = f"{source.name}:{source.version}"
    try:
        with _locked(data_dir), _tidied_after_failure(data_dir, source.builder.name):
            _run_child([version, "--data-dir", str(data_dir)], manual_dir, where)
    except OSError as error:
        raise UnavailableError(f"{where} cannot be prepared in {data_dir}: {error.strerror or error}") from None


def _check_preparable(source: Source, manual_dir: Path | None, where: str) -> None:
    if None in source.declared_shape:
        raise InputError(
            f"{where} declares images of varying size, {source.declared_shape}; "
            "they must all have one (height, width, channels)"
        )
    if source.builder.MANUAL_DOWNLOAD_INSTRUCTIONS and manual_dir is None:
        raise InputError(f"{where} must be downloaded by hand; put its files in a folder and pass --data.manual-dir")
    if importlib.util.find_spec("tensorflow") is None:
        raise UnavailableError(f"{where} isn't prepared yet, which takes TensorFlow once; {INSTALL_TENSORFLOW}")


def _run_child(arguments: list[str], manual_dir: Path | None, where: str) -> None:
    """Runs the child process and raises the error that it reports; shows its progress on a terminal only."""
    command = python_command("-m", "cnnjax.data.tfds_worker", *arguments)
    if manual_dir is not None:
        command += ["--manual-dir", str(manual_dir)]
    child = subprocess.Popen(
        command,
        env={**python_environment(), "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if sys.stderr.isatty() else subprocess.DEVNULL,
    )
    try:
        output, _ = child.communicate()
    finally:
        child.kill()
        child.wait()
    _raise_answer(output, child.returncode, where)


def _raise_answer(output: bytes, status: int, where: str) -> None:
    lines = output.decode(errors="replace").splitlines()
    try:
        answer = json.loads(lines[-1])
        kind, message = answer["kind"], answer["message"]
    except (IndexError, ValueError, TypeError, KeyError):
        raise UnavailableError(f"{where}: the process that prepares it ended with status {status}") from None
    if kind != "prepared":
        raise _ERRORS[kind](f"{where} cannot be prepared: {message}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Waits for an exclusive lock on a folder and holds it. A folder made for this is removed if still empty."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
        if made:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _tidied_after_failure(data_dir: Path, name: str) -> Iterator[None]:
    """If the block fails, removes the unfinished files that it left in TFDS's folders."""
    before = set(_paths(data_dir, name))
    try:
        yield
    except BaseException:
        for path in sorted(set(_paths(data_dir, name)) - before, reverse=True):
            unfinished = ".tmp." in path.name or path.name.startswith("incomplete")
            with suppress(OSError):
                if path.is_dir():
                    shutil.rmtree(path) if unfinished else path.rmdir()
                elif unfinished:
                    path.unlink()
        raise


def _paths(data_dir: Path, name: str) -> Iterator[Path]:
    """Yields the paths that TFDS uses for a dataset: its folder, its downloads and the extracted archives."""
    downloads = data_dir / "downloads"
    for root in (data_dir / name, downloads / name):
        yield from (path for path in (root, *root.rglob("*")) if path.exists())
    for root in (downloads, downloads / "extracted"):
        yield from (path for path in (root, *root.glob("*")) if path.exists())
