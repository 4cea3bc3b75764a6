"""The C++ source of layers is compiled once for all processes, and whatever hinders that is told in one line."""

import ctypes
import importlib.metadata
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cnnjax.errors import InputError, UnavailableError
from cnnjax.machine import native
from cnnjax.machine.native import allow_fast_layers, are_fast_layers_wanted, compile_library, find_headers, find_onednn

SOURCE = 'extern "C" int answer() { return 42; }\n'
COMPILE = "import sys; from pathlib import Path; from cnnjax.machine.native import compile_library\n"
COMPILE += "print(compile_library(Path(sys.argv[1])))"


def _find_missing():
    try:
        find_onednn()
        native.find_compiler()
    except UnavailableError as error:
        return str(error)
    return ""


MISSING = _find_missing()
can_compile = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A small C++ source, with an empty cache to compile it to."""
    monkeypatch.setenv("CNNJAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    path = tmp_path / "answer.cc"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def choose_compiler(tmp_path, monkeypatch):
    """Makes a shell script the compiler; it answers to ``--version``, and notes every other call in `calls`."""

    def choose(script):
        path = tmp_path / "compiler"
        path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "test 1.0" && exit\necho x >> calls\n{script}\n')
        path.write_text(path.read_text().replace("calls", str(tmp_path / "calls")))
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))
        return tmp_path / "calls"

    return choose


def count(calls):
    return len(calls.read_text().splitlines())


def answer(library):
    return ctypes.CDLL(str(library)).answer()


def list_cache(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache/libraries").iterdir())


@can_compile
def test_a_source_is_compiled_on_first_use_and_then_taken_from_the_cache(source, choose_compiler, tmp_path):
    calls = choose_compiler('exec g++ "$@"')
    library = compile_library(source)
    assert answer(library) == 42
    assert compile_library(source) == library
    assert count(calls) == 1
    assert list_cache(tmp_path) == [library.name, "building.lock"]


@can_compile
def test_processes_that_need_a_library_at_once_build_it_once(source, choose_compiler):
    calls = choose_compiler('sleep 0.5; exec g++ "$@"')
    command = [sys.executable, "-c", COMPILE, str(source)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    printed = {process.communicate()[0] for process in processes}
    assert printed == {f"{compile_library(source)}\n"}
    assert count(calls) == 1


@can_compile
def test_those_who_wait_for_a_build_that_fails_do_not_try_again(source, choose_compiler):
    calls = choose_compiler('sleep 1; echo "x.cc:1: error: no" >&2; exit 1')
    errors, start = [], threading.Barrier(8)

    def build():
        start.wait()
        try:
            compile_library(source)
        except UnavailableError as error:
            errors.append(str(error).partition(" fails: ")[2])

    threads = [threading.Thread(target=build) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == ["x.cc:1: error: no"] * 8
    assert count(calls) == 1


@can_compile
def test_after_a_failure_the_next_process_tries_again(source, choose_compiler, tmp_path):
    choose_compiler(f'[ -e {tmp_path}/mended ] || exit 1; exec g++ "$@"')
    with pytest.raises(UnavailableError, match="fails: exit code 1"):
        compile_library(source)
    (tmp_path / "mended").touch()
    assert answer(compile_library(source)) == 42


@can_compile
def test_a_build_killed_half_way_is_done_again_and_leaves_nothing(source, choose_compiler, tmp_path):
    slow, begun = tmp_path / "slow", tmp_path / "begun"
    slow.touch()
    choose_compiler(
        f"""if [ -e {slow} ]; then
            for last; do :; done
            echo half > "$last"; echo $$ > {begun}; exec sleep 60
        fi
        exec g++ "$@" """
    )
    process = subprocess.Popen([sys.executable, "-c", COMPILE, str(source)])
    while not begun.exists() or not begun.read_text():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    os.kill(int(begun.read_text()), signal.SIGKILL)
    assert len(list_cache(tmp_path)) == 2, "a draft and the lock"
    slow.unlink()
    library = compile_library(source)
    assert answer(library) == 42
    assert list_cache(tmp_path) == [library.name, "building.lock"]


@can_compile
@pytest.mark.parametrize("damage", [lambda content: content[:-1000], lambda content: b"", lambda content: b"\0" * 5000])
def test_a_damaged_library_is_compiled_anew(source, damage):
    library = compile_library(source)
    content = library.read_bytes()
    library.unlink()
    library.write_bytes(damage(content))
    assert compile_library(source) == library
    assert answer(library) == 42


@can_compile
@pytest.mark.parametrize("name", ["file/cache", "/proc/cache"])
def test_where_the_cache_cannot_be_written_a_temporary_folder_is_used(source, tmp_path, monkeypatch, name):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CNNJAX_CACHE_DIR", str(tmp_path / name))
    library = compile_library(source)
    assert answer(library) == 42
    assert not library.is_relative_to(tmp_path)
    assert library.parent.stat().st_mode & 0o077 == 0
    assert compile_library(source) == library


@can_compile
def test_a_temporary_folder_goes_with_its_process(source, tmp_path):
    (tmp_path / "file").touch()
    environment = {**os.environ, "CNNJAX_CACHE_DIR": str(tmp_path / "file")}
    command = [sys.executable, "-c", COMPILE, str(source)]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert not Path(printed.strip()).parent.exists()


@can_compile
def test_without_a_home_folder_a_temporary_folder_is_used(source, monkeypatch):
    for name in ("CNNJAX_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.expanduser", _raise_no_home)
    assert answer(compile_library(source)) == 42


def _raise_no_home(path):
    raise RuntimeError("Could not determine home directory.")


@can_compile
def test_whatever_a_library_depends_on_makes_another_one(source, choose_compiler, monkeypatch, tmp_path):
    libraries = [compile_library(source)]
    assert compile_library(source) == libraries[0]
    monkeypatch.setattr(native, "FLAGS", ("-DOTHER", *native.FLAGS))
    libraries.append(compile_library(source))
    monkeypatch.setattr(native, "describe_cpu", lambda: "another CPU; avx2")
    libraries.append(compile_library(source))
    choose_compiler('exec g++ "$@"')
    libraries.append(compile_library(source))
    source.write_text(SOURCE.replace("42", "43"))
    libraries.append(compile_library(source))
    assert [answer(library) for library in libraries] == [42, 42, 42, 42, 43]
    assert len(set(libraries)) == 5


@can_compile
def test_equal_sources_in_two_folders_share_a_library(source, tmp_path):
    other = tmp_path / "folder/answer.cc"
    other.parent.mkdir()
    other.write_text(SOURCE)
    assert compile_library(other) == compile_library(source)


@can_compile
def test_the_files_of_a_folder_become_one_library_and_each_of_them_makes_another(tmp_path, source):
    folder = tmp_path / "parts"
    folder.mkdir()
    texts = {
        "half.h": "#pragma once\nint find_half();\n",
        "half.cc": '#include "half.h"\nint find_half() { return 21; }\n',
        "whole.cc": '#include "half.h"\nextern "C" int answer() { return 2 * find_half(); }\n',
        "notes.txt": "is neither compiled nor part of the key",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    libraries = [compile_library(folder)]
    assert answer(libraries[0]) == 42
    for name, text in texts.items():
        (folder / name).write_text(f"{text}\n// changed\n")
        libraries.append(compile_library(folder))
    assert len(set(libraries)) == 4
    assert libraries[-1] == libraries[-2]


@can_compile
def test_the_source_of_the_layers_gives_no_warning(source, monkeypatch):
    monkeypatch.setattr(native, "FLAGS", ("-Werror", *native.FLAGS))
    assert compile_library(native.LAYERS).is_file()


@can_compile
def test_headers_of_another_onednn_are_not_used(source, tmp_path, monkeypatch):
    other = tmp_path / "other/oneapi/dnnl/dnnl.hpp"
    other.parent.mkdir(parents=True)
    other.write_text("#error of another oneDNN\n")
    monkeypatch.setenv("CPATH", str(tmp_path / "other"))
    monkeypatch.setenv("CPLUS_INCLUDE_PATH", str(tmp_path / "other"))
    source.write_text('#include "oneapi/dnnl/dnnl.hpp"\n' + SOURCE)
    assert answer(compile_library(source)) == 42


@can_compile
@pytest.mark.parametrize("names", [["clang++"], ["c++", "clang++"]])
def test_a_compiler_with_another_openmp_is_used_only_if_it_is_named(source, tmp_path, monkeypatch, names):
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(UnavailableError, match=r"install g\+\+"):
        compile_library(source)
    monkeypatch.setenv("CXX", "clang++")
    assert native.find_compiler().command == ("clang++",)


@can_compile
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'int f() { return 1 }\n\nextern "C" int g() { return x; }',
            r"answer.cc:1:19: error: expected",
        ),
        ("#include <no_such_header.h>", "no_such_header.h: No such file or directory"),
        ('int missing(); extern "C" int f() { return missing(); }', r"undefined reference to .missing\(\)'"),
        ("struct A { A() { __builtin_trap(); } } a;", "fails: exit code -4"),
    ],
)
def test_a_source_that_is_wrong_is_told_by_the_first_error(source, text, message):
    source.write_text(text)
    with pytest.raises(UnavailableError, match=message) as caught:
        compile_library(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@can_compile
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "fails: exit code 3"),
        ("head -c 100000 /dev/urandom >&2; exit 1", "fails: "),
        ("exit 0", "has made no library"),
        ('for last; do :; done; head -c 5000 /dev/urandom > "$last"', "invalid ELF header"),
    ],
)
def test_a_broken_compiler_is_told_in_one_line(source, choose_compiler, tmp_path, script, message):
    choose_compiler(script)
    with pytest.raises(UnavailableError, match=message) as caught:
        compile_library(source)
    assert str(caught.value).isprintable()
    assert not [name for name in list_cache(tmp_path) if name.endswith(".so") or name.startswith("draft")]


@can_compile
def test_a_compiler_that_hangs_is_ended_with_its_children(source, choose_compiler, tmp_path, monkeypatch):
    monkeypatch.setattr(native, "BUILD_SECONDS", 0.5)
    choose_compiler(f"sleep 60 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(UnavailableError, match=r"has not ended after 0\.5 s"):
        compile_library(source)
    child = int((tmp_path / "child").read_text())
    for _ in range(200):
        if not _is_alive(child):
            break
        time.sleep(0.05)
    assert not _is_alive(child)


def _is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


needs_wheel = pytest.mark.skipif("oneDNN is not installed" in MISSING, reason=MISSING)


@needs_wheel
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no-such-compiler", "there is no such compiler"),
        ("'g++", "No closing quotation"),
        (__file__, "there is no such compiler"),  # not executable
        ("false", "false fails: "),
    ],
)
def test_a_compiler_that_does_not_start_is_named(source, monkeypatch, value, message):
    monkeypatch.setenv("CXX", value)
    with pytest.raises(UnavailableError, match=message):
        compile_library(source)


@needs_wheel
def test_a_file_that_is_no_program_is_no_compiler(source, tmp_path, monkeypatch):
    (tmp_path / "garbage").write_bytes(b"\x7fELF garbage")
    (tmp_path / "garbage").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "garbage"))
    with pytest.raises(UnavailableError, match="garbage does not start: Exec format error"):
        compile_library(source)


@needs_wheel
def test_without_a_compiler_the_error_says_how_to_get_one(source, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"install g\+\+"):
        compile_library(source)


@needs_wheel
def test_an_installation_that_has_lost_a_file_is_told(source, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.metadata.Distribution, "locate_file", lambda self, path: tmp_path / path.name)
    monkeypatch.setattr(importlib.metadata.PathDistribution, "locate_file", lambda self, path: tmp_path / path.name)
    with pytest.raises(UnavailableError, match=r"has lost its file libdnnl\.so; pip install --force-reinstall"):
        find_onednn()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is compiled")
@pytest.mark.parametrize("package", ["onednn-cpu-gomp", "onednn-devel-cpu-gomp"])
def test_without_onednn_the_error_says_how_to_get_it(source, monkeypatch, package):
    find = importlib.metadata.distribution

    def find_others(name):
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return find(name)

    monkeypatch.setattr(importlib.metadata, "distribution", find_others)
    with pytest.raises(UnavailableError, match=r"oneDNN is not installed .*; pip install 'cnnjax\[onednn\]'"):
        compile_library(source)


def test_on_other_machines_the_error_says_what_is_needed(source, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(UnavailableError, match="need x86-64 Linux; this is aarch64"):
        compile_library(source)


def test_the_headers_of_xla_are_those_that_jax_names():
    import jax.ffi

    assert find_headers() == Path(jax.ffi.include_dir())


def test_a_switch_turns_native_layers_off_for_this_process_and_its_children(monkeypatch):
    monkeypatch.delenv("CNNJAX_FAST_LAYERS", raising=False)
    assert are_fast_layers_wanted()
    monkeypatch.setenv("CNNJAX_FAST_LAYERS", "1")
    allow_fast_layers(False)
    assert not are_fast_layers_wanted()
    assert os.environ["CNNJAX_FAST_LAYERS"] == "0"
    allow_fast_layers()
    assert are_fast_layers_wanted()
    monkeypatch.setenv("CNNJAX_FAST_LAYERS", "no")
    with pytest.raises(InputError, match="CNNJAX_FAST_LAYERS='no': must be 0 or 1"):
        are_fast_layers_wanted()


CHECKED = """
import sys
from pathlib import Path
from cnnjax.machine import native

native.FLAGS = ("-g", "-fno-omit-frame-pointer", "-fsanitize=address", *native.FLAGS)
native.BUILD_SECONDS = 800.0
"""
OVERRUN = CHECKED + "import ctypes; ctypes.CDLL(str(native.compile_library(Path(sys.argv[1])))).overrun()"
EVERYTHING = (
    CHECKED
    + """
import functools
import jax
import jax.numpy as jnp
from cnnjax.layers import custom_calls as calls

assert calls.are_available(), calls.explain_missing()

@jax.jit
def call_all(x, kernel, vector):
    window = calls.Window((2, 1), ((1, 0), (2, 1)), (1, 2), groups=x.shape[-1] // kernel.shape[-2])
    assert calls.can_convolve(x, kernel, window)
    y = calls.convolve(x, kernel, window)
    of_x = calls.find_image_gradient(y, kernel, window, x.shape[1:3])
    of_kernel = calls.find_kernel_gradient(x, y, window, kernel.shape[:2])
    mean, variance = calls.find_moments(y)
    z = calls.scale_channels(y, mean, variance, vector, True)
    sums = calls.sum_cotangents(y, z, mean, variance, vector, True)
    of_y = calls.pull_channels(y, z, mean, variance, vector, *sums, True)
    pool = calls.PoolingWindow(2, 3, 1, 2, 1, 0)
    size = (y.shape[1], (y.shape[2] - 3) // 2 + 1)
    maxima, positions = calls.take_maxima(y, pool, size)
    of_maxima = calls.pull_maxima(maxima, positions, pool, y.shape[1:3])
    of_sums = calls.pull_sums(calls.take_sums(y, pool, size), pool, y.shape[1:3])
    return of_x, of_kernel, of_y, of_maxima, of_sums

for batch, height, width, channels, groups, filters in [(1, 5, 6, 1, 1, 1), (3, 8, 9, 6, 2, 34), (2, 7, 7, 17, 17, 17)]:
    for dtype in (jnp.float32, jnp.bfloat16):
        x = jnp.ones((batch, height, width, channels), dtype)
        kernel = jnp.ones((3, 2, channels // groups, filters), dtype)
        jax.block_until_ready(call_all(x, kernel, jnp.ones(filters)))

@functools.partial(jax.jit, static_argnums=2)
def call_tiles(x, kernel, window):
    assert calls.can_tile(x, kernel, window)
    window = window._replace(tiled=True)
    y = calls.convolve(x, kernel, window)
    return calls.find_image_gradient(y, kernel, window, x.shape[1:3]), calls.find_kernel_gradient(x, y, window, (3, 3))

tiled = [(1, 2, 1, 16, 16), (1, 5, 6, 16, 32), (3, 9, 8, 48, 16), (20, 12, 13, 16, 16)]
for batch, height, width, channels, filters in tiled:
    for step, padding in ((1, ((1, 0), (2, 1))), (2, ((1, 0), (1, 2))), (2, ((0, 1), (2, 1)))):
        window = calls.Window((step, step), padding, (1, 1))
        arrays = jnp.ones((batch, height, width, channels)), jnp.ones((3, 3, channels, filters))
        jax.block_until_ready(call_tiles(*arrays, window))
"""
)


def run_with_address_sanitizer(program, *words):
    # Preloaded, as Python itself is not compiled with it; the C++ runtime too, whose exceptions it intercepts.
    names = ("libasan.so", "libstdc++.so")
    paths = [subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip() for name in names]
    # Python leaks by design, and long traces of every allocation take most of the time.
    options = {"ASAN_OPTIONS": "detect_leaks=0:malloc_context_size=2", "LD_PRELOAD": " ".join(paths)}
    environment = {**os.environ, **options, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=900, env=environment
    )


@can_compile
@pytest.mark.slow
def test_address_sanitizer_finds_a_write_beyond_memory(source):
    source.write_text('extern "C" int overrun() { volatile int* x = new int[4]; x[4] = 1; return x[4]; }')
    result = run_with_address_sanitizer(OVERRUN, str(source))
    assert "AddressSanitizer: heap-buffer-overflow" in result.stderr
    assert result.returncode != 0


@can_compile
@pytest.mark.slow
def test_address_sanitizer_finds_nothing_in_any_operation_of_the_layers(source):
    result = run_with_address_sanitizer(EVERYTHING)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "AddressSanitizer" not in result.stderr


MANY = """
import itertools
import sys

import jax
import jax.numpy as jnp
import psutil

from cnnjax.layers import custom_calls as calls
from cnnjax.layers import onednn

def repeat(batch, size, channels, filters, step, tiled):
    window = calls.Window((step, step), ((1, 1), (1, 1)), (1, 1), tiled=tiled)

    def call(_, arrays):
        outputs, pull = jax.vjp(lambda x, kernel: onednn.convolve(x, kernel, window), *arrays)
        return jax.tree.map(lambda array, gradient: array + 1e-9 * gradient, arrays, pull(outputs))

    arrays = jnp.ones((batch, size, size, channels)), jnp.ones((3, 3, channels, filters))
    return jax.jit(lambda arrays, count: jax.lax.fori_loop(0, count, call, arrays)), arrays

direct = itertools.product((1, 2), (8,), (1, 16), (4, 16), (1, 2), (False,))
tiled = itertools.product((1, 2), (8,), (16, 32), (16,), (1,), (True,))
programs = [repeat(*shape) for shape in (*direct, *tiled)]

def run(count):
    for program, arrays in programs:
        jax.block_until_ready(program(arrays, count))

run(50)
before = psutil.Process().memory_info().rss
run(int(sys.argv[1]) // (3 * len(programs)))
print(psutil.Process().memory_info().rss - before)
"""


@can_compile
@pytest.mark.slow
def test_memory_does_not_grow_with_the_calls_of_many_shapes():
    words = [sys.executable, "-c", MANY, "100000"]
    result = subprocess.run(
        words, capture_output=True, text=True, timeout=900, env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout) < 100_000 * 32  # bytes; less than the smallest piece of memory for each call
