"""Settings by their dotted paths: ``model.padding`` is the field `padding` of the model.

A value is read on its own here, whatever the other settings are, so that every level of a factor can be checked, and
compared with another, before any cell is built. Lists are kept as tuples. As TOML has no word for nothing, a setting
that may be left out takes ``none``.
"""

import typing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from cnnjax.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from cnnjax.dataset_names import parse_name
from cnnjax.errors import InputError
from cnnjax.literals import read_literal
from cnnjax.rules import check, near_match

_SECTIONS = {kind.section: kind for kind in (ModelConfig, TrainConfig, DataConfig)}
_FIELDS = {f"{section}.{entry.name}": entry for section, kind in _SECTIONS.items() for entry in fields(kind)}
_HINTS = {
    f"{section}.{name}": hint
    for section, kind in _SECTIONS.items()
    for name, hint in typing.get_type_hints(kind, include_extras=True).items()
}
SETTINGS = tuple(_FIELDS)
"""The paths of all settings."""
SECTIONS = tuple(_SECTIONS)
"""The tables they are in."""
_TEXTS = ("data.name", "data.manual_dir", "data.sha256")


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


def check_path(path: str, where: str) -> str:
    """Returns `path` if it is that of a setting.

    Raises:
        InputError: it is not; the nearest one is named.
    """
    if path in _FIELDS:
        return path
    section, _, name = path.partition(".")
    legal = [entry.name for entry in fields(_SECTIONS[section])] if section in _SECTIONS else []
    nearest = near_match(name, legal) if legal else suggest_path(path)
    listed = ", ".join(legal or (f"{section}.*" for section in SECTIONS))
    raise InputError(f"{where}: unknown setting {path!r}{nearest}; legal: {listed}")


def suggest_path(word: str) -> str:
    """Returns ``"; did you mean 'model.padding'?"`` for the setting nearest to `word`, or nothing."""
    same = [path for path in SETTINGS if path.endswith(f".{word}")]
    return f"; did you mean {same[0]!r}?" if same else near_match(word, SETTINGS)


def read_assignment(text: str, option: str, example: str = "train.epochs=1") -> tuple[str, Any]:
    """Returns the path and the value that ``path=value`` gives, the value as `read_value` takes it.

    Args:
        text: as it was typed.
        option: that it was given to, named in errors.
        example: of what is legal.

    Raises:
        InputError: it has another form, or there is no such setting.
    """
    path, value = split_assignment(text, option, example)
    check_path(path, option)
    return path, value if path in _TEXTS else read_literal(value)


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


def parse_value(path: str, value: Any) -> Any:
    """Returns `value` as a level keeps it: lists as tuples, and ``none`` as nothing where nothing is legal."""
    optional = type(None) in typing.get_args(_HINTS[path])
    return None if optional and value in ("none", "None") else freeze(value)


def read_value(path: str, value: Any, where: str | None = None) -> Any:
    """Returns the normal form of a value of one setting, whatever the others are.

    Args:
        path: of the setting.
        value: as `parse_value` returns it.
        where: what an error names in place of `path`.

    Raises:
        InputError: the setting cannot have this value.
    """
    try:
        return _read_alone(path, value)
    except InputError as error:
        message = str(error)
        start = next((p for p in (path, _READ_AS.get(path)) if p and message.startswith(p)), "")
        raise InputError((where or path) + message[len(start) :]) from None


def list_defaults() -> dict[str, Any]:
    """Returns the default of every setting."""
    return flatten(RunConfig())


def flatten(config: RunConfig) -> dict[str, Any]:
    """Returns the value of every setting of a configuration."""
    return {
        path: freeze(value)
        for section, table in config.to_dict().items()
        if section in _SECTIONS
        for path, value in ((f"{section}.{name}", value) for name, value in table.items())
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


# The strides of pooling are written as those of a convolution are, and mean the same whatever pool_size is.
_READ_AS = {"model.pool_strides": "model.strides"}


def _read_alone(path: str, value: Any) -> Any:
    entry = _FIELDS[path]
    if not entry.metadata.get("own_check"):
        value = check(value, _HINTS[path], path)
        if path == "data.name":
            parse_name(value)
        return value
    if value is None or value == ():
        return value
    name = _READ_AS.get(path, path).removeprefix("model.")
    per_block = isinstance(value, tuple) and name not in ("filters", "dense")
    filters = {"filters": (1,) * len(value)} if per_block else {}
    return getattr(ModelConfig(**{**filters, name: value}), name)
