"""JAX, started for a run: under settings that leave the result of a run to its configuration, or not at all."""

from dataclasses import dataclass
from typing import Any

from cnnjax.errors import UnavailableError


@dataclass(frozen=True)
class Requirement:
    """What a setting of JAX must be.

    Attributes:
        legal: the values under which a run is what its key says.
        reason: what another value would change.
    """

    legal: tuple[Any, ...]
    reason: str


REQUIREMENTS = {
    "jax_threefry_partitionable": Requirement((True,), "it would change every random number of a run"),
    "jax_random_seed_offset": Requirement((0,), "it would change every random number of a run; a run has its own seed"),
    "jax_default_matmul_precision": Requirement(
        (None, "default", "float32", "highest"), "train.precision is the setting for a lower precision"
    ),
}
"""Settings that would give another result under the same run key."""


def start_jax() -> None:
    """Starts JAX for training: every run begins with this, in whichever process it is trained.

    Raises:
        UnavailableError: JAX finds no device, or is set, by its environment variables or by `jax.config`, to something
            that would change the results of runs.
    """
    import jax

    for name, requirement in REQUIREMENTS.items():
        value = getattr(jax.config, name, requirement.legal[0])
        if value not in requirement.legal:
            legal = " or ".join("unset" if legal is None else str(legal) for legal in requirement.legal)
            raise UnavailableError(f"{name.upper()}={value}: must be {legal}; {requirement.reason}")
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where a platform has no plugin
        raise UnavailableError(f"JAX cannot start: {error}") from error
