"""Ctrl-C, SIGTERM and a closed terminal as a question asked between pieces of work; nothing is torn in the middle."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def deferred_signals(announce: Callable[[], None]) -> Iterator[Callable[[], int | None]]:
    """Holds back the first SIGINT, SIGTERM or SIGHUP while the context lasts; a second one acts at once.

    Args:
        announce: is called when the first one arrives.

    Yields:
        A function that returns the number of the signal that arrived, or ``None``. Outside the main thread, which
        alone may handle signals, it always returns ``None``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received: list[int] = []
    previous = {number: signal.getsignal(number) for number in _STOPPING}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def hold_back(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()
        announce()

    for number in previous:
        signal.signal(number, hold_back)
    try:
        yield lambda: received[0] if received else None
    finally:
        restore()
