"""Text files from users: size, nesting and kind of file are limited for every reader."""

import os
import time
import tracemalloc

import pytest

from ablations.study.reading import find_study
from cnnjax import RunConfig
from cnnjax.console.arguments import read_config
from cnnjax.errors import InputError
from cnnjax.machine.files import DEEPEST, MOST_BYTES, parse_json, parse_toml, read_text
from cnnjax.settings.schema import read_literal

READERS = (read_text, read_config, lambda path: find_study(str(path)))


@pytest.mark.parametrize("read", READERS, ids=["text", "configuration", "study"])
class TestFiles:
    def test_a_pipe_a_device_and_a_folder_are_refused_at_once(self, read, tmp_path):
        pipe = tmp_path / "pipe.toml"
        os.mkfifo(pipe)
        for path in (pipe, "/dev/zero", tmp_path):
            with pytest.raises(InputError, match=r"must be a regular file|Is a directory"):
                read(path)

    def test_a_file_is_read_up_to_a_size_and_not_beyond(self, read, tmp_path):
        large = tmp_path / "large.toml"
        with large.open("wb") as file:
            file.truncate(2**40)  # a hole, which takes no space
        with pytest.raises(InputError, match="must be at most 1 MiB"):
            read(large)

    def test_what_is_not_text_is_refused(self, read, tmp_path):
        path = tmp_path / "x.toml"
        path.write_bytes(b"seed = \xff")
        with pytest.raises(InputError, match="must be UTF-8: invalid start byte at byte 7"):
            read(path)


def test_a_file_of_the_largest_size_is_read_without_its_byte_order_mark(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xef\xbb\xbf" + b"#" * (MOST_BYTES - 3))
    assert read_text(path) == "#" * (MOST_BYTES - 3)


def _nest(depth):
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_toml, "x = {}"),
        (parse_toml, "x = '''[[[[''' # [[[[\ny = {}"),
        (parse_json, "{}"),
        (parse_json, '{{"it\'s [[[": {}}}'),
    ],
)
def test_only_brackets_outside_strings_are_counted(parse, text):
    depth = DEEPEST - (parse is parse_json and len(text) > 2)
    parse(text.format(_nest(depth)) if "{}" in text else text)
    with pytest.raises(InputError, match="nested too deep"):
        parse(text.format(_nest(DEEPEST + 1)))


def test_a_dotted_key_has_so_many_parts_and_a_string_as_many_dots_as_it_likes():
    assert parse_toml("x = '" + "a." * 100 + "'") == {"x": "a." * 100}
    assert parse_toml(".".join("a" * DEEPEST) + " = 1")
    for join in (".", " . "):
        for name in ("a", "'a'", '"a.b"', "1"):
            with pytest.raises(InputError, match="nested too deep"):
                parse_toml(join.join([name] * (DEEPEST + 1)) + " = 1")


HOSTILE = {
    "a dotted key": "a." * (MOST_BYTES // 2 - 3) + "a=1",
    "a table": "[" + "a." * (MOST_BYTES // 2 - 3) + "a]",
    "brackets": "x=" + "[" * (MOST_BYTES - 2),
    "escaped quotes": 'x="' + '\\"' * (MOST_BYTES // 2 - 2),
    "quotes": "x=" + '"' * (MOST_BYTES - 2),
    "spaces": "a" + " " * (MOST_BYTES - 1),
    "a name": "a" * MOST_BYTES,
    "digits": "x=" + "9" * (MOST_BYTES - 2),
    "many names": "{" + ",".join(f'"{n}":1' for n in range(90_000)) + ',"89999":1}',
    "mixed brackets": "x=" + "[{" * (MOST_BYTES // 2 - 1),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("parse", [parse_toml, parse_json])
def test_the_most_hostile_text_of_the_largest_size_is_refused_in_seconds(name, parse):
    start = time.process_time()
    with pytest.raises(InputError):
        parse(HOSTILE[name])
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (RunConfig.from_toml, HOSTILE["a dotted key"]),
        (RunConfig.from_json, HOSTILE["brackets"]),
        (read_literal, "{" + "1." * 60_000 + "1=1}"),
    ],
)
def test_the_most_hostile_text_takes_little_memory(read, text):
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            read(text)
        assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    finally:
        tracemalloc.stop()
