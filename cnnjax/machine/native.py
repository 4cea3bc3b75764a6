"""Compiles the library's C++ for the CPU of this machine, on first use, and says whether layers may use it.

Sources are compiled with oneDNN, which the extra ``onednn`` installs, and the headers of XLA, which jaxlib brings. The
library is kept in the user's cache, in a file named by the hash of everything that it depends on: the sources, the
compiler, jaxlib, oneDNN and the CPU. So another version or machine gets a library of its own. Processes that need the
same one at the same time wait for the first of them to build it.
"""

import atexit
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnjax.errors import InputError, UnavailableError, printable
from cnnjax.machine.files import cache_root
from cnnjax.machine.processes import may_have_accelerators, python_command

LAYERS = Path(__file__).parents[1] / "layers/native"
"""The C++ of the layers."""
SOURCES = (".cc", ".h")
"""Suffixes of the files of a folder that a library is compiled from, and of those that they include."""
SWITCH = "CNNJAX_FAST_LAYERS"
"""Environment variable that is ``0`` where layers must not use native code; child processes inherit it."""
COMPILER = "g++"
"""The compiler, unless ``$CXX`` names one. Others may link an OpenMP of their own beside oneDNN's, which is GCC's."""
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp", "-shared", "-Wl,-z,defs", "-Wall", "-Wextra")
"""Options of the compiler: for this CPU only; a missing symbol is an error."""
BUILD_SECONDS = 300.0
"""Time limit of a build, which takes about 6 s on an idle machine."""
ANSWER_SECONDS = 20.0
"""Time limit for a compiler to say its version, and for a new library to be loaded."""
MOST_OUTPUT = 2**16
"""Bytes that are read of what a compiler prints."""
_INSTALL = "pip install 'cnnjax[onednn]' (or pip install -e '.[onednn]' in a checkout)"


def allow_fast_layers(wanted: bool = True) -> None:
    """Lets layers use native code, or not, in this process and its child processes.

    Programs that are compiled later follow it. It is no setting of a run; the record says what was used.

    Args:
        wanted: ``False`` for layers in JAX alone.

    Example:
        >>> allow_fast_layers(False)
        >>> are_fast_layers_wanted()
        False
        >>> allow_fast_layers()
    """
    os.environ[SWITCH] = str(int(wanted))


def are_fast_layers_wanted() -> bool:
    """Whether layers may use native code; raises `InputError` if ``$CNNJAX_FAST_LAYERS`` is neither 0 nor 1."""
    value = os.environ.get(SWITCH, "1")
    if value not in ("0", "1"):
        raise InputError(f"{SWITCH}={value!r}: must be 0 or 1")
    return value == "1"


def prepare_layers() -> str | None:
    """Compiles the C++ of the layers, and returns a line that says which convolutions are used, and why.

    Commands call this before they train or start workers. Where it cannot be had, fast layers are turned off for
    this process and its child processes, so that the reason is said once, and no worker tries again.

    Returns:
        The line, or ``None`` if there may be accelerators, where all layers are XLA's: only JAX will tell.

    Raises:
        InputError: ``$CNNJAX_FAST_LAYERS`` is neither 0 nor 1.
    """
    if not are_fast_layers_wanted():
        return "convolutions: cnnjax's own, as fast layers are turned off"
    if may_have_accelerators():
        return None
    try:
        _try_loading(compile_library(LAYERS))
    except UnavailableError as error:
        allow_fast_layers(False)
        return f"convolutions: cnnjax's own; those of oneDNN would be faster: {error}"
    return "convolutions: oneDNN"


@dataclass(frozen=True)
class OneDNN:
    """An installation of oneDNN.

    Attributes:
        version: the version of its package.
        library: the shared library.
        headers: the folder that has ``oneapi/dnnl/dnnl.hpp``.
    """

    version: str
    library: Path
    headers: Path


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: the words that start it, and the first line that it prints of its version."""

    command: tuple[str, ...]
    version: str


def compile_library(source: Path) -> Path:
    """Returns the shared library of C++ sources, which is compiled unless the user's cache has it.

    Where the cache cannot be written, it is compiled to a temporary folder, which is removed when this process ends.

    Args:
        source: a C++ file, or a folder of them with their headers, which may include the headers of oneDNN and of XLA's
            foreign functions.

    Raises:
        UnavailableError: the machine is not x86-64 Linux; oneDNN or a compiler is missing; or the sources do not
            compile. The message says how to get what is missing.

    Example::

        library = ctypes.CDLL(str(compile_library(Path("onednn.cc"))))
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise UnavailableError(f"native layers need x86-64 Linux; this is {platform.machine()} {platform.system()}")
    onednn, compiler = find_onednn(), find_compiler()
    headers = (onednn.headers, find_headers())
    linked = (str(onednn.library), f"-Wl,-rpath,{onednn.library.parent}")
    try:
        is_folder = source.is_dir()
        files = sorted(file for file in source.iterdir() if file.suffix in SOURCES) if is_folder else [source]
        hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    except OSError as error:
        raise UnavailableError(f"{error.filename} cannot be read: {error.strerror}") from None
    options = (*FLAGS, *(f"-isystem{folder}" for folder in headers), *linked)  # no warnings of these headers
    depends_on = {
        "sources": hashes,
        "compiler": (*compiler.command, compiler.version),
        "options": options,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "onednn": onednn.version,
        "cpu": describe_cpu(),
    }
    key = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()
    name = f"{source.stem}-{key[:32]}.so"
    command = (*compiler.command, *(str(file) for file in files if file.suffix != ".h"), *options)
    with contextlib.suppress(OSError, NotImplementedError):  # not implemented: a file system without locks
        return _find_or_build(command, _find_folder() / name)
    try:
        return _find_or_build(command, _make_temporary_folder() / name)
    except OSError as error:
        raise UnavailableError(f"{source.name} cannot be compiled: {error.strerror or error}") from None


def find_onednn() -> OneDNN:
    """Returns the oneDNN of the extra ``onednn``; raises `UnavailableError` if it is not installed completely."""
    version, library = _find_file("onednn-cpu-gomp", "libdnnl.so")
    _, header = _find_file("onednn-devel-cpu-gomp", "oneapi/dnnl/dnnl.hpp")
    return OneDNN(version, library, header.parents[2])


def _find_file(package: str, name: str) -> tuple[str, Path]:
    """Returns the version of a package, and the path of its file whose path ends with `name`."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise UnavailableError(f"oneDNN is not installed ({package}); {_INSTALL}") from None
    for file in distribution.files or ():
        if f"/{file}".endswith(f"/{name}"):
            path = Path(str(distribution.locate_file(file))).resolve()
            if path.is_file():
                return distribution.version, path
    raise UnavailableError(f"the package {package} has lost its file {name}; pip install --force-reinstall {package}")


def find_headers() -> Path:
    """Returns the folder of XLA's headers, as `jax.ffi.include_dir`, but without importing JAX."""
    found = importlib.util.find_spec("jaxlib")
    folders = [Path(folder) / "include" for folder in (found and found.submodule_search_locations) or ()]
    for folder in folders:
        if (folder / "xla/ffi/api/ffi.h").is_file():
            return folder
    raise UnavailableError("jaxlib has no headers of XLA; pip install --upgrade jaxlib")


def find_compiler() -> Compiler:
    """Returns the C++ compiler that ``$CXX`` names, or else `COMPILER`.

    Raises:
        UnavailableError: there is none, or it does not start.
    """
    given = os.environ.get("CXX", "").strip()
    try:
        command = shlex.split(given) or [COMPILER]
    except ValueError as error:
        raise UnavailableError(f"CXX={given!r}: {error}") from None
    if not shutil.which(command[0]):
        if given:
            raise UnavailableError(f"CXX={given!r}: there is no such compiler; name another one, or unset CXX")
        raise UnavailableError("there is no C++ compiler; install g++ (apt-get install g++), or name one in CXX")
    lines = _run((*command, "--version"), ANSWER_SECONDS).splitlines()
    return Compiler(tuple(command), lines[0] if lines else "")


@functools.cache
def describe_cpu() -> str:
    """Returns the model of the CPU and the features that code can use, which decide what ``-march=native`` makes."""
    wanted = ("model name", "flags")
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines())
    found = {name.strip(): value.strip() for name, _, value in lines if name.strip() in wanted}
    return "; ".join(found.get(name, "") for name in wanted)


def _find_or_build(command: Sequence[str], target: Path) -> Path:
    """Returns `target`, which is built by the command unless it is there and whole.

    Raises:
        OSError: its folder cannot be written, or locked.
        UnavailableError: the build fails, in this process or in the one that this process has waited for.
    """
    if _is_whole(target):
        return target
    from filelock import FileLock  # imported here because it brings asyncio, which --help need not wait for

    asked = time.time()
    target.parent.mkdir(parents=True, exist_ok=True)
    failure = target.with_suffix(".failure")
    with FileLock(target.parent / "building.lock", timeout=2 * BUILD_SECONDS):
        if _is_whole(target):
            return target
        with contextlib.suppress(FileNotFoundError):
            if failure.stat().st_mtime >= asked:
                raise UnavailableError(failure.read_text(encoding="utf-8"))
        for left in target.parent.glob("draft-*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        try:
            _build(command, target)
        except UnavailableError as error:
            failure.write_text(str(error), encoding="utf-8")
            raise
        failure.unlink(missing_ok=True)
    return target


def _build(command: Sequence[str], target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="draft-", dir=target.parent) as folder:
        draft = Path(folder) / "library.so"
        _run((*command, "-o", str(draft)), BUILD_SECONDS, folder)
        if not draft.is_file():
            raise UnavailableError(f"{command[0]} has made no library")
        _try_loading(draft)
        content = draft.read_bytes()
        # The hash follows the library in the same file, where the loader does not look, so that both appear at once.
        draft.write_bytes(content + hashlib.sha256(content).digest())
        draft.replace(target)


def _try_loading(library: Path) -> None:
    """Loads a library in a process of its own, which ends if the library is wrong.

    Raises:
        UnavailableError: it cannot be loaded.
    """
    try:
        _run(python_command("-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", str(library)), ANSWER_SECONDS)
    except UnavailableError as error:
        raise UnavailableError(f"the compiled layers cannot be loaded: {error}") from None


def _is_whole(library: Path) -> bool:
    """Whether the file is there and ends with the hash of what is before."""
    try:
        content = library.read_bytes()
    except OSError:
        return False
    size = hashlib.sha256().digest_size
    return hashlib.sha256(content[:-size]).digest() == content[-size:]


def _run(command: Sequence[str], seconds: float, folder: str | None = None) -> str:
    """Runs a command whose temporary files are in `folder`, and returns what it prints.

    Raises:
        UnavailableError: it cannot start, fails, or takes longer than `seconds`; with the first error that it prints.
    """
    name = shlex.join(command[:1])
    environment = {**os.environ, "LC_ALL": "C", **({"TMPDIR": folder} if folder else {})}
    environment.pop("CPATH", None)  # headers of another oneDNN there would come before those of -isystem
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, process_group=0
            )
        except OSError as error:
            raise UnavailableError(f"{name} does not start: {error.strerror}") from None
        try:
            code = process.wait(seconds)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a compiler is several processes
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise UnavailableError(f"{name} has not ended after {seconds:g} s") from None
            raise
        output.seek(0)
        printed = output.read(MOST_OUTPUT).decode(errors="replace")
    if code:
        lines = [line.strip() for line in printed.splitlines() if line.strip()] or [f"exit code {code}"]
        errors = (line for line in lines if re.search(r"error\b|undefined reference|cannot find", line, re.IGNORECASE))
        raise UnavailableError(f"{name} fails: {printable(next(errors, lines[0]))[:300]}")
    return printed


def _find_folder() -> Path:
    try:
        return cache_root() / "libraries"
    except UnavailableError:  # no home folder, as in some containers
        return _make_temporary_folder()


@functools.cache
def _make_temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="cnnjax-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
