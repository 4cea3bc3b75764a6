"""MNIST from the four original files, which come with the package: it needs no network, no TFDS and no TensorFlow.

The files are in the IDX format: two zero bytes, a type code, the number of axes, the lengths of the axes (big-endian),
then the values. Their hashes are checked before they are parsed; the parser also checks that the header accounts for
every byte.
"""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnjax.data.dataset import Dataset, DatasetInfo, Split, make_dataset
from cnnjax.errors import CorruptionError, UnavailableError

FOLDER = Path(__file__).parent / "mnist_files"
SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
INFO = DatasetInfo(
    name="mnist",
    version="bundled",
    image_shape=(28, 28, 1),
    classes=10,
    train_size=60000,
    test_size=10000,
    order="file",
    sha256="f27c2f127fdbe37c956ae6c8dd25e801b279c133fc99b42214829e45098f8edc",
)
_UNSIGNED_BYTE = 0x08
_MOST_AXES = 32  # numpy before version 2 allows no more


def load_mnist(folder: Path = FOLDER) -> Dataset:
    """Reads MNIST: 60000 training and 10000 test images, 28 x 28 x 1, of 10 classes.

    Raises:
        CorruptionError: a file is missing or damaged.
        UnavailableError: a file cannot be read, such as for lack of permission.

    Example:
        >>> load_mnist().train.images.shape
        (60000, 28, 28, 1)
    """
    try:
        train, test = (_read_split(folder, prefix) for prefix in ("train", "t10k"))
    except CorruptionError as error:
        raise CorruptionError(f"data.name='mnist': {error}; reinstall cnnjax") from None
    return make_dataset(INFO.name, INFO.version, train, test, INFO.classes, INFO.order).answering(INFO.name)


def _read_split(folder: Path, prefix: str) -> Split:
    images, labels = f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"
    return Split(
        read_idx(folder / images, sha256=SHA256[images])[..., np.newaxis],
        read_idx(folder / labels, sha256=SHA256[labels]).astype(np.int32),
    )


def read_idx(path: Path, *, sha256: str) -> NDArray[np.uint8]:
    """Reads a gzip-compressed IDX file of unsigned bytes.

    Args:
        path: the `.gz` file.
        sha256: the hash, in hex, that the compressed file must have.

    Returns:
        A read-only uint8 array with the shape that the header states.

    Raises:
        CorruptionError: the file is missing, has another hash, is not a whole gzip file, or not IDX of unsigned bytes.
        UnavailableError: the file cannot be read, such as for lack of permission.
    """
    try:
        compressed = path.read_bytes()
    except FileNotFoundError:
        raise CorruptionError(f"{path} is missing") from None
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {error.strerror}") from None
    found = hashlib.sha256(compressed).hexdigest()
    if found != sha256:
        raise CorruptionError(f"{path} has SHA-256 {found}; it must be {sha256}")
    try:
        content = gzip.decompress(compressed)
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptionError(f"{path} is not a whole gzip file: {error}") from None
    try:
        return parse_idx(content)
    except CorruptionError as error:
        raise CorruptionError(f"{path}: {error}") from None


def parse_idx(content: bytes) -> NDArray[np.uint8]:
    """Parses the bytes of an IDX file of unsigned bytes into a read-only uint8 array.

    Raises:
        CorruptionError: the magic number is wrong, the type is not unsigned byte, or there are too few or too many
            bytes.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 6]))
        array([5, 6], dtype=uint8)
    """
    if len(content) < 4 or content[:2] != b"\0\0":
        raise CorruptionError(f"IDX magic number is {content[:4].hex()!r}; it must be 000008 and the number of axes")
    code, axes = content[2], content[3]
    if code != _UNSIGNED_BYTE:
        raise CorruptionError(f"IDX type code is 0x{code:02x}; it must be 0x08 (unsigned byte)")
    if axes > _MOST_AXES:
        raise CorruptionError(f"IDX header states {axes} axes; there must be at most {_MOST_AXES}")
    start = 4 + 4 * axes
    if len(content) < start:
        raise CorruptionError(f"IDX header of {axes} axes needs {start} bytes; there are {len(content)}")
    shape = struct.unpack(f">{axes}I", content[4:start])
    size, expected = len(content) - start, math.prod(shape)
    if size != expected:
        raise CorruptionError(f"IDX header states {expected} values of shape {shape}; there are {size}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
