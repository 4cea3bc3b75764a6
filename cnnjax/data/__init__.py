"""Datasets as uint8 arrays: the bundled MNIST, TFDS sets, files of the user's own, and a cache of the decoded arrays.

`mnist` is four files that come with the package. `folder:PATH` and `npz:PATH` are files of the user's own. Every other
name, `name[/config][:version]`, is that of a set in TensorFlow Datasets (TFDS). TensorFlow is needed once, to prepare a
set that is not on the disk yet.
"""
