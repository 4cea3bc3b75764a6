"""Images in, uint8 arrays out: bundled MNIST, any TFDS image-classification set, and a cache of the decoded arrays.

`load("mnist")` reads four files that come with the package. Every other name is a TensorFlow Datasets (TFDS) name,
`name[/config][:version]`; TensorFlow is needed once, to prepare a set that isn't on the disk yet.
"""

from cnnjax.datasets.arrays import Dataset, DatasetInfo, Split, content_hash
from cnnjax.datasets.loading import load, load_info, load_tfds
from cnnjax.datasets.sources import identify, keep_given, keep_given_info, load_data, load_data_info, read_dataset

__all__ = [
    "Dataset",
    "DatasetInfo",
    "Split",
    "content_hash",
    "identify",
    "keep_given",
    "keep_given_info",
    "load",
    "load_data",
    "load_data_info",
    "load_info",
    "load_tfds",
    "read_dataset",
]
