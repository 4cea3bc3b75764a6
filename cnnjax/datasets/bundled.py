"""MNIST from the four original files, bundled with the package: no network, no TFDS, no TensorFlow.

The files are byte-identical to the ones that TFDS downloads (the SHA-256 sums are those TFDS has registered); the
example order is the files'.
"""

from pathlib import Path

import numpy as np

from cnnjax.datasets.arrays import Dataset, DatasetInfo, Split, make_dataset
from cnnjax.datasets.idx import read_idx
from cnnjax.errors import CorruptionError

FOLDER = Path(__file__).parent / "mnist"

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


def load_mnist(folder: Path = FOLDER) -> Dataset:
    """Read MNIST: 60000 training and 10000 test images, 28 x 28 x 1, of 10 classes.

    Raises:
        CorruptionError: a file is missing or damaged.
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
