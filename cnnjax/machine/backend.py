"""Starts JAX, under settings that do not change results, and reports why it cannot start. JAX is imported only then.

JAX takes settings from environment variables and from the program that calls cnnjax. Some of them, such as
``JAX_THREEFRY_PARTITIONABLE``, would change the results of runs; cnnjax refuses them. Others are for debugging, such as
``JAX_DEBUG_NANS`` and ``JAX_DISABLE_JIT``; under them, programs that are compiled ahead of time do not run, or a run
that diverges ends in an error instead of a result. cnnjax turns these off while it computes.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cnnjax.errors import UnavailableError
from cnnjax.machine.processes import python_command, python_environment


@dataclass(frozen=True)
class Requirement:
    """The values that a setting of JAX may have.

    Attributes:
        legal: the values that do not change the results of runs.
        reason: why other values are refused.
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
"""Settings of JAX that change the result of a run but are not in its key, with what they must be."""


@contextlib.contextmanager
def jax_started() -> Iterator[None]:
    """Starts JAX, and turns its debugging settings off while the context lasts.

    Raises:
        UnavailableError: JAX finds no device.
    """
    import_jax()
    with _named_errors():
        import jax

        jax.devices()
    with run_settings():
        yield


def check_settings() -> None:
    """Raises `UnavailableError` if a setting of JAX would change the results of runs.

    This is checked before every training, in every process. The settings may come from environment variables or from
    `jax.config`.
    """
    import jax

    for name, requirement in REQUIREMENTS.items():
        value = getattr(jax.config, name, requirement.legal[0])
        if value not in requirement.legal:
            legal = " or ".join("unset" if legal is None else str(legal) for legal in requirement.legal)
            raise UnavailableError(f"{name.upper()}={value}: must be {legal}; {requirement.reason}")


@contextlib.contextmanager
def run_settings() -> Iterator[None]:
    """Turns JAX's debugging settings off while the context lasts."""
    import jax

    with (
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.disable_jit(False),
        jax.no_execution(False),
        jax.no_tracing(False),
        jax.transfer_guard("allow"),
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
    ):
        yield


def import_jax() -> None:
    """Imports JAX, without looking for devices.

    Raises:
        UnavailableError: JAX cannot be imported, or would end this process when it looks for devices.
    """
    if "jax" not in sys.modules:
        check_flags()
    with _named_errors():
        import jax  # noqa: F401


def check_flags() -> None:
    """Raises `UnavailableError` if `XLA_FLAGS` has a flag for which XLA would abort the process.

    XLA does not raise an exception for a flag that it does not know, so the flags are tried out in a child process.
    """
    if not os.environ.get("XLA_FLAGS"):
        return
    command = python_command("-c", "import jax; jax.devices()")
    environment = {**python_environment(), "JAX_PLATFORMS": "cpu"}
    trial = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    if trial.returncode:
        logged = re.search(r"^[EF]\d{4} .*?\] (.+)", trial.stderr, re.MULTILINE)
        reason = logged[1] if logged else (trial.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UnavailableError(f"JAX cannot start: XLA_FLAGS={os.environ['XLA_FLAGS']}: {reason}")


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    """Turns any error raised while JAX starts into an `UnavailableError` with the first line of its message."""
    try:
        yield
    except Exception as error:
        # For a platform without a plugin, JAX raises an exception without a message.
        no_plugin = f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}: there is no plugin of JAX for it"
        raise UnavailableError(f"JAX cannot start: {(str(error).splitlines() or [no_plugin])[0]}") from error
