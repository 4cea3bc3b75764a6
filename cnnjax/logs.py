"""Keeping the log of the libraries underneath, which is written for their developers, off a user's terminal."""

import contextlib
import functools
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the logger of TFDS and Orbax while the context lasts; their errors are still raised."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def take_stdout() -> TextIO:
    """Returns standard output for its caller alone: what else is printed there goes to standard error from now on."""
    own = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    os.dup2(2, 1)
    return own


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keeps what Python code prints and warns of off the terminal while the context lasts."""
    nowhere = _open_nowhere()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@functools.cache
def _open_nowhere() -> TextIO:
    """Returns a stream that stays open, for whoever keeps it as its own standard output."""
    return open(os.devnull, "w")
