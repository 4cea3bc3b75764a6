"""Cuts a batch into parts on CPU, so that the outputs of a layer stay in the caches of a core. No JAX here.

The gradient of the mean loss of a batch is the mean of the gradients of its equal parts. So the parts can be computed
one after the other. Each is so small that the outputs of a layer are still in the caches when the next layer or the
backward pass reads them.
"""

from cnnjax.models.network import Network, Shape

PART_BYTES = 2 * 2**20
"""Largest output of a layer for one part, in bytes. A step of the textbook network then takes 12.4 ms, not 13.9."""
MOST_PART_BYTES = 16 * 2**20
"""The same for a network with many parameters."""
PARAMETER_SHARE = 4
"""How many times the bytes of the parameters a part's largest output may have, for each part reads all parameters and
adds to all gradients. A step of three convolutions with 64, 128 and 256 filters then takes 59 ms, not 65."""
EVALUATION_BATCH = 100
"""Most images that are evaluated at once."""
LEAST_PART = 10
"""Fewest images in a part that is cut: matrix products of fewer images are slower."""


def count_fitting(network: Network, image_shape: Shape, classes: int) -> int:
    """Returns how many images a part may have so that the outputs of each layer stay in the caches.

    It is at least `LEAST_PART`. The arguments are those of `count_parts`.
    """
    layers = network.list_layers(image_shape, classes)
    largest = max(layer.activation_bytes for layer in layers)
    parameters = 4 * sum(layer.parameters for layer in layers)
    allowed = min(max(PART_BYTES, PARAMETER_SHARE * parameters), MOST_PART_BYTES)
    return max(allowed // largest, LEAST_PART)


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
