"""What contestants train: the textbook network, and a grid of its relatives."""

import itertools
from dataclasses import dataclass
from typing import Literal

from cnnjax.architecture import list_layers
from cnnjax.config import ModelConfig


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


def list_share(seeds: int, first: int, processes: int) -> list[tuple[Network, int]]:
    """Returns the trials of one of several processes, the dearest first: whole networks, which are compiled once."""
    loads = [0] * processes
    own = []
    for network in sorted({network for network, _ in list_trials(1)}, key=count_flops, reverse=True):
        lightest = loads.index(min(loads))
        loads[lightest] += count_flops(network)
        own += [network] if lightest == first else []
    return [(network, seed) for network in own for seed in range(seeds)]


def count_flops(network: Network) -> int:
    """Returns the floating-point operations of an image, forward."""
    model = ModelConfig(network.filters, network.window, padding=network.padding)
    return sum(layer.flops for layer in list_layers(model, (28, 28, 1), 10))
