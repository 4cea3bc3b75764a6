"""Tests never touch the user's own caches; compiled programs and libraries, shared by all tests, make them faster."""

import os
import signal

import pytest
from hypothesis import settings

settings.register_profile("laws", deadline=None, derandomize=True)  # the same examples everywhere, however slow
settings.load_profile("laws")

SET_BY_COMMANDS = ("JAX_NUM_CPU_DEVICES", "JAX_ENABLE_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES")
SET_BY_COMMANDS += ("CNNJAX_FAST_LAYERS",)


def pytest_configure(config):
    # A job in the background ignores signals, and its children inherit that; the tests of signals need them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    folder = config.cache.mkdir("xla") if hasattr(config, "cache") else None
    if folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
    import jax  # noqa: F401 - reads its settings now, before a command that a test calls changes them


@pytest.fixture(scope="session")
def _cache(tmp_path_factory, pytestconfig):
    """A cache of this process's own, but for the libraries of layers, which take half a minute to compile."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    folder.mkdir()
    if hasattr(pytestconfig, "cache"):
        (folder / "libraries").symlink_to(pytestconfig.cache.mkdir("libraries"))
    return folder


@pytest.fixture(autouse=True)
def _own_caches(_cache, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CNNJAX_CACHE_DIR", str(_cache))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.getbasetemp() / "tfds"))
    for name in SET_BY_COMMANDS:
        monkeypatch.setenv(name, "")  # so that what a command sets is taken back after the test
        monkeypatch.delenv(name)
