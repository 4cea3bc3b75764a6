"""The tensors that the layers of a network pass on: no run, no JAX."""

from dataclasses import dataclass, field
from typing import Annotated

from cnnjax.config import ModelConfig
from cnnjax.summary import summarize
from experiments.explanations.pictures import Explanation, PictureArguments
from experiments.options import Option


@dataclass(frozen=True)
class StackArguments(PictureArguments):
    """Shows the shapes of the tensors from layer to layer::

    python -m experiments.explain stack --model.padding same

    Options of the model are those of experiments.train.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    data: Annotated[str, Option(name="data.name")] = "mnist"
    """Dataset whose images go in: mnist, or the name of a TensorFlow Datasets set."""
    without_classifier: bool = False
    """End after the last convolution block."""


def explain_stack(arguments: StackArguments) -> Explanation:
    """Returns the layer table, and the stack of tensors as a picture."""
    from cnnjax.datasets import load_info
    from cnnjax.figures.stack import draw_stack

    info = load_info(arguments.data)
    summary = summarize(arguments.model, info.image_shape, None if arguments.without_classifier else info.classes)
    title = f"from an image of {info.name} to its classes: {summary.parameters:,} parameters"
    if arguments.without_classifier:
        title = f"from an image of {info.name} to the last maps: {summary.parameters:,} parameters"
    figure = draw_stack(info.image_shape, summary.layers, title)
    values = {"image_shape": list(info.image_shape), **summary.to_dict()}
    return Explanation(str(summary), values, {"stack": figure})
