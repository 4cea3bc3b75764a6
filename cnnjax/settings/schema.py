"""Settings by their dotted paths, and values as a user types them.

The path ``model.padding`` names the field `padding` of the model. Values are written as TOML literals: ``5``, ``0.1``,
``true``, ``[32, 64]``, ``"valid"``. Strings of one word need no quotes, also inside a list: ``[same, valid]``.
"""

import re
import typing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from cnnjax.errors import InputError
from cnnjax.machine.files import parse_toml
from cnnjax.settings import Settings, resolve_all
from cnnjax.settings.checking import near_match

_BARE_WORD = re.compile(r"""("[^"]*"|'[^']*')|(?<![\w.+-])(?!(?:true|false|inf|nan)\b)([A-Za-z_][\w./:-]*)""")

_QUOTED = re.compile(r""""[^"]*"|'[^']*'""")


def read_literal(text: str) -> Any:
    """Returns the value of a TOML literal, in which strings of one word need no quotes.

    Raises:
        InputError: `text` is not such a literal.

    Example:
        >>> read_literal("[same, [[1, 2], [0, 0]]]")
        ['same', [[1, 2], [0, 0]]]
    """
    refusal = InputError(f"{text!r}: must be a number, a word, or a list of them such as [32, 64]")
    if "\n" in text or "#" in _QUOTED.sub("", text):  # in TOML, "#" begins a comment
        raise refusal
    quoted = _BARE_WORD.sub(lambda match: match[1] or f'"{match[2]}"', text)
    try:
        return parse_toml(f"value = {quoted}")["value"]
    except InputError:
        raise refusal from None


class Table(Protocol):
    """The settings in one table of a configuration, such as ``model``: a class of `Settings`, or what acts like one."""

    @property
    def section(self) -> str:
        """Name of the table."""

    def list_hints(self) -> Mapping[str, Any]:
        """Returns the annotation of every setting, by name."""

    def list_defaults(self) -> Mapping[str, Any]:
        """Returns the default of every setting that has one, by name, as JSON values."""

    def read_alone(self, name: str, value: Any) -> Any:
        """Returns the normal form of a value; raises `InputError`, which starts with its path, if it is not valid."""

    def resolve(self, name: str, value: Any) -> tuple[str, Any]:
        """Returns the setting that a setting or an alias writes, and its value."""


class Schema:
    """All settings of a configuration, by their dotted paths.

    Each value is checked without regard to the other settings, so that the levels of a study's factors can be checked
    and compared before any cell is built. Lists become tuples. TOML has no null, so an optional setting accepts the
    word ``none``.

    Attributes:
        sections: names of the tables.
        paths: dotted paths of all settings.

    Example:
        >>> from cnnjax import RunConfig
        >>> RunConfig.schema().read_value("model.kernel_size", ((5, 5), (3, 3)))
        (5, 3)
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        self.sections = tuple(dict.fromkeys(table.section for table in tables))
        self._tables: dict[str, list[Table]] = {}
        for table in tables:
            for name in table.list_hints():
                self._tables.setdefault(f"{table.section}.{name}", []).append(table)
        self._hints = {
            path: [table.list_hints()[path.partition(".")[2]] for table in tables]
            for path, tables in self._tables.items()
        }
        self.paths = tuple(self._tables)

    def check_path(self, path: str, where: str) -> str:
        """Returns `path` if it names a setting.

        Args:
            path: a dotted path.
            where: name to show in errors.

        Raises:
            InputError: there is no such setting; the message suggests the nearest one.
        """
        if path in self._tables:
            return path
        section, _, name = path.partition(".")
        legal = [path.partition(".")[2] for path in self.paths if path.startswith(f"{section}.")]
        nearest = near_match(name, legal) if legal else self.suggest_path(path)
        listed = ", ".join(legal or (f"{section}.*" for section in self.sections))
        raise InputError(f"{where}: unknown setting {path!r}{nearest}; legal: {listed}")

    def complete_path(self, name: str, where: str) -> str:
        """Returns the path of a setting that is given by its path, or by its last part alone.

        A name that the first section has means that setting; in the other sections it must be the only one.

        Args:
            name: such as ``model.padding`` or ``padding``.
            where: name to show in errors.

        Raises:
            InputError: there is no such setting, or several have this name; the message lists their paths.

        Example:
            >>> from cnnjax import RunConfig
            >>> RunConfig.schema().complete_path("epochs", "base")
            'train.epochs'
        """
        if "." in name:
            return self.check_path(name, where)
        found = [path for path in self.paths if path.partition(".")[2] == name]
        first = f"{self.sections[0]}.{name}"
        if len(found) == 1 or first in found:
            return found[0]
        if found:
            raise InputError(f"{where}: {name!r} is several settings; must be one of {', '.join(found)}")
        nearest = near_match(name, [path.partition(".")[2] for path in self.paths])
        raise InputError(f"{where}: unknown setting {name!r}{nearest}; legal: {', '.join(self.paths)}")

    def suggest_path(self, word: str) -> str:
        """Returns ``"; did you mean 'model.padding'?"`` for the setting nearest to `word`, or "" if none is near."""
        same = [path for path in self.paths if path.endswith(f".{word}")]
        return f"; did you mean {same[0]!r}?" if same else near_match(word, self.paths)

    def read_assignment(self, text: str, option: str, example: str = "train.epochs=1") -> tuple[str, Any]:
        """Splits ``path=value`` into the path and the value.

        Args:
            text: the text ``path=value``.
            option: command-line option to name in errors.
            example: valid assignment to show in errors.

        Returns:
            The path, and the value of the literal; the value is not checked yet.

        Raises:
            InputError: the text has another form, or there is no such setting.
        """
        path, value = split_assignment(text, option, example)
        self.check_path(path, option)
        is_text = self._hints[path][0] in (str, str | None) and not _QUOTED.fullmatch(value)
        return path, value if is_text else read_literal(value)

    def read_settings(self, texts: Sequence[str], option: str, seeds: str) -> dict[str, Any]:
        """Reads assignments such as ``model.padding=same``; returns the values by path, in normal form.

        Args:
            texts: the assignments.
            option: command-line option to name in errors.
            seeds: error message for an assignment to ``seed``, which is in no table.

        Raises:
            InputError: an assignment is not valid, or a setting is assigned twice.
        """
        settings: dict[str, Any] = {}
        for text in texts:
            if text.partition("=")[0].strip() == "seed":
                raise InputError(f"{option} seed: {seeds}")
            path, value = self.read_assignment(text, option, "model.padding=same")
            if path in settings:
                raise InputError(f"{option} {path}: given twice")
            settings[path] = self.read_value(path, self.parse_value(path, value), f"{option} {path}")
        return resolve_all(settings, self._resolve, lambda path: f"{option} {path}")

    def _resolve(self, path: str, value: Any) -> tuple[str, Any]:
        section, _, name = path.partition(".")
        name, value = self._tables[path][0].resolve(name, value)
        return f"{section}.{name}", value

    def parse_value(self, path: str, value: Any) -> Any:
        """Returns `value` with lists as tuples, and with ``none`` as ``None`` if the setting is optional."""
        optional = any(type(None) in typing.get_args(hint) for hint in self._hints[path])
        return None if optional and value in ("none", "None") else freeze(value)

    def read_value(self, path: str, value: Any, where: str | None = None) -> Any:
        """Checks a value of one setting without regard to the other settings, and returns it in normal form.

        Args:
            path: dotted path of the setting.
            value: a value, as `parse_value` returns it.
            where: name to show in errors in place of `path`.

        Raises:
            InputError: the value is not valid.
        """
        refusals = []
        for table in self._tables[path]:
            try:
                return table.read_alone(path.partition(".")[2], value)
            except InputError as error:
                refusals.append(str(error))
        raise InputError((where or path) + refusals[0].removeprefix(path))

    def list_defaults(self) -> dict[str, Any]:
        """Returns the default of every setting that has one, by path."""
        return {
            f"{table.section}.{name}": freeze(value)
            for tables in reversed(self._tables.values())
            for table in reversed(tables)
            for name, value in table.list_defaults().items()
        }


def freeze(value: Any) -> Any:
    """Returns `value` with lists, at any depth, as tuples."""
    return tuple(freeze(part) for part in value) if isinstance(value, list | tuple) else value


def thaw(value: Any) -> Any:
    """Returns `value` in the form for TOML: tuples as lists, ``None`` as the word ``none``."""
    if isinstance(value, tuple):
        return [thaw(part) for part in value]
    return "none" if value is None else value


def write_literal(value: Any) -> str:
    """Returns the shortest text that `read_literal` reads as `value`.

    Example:
        >>> write_literal(("same", (16, 32))), write_literal(True)
        ('[same,[16,32]]', 'true')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{','.join(write_literal(part) for part in value)}]"
    return str(thaw(value))


def shorten_paths(paths: Sequence[str]) -> dict[str, str]:
    """Shortens every path to its last part, such as ``padding``, unless several paths end with it.

    Example:
        >>> shorten_paths(["model.padding", "data.name", "model.name"])
        {'model.padding': 'padding', 'data.name': 'data.name', 'model.name': 'model.name'}
    """
    ends = Counter(path.rpartition(".")[2] for path in paths)
    shorter = {path: path.rpartition(".")[2] for path in paths}
    return {path: short if ends[short] == 1 else path for path, short in shorter.items()}


def split_assignment(text: str, option: str, example: str) -> tuple[str, str]:
    """Returns both sides of ``name=value``; raises `InputError` if the text has another form."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{option} {text!a}: must be UTF-8") from None
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"{option} {text!r}: must be such as {example}")
    return name.strip(), value.strip()


def flatten(config: Settings, with_internal: bool = False) -> dict[str, Any]:
    """Returns the value of every setting of a configuration, by its dotted path.

    Args:
        config: the configuration.
        with_internal: whether fields that follow from others, and are no settings, are returned too.
    """
    return {
        f"{section}.{name}": freeze(value)
        for section, table in config.to_dict().items()
        if isinstance(table, dict)
        for name, value in table.items()
        if with_internal or name not in getattr(config, section).internal
    }


def nest(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the tables of a configuration from settings by path.

    Example:
        >>> nest({"model.padding": "same", "train.epochs": 2})
        {'model': {'padding': 'same'}, 'train': {'epochs': 2}}
    """
    tables: dict[str, dict[str, Any]] = {}
    for path, value in settings.items():
        section, _, name = path.partition(".")
        tables.setdefault(section, {})[name] = value
    return tables


def unnest(table: Mapping[str, Any], names: Iterable[str] = ()) -> list[tuple[str, Any]]:
    """Returns the entries of a table by their dotted paths.

    Args:
        table: settings in nested tables, or by dotted path.
        names: keys whose tables are kept as values.

    Example:
        >>> unnest({"model": {"padding": "same"}, "train.epochs": 2})
        [('model.padding', 'same'), ('train.epochs', 2)]
    """
    entries: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, dict) and "." not in key and key not in names:
            entries += [(f"{key}.{name}", inner) for name, inner in value.items()]
        else:
            entries.append((key, value))
    return entries
