"""A Ray cluster: one that others have started, joined by its address, or one of this machine's own.

A Ray of one's own is started for a grid and ends with it. Anyone who can reach a Ray can run code on it, so it listens
on the loopback interface alone. Ray is imported here and nowhere else on the coordinator's side.
"""

import contextlib
import importlib
import logging
import os
import re
import socket
import time
from typing import Any

from ablations.running.slots import list_cores
from cnnjax.errors import InputError, UnavailableError

MISSING = "--executor ray needs Ray: pip install -e '.[ray]'"
ANSWER_SECONDS = 5.0
CHECK_SECONDS = 5.0
SILENT_CHECKS = 3
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_oom_retries": "3",  # without this Ray runs what a node has no memory for again for ever
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # what keeps Ray to the loopback interface, on Linux too


class Cluster:
    """A connection to Ray, of which a process can have one.

    Args:
        address: ``host:port`` of a cluster that this machine belongs to; ``auto`` finds it; ``None`` starts a Ray.
        cpus: of a Ray that is started; ``None`` is one a core.

    Raises:
        InputError: no such address can be.
        UnavailableError: Ray is not installed, or cannot be started, or does not answer.
    """

    def __init__(self, address: str | None = None, cpus: int | None = None) -> None:
        if address not in (None, "auto"):
            _check_address(address)
        self.ray = _import_ray(alone=address is None)
        own = {"num_cpus": cpus or len(list_cores()), "include_dashboard": False} if address is None else {}
        try:
            self.ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
        except (Exception, SystemExit) as error:  # Ray exits where what answers is no Ray
            where = f"joined at {address}" if address else "started on this machine"
            raise UnavailableError(f"Ray cannot be {where}: {describe_ray_error(error)}") from None
        self.address: str = self.ray.get_runtime_context().gcs_address
        self._resources: dict[str, float] = self.ray.cluster_resources()
        self._checked = time.monotonic()
        self._silent = 0

    def count(self, resource: str) -> int:
        """Returns how many whole units of a resource, such as ``CPU``, the nodes had a moment ago."""
        return int(self._resources.get(resource, 0))

    def check(self) -> None:
        """Now and then, sees which nodes there are.

        Raises:
            UnavailableError: the head of the cluster has not answered several times in a row.
        """
        if time.monotonic() - self._checked < CHECK_SECONDS:
            return
        self._silent = 0 if _answers(self.address) else self._silent + 1
        if self._silent == SILENT_CHECKS:  # soon after, Ray would end this process
            raise UnavailableError(f"the Ray cluster at {self.address} is gone; what had ended is stored")
        if not self._silent:
            self._resources = self.ray.cluster_resources()
        self._checked = time.monotonic()

    def leave(self) -> None:
        """Ends all that this process runs on the cluster, and a Ray of its own with it."""
        with contextlib.suppress(Exception):
            self.ray.shutdown()


def describe_ray_error(error: BaseException) -> str:
    """Returns the first line of what Ray says, without its colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[0] if text and not isinstance(error, SystemExit) else "no answer"


def _check_address(address: str) -> None:
    """Refuses what is no address at once, and what does not answer long before Ray would give up."""
    if address.startswith("ray://"):
        raise InputError(f"--address={address!r}: must be host:port; run the command on a machine of the cluster")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"--address={address!r}: must be host:port, such as 10.0.0.1:6379, or auto")
    if not _answers(address):
        raise UnavailableError(f"Ray cannot be joined at {address}: nothing answers there")


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS):
            return True
    except OSError:
        return False


def _import_ray(alone: bool) -> Any:
    for name, value in {**_QUIET, **(_LOOPBACK if alone else {})}.items():
        os.environ.setdefault(name, value)  # read when Ray is imported, and by the processes it starts
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise UnavailableError(MISSING) from None
