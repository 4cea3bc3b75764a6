"""Command-line options from a dataclass: one option for every field, and for every setting of a configuration.

A field whose type is a `Settings` becomes a group of options: ``model: ModelConfig`` gives ``--model.padding`` and so
on. An `Option` in a field's annotation adds what the field's name and type do not say::

    out: Annotated[Path, Option(metavar="DIR")] = Path("runs")
"""

import argparse
import contextlib
import dataclasses
import functools
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from cnnjax.console.terminal import find_width, say
from cnnjax.errors import InputError
from cnnjax.machine.files import read_path, read_text
from cnnjax.models.own_module import WHERE, ModuleConfig, describe_module
from cnnjax.runs.config import RunConfig
from cnnjax.settings import Settings, resolve_all
from cnnjax.settings.checking import check, near_match
from cnnjax.settings.code import list_assigned
from cnnjax.settings.documentation import read_docs
from cnnjax.settings.references import is_reference
from cnnjax.settings.schema import Schema, freeze, read_literal, write_literal


@dataclass(frozen=True)
class Option:
    """Properties of an option, given in the annotation of its field.

    Attributes:
        metavar: placeholder for the value in the help.
        name: name of the option, if not that of the field; an empty name of a `Settings` field leaves out its prefix.
        aliases: further names, with their dashes.
        positional: whether it is given without its name.
        advanced: whether only ``--help-all`` lists it.
        doc: its help, if not the docstring of the field.
        assigns: whether each value is a ``SETTING=VALUE`` that changes a configuration among the arguments.
    """

    metavar: str = ""
    name: str | None = None
    aliases: tuple[str, ...] = ()
    positional: bool = False
    advanced: bool = False
    assigns: bool = False
    doc: str = ""


ADVANCED = Option(advanced=True)
Assignments = Annotated[tuple[str, ...], Option(metavar="SETTING=VALUE", assigns=True)]


@dataclass(frozen=True)
class Entry:
    """An option of a command.

    Attributes:
        name: name without the leading dashes: ``model.kernel-size``.
        path: names of the fields that lead from the arguments to the value: ``("run", "model", "kernel_size")``.
        hint: type annotation of the value, without its `Option`.
        default: value if the option is not given.
        owner: class that defines the field.
        option: the `Option` of the field.
        is_setting: whether the value belongs to a `Settings`, which checks it itself.
    """

    name: str
    path: tuple[str, ...]
    hint: Any
    default: Any
    owner: type
    option: Option
    is_setting: bool

    @property
    def is_flag(self) -> bool:
        """Whether the option takes no value."""
        return self.kinds - {type(None)} == {bool}

    @property
    def is_repeated(self) -> bool:
        """Whether the option may be given several times, each time with one value."""
        return not self.is_setting and get_origin(self.hint) is tuple and get_args(self.hint)[-1] is ...

    @property
    def kinds(self) -> frozenset[Any]:
        """The types that the value may have, without their parameters."""
        return _list_kinds(self.hint)

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that are allowed, if the value is a ``Literal``; else empty."""
        inner = get_args(self.hint)[0] if self.is_repeated else self.hint
        return get_args(inner) if get_origin(inner) is Literal else ()

    @property
    def values(self) -> int | None:
        """Number of words that follow the option, if its value is a tuple of fixed length; else ``None``."""
        (kind, *others) = (part for part in get_args(self.hint) or (self.hint,) if part is not type(None))
        is_fixed = get_origin(kind) is tuple and not others and not self.is_setting
        return len(get_args(kind)) if is_fixed else None

    @property
    def names(self) -> tuple[str, ...]:
        """The option with its dashes, and its aliases."""
        return (f"--{self.name}", *self.option.aliases)

    @property
    def negation(self) -> str | None:
        """The option that turns off a setting which is a flag: ``--model.no-use-bias``."""
        section, _, name = self.name.rpartition(".")
        return f"--{section}.no-{name}" if self.is_flag and self.is_setting else None


_MODULE = Option(
    metavar="FILE.py:CLASS",
    doc="A Flax module of your own, such as nets.py:ResNet. Its fields become options, which --help then lists.",
)


def list_options(arguments: Any) -> tuple[Entry, ...]:
    """Returns the options of a dataclass in the order of its fields; the values of `arguments` are the defaults."""
    return tuple(_list_fields(arguments, (), ""))


def _list_fields(values: Any, path: tuple[str, ...], prefix: str) -> Iterator[Entry]:
    kind = type(values)
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(values):
        if field.name in getattr(kind, "internal", ()):
            continue
        hint, option = _split_hint(hints[field.name])
        value = getattr(values, field.name)
        name = field.name.replace("_", "-") if option.name is None else option.name
        inner = (*path, field.name)
        if isinstance(value, RunConfig):
            path_of_module = (*inner, "model", "module")
            network = value.model
            owner = describe_module(network.module).kind if isinstance(network, ModuleConfig) else type(network)
            shown = network.module if isinstance(network, ModuleConfig) else ""
            yield Entry(f"{prefix}{name and f'{name}.'}model", path_of_module, str, shown, owner, _MODULE, True)
        if isinstance(value, ModuleConfig):
            yield from _list_module(value, inner, f"{prefix}{name}.")
        elif isinstance(value, Settings):
            yield from _list_fields(value, inner, f"{prefix}{name}." if name else prefix)
        elif not any(isinstance(part, type) and issubclass(part, Settings) for part in _list_kinds(hint)):
            owner = _find_owner(kind, field.name)
            yield Entry(f"{prefix}{name}", inner, hint, value, owner, option, issubclass(owner, Settings))


def _list_module(network: ModuleConfig, path: tuple[str, ...], prefix: str) -> Iterator[Entry]:
    """Returns an option for every field of a module of the user."""
    table = describe_module(network.module)
    defaults = table.defaults
    for name, field in table.fields.items():
        option = f"{prefix}{name.replace('_', '-')}"
        yield Entry(option, (*path, name), field.hint, freeze(defaults.get(name)), table.kind, Option(), True)


def _split_hint(hint: Any) -> tuple[Any, Option]:
    """Splits an annotation into the type and its `Option`."""
    if get_origin(hint) is not Annotated:
        return hint, Option()
    inner, *marks = get_args(hint)
    options = [mark for mark in marks if isinstance(mark, Option)]
    others = [mark for mark in marks if not isinstance(mark, Option)]
    return functools.reduce(lambda kind, mark: Annotated[kind, mark], others, inner), (*options, Option())[0]


def _find_owner(kind: type, name: str) -> type:
    """Returns the class, `kind` or one of its bases, that defines a field."""
    return next(owner for owner in kind.__mro__ if name in inspect.get_annotations(owner))


def _list_kinds(hint: Any) -> frozenset[Any]:
    origin = get_origin(hint)
    if origin is Annotated:
        return _list_kinds(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return frozenset().union(*map(_list_kinds, get_args(hint)))
    return frozenset({origin or hint})


WIDTH = 80
_INDENT, _COLUMN = 2, 32
_LEGEND = "Values shown are defaults; N, X, NAME, PATH and so on stand for a value."


def write_help(kind: type, entries: Sequence[Entry], prog: str, everything: bool, width: int | None = None) -> str:
    """Returns the help of a command.

    Args:
        kind: the dataclass of its arguments, whose docstring describes the command.
        entries: its options.
        prog: the command without its options.
        everything: whether to list advanced options too.
        width: width of the terminal, in columns; ``None`` means 80. At most 100 are used.
    """
    width = min(width or WIDTH, 100)
    words = [entry.option.metavar for entry in entries if entry.option.positional]
    usage = " ".join([f"usage: {prog}", *(f"[{word}]" for word in words), "[OPTIONS]"])
    parts = [fill(usage, width), write_docstring(inspect.getdoc(kind) or "", width), fill(_LEGEND, width)]
    for owner, members in _group(kind, [entry for entry in entries if everything or not entry.option.advanced]):
        heading = "Options" if owner is kind else _read_heading(owner)
        rows = [_write_row(_invoke(entry), _describe(entry), width) for entry in members]
        parts.append("\n".join([fill(f"{heading}:", width), *rows]))
    hidden = [_invoke(entry).split(" ")[0] for entry in entries if entry.option.advanced and not everything]
    if hidden:
        parts.append(fill(f"--help-all explains the rest: {', '.join(hidden)}.", width))
    return "\n\n".join(parts)


def _read_heading(owner: type) -> str:
    """Returns the first line of a class's docstring; its name if it has none of its own."""
    docstring = inspect.getdoc(owner) or ""
    is_generated = docstring.startswith(f"{owner.__name__}(")  # by the decorator of dataclasses
    return owner.__name__ if is_generated or not docstring else docstring.partition("\n")[0].rstrip(".:")


def _group(kind: type, entries: Sequence[Entry]) -> list[tuple[type, list[Entry]]]:
    """Returns the options by class, in the order of the help.

    First come the settings of a run and positional arguments, then the command's own options, then those that several
    commands share.
    """
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
    """Returns a docstring for a terminal: paragraphs are wrapped to `width`, example lines (after ``::``) are kept."""
    parts = text.strip().split("\n\n")
    examples = [False, *(part.endswith("::") for part in parts)]
    written = (
        textwrap.indent(textwrap.dedent(part), " " * 4) if is_example else fill(part.replace("::", ":"), width)
        for part, is_example in zip(parts, examples, strict=False)
    )
    return "\n\n".join(written)


def fill(text: str, width: int, indent: str = "") -> str:
    """Returns a paragraph wrapped to `width` columns; only a single word may be longer."""
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
    """Returns an option with its default value, or with a placeholder: ``--train.epochs 5``, ``--seed N``."""
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
    """Returns the help of an option: its docstring, and its choices if the docstring does not name them all."""
    text = entry.option.doc or read_docs(entry.owner).get(entry.path[-1], "")
    if entry.negation and entry.default:
        text = f"Turn off: {text}"
    if not all(word in text for word in entry.choices):
        text += f" One of {', '.join(entry.choices)}."
    return text


Arguments = TypeVar("Arguments")
HELP = ("--help", "-h", "--help-all")
_NEGATIVE = re.compile(r"-[\d.]")


def parse_arguments(kind: type[Arguments], argv: list[str], prog: str, default: Arguments) -> Arguments:
    """Parses a command line into a dataclass; ``--help`` prints the help and exits.

    Args:
        kind: the dataclass, whose fields and their docstrings become options and their help.
        argv: the arguments, without the name of the program.
        prog: the name of the program.
        default: values of the options that are not given.

    Raises:
        InputError: an option is unknown, or a value is not valid.
        SystemExit: after ``--help``.
    """
    default = _choose_module(default, argv)
    entries = list_options(default)
    asked = [word for word in argv if word in HELP]
    if asked:
        say(write_help(kind, entries, prog, "--help-all" in asked, find_width()), sys.stdout)
        raise SystemExit(0)
    schema = RunConfig.schema({WHERE: _list_modules(default)})
    given = _parse(entries, argv)
    values = [(entry, _convert(entry, given[entry.name])) for entry in entries if entry.name in given]
    assigned = [
        pair
        for entry, texts in values
        if entry.option.assigns
        for pair in _read_assignments(texts, entries, given, f"--{entry.name}", schema)
    ]
    return _build(default, [*values, *assigned])


def _choose_module(default: Arguments, argv: Sequence[str]) -> Arguments:
    """Returns the defaults with the module of the user that a command line names, if it names one."""
    runs = [name for name, value in vars(default).items() if isinstance(value, RunConfig)]
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--model", action="append", default=[])
    finder.add_argument("--set", action="append", default=[])
    try:
        found = finder.parse_known_args(_normalize(argv))[0]
    except argparse.ArgumentError:
        return default  # which is said when all options are known
    modules = [*found.model, *list_assigned(found.set, WHERE)]
    if not runs or not modules or not is_reference(modules[-1]):
        return default
    network = ModuleConfig.of_defaults(modules[-1])
    changes = {
        name: dataclasses.replace(run, model=network)
        for name in runs
        if not isinstance((run := getattr(default, name)).model, ModuleConfig) or run.model.module != network.module
    }
    return dataclasses.replace(default, **changes)  # type: ignore[type-var]


def _list_modules(arguments: Any) -> list[str]:
    """Returns the import paths of the modules of the user in the configurations of a command line."""
    networks = [value.model for value in vars(arguments).values() if isinstance(value, RunConfig)]
    return [network.module for network in networks if isinstance(network, ModuleConfig)]


def read_config(path: Path) -> RunConfig:
    """Reads the run configuration of a network from a ``.toml`` or ``.json`` file.

    Raises:
        InputError: the file cannot be read, or its configuration is not valid.
    """
    try:
        text = read_text(path)
        config = RunConfig.from_json(text) if path.suffix.lower() == ".json" else RunConfig.from_toml(text)
    except InputError as error:
        raise InputError(f"--config {path}: {error}") from None
    if config.trial:
        raise InputError(f"--config {path}: calls a trial function, which has no network to train; a study runs it")
    return config


def _parse(entries: Sequence[Entry], argv: Sequence[str]) -> dict[str, Any]:
    """Returns the options given, by name: the text after it, a list of texts, or for a flag whether it is set."""
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
    """Rewrites ``--learning_rate -1e-3`` as ``--learning-rate=-1e-3``; argparse would take ``-1e-3`` for an option."""
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
    """Raises `InputError` for an unknown option, with the nearest known one."""
    named = [entry for entry in entries if not entry.option.positional]
    names = [*HELP, *(name for entry in named for name in (*entry.names, entry.negation) if name)]
    same = [name for name in names if name.endswith(f".{word.lstrip('-')}")]
    nearest = f"; did you mean {same[0]!r}?" if same else near_match(word, names)
    raise InputError(f"{word}: there is no such option{nearest or '; --help lists them'}")


def _convert(entry: Entry, given: Any) -> Any:
    """Returns the value of an option from what `_parse` found for it."""
    if entry.is_flag:
        return given
    if entry.is_repeated:
        inner = get_args(entry.hint)[0]
        return tuple(check(text, inner, f"--{entry.name}") for text in given)
    if isinstance(given, list):
        return tuple(given)
    is_number = not entry.kinds.isdisjoint({int, float, tuple, list, dict, Sequence})
    if type(None) in entry.kinds and given in ("none", "None") and (is_number or entry.is_setting):
        return None
    if Path in entry.kinds:
        return read_path(given, f"--{entry.name}")
    value = read_literal(given) if is_number else given
    if Any in entry.kinds:
        with contextlib.suppress(InputError):  # a path may have other marks than a word
            value = read_literal(given)
    return value if entry.is_setting or tuple in entry.kinds else check(value, entry.hint, f"--{entry.name}")


def _read_assignments(
    texts: Sequence[str], entries: Sequence[Entry], given: Container[str], option: str, schema: Schema
) -> list[tuple[Entry, Any]]:
    """Returns the settings assigned as ``SETTING=VALUE``, each with its option."""
    named = {entry.name.replace("-", "_"): entry for entry in entries if "." in entry.name}
    named |= {".".join(entry.path[-2:]): entry for entry in entries if entry.path[-1] == "module"}
    settings = schema.read_settings(texts, option, "the seed is given with --seed")
    for path in settings:
        if path not in named:
            raise InputError(f"{option} {path}: is no setting of this command; legal: {', '.join(named)}")
        if named[path].name in given:
            raise InputError(f"{option} {path}: given twice, also as --{named[path].name}")
    return [(named[path], value) for path, value in settings.items()]


def _build(default: Arguments, given: Sequence[tuple[Entry, Any]]) -> Arguments:
    """Returns `default` with the given values, including those of settings inside its configurations."""
    changes = {entry.path[0]: value for entry, value in given if len(entry.path) == 1}
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for entry, value in given:
        if len(entry.path) > 1:
            groups.setdefault(entry.path[:-1], {})[entry.path[-1]] = value
    tables: dict[str, dict[str, Any]] = {}
    for (field, *sections), values in groups.items():
        settings = getattr(default, field)
        table = tables.setdefault(field, settings.to_dict())
        for section in sections:
            settings, table = getattr(settings, section), table[section]
            for name in ("source", *settings.internal):  # hashes of code, which tell that its settings were checked
                table.pop(name, None)
        table.update(resolve_all(values, settings.resolve, functools.partial(_write_option, sections)))
    configs: dict[str, Settings] = {
        field: type(getattr(default, field)).from_dict(table) for field, table in tables.items()
    }
    return dataclasses.replace(default, **changes, **configs)  # type: ignore[type-var]


def _write_option(sections: Sequence[str], name: str) -> str:
    return f"--{'.'.join((*sections, name))}".replace("_", "-")
