"""The layer table of a run, a network or a module, before anything is trained."""

from typing import TYPE_CHECKING, Any, Literal

from cnnjax.errors import InputError
from cnnjax.models.network import Network, Shape
from cnnjax.models.own_module import ModuleConfig, is_linen_module
from cnnjax.models.table import Summary
from cnnjax.runs.config import RunConfig

if TYPE_CHECKING:
    import flax.linen as nn

MNIST: Shape = (28, 28, 1)


def summarize(
    config: "RunConfig | Network | nn.Module",
    input_shape: Shape | None = None,
    classes: int | Literal["dataset"] | None = "dataset",
) -> Summary:
    """Returns the layer table of a network; that of the built-in one by arithmetic alone, without JAX.

    Args:
        config: the settings of a run or of a network, or a linen module.
        input_shape: ``(height, width, channels)`` of an image; by default that of the dataset of the run, or without
            a run that of MNIST.
        classes: number of outputs of the classifier, by default as many as the dataset has classes; ``None`` ends the
            table after the last convolution block.

    Returns:
        The summary; printing it shows the table.

    Raises:
        InputError: a window is larger than its input, or the run calls a trial function, or its images are missing.
        CorruptionError, UnavailableError: as `cnnjax.data.loading.load`.

    Example:
        >>> from cnnjax import ModelConfig, summarize
        >>> summarize(ModelConfig(filters=(32,)), (28, 28, 1), classes=None).parameters
        832
        >>> summarize(ModelConfig(), (28, 28, 1), classes=None).parameters
        52096
        >>> summarize(ModelConfig()).parameters
        62346
    """
    if not isinstance(config, RunConfig):
        given: Any = config
        network: Network = ModuleConfig.from_module(given) if is_linen_module(given) else given
        return Summary(network.list_layers(input_shape or MNIST, 10 if classes == "dataset" else classes))
    if config.trial:
        raise InputError("config: calls a trial function, which has no network to summarize")
    from cnnjax.data.loading import find_images, find_info

    if input_shape is None or classes == "dataset":
        info = find_info(find_images(config.data).whole)
        input_shape, classes = input_shape or info.image_shape, info.classes if classes == "dataset" else classes
    return Summary(config.model.list_layers(input_shape, classes))
