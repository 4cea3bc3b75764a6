"""From a name to a TFDS builder of images with labels, or one clear line that says why there is none.

TFDS is imported inside the functions, as it costs a second; it needs no TensorFlow to describe and to read datasets.
"""

import contextlib
import difflib
import io
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnjax.dataset_names import Reference, full_name
from cnnjax.errors import CnnjaxError, CorruptionError, InputError, UnavailableError
from cnnjax.logs import quiet

INSTALL_TENSORFLOW = "install the extra with: pip install 'cnnjax[tfds]' (or pip install -e '.[tfds]' in a checkout)"


@dataclass(frozen=True)
class Source:
    """A TFDS builder and the features to read from it.

    Attributes:
        builder: `tensorflow_datasets.core.DatasetBuilder`.
        name: name with the configuration, as TFDS resolved it.
        version: version, as TFDS resolved it.
        image_key: name of the image feature.
        label_key: name of the label feature.
        classes: number of classes.
        declared_shape: (height, width, channels) of the images, None where it isn't fixed.
    """

    builder: Any
    name: str
    version: str
    image_key: str
    label_key: str
    classes: int
    declared_shape: tuple[int | None, ...]

    def is_prepared(self) -> bool:
        """Whether TFDS has it on the disk, in whatever format."""
        with quiet():
            return bool(self.builder.is_prepared())


def find_source(reference: Reference) -> Source:
    """Find the dataset in TFDS's catalogue, or prepared in its data folder.

    Raises:
        InputError: unknown name, configuration or version, or not uint8 images with class labels.
        CorruptionError: the metadata of the prepared dataset is damaged.
        UnavailableError: the dataset's definition needs a package that isn't installed.
    """
    builder = _find_builder(reference)
    image_key, label_key = _image_and_label(builder, str(reference))
    image, label = builder.info.features[image_key], builder.info.features[label_key]
    name = full_name(builder.name, builder.builder_config_name)
    return Source(builder, name, str(builder.version), image_key, label_key, label.num_classes, tuple(image.shape))


def names_of(source: Source) -> tuple[str, ...]:
    """Every name by which TFDS, now, finds this very source: with and without its configuration and its version."""
    base, _, config = source.name.partition("/")
    references = {Reference(base, c, v) for c in (None, config or None) for v in (None, source.version)}
    return tuple(sorted(str(reference) for reference in references if _leads_to(reference, source)))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without its full stop; its type's name if there is no message."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(" .:") if lines else type(error).__name__


def _find_builder(reference: Reference) -> Any:
    import tensorflow_datasets as tfds

    try:
        # A builder whose module imports TensorFlow prints a banner where there is none.
        with quiet(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            # Passed on because TFDS itself reads the variable only once, when it is imported.
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
