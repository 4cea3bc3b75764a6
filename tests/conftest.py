"""Tests never touch the user's own caches; a cache of compiled programs, shared by all tests, makes them faster."""

import os
import signal

import pytest


def pytest_configure(config):
    # A job in the background ignores signals, and its children inherit that; the tests of signals need them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    folder = config.cache.mkdir("xla") if hasattr(config, "cache") else None
    if folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"


@pytest.fixture(autouse=True)
def _own_caches(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CNNJAX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.getbasetemp() / "tfds"))
