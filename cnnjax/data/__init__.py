"""Datasets as uint8 arrays: the bundled MNIST, any TFDS image-classification set, and a cache of the decoded arrays.

`load("mnist")` reads four files that come with the package. Every other name is that of a set in TensorFlow Datasets
(TFDS), `name[/config][:version]`. TensorFlow is needed once, to prepare a set that is not on the disk yet.
"""
