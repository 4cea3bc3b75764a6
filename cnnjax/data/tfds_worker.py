"""python -m cnnjax.data.tfds_worker NAME:VERSION --data-dir FOLDER [--manual-dir FOLDER]

The child process that prepares a TFDS dataset with TensorFlow. It answers with one line of JSON on standard output,
`{"kind": ..., "message": ...}`. The kind is `prepared`, or the error that the parent should raise: `input`,
`corruption` or `unavailable`.
"""

import argparse
import contextlib
import functools
import gzip
import importlib
import io
import json
import logging
import os
import tarfile
import zipfile
import zlib
from pathlib import Path

from cnnjax.data.tfds import first_line

_TIMEOUTS = (10, 60)  # seconds: to connect, between two packets


def main() -> None:
    """Prepares the dataset, answers, and exits without waiting for TFDS's download threads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--manual-dir", type=Path)
    arguments = parser.parse_args()
    try:
        logging.disable(logging.CRITICAL)
        with contextlib.redirect_stdout(io.StringIO()):
            _prepare(arguments.name, arguments.data_dir, arguments.manual_dir)
        kind, message = "prepared", ""
    except Exception as error:
        kind, message = _describe(error)
    print(json.dumps({"kind": kind, "message": message}), flush=True)
    os._exit(0)


def _prepare(name: str, data_dir: Path, manual_dir: Path | None) -> None:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    # Without these, it would take TFDS minutes to notice that there is no network.
    downloader.MAX_RETRIES = 1
    session = importlib.import_module("requests").Session
    session.request = functools.partialmethod(session.request, timeout=_TIMEOUTS)
    builder = tfds.builder(name, data_dir=data_dir)
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    builder.download_and_prepare(file_format="array_record", download_config=config)


def _describe(error: Exception) -> tuple[str, str]:
    """Returns the kind and the one-line message of the error for an exception that TFDS raised."""
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    damaged = (EOFError, gzip.BadGzipFile, zlib.error, tarfile.ReadError, zipfile.BadZipFile)
    if isinstance(error, NonMatchingChecksumError):
        return "corruption", first_line(error)
    if isinstance(error, damaged) or isinstance(error.__cause__, damaged):
        return "corruption", f"a downloaded file is damaged: {first_line(error)}"
    if isinstance(error, (DownloadError, ConnectionError)) or "requests" in type(error).__module__:
        url = getattr(getattr(error, "request", None), "url", None)
        return "unavailable", f"no network, or the server is down: {url or first_line(error)}"
    return "input" if isinstance(error, ValueError | AssertionError) else "unavailable", first_line(error)


if __name__ == "__main__":
    main()
