"""A worker process as the coordinator sees it: the group it is at, what it says, and how it ends."""

import contextlib
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from typing import IO, Any

import psutil

from ablations.language.grids import Trial
from ablations.running.events import Advanced, Ended, Event, Failed, Returned, Started
from ablations.running.messages import read_message, write_message
from ablations.running.slots import Slot
from ablations.running.source import hash_source
from cnnjax.children import python_command, python_environment
from cnnjax.history import Progress
from cnnjax.processors import ONE_THREAD
from cnnjax.records import PackedRun, Record

TAIL_BYTES = 4000
START_SECONDS = 300
END_SECONDS = 10
Message = tuple[dict[str, Any], list[bytes | None]]


class WorkerProcess:
    """A worker process, from its start to its end.

    Args:
        slot: where it runs.
        inbox: receives its messages, each with this object, and ``None`` when there will be no more.

    Attributes:
        slot: where it runs.
        signature: the static signature of the last group it was given; `""` for none.
        has_begun: whether it ever began a trial.
    """

    def __init__(self, slot: Slot, inbox: "queue.SimpleQueue[tuple[WorkerProcess, Message | None]]") -> None:
        self.slot, self.signature, self.has_begun = slot, "", False
        self._waiting: list[Trial] = []
        self._begun: dict[str, Trial] = {}
        self._together = 0
        self._is_ready = False
        self._verdict: str | None = None
        self._since = time.monotonic()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self._process = _start(slot, self._log)
        assert self._process.stdin
        assert self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._memory = psutil.Process(self._process.pid)
        self._listener = threading.Thread(target=self._listen, args=(inbox,), daemon=True)
        self._listener.start()

    @property
    def is_free(self) -> bool:
        """Whether it can be given a group."""
        return not (self._waiting or self._begun) and self._verdict is None

    def give(self, group: tuple[Trial, ...], signature: str, at_once: int | None = None) -> None:
        """Sends it a group of trials, of which so many are to run in one program; ``None`` lets it choose."""
        self._waiting, self.signature = list(group), signature
        try:
            write_message(self._stdin, {"configs": [trial.config.to_dict() for trial in group], "at_once": at_once})
        except OSError:
            self.kill("the worker has ended")  # of which the listener will hear

    def receive(self, message: Message) -> list[Event]:
        """Returns what a message means for its group; a worker that makes no sense is killed."""
        try:
            return self._read(message)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            self.kill(f"the worker sent no message: {error!r}")
            return []

    def watch(self, timeout: float | None, memory_limit: float | None) -> None:
        """Kills the process where its start, or its trial, takes too long, or its trial too much memory."""
        seconds = time.monotonic() - self._since
        if self._process.poll() is not None:
            self._signal_group()  # what it has left behind keeps its output open
        elif not self._is_ready and seconds > START_SECONDS:
            self.kill(f"the worker was not ready after {START_SECONDS} s")
        elif self._begun and timeout is not None and seconds > timeout * self._together:
            self.kill(f"ran longer than {timeout * self._together:g} s")
        elif self._begun and memory_limit is not None:
            with contextlib.suppress(psutil.Error):
                used = self._memory.memory_info().rss
                if used > memory_limit:
                    self.kill(f"used {used / 2**30:.2f} GiB of memory, more than {memory_limit / 2**30:.2f} GiB")

    def kill(self, reason: str) -> None:
        """Kills the process, and whatever it has started, for a reason that becomes that of its trial."""
        self._verdict = self._verdict or reason
        self._signal_group()

    def release(self) -> str:
        """Waits for the end of the process, closes what was open to it, and returns the tail of what it printed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self._listener.join(END_SECONDS)
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(size - TAIL_BYTES, 0))
        output = self._log.read().decode(errors="replace").strip()
        with contextlib.suppress(OSError):
            self._stdin.close()
        if not self._listener.is_alive():
            self._stdout.close()
        self._log.close()
        return output

    def settle(self, output: str) -> list[Event]:
        """Returns what the end of the process means for its group: a trial that it was at by itself has failed."""
        reason = self._verdict or self._describe_exit()
        begun: list[Event] = [
            Failed(trial, reason, output or None) if self._together == 1 else Returned(trial, self._together, reason)
            for trial in self._begun.values()
        ]
        return [*begun, *(Returned(trial) for trial in self._waiting)]

    def describe_end(self, output: str) -> str:
        """Returns one line that says how the process ended: the verdict, or its last words, if it left any."""
        return self._verdict or (output.splitlines() or [self._describe_exit()])[-1]

    def _read(self, message: Message) -> list[Event]:
        header, blobs = message
        kind = header["kind"]
        if kind == "ready":
            self._is_ready, self._since = True, time.monotonic()
            return []
        if kind == "failed":
            self._verdict = str(header["reason"])
            return []
        if kind == "started":
            return [Started(self._begin(header["key"]))]
        trial = self._begun[header["key"]]
        if kind == "advanced":
            return [Advanced(trial, Progress(**header["progress"]))]
        variables, predictions = blobs
        run = PackedRun(Record.from_dict(header["record"]), variables, predictions)
        del self._begun[trial.key]
        return [Ended(trial, run)]

    def _begin(self, key: str) -> Trial:
        if self._waiting[0].key != key:
            raise ValueError(f"about another run, {key}")
        trial = self._waiting.pop(0)
        self._together = self._together + 1 if self._begun else 1
        self._begun[key] = trial
        self.has_begun, self._since = True, time.monotonic()
        return trial

    def _listen(self, inbox: "queue.SimpleQueue[tuple[WorkerProcess, Message | None]]") -> None:
        try:
            while (message := read_message(self._stdout)) is not None:
                inbox.put((self, message))
        except (ValueError, OSError) as error:
            self.kill(f"the worker sent no message: {error}")
        finally:
            inbox.put((self, None))

    def _signal_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _describe_exit(self) -> str:
        code = self._process.returncode
        if code is None:
            return "the worker does not end"
        if code >= 0:
            return f"the worker ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        perhaps = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"the worker was killed by {name}{perhaps}"


def _start(slot: Slot, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    command = python_command("-m", "ablations.running.worker", "--source", hash_source())
    environment = {**python_environment(), **slot.environment}
    if slot.core is not None:
        command += ["--core", str(slot.core)]
        environment |= ONE_THREAD
    # A session of its own: Ctrl-C at the terminal is for the coordinator, which ends its workers itself.
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True
    )
