"""A module or function of the user, named by its import path, whose fields or parameters are settings.

Fields are checked against their annotations and kept as JSON values. A stored configuration is read without importing
the code, so a store can be read where the code is missing or has changed.
"""

import collections.abc
import dataclasses
import functools
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, Union, get_args, get_origin

from cnnjax.errors import InputError
from cnnjax.settings import Settings
from cnnjax.settings.checking import Reader, check, check_keys, show, take_arrays
from cnnjax.settings.references import (
    Source,
    is_installed,
    is_reference,
    load_object,
    name_object,
    read_reference,
    read_source,
    strip_folder,
)


@dataclass(frozen=True)
class CodeField:
    """A field of a module, or a parameter of a function, that is a setting.

    Attributes:
        hint: its annotation, in which a function or class is named by a reference.
        live: its annotation, by which a reference is read as the function or class itself.
        default: a JSON value; `REQUIRED` without a default; `KEPT` if the default cannot be written as JSON, such as
            an anonymous function: it stays in place unless another value is given.
        doc: its comment or docstring.
    """

    hint: Any
    live: Any
    default: Any
    doc: str

    def read(self, value: Any, where: str) -> Any:
        """Returns the normal form of a value, a JSON value; raises `InputError` if it is not valid."""
        return _to_json(check(take_arrays(value, where), self.hint, where), where)

    @classmethod
    def make(cls, hint: Any, default: Any, name: str, doc: str = "") -> "CodeField":
        """Returns the setting with this annotation and default, which is ``dataclasses.MISSING`` if there is none."""
        named, live = (_adapt(hint, default, read) for read in (Reader(_read_code), Reader(load_object)))
        return cls(named, live, _read_default(default, named, name), doc)


REQUIRED, KEPT = object(), object()


def read_parameters(function: Callable[..., Any]) -> dict[str, CodeField]:
    """Returns the parameters of a function that can be given by name; none if they are not known, as of some in C."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    called: Any = getattr(function, "func", function)
    annotated = called if hasattr(called, "__qualname__") else type(called).__call__  # of an object that can be called
    try:
        hints = typing.get_type_hints(annotated, include_extras=True)
    except (NameError, TypeError, AttributeError):  # an annotation that is imported for type checkers alone
        hints = {}
    return {
        name: CodeField.make(
            hints.get(name, Any), dataclasses.MISSING if each.default is each.empty else each.default, name
        )
        for name, each in parameters.items()
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    }


@dataclass(frozen=True)
class CodeSection:
    """The settings of a module or function, as `cnnjax.settings.schema.Schema` and the command line know them.

    Attributes:
        section: name of the table in a configuration.
        key: the setting that names the code.
        reference: its import path.
        kind: the linen class, or the function.
        fields: its fields or parameters that are settings, by name.
        preset: values of other fields that ``functools.partial`` has set.
    """

    section: str
    key: str
    reference: str
    kind: Any
    fields: dict[str, CodeField]
    preset: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def where(self) -> str:
        """The path of the setting that names the code."""
        return f"{self.section}.{self.key}"

    def list_hints(self) -> dict[str, Any]:
        """Returns the annotation of every setting, by name."""
        return {self.key: str, "source": str, **{name: field.hint for name, field in self.fields.items()}}

    def read_alone(self, name: str, value: Any) -> Any:
        """Returns the normal form of a value of one field; raises `InputError` if it is not valid."""
        where = f"{self.section}.{name}"
        if name == self.key:
            return read_reference(value, where)
        if name == "source":
            return check(value, str, where)
        return self.fields[name].read(value, where)

    def resolve(self, name: str, value: Any) -> tuple[str, Any]:
        """Returns the name and the value as they are."""
        return name, value

    def read_live(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Returns stored values as the code takes them, with the functions and classes that they name."""
        check_keys(fields, self.fields, f"{self.section} ({self.reference})")
        return {name: check(value, self.fields[name].live, f"{self.section}.{name}") for name, value in fields.items()}

    def list_defaults(self) -> dict[str, Any]:
        """Returns the defaults by name, without those of fields that have none in JSON."""
        return {self.key: self.reference, **self.defaults}

    @property
    def defaults(self) -> dict[str, Any]:
        """The defaults of the fields that have one in JSON, by name."""
        defaults = {name: field.default for name, field in self.fields.items()}
        return {name: value for name, value in defaults.items() if value is not REQUIRED and value is not KEPT}


class CodeConfig(Settings):
    """The settings of a module or function of the user: its import path, the hash of its source, and its fields."""

    key: ClassVar[str]
    fields: str
    source: str

    def __post_init__(self) -> None:
        """Leaves the values as they are: `from_dict` has checked them."""

    @classmethod
    def describe(cls, reference: str) -> CodeSection:
        """Returns the settings of the code with this import path, which is imported."""
        raise NotImplementedError

    @property
    def reference(self) -> str:
        """The import path."""
        return str(getattr(self, self.key))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the settings from a table with the import path and values of the fields.

        With ``source``, the hash of the code, the table is one that was stored, and is taken as it is.
        """
        others = {name: value for name, value in values.items() if name not in (cls.key, "source")}
        if values.get("source"):
            return cls(str(values[cls.key]), write_fields(others), str(values["source"]))  # type: ignore[call-arg]
        section = cls.describe(read_reference(values[cls.key], f"{cls.section}.{cls.key}"))
        check_keys(others, section.fields, f"{cls.section} ({section.reference})")
        read = {name: section.read_alone(name, value) for name, value in others.items()}
        missing = [name for name, field in section.fields.items() if field.default is REQUIRED and name not in read]
        if missing:
            raise InputError(f"{cls.section}.{missing[0]}: must be given, as {section.reference} has no default for it")
        fields = {**section.defaults, **read}
        source = find_source(section.reference, fields, section.where)
        return cls(section.reference, write_fields(fields), source.sha256)  # type: ignore[call-arg]

    def to_dict(self) -> dict[str, Any]:
        """Returns the import path, the hash of the source and the fields, as JSON values."""
        source = {"source": self.source} if self.source else {}
        return {self.key: self.reference, **source, **json.loads(self.fields)}

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that are part of the run key: without the folder of the file, as the source is."""
        return {**self.to_dict(), self.key: strip_folder(self.reference)}

    @property
    def references(self) -> tuple[str, ...]:
        """The import paths of the code, and of the functions and classes that its fields name."""
        return (self.reference, *_list_references(json.loads(self.fields)))

    def describe_code(self) -> dict[str, Any]:
        """Returns the texts of the source with their hash by the import path, as JSON values."""
        return {self.reference: self._find_source().to_dict()}

    def check_code(self) -> None:
        """Raises `InputError` if the source is not that of these settings any more."""
        if self._find_source().sha256 != self.source:
            where = f"{self.section}.{self.key}"
            raise InputError(f"{where}={self.reference!r}: its source is not the one of this run; it has changed since")

    def _find_source(self) -> Source:
        return find_source(self.reference, json.loads(self.fields), f"{self.section}.{self.key}")


def find_code(values: Any, where: str, path: str = "") -> tuple[str, ...]:
    """Returns the import paths that nested tables of settings, such as a study's, have for the setting `where`.

    Example:
        >>> study = {"base": {"model": {"module": "nets.py:ResNet"}}, "axis": {"model.module": ["nets.py:VGG"]}}
        >>> find_code(study, "model.module")
        ('nets.py:ResNet', 'nets.py:VGG')
    """
    if isinstance(values, Mapping):
        found = [find_code(value, where, f"{path}.{name}") for name, value in values.items()]
    elif isinstance(values, list | tuple):
        found = [find_code(value, where, path) for value in values]
    else:
        return (values,) if f".{path}".endswith(f".{where}") else ()
    return tuple(dict.fromkeys(reference for references in found for reference in references))


def list_assigned(assignments: Iterable[str], where: str) -> tuple[str, ...]:
    """Returns the import paths that assignments such as ``model.module=nets.py:ResNet`` give `where`, each once.

    Example:
        >>> list_assigned(["train.epochs=1", "model.module=nets.py:ResNet"], "model.module")
        ('nets.py:ResNet',)
    """
    parts = (text.partition("=") for text in assignments)
    return tuple(dict.fromkeys(value.strip() for path, equals, value in parts if equals and path.strip() == where))


def find_source(reference: str, fields: Mapping[str, Any], where: str) -> Source:
    """Returns the source of a module or function, and of the code of the user that its fields name."""
    module = reference.partition(":")[0]
    files = dict(read_source(reference, where).files)
    for named in _list_references([*fields.values()]):
        other = named.partition(":")[0]
        if other != module and not is_installed(other, where):
            files |= {f"{other}/{name}": text for name, text in read_source(named, where).files}
    return Source(tuple(sorted(files.items())))


def _list_references(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        value = [*value.values()]
    if isinstance(value, list | tuple):
        return [reference for part in value for reference in _list_references(part)]
    return [value] if is_reference(value) else []


def _adapt(hint: Any, default: Any, read_code: Reader) -> Any:
    """Returns an annotation as `check` knows it; `read_code` reads functions and classes."""
    origin, arguments = get_origin(hint), get_args(hint)
    code = Annotated[Any, read_code]
    if hint is Any:
        return Annotated[Any, Reader(functools.partial(_read_any, read_code))]
    if (origin or hint) in (collections.abc.Callable, Callable, type, callable):  # some write the function `callable`
        return code
    if default is None and hint is not Any and type(None) not in arguments:
        hint, origin, arguments = hint | None, Union, (hint, type(None))
    if origin in (Union, types.UnionType):
        members = [_adapt(member, ..., read_code) for member in arguments]
        return Union[tuple(sorted(members, key=lambda member: member is not code))]  # noqa: UP007 - made of values
    if origin is Annotated:
        return Annotated[(_adapt(arguments[0], ..., read_code), *hint.__metadata__)]
    if origin in (tuple, list, collections.abc.Sequence):
        return origin[tuple(part if part is ... else _adapt(part, ..., read_code) for part in arguments)]
    if (origin or hint) in (dict, collections.abc.Mapping):
        return Annotated[Any, Reader(_read_table)]
    return hint


def _read_code(value: Any, where: str) -> str:
    """Returns the reference of a function or class by its usual name, whichever of its names is given."""
    reference = read_reference(value, where)
    found = load_object(reference, where)
    try:
        return name_object(found, where)
    except InputError:  # it has no name of its own, such as the result of functools.partial
        return reference


def _read_any(read_code: Reader, value: Any, where: str) -> Any:
    """Reads the value of a field without a useful annotation: what looks like a reference is one."""
    return read_code.read(value, where) if is_reference(value) or callable(value) else value


def _read_table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{where}={show(value)}: must be a table, such as {{depth = 3}}")
    return {key: _to_json(part, f"{where}.{key}") for key, part in value.items()}


def _read_default(default: Any, hint: Any, where: str) -> Any:
    if default is dataclasses.MISSING:
        return REQUIRED
    try:
        return _to_json(check(take_arrays(default, where), hint, where), where)
    except InputError:
        return KEPT


def _to_json(value: Any, where: str) -> Any:
    if isinstance(value, list | tuple):
        return [_to_json(part, where) for part in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _to_json(getattr(value, entry.name), where) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return _read_table(value, where)
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise InputError(f"{where}={show(value)}: must be a number, a word, a list or a table")


def write_fields(fields: Mapping[str, Any]) -> str:
    """Returns fields as canonical JSON."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))
