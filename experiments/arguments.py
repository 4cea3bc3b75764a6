"""Command lines from dataclasses: tyro, with per-block values as TOML literals and one line for every mistake."""

import contextlib
import io
import re
import typing
from pathlib import Path
from typing import Any, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from cnnjax.config import RunConfig
from cnnjax.errors import InputError
from cnnjax.inputs import read_text
from cnnjax.literals import read_literal

Arguments = TypeVar("Arguments")
_STYLE = (tyro.conf.FlagCreatePairsOff,)


def parse_arguments(kind: type[Arguments], argv: list[str], prog: str, default: Arguments) -> Arguments:
    """Parses a command line into a dataclass.

    Args:
        kind: the dataclass, whose fields and their docstrings become options and their help.
        argv: the arguments, without the name of the program.
        prog: the name of the program.
        default: values of the options that are not given.

    Raises:
        InputError: an unknown option, or a value that its field refuses.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, prog=prog, args=argv, default=default, registry=_registry(), config=_STYLE)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise InputError(_squeeze(errors.getvalue())) from None


def read_config(path: Path) -> RunConfig:
    """Reads a run configuration from a ``.toml`` or ``.json`` file.

    Raises:
        InputError: the file cannot be read, or what it says is not legal.
    """
    try:
        text = read_text(path)
        return RunConfig.from_json(text) if path.suffix.lower() == ".json" else RunConfig.from_toml(text)
    except InputError as error:
        raise InputError(f"--config {path}: {error}") from None


def _registry() -> ConstructorRegistry:
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def literal_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        kinds = {_kind(part) for part in (info.type, *typing.get_args(info.type))}
        is_list = tuple in kinds
        is_repeated = tyro.conf.UseAppendAction in info.markers
        if is_repeated or (not is_list and kinds.isdisjoint({int, float})):
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="VALUE|[LIST]" if is_list else "NUMBER",
            instance_from_str=lambda words: _read_value(words[0], optional=type(None) in kinds),
            is_instance=lambda value: True,
            str_from_instance=lambda value: [_write_literal(value)],
        )

    return registry


def _kind(annotation: Any) -> Any:
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return typing.get_origin(annotation) or annotation


def _read_value(word: str, optional: bool) -> Any:
    return None if optional and word in ("None", "none") else read_literal(word)


def _write_literal(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(_write_literal(part) for part in value)}]"
    return str(value)


def _squeeze(box: str) -> str:
    """Turns tyro's boxed error into one line, without its repetition of the help."""
    lines = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    text = " ".join(lines)
    for tail in ("For full helptext", "Argument helptext"):
        text = text.split(tail)[0]
    line = " ".join(word for word in text.split() if word.strip("─"))
    return re.sub(r"^Error parsing [a-z.]+: ", "", line)
