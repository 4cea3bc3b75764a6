"""The help of a command, from its dataclass of arguments: what it does, an example, and the options in groups.

A group is a class: the options of a configuration's tables, those that several commands share, and the command's own.
"""

import ast
import functools
import inspect
import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path

from cnnjax.setting_paths import write_literal
from experiments.options import Entry

WIDTH = 80
_INDENT, _COLUMN = 2, 32
_LEGEND = "Values shown are defaults; N, X, NAME, PATH and so on stand for a value."


def write_help(kind: type, entries: Sequence[Entry], prog: str, everything: bool, width: int | None = None) -> str:
    """Returns the help of a command.

    Args:
        kind: the dataclass of its arguments; its docstring says what the command does.
        entries: its options.
        prog: what is typed to start it.
        everything: whether advanced options are listed.
        width: columns of the terminal; 80 where there is none.
    """
    width = min(width or WIDTH, 100)
    words = [entry.option.metavar for entry in entries if entry.option.positional]
    usage = " ".join([f"usage: {prog}", *(f"[{word}]" for word in words), "[OPTIONS]"])
    parts = [fill(usage, width), write_docstring(inspect.getdoc(kind) or "", width), fill(_LEGEND, width)]
    for owner, members in _group(kind, [entry for entry in entries if everything or not entry.option.advanced]):
        heading = "Options" if owner is kind else (inspect.getdoc(owner) or "").partition("\n")[0].rstrip(".:")
        rows = [_write_row(_invoke(entry), _describe(entry), width) for entry in members]
        parts.append("\n".join([fill(f"{heading}:", width), *rows]))
    hidden = [_invoke(entry).split(" ")[0] for entry in entries if entry.option.advanced and not everything]
    if hidden:
        parts.append(fill(f"--help-all explains the rest: {', '.join(hidden)}.", width))
    return "\n\n".join(parts)


def _group(kind: type, entries: Sequence[Entry]) -> list[tuple[type, list[Entry]]]:
    """Returns the options by class: what the command is given first, then its own, then what commands share."""
    groups: dict[type, list[Entry]] = {}
    for entry in entries:
        is_seed = len(entry.path) == 2 and entry.name == "seed"  # the one setting outside the tables of a run
        groups.setdefault(kind if is_seed else entry.owner, []).append(entry)

    def rank(group: tuple[type, list[Entry]]) -> int:
        owner, members = group
        is_given = owner is not kind and any(entry.is_setting or entry.option.positional for entry in members)
        return 0 if is_given else 1 if owner is kind else 2

    return sorted(groups.items(), key=rank)


def write_docstring(text: str, width: int) -> str:
    """Returns a docstring as a terminal shows it: paragraphs filled, the lines of examples (after ``::``) kept."""
    parts = text.strip().split("\n\n")
    examples = [False, *(part.endswith("::") for part in parts)]
    written = (
        textwrap.indent(textwrap.dedent(part), " " * 4) if is_example else fill(part.replace("::", ":"), width)
        for part, is_example in zip(parts, examples, strict=False)
    )
    return "\n\n".join(written)


def fill(text: str, width: int, indent: str = "") -> str:
    """Returns a paragraph in lines of at most `width` columns; only a single word may be longer."""
    return textwrap.fill(
        " ".join(text.split()), width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _write_row(option: str, text: str, width: int) -> str:
    column = min(_COLUMN, width // 2)
    start = f"{' ' * _INDENT}{option}"
    gap = start.ljust(column) if len(start) <= column - 2 else f"{start}\n{' ' * column}"
    lines = textwrap.wrap(text, width - column, break_long_words=False, break_on_hyphens=False)
    return gap + f"\n{' ' * column}".join(lines)


def _invoke(entry: Entry) -> str:
    """Returns an option as it is typed, with its default, or a word for a value: ``--train.epochs 5``."""
    if entry.option.positional:
        return entry.option.metavar
    if entry.is_flag:
        return entry.negation if entry.negation and entry.default else ", ".join(entry.names)
    value = _name_value(entry) if entry.default in (None, "", ()) else write_literal(entry.default)
    return f"{', '.join(entry.names)} {value}"


def _name_value(entry: Entry) -> str:
    kinds = entry.kinds - {type(None)}
    if entry.option.metavar:
        return entry.option.metavar
    if kinds == {tuple} and not entry.is_repeated:
        return "LIST"
    return "VALUE" if len(kinds) > 1 else {int: "N", float: "X", Path: "PATH"}.get(next(iter(kinds)), "NAME")


def _describe(entry: Entry) -> str:
    """Returns what an option means, with its choices where they are not said."""
    text = _read_docs(entry.owner).get(entry.path[-1], "")
    if entry.negation and entry.default:
        text = f"Turn off: {text}"
    if not all(word in text for word in entry.choices):
        text += f" One of {', '.join(entry.choices)}."
    return text


@functools.cache
def _read_docs(kind: type) -> dict[str, str]:
    """Returns the docstrings under the fields of a class."""
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except OSError:  # there is no source, as in an archive of compiled modules
        return {}
    assert isinstance(definition, ast.ClassDef)
    return {
        entry.target.id: " ".join(doc.value.value.split())
        for entry, doc in itertools.pairwise(definition.body)
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name)
        if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant) and isinstance(doc.value.value, str)
    }
