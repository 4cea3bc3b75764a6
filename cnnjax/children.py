"""Python processes that this one starts: they import what this one would. No JAX here."""

import contextlib
import os
import sys


def python_command(*arguments: str) -> list[str]:
    """Returns a command line of this Python, which adds no folder of its own to the path."""
    return [sys.executable, "-P", *arguments]


def python_environment() -> dict[str, str]:
    """Returns this process's environment, with its path of packages (`sys.path`) in it.

    The path may have been made by a script or a notebook, so that a new process would not find the same packages.
    """
    path = []
    for entry in sys.path:
        with contextlib.suppress(OSError):  # of a working folder that is gone
            path.append(os.path.abspath(entry))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
