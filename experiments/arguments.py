"""Command lines from dataclasses: values as TOML literals, and one line for every mistake."""

import argparse
import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

from cnnjax.config import RunConfig
from cnnjax.console import find_width, say
from cnnjax.errors import InputError
from cnnjax.inputs import read_text
from cnnjax.literals import read_literal
from cnnjax.paths import read_path
from cnnjax.rules import check, near_match
from cnnjax.settings import Settings
from experiments.options import Entry, list_options

Arguments = TypeVar("Arguments")
HELP = ("--help", "-h", "--help-all")
_NEGATIVE = re.compile(r"-[\d.]")


def parse_arguments(kind: type[Arguments], argv: list[str], prog: str, default: Arguments) -> Arguments:
    """Parses a command line into a dataclass; ``--help`` prints the help and ends the command.

    Args:
        kind: the dataclass, whose fields and their docstrings become options and their help.
        argv: the arguments, without the name of the program.
        prog: the name of the program.
        default: values of the options that are not given.

    Raises:
        InputError: an unknown option, or a value that its field refuses.
    """
    entries = list_options(default)
    asked = [word for word in argv if word in HELP]
    if asked:
        from experiments.help import write_help

        say(write_help(kind, entries, prog, "--help-all" in asked, find_width()), sys.stdout)
        raise SystemExit(0)
    given = _parse(entries, argv)
    return _build(default, [(entry, _convert(entry, given[entry.name])) for entry in entries if entry.name in given])


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


def _parse(entries: Sequence[Entry], argv: Sequence[str]) -> dict[str, Any]:
    """Returns what was typed, by the name of the option: a text, a list of texts, or whether a flag is set."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for entry in entries:
        if not entry.option.positional:
            _add_option(parser, entry)
    try:
        given, others = parser.parse_known_args(_normalize(argv))
    except argparse.ArgumentError as error:
        raise InputError(f"{(error.argument_name or '').split('/')[0]}: {error.message}") from None
    unknown = next((word for word in others if word.startswith("-")), None)
    if unknown is not None:
        _refuse(unknown.partition("=")[0], entries)
    values = vars(given)
    for entry in entries:
        if entry.option.positional and others:
            values[entry.name] = others.pop(0)
    if others:
        raise InputError(f"{others[0]!r}: one argument too many; see --help")
    return values


def _add_option(parser: argparse.ArgumentParser, entry: Entry) -> None:
    settings: dict[str, Any] = {"dest": entry.name, "default": argparse.SUPPRESS}
    if entry.is_flag:
        parser.add_argument(*entry.names, action="store_true", **settings)
        if entry.negation:
            parser.add_argument(entry.negation, action="store_false", **settings)
    elif entry.is_repeated:
        parser.add_argument(*entry.names, action="append", **settings)
    else:
        parser.add_argument(*entry.names, nargs=entry.values, **settings)


def _normalize(argv: Sequence[str]) -> list[str]:
    """Writes ``--learning_rate -1e-3`` as ``--learning-rate=-1e-3``, which no parser takes for two options."""
    words: list[str] = []
    for word in argv:
        if words and words[-1].startswith("--") and "=" not in words[-1] and _NEGATIVE.match(word):
            words[-1] += f"={word}"
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            words.append(f"{name.replace('_', '-')}{equals}{value}")
        else:
            words.append(word)
    return words


def _refuse(word: str, entries: Sequence[Entry]) -> NoReturn:
    typed = [entry for entry in entries if not entry.option.positional]
    names = [*HELP, *(name for entry in typed for name in (*entry.names, entry.negation) if name)]
    same = [name for name in names if name.endswith(f".{word.lstrip('-')}")]
    nearest = f"; did you mean {same[0]!r}?" if same else near_match(word, names)
    raise InputError(f"{word}: there is no such option{nearest or '; --help lists them'}")


def _convert(entry: Entry, given: Any) -> Any:
    """Returns the value of an option from its texts."""
    if entry.is_flag:
        return given
    if entry.is_repeated:
        inner = get_args(entry.hint)[0]
        return tuple(check(text, inner, f"--{entry.name}") for text in given)
    if isinstance(given, list):
        return tuple(given)
    is_number = not entry.kinds.isdisjoint({int, float, tuple})
    if type(None) in entry.kinds and given in ("none", "None") and (is_number or entry.is_setting):
        return None
    if Path in entry.kinds:
        return read_path(given, f"--{entry.name}")
    value = read_literal(given) if is_number else given
    return value if entry.is_setting or tuple in entry.kinds else check(value, entry.hint, f"--{entry.name}")


def _build(default: Arguments, given: Sequence[tuple[Entry, Any]]) -> Arguments:
    """Returns the arguments with other values, and other settings in their configurations."""
    changes: dict[str, Any] = {}
    tables: dict[str, dict[str, Any]] = {}
    for entry, value in given:
        field, *path = entry.path
        if not path:
            changes[field] = value
            continue
        table = tables.setdefault(field, getattr(default, field).to_dict())
        for section in path[:-1]:
            table = table[section]
        table[path[-1]] = value
    configs: dict[str, Settings] = {
        field: type(getattr(default, field)).from_dict(table) for field, table in tables.items()
    }
    return dataclasses.replace(default, **changes, **configs)  # type: ignore[type-var]
