"""A real terminal for the tests: what a person would see of a command."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_in_terminal(*words, columns=80, environment=(), timeout=300):
    """Runs Python with these arguments in a terminal of so many columns; returns its exit code and all it showed."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    variables |= {"TERM": "xterm-256color", **dict(environment)}
    command = ["timeout", str(timeout), sys.executable, *map(str, words)]
    process = subprocess.Popen(command, stdout=terminal, stderr=terminal, stdin=terminal, cwd=ROOT, env=variables)
    os.close(terminal)
    shown = b""
    with open(controller, "rb", buffering=0) as stream:
        while True:
            try:
                piece = stream.read(4096)
            except OSError:  # the terminal is closed
                break
            shown += piece
    return process.wait(), shown.decode().replace("\r\n", "\n")
