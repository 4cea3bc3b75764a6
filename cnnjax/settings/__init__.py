"""Base class of configurations: frozen dataclasses that are checked when built, and convert to dict, JSON and TOML.

A subclass declares its fields and their rules in annotations. `Settings` checks every value against its annotation, and
suggests the nearest valid key for an unknown one. A field that is itself a `Settings` is a nested table. Converting a
configuration to text and back gives an equal configuration.
"""

import dataclasses
import functools
import json
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from cnnjax.errors import InputError
from cnnjax.machine.files import parse_json, parse_toml
from cnnjax.settings.checking import check, check_keys, take_arrays


class Settings:
    """Base class of configurations: every field is checked against its annotation when an instance is built."""

    section: typing.ClassVar[str] = ""
    """Name of its table in a larger configuration."""
    aliases: typing.ClassVar[Mapping[str, tuple[str, Mapping[Any, Any]]]] = {}
    """Fields that are other ways to write a field: its name, and its value by theirs."""
    later: typing.ClassVar[tuple[str, ...]] = ()
    """Fields that came later, which run keys leave out at their defaults, as older keys do."""
    internal: typing.ClassVar[tuple[str, ...]] = ()
    """Fields that follow from others, and are no options."""

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):  # type: ignore[arg-type]
            self._set(entry.name, self._check(entry.name, getattr(self, entry.name)))

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as dicts, lists, strings, numbers, booleans and ``None``, for `from_dict`."""
        names = [entry.name for entry in dataclasses.fields(self) if entry.name not in self.aliases]  # type: ignore[arg-type]
        return {name: _plain(getattr(self, name)) for name in names}

    @property
    def identity(self) -> dict[str, Any]:
        """The values that are part of a run key."""
        later = {name for name in self.later if getattr(self, name) == getattr(type(self), name)}
        return {name: value for name, value in self.to_dict().items() if name not in later}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds a configuration; settings that are left out take their defaults.

        Args:
            values: value by the name of the field; nested configurations are mappings.

        Raises:
            InputError: a key is unknown, a field is written in two ways, or a value has the wrong type or is out of
                range.
        """
        where = cls.section or "configuration"
        if not isinstance(values, Mapping):
            raise InputError(f"{where}={values!r}: must be a table of settings")
        names = [entry.name for entry in dataclasses.fields(cls)]  # type: ignore[arg-type]
        check_keys(values, names, where)
        hints = _read_hints(cls)  # type: ignore[arg-type]
        resolved = resolve_all(values, cls.resolve, lambda name: f"{where}.{name}")
        return cls(**{name: _build(hints[name], value) for name, value in resolved.items()})

    @classmethod
    def resolve(cls, name: str, value: Any) -> tuple[str, Any]:
        """Returns the field that a field or an alias writes, and its value.

        Raises:
            InputError: the value of an alias is not valid.
        """
        target, meanings = cls.aliases.get(name, (name, None))
        return target, value if meanings is None else meanings.get(cls.read_alone(name, value))

    @classmethod
    def read_alone(cls, name: str, value: Any) -> Any:
        """Checks a value of one field without regard to the other fields, and returns it in normal form.

        Raises:
            InputError: the value is not valid; the message starts with the dotted path of the field.
        """
        return cls._check(name, value)

    @classmethod
    def list_hints(cls) -> dict[str, Any]:
        """Returns the annotation of every field, by name, without its rules."""
        hints = _read_hints(cls)  # type: ignore[arg-type]
        names = [entry.name for entry in dataclasses.fields(cls)]  # type: ignore[arg-type]
        return {name: hints[name] for name in names if name not in cls.internal}

    @classmethod
    def list_defaults(cls) -> dict[str, Any]:
        """Returns the default of every field, by name, as JSON values; every field must have one."""
        defaults = {name: value for name, value in cls().to_dict().items() if name not in cls.internal}
        for alias, (name, meanings) in cls.aliases.items():
            defaults[alias] = next(value for value, meaning in meanings.items() if meaning == defaults[name])
        return defaults

    def to_json(self) -> str:
        """Returns the configuration as JSON with sorted keys."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Builds a configuration from the JSON of `to_json`; raises `InputError` if it is not valid."""
        return cls._from_text(text, parse_json)

    def to_toml(self) -> str:
        """Returns the configuration as TOML, without settings that are ``None``."""
        return write_toml(dict(sorted(self.to_dict().items(), key=lambda entry: isinstance(entry[1], dict))))

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Builds a configuration from the TOML of `to_toml`; raises `InputError` if it is not valid."""
        return cls._from_text(text, parse_toml)

    @classmethod
    def _from_text(cls, text: str, parse: Callable[[str], Any]) -> Self:
        try:
            values = parse(text)
        except InputError as error:
            raise InputError(f"configuration is {error}") from None
        return cls.from_dict(values)

    @classmethod
    def _check(cls, name: str, value: Any) -> Any:
        where = f"{cls.section}.{name}" if cls.section else name
        kind = _read_hints(cls, include_extras=True)[name]  # type: ignore[arg-type]
        if not _is_settings(kind):
            return check(take_arrays(value, where), kind, where)
        if not isinstance(value, kind):
            raise InputError(f"{where}: must be a {kind.__name__}, not {type(value).__name__}")
        return value

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def resolve_all(
    values: Mapping[str, Any], resolve: Callable[[str, Any], tuple[str, Any]], write_name: Callable[[str], str]
) -> dict[str, Any]:
    """Returns settings with aliases replaced by the settings that they write.

    Args:
        values: value by the name of a setting or an alias.
        resolve: returns the setting that a name writes, and its value, as `Settings.resolve`.
        write_name: returns a name as errors show it.

    Raises:
        InputError: a setting is written in two ways.

    Example:
        >>> from cnnjax import ModelConfig
        >>> resolve_all({"batch_norm": True, "padding": "same"}, ModelConfig.resolve, str)
        {'norm': 'batch', 'padding': 'same'}
    """
    written: dict[str, str] = {}
    resolved: dict[str, Any] = {}
    for name, value in values.items():
        target, resolved_value = resolve(name, value)
        if target in written:
            other = written[target] if name == target else name
            raise InputError(
                f"{write_name(other)}: is another way to write {write_name(target)}; give only one of them"
            )
        written[target], resolved[target] = name, resolved_value
    return resolved


def write_toml(values: Mapping[str, Any]) -> str:
    """Returns `values` as TOML in the same order, without those that are ``None``.

    Example:
        >>> print(write_toml({"seed": 1, "model": {"padding": "same", "pool_strides": None}}), end="")
        seed = 1
        <BLANKLINE>
        [model]
        padding = "same"
    """
    return "\n".join(_toml_lines(values, ())).lstrip("\n") + "\n"


@functools.cache  # without a cache, reading annotations takes most of the time of building a configuration
def _read_hints(kind: type, include_extras: bool = False) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=include_extras)


def _build(annotation: Any, value: Any) -> Any:
    return annotation.from_dict(value) if _is_settings(annotation) else value


def _is_settings(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Settings)


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.to_dict()
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _toml_lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    entries = [(key, value) for key, value in table.items() if value is not None]
    # In TOML, every plain value below a heading belongs to that heading. So a table gets a heading of its own only if
    # no plain value follows it; before that it is written inline.
    plain = max((index for index, (_, value) in enumerate(entries, 1) if not _has_heading(value, path)), default=0)
    yield from (f"{_toml_key(key)} = {_toml_value(value)}" for key, value in entries[:plain])
    for key, value in entries[plain:]:
        inner = (*path, _toml_key(key))
        name = ".".join(inner)
        for part in value if isinstance(value, list) else [value]:
            lines = list(_toml_lines(part, inner))
            if isinstance(value, list):
                yield f"\n[[{name}]]"
            elif not lines or not lines[0].startswith("\n"):
                yield f"\n[{name}]"
            yield from lines


def _has_heading(value: Any, path: tuple[str, ...]) -> bool:
    return (isinstance(value, dict) and len(path) < 2) or (_is_tables(value) and not path)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, dict) for part in value)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key, re.ASCII) else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        entries = (f"{_toml_key(key)} = {_toml_value(part)}" for key, part in value.items() if part is not None)
        return f"{{{', '.join(entries)}}}"
    if _is_tables(value):
        return "".join(["[\n", *(f"    {_toml_value(part)},\n" for part in value), "]"])
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    # JSON of a scalar is also TOML, with two exceptions: surrogate pairs of escapes (hence no ASCII escapes), and DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
