"""A store is locked by one grid at a time, and a second grid is told which process holds it."""

import multiprocessing
import os
import signal
import time

import pytest

from ablations.execution.locking import hold_store, read_owner
from cnnjax import UnavailableError


def hold(out, ready):
    with hold_store(out, "python -m ablations.run first"):
        ready.send("holding")
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the store in `tmp_path`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with ours, theirs:
        process = context.Process(target=hold, args=(tmp_path, theirs))
        process.start()
        assert ours.poll(60)
        yield process
        process.kill()
        process.join(10)


def test_a_held_store_names_its_holder(tmp_path, holder):
    with pytest.raises(
        UnavailableError, match=rf"is in use by 'python -m ablations.run first' \(process {holder.pid} on"
    ):
        hold_store(tmp_path, "second").__enter__()
    assert read_owner(tmp_path).pid == holder.pid


def test_a_killed_process_releases_its_lock(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(10)
    assert read_owner(tmp_path) is None
    with hold_store(tmp_path, "second"):
        pass


def test_a_free_store_has_no_owner_and_looking_creates_nothing(tmp_path):
    assert read_owner(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    with hold_store(tmp_path, "mine"):
        pass
    assert read_owner(tmp_path) is None


def test_a_store_with_a_damaged_note_is_still_reported_as_held(tmp_path, holder):
    (tmp_path / "grid.owner.json").write_text("{")
    with pytest.raises(UnavailableError, match="is in use by 'another process'"):
        hold_store(tmp_path, "second").__enter__()
