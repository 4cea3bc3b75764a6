"""What contestants train: the textbook network, and a grid of its relatives."""

import itertools
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Network:
    """Two blocks of convolution, ReLU and 2x2 max-pooling, then ten outputs."""

    filters: tuple[int, int] = (32, 64)
    window: int = 5
    padding: Literal["valid", "same"] = "valid"


TEXTBOOK = Network()
FILTERS, WINDOWS = ((16, 32), (32, 64), (64, 128)), (3, 5)
PADDINGS: tuple[Literal["valid", "same"], ...] = ("valid", "same")


def list_trials(seeds: int) -> list[tuple[Network, int]]:
    """Returns the networks of the grid, twelve, with so many seeds each."""
    networks = [Network(*choice) for choice in itertools.product(FILTERS, WINDOWS, PADDINGS)]
    return [(network, seed) for network in networks for seed in range(seeds)]
