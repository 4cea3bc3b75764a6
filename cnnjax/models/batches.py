"""Cuts a batch into parts on CPU, so that the outputs of a layer stay in the caches of a core. No JAX here.

The gradient of the mean loss of a batch is the mean of the gradients of its equal parts. So the parts can be computed
one after the other. Each is so small that the outputs of a layer are still in the caches when the next layer or the
backward pass reads them.
"""

from cnnjax.models.network import Network, Shape

PART_BYTES = 2 * 2**20
"""Largest output of a layer for one part, in bytes. A step of the textbook network then takes 12.4 ms, not 13.9."""
EVALUATION_BATCH = 100
"""Most images that are evaluated at once."""
LEAST_PART = 10
"""Fewest images in a part that is cut: matrix products of fewer images are slower."""


def count_fitting(network: Network, image_shape: Shape, classes: int) -> int:
    """Returns how many images a part may have so that no layer's output is larger than `PART_BYTES`.

    It is at least `LEAST_PART`. The arguments are those of `count_parts`.
    """
    largest = max(layer.activation_bytes for layer in network.list_layers(image_shape, classes))
    return max(PART_BYTES // largest, LEAST_PART)


def count_parts(network: Network, image_shape: Shape, classes: int, examples: int) -> int:
    """Returns the number of equal parts into which a batch is cut; 1 for a network that couples examples.

    Args:
        network: the network.
        image_shape: (height, width, channels).
        classes: number of classes.
        examples: number of examples in the batch.

    Example:
        >>> from cnnjax import ModelConfig
        >>> count_parts(ModelConfig(), (28, 28, 1), classes=10, examples=100)
        4
    """
    if network.couples_examples:
        return 1
    fitting = count_fitting(network, image_shape, classes)
    sizes = [size for size in range(LEAST_PART, examples + 1) if examples % size == 0]
    smaller = [size for size in sizes if size <= fitting]
    size = max(smaller) if smaller else min(sizes, default=examples)
    return examples // size
