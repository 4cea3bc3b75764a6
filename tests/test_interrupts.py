"""The first signal is held back and reported, the second acts at once, and ignored signals stay ignored."""

import gc
import os
import signal
import sys
import threading
import weakref

import pytest

from cnnjax.machine.processes import deferred_signals, last_signal, raise_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_held_back_and_told_of(number, capfd):
    before = signal.getsignal(number)
    with deferred_signals() as stop_signal:
        assert stop_signal() is None
        os.kill(os.getpid(), number)
        assert stop_signal() == number
    assert signal.getsignal(number) is before
    assert "stopping at the next pause" in capfd.readouterr().err


def test_the_second_signal_acts_at_once():
    with pytest.raises(KeyboardInterrupt), deferred_signals():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with deferred_signals() as stop_signal:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop_signal() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_are_never_stopped():
    answers = []

    def work():
        with deferred_signals() as stop_signal:
            answers.append(stop_signal())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [None]


@pytest.fixture
def _command_handlers(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    raise_on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_command_handlers")
def test_a_command_is_interrupted_at_once_and_knows_by_what():
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    assert last_signal() == signal.SIGTERM
    with deferred_signals() as stop_signal:
        assert stop_signal() is None


@pytest.mark.usefixtures("_command_handlers")
def test_an_interrupt_that_python_could_not_raise_is_remembered_once():
    class Garbage:
        pass

    garbage = Garbage()
    reference = weakref.ref(garbage, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del garbage
    gc.collect()
    assert reference() is None
    with deferred_signals() as stop_signal:
        assert stop_signal() == signal.SIGTERM
    with deferred_signals() as stop_signal:
        assert stop_signal() is None
