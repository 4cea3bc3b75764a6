"""Settings: frozen dataclasses checked on construction, with dict, JSON and TOML forms that read back as they were.

A subclass states its fields and their rules; `Settings` checks each value against its annotation, refuses unknown keys
with the nearest legal one, and nests: a field that is itself a `Settings` is a table.
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
    """Base of the configurations: every field is checked against its annotation when one is built."""

    section: typing.ClassVar[str] = ""
    """Name of the table that it is in a larger configuration."""

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):  # type: ignore[arg-type]
            self._set(entry.name, self._check(entry.name, getattr(self, entry.name)))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain dicts, lists, strings, numbers, booleans and ``None``: what `from_dict` reads back."""
        return {entry.name: _plain(getattr(self, entry.name)) for entry in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the configuration from `values`; what is left out keeps its default.

        Raises:
            InputError: an unknown key, a wrong type, or a value outside its legal set.
        """
        where = cls.section or "configuration"
        if not isinstance(values, Mapping):
            raise InputError(f"{where}={values!r}: must be a table of settings")
        names = [entry.name for entry in dataclasses.fields(cls)]  # type: ignore[arg-type]
        check_keys(values, names, where)
        hints = _read_hints(cls)  # type: ignore[arg-type]
        return cls(**{key: _build(hints[key], value) for key, value in values.items()})

    @classmethod
    def read_alone(cls, name: str, value: Any) -> Any:
        """Returns the normal form of a value of the field `name`, whatever the other fields are.

        Raises:
            InputError: the field cannot have this value; the message starts with its path.
        """
        return cls._check(name, value)

    def to_json(self) -> str:
        """Returns the configuration as JSON with sorted keys."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote; raises `InputError` as `from_dict` does, or where the text is not JSON."""
        return cls._from_text(text, parse_json)

    def to_toml(self) -> str:
        """Returns the configuration as TOML; settings that are ``None`` are left out."""
        return write_toml(dict(sorted(self.to_dict().items(), key=lambda entry: isinstance(entry[1], dict))))

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Reads what `to_toml` wrote; raises `InputError` as `from_dict` does, or where the text is not TOML."""
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


def write_toml(values: Mapping[str, Any]) -> str:
    """Returns `values` as TOML that reads back in the same order; those that are ``None`` are left out."""
    return "\n".join(_toml_lines(values, ())).lstrip("\n") + "\n"


@functools.cache  # reading them takes most of the time of building a configuration
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
    # What stands below a heading belongs to it, so only what has no plain value after it can have one.
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
    # Such a JSON value is a TOML value, but for the pairs of escapes beyond the basic plane, and DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
