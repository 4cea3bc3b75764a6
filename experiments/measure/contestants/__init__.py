"""The textbook network and a grid of similar networks in several libraries, each trained in its own process."""

import itertools
import threading
from dataclasses import dataclass
from typing import Literal

from cnnjax.models.cnn import ModelConfig


@dataclass(frozen=True)
class Architecture:
    """A network of two blocks (convolution, ReLU, 2x2 max-pooling) and a dense layer of ten outputs."""

    filters: tuple[int, int] = (32, 64)
    window: int = 5
    padding: Literal["valid", "same"] = "valid"


TEXTBOOK = Architecture()
FILTERS, WINDOWS = ((16, 32), (32, 64), (64, 128)), (3, 5)
PADDINGS: tuple[Literal["valid", "same"], ...] = ("valid", "same")


def list_trials(seeds: int) -> list[tuple[Architecture, int]]:
    """Returns the trials of the grid: twelve networks, with this number of seeds each."""
    networks = [Architecture(*choice) for choice in itertools.product(FILTERS, WINDOWS, PADDINGS)]
    return [(network, seed) for network in networks for seed in range(seeds)]


class TrialQueue:
    """Queue of the trials of the grid for several processes.

    A process first gets the remaining seeds of the network that it has compiled, then the most expensive network that
    no process has begun, and finally seeds of a network that another process has begun.

    Args:
        seeds: number of seeds of each network.
    """

    def __init__(self, seeds: int) -> None:
        networks = sorted({network for network, _ in list_trials(1)}, key=count_flops, reverse=True)
        self._left = {network: list(range(seeds)) for network in networks}
        self._begun: set[Architecture] = set()
        self._lock = threading.Lock()

    def take(self, last: Architecture | None) -> tuple[Architecture, int] | None:
        """Returns the next trial for a process whose last network was `last`; ``None`` if no trial is left."""
        with self._lock:
            waiting = [network for network, seeds in self._left.items() if seeds]
            if not waiting:
                return None
            fresh = [network for network in waiting if network not in self._begun]
            network = last if last in waiting else (fresh or waiting)[0]
            assert network is not None
            self._begun.add(network)
            return network, self._left[network].pop(0)


def count_flops(network: Architecture) -> int:
    """Returns the floating-point operations of the forward pass of one image."""
    model = ModelConfig(network.filters, network.window, padding=network.padding)
    return sum(layer.flops for layer in model.list_layers((28, 28, 1), 10))
