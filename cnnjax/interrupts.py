"""Ctrl-C, SIGTERM and a closed terminal: at once where nothing would be lost, else at the next pause.

A command lets signals raise `KeyboardInterrupt` with `raise_on_signals`. Where work is under way that must not be torn,
`deferred_signals` turns the first one into a question asked between its pieces. An exception that Python cannot raise,
because the signal came inside a callback of the garbage collector, is lost; the question remembers such a signal too.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_last: list[int] = [signal.SIGINT]
_lost: list[int] = []


def raise_on_signals() -> None:
    """Makes SIGINT, SIGTERM and SIGHUP raise `KeyboardInterrupt`; those that are ignored, as under nohup, stay so."""
    for number in _STOPPING:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            signal.signal(number, _raise)
    sys.unraisablehook = _remember_interrupt


def last_signal() -> int:
    """Returns the number of the last signal that `raise_on_signals` raised for, SIGINT where there was none."""
    return _last[0]


@contextlib.contextmanager
def deferred_signals() -> Iterator[Callable[[], int | None]]:
    """Holds back the first SIGINT, SIGTERM or SIGHUP while the context lasts; a second one acts at once.

    Signals that are ignored already, as under ``nohup``, stay ignored.

    Yields:
        A function that returns the number of the signal that arrived, or ``None``. Outside the main thread, which
        alone may handle signals, it always returns ``None``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received = _lost.copy()
    _lost.clear()
    handlers = {number: signal.getsignal(number) for number in _STOPPING}
    previous = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def hold_back(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()
        with contextlib.suppress(OSError):
            # Not print: a handler may interrupt a print.
            os.write(2, b"\nstopping at the next pause; again stops at once\n")

    for number in previous:
        signal.signal(number, hold_back)
    try:
        yield lambda: received[0] if received else None
    finally:
        restore()


def _remember_interrupt(lost: Any) -> None:
    if isinstance(lost.exc_value, KeyboardInterrupt):
        _lost.append(_last[0])
    else:
        sys.__unraisablehook__(lost)


def _raise(number: int, frame: FrameType | None) -> None:
    _last[0] = number
    raise KeyboardInterrupt
