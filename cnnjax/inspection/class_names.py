"""What the classes of a dataset are called: as TFDS names them, or by number where it does not. No JAX here."""

from cnnjax.config import DataConfig
from cnnjax.dataset_names import parse_name
from cnnjax.datasets import bundled
from cnnjax.errors import CnnjaxError


def find_class_names(data: DataConfig, classes: int) -> tuple[str, ...]:
    """Returns the names of the classes, in their order.

    Args:
        data: which dataset.
        classes: number of classes.
    """
    numbers = tuple(map(str, range(classes)))
    if data.name == bundled.INFO.name or data.sha256 is not None:
        return numbers
    from cnnjax.datasets.builders import find_source

    try:
        source = find_source(parse_name(data.name))
    except CnnjaxError:  # its images may be in the cache all the same
        return numbers
    names = tuple(source.builder.info.features[source.label_key].names or ())
    return names if len(names) == classes else numbers
