"""Messages between the coordinator and its workers: a line of JSON, then bytes as they are.

Nothing is pickled, so a worker that goes wrong can only send a message that cannot be read.
"""

import json
from collections.abc import Sequence
from typing import IO, Any


def write_message(stream: IO[bytes], header: dict[str, Any], blobs: Sequence[bytes | None] = ()) -> None:
    """Writes a message and flushes it.

    Args:
        stream: open for writing.
        header: JSON values, without the key ``blobs``.
        blobs: bytes that follow the header; ``None`` stays ``None``.
    """
    sizes = [None if blob is None else len(blob) for blob in blobs]
    stream.write(json.dumps({**header, "blobs": sizes}).encode() + b"\n")
    for blob in blobs:
        stream.write(blob or b"")
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], list[bytes | None]] | None:
    """Returns the header and the blobs of the next message, or ``None`` where the stream has ended, also amid one.

    Raises:
        ValueError: what comes is no message.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    header = json.loads(line)
    sizes = header.pop("blobs", None) if isinstance(header, dict) else None
    if not isinstance(sizes, list) or not all(size is None or (isinstance(size, int) and size >= 0) for size in sizes):
        raise ValueError(f"{line[:40]!r}")
    blobs = [None if size is None else stream.read(size) for size in sizes]
    torn = any(len(blob or b"") < (size or 0) for blob, size in zip(blobs, sizes, strict=True))
    return None if torn else (header, blobs)
