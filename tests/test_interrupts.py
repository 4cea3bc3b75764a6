"""The first signal is held back and told of, the second acts, and what was ignored stays ignored."""

import os
import signal
import threading

import pytest

from cnnjax.interrupts import deferred_signals


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
