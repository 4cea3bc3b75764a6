"""Images in, uint8 arrays out: bundled MNIST, any TFDS image-classification set, and a cache of the decoded arrays.

`load("mnist")` reads four files that come with the package. Every other name is a TensorFlow Datasets (TFDS) name,
`name[/config][:version]`; TensorFlow is needed once, to prepare a set that isn't on the disk yet.
"""
