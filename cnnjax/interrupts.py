"""Ctrl-C, SIGTERM and a closed terminal as a question asked between pieces of work; nothing is torn in the middle."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


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
    received: list[int] = []
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
