"""A Ray cluster: one that others have started, joined by its address, or one of this machine's own.

A Ray of one's own is started for a grid and ends with it. Anyone who can reach a Ray can run code on it, so it listens
on the loopback interface alone. Ray is imported here and nowhere else on the coordinator's side.
"""

import contextlib
import importlib
import ipaddress
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from cnnjax.errors import InputError, Interrupted, UnavailableError
from cnnjax.processors import count_cores

MISSING = "--executor ray needs Ray: pip install -e '.[ray]'"
IMPORTED = "it was imported before; set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before that"
ANSWER_SECONDS = 5.0
HEALTH_SECONDS = 30.0
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
            check_address(address)
            if not _answers(address):
                raise UnavailableError(f"Ray cannot be joined at {address}: nothing answers there")
        self.ray = _import_ray(alone=address is None)
        if address not in (None, "auto"):
            _check_health(address)
        own = {"num_cpus": cpus or count_cores(), "include_dashboard": False} if address is None else {}
        try:
            with _signals_kept():
                self.ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
        except Exception as error:
            where = f"joined at {address}" if address else "started on this machine"
            raise UnavailableError(f"Ray cannot be {where}: {describe_ray_error(error)}") from None
        self.address: str = self.ray.get_runtime_context().gcs_address
        if address is None and not _is_loopback(self.address):
            self.leave()
            raise UnavailableError(f"Ray cannot be started on this machine: it would be open to others; {IMPORTED}")
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
    return text.splitlines()[0] if text else type(error).__name__


def check_address(address: str) -> None:
    """Raises `InputError` where this is neither ``host:port`` nor ``auto``."""
    if address == "auto":
        return
    if address.startswith("ray://"):
        raise InputError(f"--address={address!r}: must be host:port; run the command on a machine of the cluster")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"--address={address!r}: must be host:port, such as 10.0.0.1:6379, or auto")


def _check_health(address: str) -> None:
    """Refuses what answers and is no Ray of ours, by Ray's own check; Ray would try to join it for very long."""
    check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        result = subprocess.run(check, capture_output=True, text=True, timeout=HEALTH_SECONDS)
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"Ray cannot be joined at {address}: what answers there is no Ray cluster") from None
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["it is not healthy"])[-1]
        raise UnavailableError(f"Ray cannot be joined at {address}: {reason}")


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Puts back the handler of SIGTERM, for which Ray installs one of its own that ends the process."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise Interrupted("interrupted while Ray was starting", signal.SIGTERM) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).is_loopback


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
