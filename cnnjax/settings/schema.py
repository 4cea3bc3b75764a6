"""Settings by their dotted paths, and values as they are typed.

``model.padding`` is the field `padding` of the model. Typed values are TOML literals, or bare words as strings:

``5``, ``0.1``, ``true``, ``[32, 64]`` and ``"valid"`` mean what they mean in TOML; ``valid`` needs no quotes, also
inside a list: ``[same, valid]``.
"""

import re
import typing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from cnnjax.errors import InputError
from cnnjax.machine.files import parse_toml
from cnnjax.settings import Settings
from cnnjax.settings.checking import near_match

_BARE_WORD = re.compile(r"""("[^"]*"|'[^']*')|(?<![\w.+-])(?!(?:true|false|inf|nan)\b)([A-Za-z_][\w./:-]*)""")

_QUOTED = re.compile(r""""[^"]*"|'[^']*'""")


def read_literal(text: str) -> Any:
    """Returns the value that `text` stands for.

    Raises:
        InputError: it is neither a TOML literal nor a bare word.

    Example:
        >>> read_literal("[same, [[1, 2], [0, 0]]]")
        ['same', [[1, 2], [0, 0]]]
    """
    refusal = InputError(f"{text!r}: must be a number, a word, or a list of them such as [32, 64]")
    if "\n" in text or "#" in _QUOTED.sub("", text):  # which would begin a comment
        raise refusal
    quoted = _BARE_WORD.sub(lambda match: match[1] or f'"{match[2]}"', text)
    try:
        return parse_toml(f"value = {quoted}")["value"]
    except InputError:
        raise refusal from None


class Schema:
    """The settings that a configuration is made of, each by its dotted path.

    A value is read on its own here, whatever the other settings are, so that every level of a factor can be checked,
    and compared with another, before any cell is built. Lists are kept as tuples. As TOML has no word for nothing, a
    setting that may be left out takes ``none``.

    Attributes:
        sections: the class of every table, by its name.
        paths: of all settings.

    Example:
        >>> from cnnjax import RunConfig
        >>> RunConfig.schema().read_value("model.kernel_size", ((5, 5), (3, 3)))
        (5, 3)
    """

    def __init__(self, kinds: Sequence[type[Settings]]) -> None:
        self.sections = {kind.section: kind for kind in kinds}
        self._hints = {
            f"{section}.{entry.name}": typing.get_type_hints(kind)[entry.name]
            for section, kind in self.sections.items()
            for entry in fields(kind)  # type: ignore[arg-type]
        }
        self.paths = tuple(self._hints)

    def check_path(self, path: str, where: str) -> str:
        """Returns `path` if it is that of a setting.

        Raises:
            InputError: it is not; the nearest one is named.
        """
        if path in self._hints:
            return path
        section, _, name = path.partition(".")
        legal = [path.partition(".")[2] for path in self.paths if path.startswith(f"{section}.")]
        nearest = near_match(name, legal) if legal else self.suggest_path(path)
        listed = ", ".join(legal or (f"{section}.*" for section in self.sections))
        raise InputError(f"{where}: unknown setting {path!r}{nearest}; legal: {listed}")

    def suggest_path(self, word: str) -> str:
        """Returns ``"; did you mean 'model.padding'?"`` for the setting nearest to `word`, or nothing."""
        same = [path for path in self.paths if path.endswith(f".{word}")]
        return f"; did you mean {same[0]!r}?" if same else near_match(word, self.paths)

    def read_assignment(self, text: str, option: str, example: str = "train.epochs=1") -> tuple[str, Any]:
        """Returns the path and the value that ``path=value`` gives, the value as `read_value` takes it.

        Args:
            text: as it was typed.
            option: that it was given to, named in errors.
            example: of what is legal.

        Raises:
            InputError: it has another form, or there is no such setting.
        """
        path, value = split_assignment(text, option, example)
        self.check_path(path, option)
        return path, value if self._hints[path] in (str, str | None) else read_literal(value)

    def read_settings(self, texts: Sequence[str], option: str, seeds: str) -> dict[str, Any]:
        """Returns the settings that an option was given, such as ``model.padding=same``, by path.

        Args:
            texts: as they were typed.
            option: that they were given to, named in errors.
            seeds: what an error says if ``seed`` is given, which is no setting of a table.

        Raises:
            InputError: a text is no such setting, or one is given twice.
        """
        settings: dict[str, Any] = {}
        for text in texts:
            if text.partition("=")[0].strip() == "seed":
                raise InputError(f"{option} seed: {seeds}")
            path, value = self.read_assignment(text, option, "model.padding=same")
            if path in settings:
                raise InputError(f"{option} {path}: given twice")
            settings[path] = self.read_value(path, self.parse_value(path, value), f"{option} {path}")
        return settings

    def parse_value(self, path: str, value: Any) -> Any:
        """Returns `value` as a level keeps it: lists as tuples, and ``none`` as nothing where nothing is legal."""
        optional = type(None) in typing.get_args(self._hints[path])
        return None if optional and value in ("none", "None") else freeze(value)

    def read_value(self, path: str, value: Any, where: str | None = None) -> Any:
        """Returns the normal form of a value of one setting, whatever the others are.

        Args:
            path: of the setting.
            value: as `parse_value` returns it.
            where: what an error names in place of `path`.

        Raises:
            InputError: the setting cannot have this value.
        """
        section, _, name = path.partition(".")
        try:
            return self.sections[section].read_alone(name, value)
        except InputError as error:
            message = str(error)
            raise InputError((where or path) + message.removeprefix(path)) from None

    def list_defaults(self) -> dict[str, Any]:
        """Returns the default of every setting."""
        tables = {section: kind().to_dict() for section, kind in self.sections.items()}
        return {
            f"{section}.{name}": freeze(value) for section, table in tables.items() for name, value in table.items()
        }


def freeze(value: Any) -> Any:
    """Returns `value` with its lists as tuples."""
    return tuple(freeze(part) for part in value) if isinstance(value, list | tuple) else value


def thaw(value: Any) -> Any:
    """Returns `value` as TOML can hold it: tuples as lists, nothing as ``none``."""
    if isinstance(value, tuple):
        return [thaw(part) for part in value]
    return "none" if value is None else value


def write_literal(value: Any) -> str:
    """Returns the shortest text that `read_literal` turns into `value`: ``same``, ``[16,32]``, ``0.01``, ``true``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{','.join(write_literal(part) for part in value)}]"
    return str(thaw(value))


def shorten_paths(paths: Sequence[str]) -> dict[str, str]:
    """Returns the last part of every path, ``padding`` for ``model.padding``, where no other ends alike.

    Example:
        >>> shorten_paths(["model.padding", "data.name", "model.name"])
        {'model.padding': 'padding', 'data.name': 'data.name', 'model.name': 'model.name'}
    """
    ends = Counter(path.rpartition(".")[2] for path in paths)
    shorter = {path: path.rpartition(".")[2] for path in paths}
    return {path: short if ends[short] == 1 else path for path, short in shorter.items()}


def split_assignment(text: str, option: str, example: str) -> tuple[str, str]:
    """Returns the two sides of ``name=value``; raises `InputError` where it is not of that form."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{option} {text!a}: must be UTF-8") from None
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"{option} {text!r}: must be such as {example}")
    return name.strip(), value.strip()


def flatten(config: Settings) -> dict[str, Any]:
    """Returns the value of every setting of a configuration, by its path."""
    return {
        f"{section}.{name}": freeze(value)
        for section, table in config.to_dict().items()
        if isinstance(table, dict)
        for name, value in table.items()
    }


def nest(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the settings as the tables of a configuration."""
    tables: dict[str, dict[str, Any]] = {}
    for path, value in settings.items():
        section, _, name = path.partition(".")
        tables.setdefault(section, {})[name] = value
    return tables


def unnest(table: Mapping[str, Any], names: Iterable[str] = ()) -> list[tuple[str, Any]]:
    """Returns the entries of a table under their dotted paths.

    ``{model: {padding: x}}`` and ``{"model.padding": x}`` are both ``[("model.padding", x)]``; the keys in `names` are
    left as they are.
    """
    entries: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, dict) and "." not in key and key not in names:
            entries += [(f"{key}.{name}", inner) for name, inner in value.items()]
        else:
            entries.append((key, value))
    return entries
