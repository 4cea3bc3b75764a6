"""A Flax module of the user as a network: its fields are settings.

A module is named by its import path, such as ``nets.py:ResNet``. Its dataclass fields are checked against their
annotations and kept as JSON values. A configuration that was stored is read without importing the module, so a store
can be read where the code is missing or has changed; `ModuleConfig.make` imports it, and refuses other code.
"""

import collections.abc
import dataclasses
import functools
import inspect
import json
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, Union, get_args, get_origin

from cnnjax.errors import InputError
from cnnjax.models.network import Layer, Shape
from cnnjax.settings import Settings
from cnnjax.settings.checking import Reader, check, check_keys, show, take_arrays
from cnnjax.settings.documentation import read_docs
from cnnjax.settings.references import (
    Source,
    is_installed,
    is_reference,
    load_object,
    name_object,
    read_reference,
    read_source,
)

if TYPE_CHECKING:
    import flax.linen as nn
    import jax.numpy as jnp

CLASSES = ("classes", "num_classes", "n_classes", "num_outputs", "out_features", "features_out")
"""Fields that are filled with the number of classes of the dataset."""
DTYPE = "dtype"
"""Field that is filled with the dtype of `train.precision`."""
_OTHERS = ("parent", "name")
_OWN = ("module", "source")
WHERE = "model.module"


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

    @classmethod
    def make(cls, hint: Any, default: Any, name: str, doc: str = "") -> "CodeField":
        """Returns the setting with this annotation and default, which is ``dataclasses.MISSING`` if there is none."""
        named, live = (_adapt(hint, default, read) for read in (Reader(_read_code), Reader(load_object)))
        return cls(named, live, _read_default(default, named, name), doc)


REQUIRED, KEPT = object(), object()


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
        return _to_json(check(take_arrays(value, where), self.fields[name].hint, where), where)

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
            return cls(str(values[cls.key]), _write(others), str(values["source"]))  # type: ignore[call-arg]
        section = cls.describe(read_reference(values[cls.key], f"{cls.section}.{cls.key}"))
        check_keys(others, section.fields, f"{cls.section} ({section.reference})")
        read = {name: section.read_alone(name, value) for name, value in others.items()}
        missing = [name for name, field in section.fields.items() if field.default is REQUIRED and name not in read]
        if missing:
            raise InputError(f"{cls.section}.{missing[0]}: must be given, as {section.reference} has no default for it")
        fields = {**section.defaults, **read}
        source = find_source(section.reference, fields, section.where)
        return cls(section.reference, _write(fields), source.sha256)  # type: ignore[call-arg]

    def to_dict(self) -> dict[str, Any]:
        """Returns the import path, the hash of the source and the fields, as JSON values."""
        source = {"source": self.source} if self.source else {}
        return {self.key: self.reference, **source, **json.loads(self.fields)}

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that are part of the run key: without the folder of the file, as the source is."""
        return {**self.to_dict(), self.key: self.reference.rpartition("/")[2]}

    def describe_code(self) -> dict[str, Any]:
        """Returns the import path, and the texts of the source with their hash, as JSON values."""
        return {"module": self.reference, **self._find_source().to_dict()}

    def check_code(self) -> None:
        """Raises `InputError` if the source is not that of these settings any more."""
        if self._find_source().sha256 != self.source:
            where = f"{self.section}.{self.key}"
            raise InputError(f"{where}={self.reference!r}: its source is not the one of this run; it has changed since")

    def _find_source(self) -> Source:
        return find_source(self.reference, json.loads(self.fields), f"{self.section}.{self.key}")


@dataclass(frozen=True)
class ModuleConfig(CodeConfig):
    """The settings of a Flax module of the user.

    Attributes:
        module: its import path, such as ``nets.py:ResNet``.
        fields: values of its fields as canonical JSON, such as ``{"norm":"group","width":32}``.
        source: SHA-256 of its source; empty while settings are still being read.

    Raises:
        InputError: there is no such module, or a field has no such value.
        CodeError: importing the module raised an exception.

    Example:
        >>> ModuleConfig.from_dict({"module": "flax.linen:Dense", "features": 10}).to_dict()["features"]
        10
    """

    section = "model"
    key = "module"

    module: str
    fields: str
    source: str

    @classmethod
    def describe(cls, reference: str) -> CodeSection:
        """Returns the settings of a module, by `describe_module`."""
        return describe_module(reference)

    @classmethod
    def from_module(cls, module: "nn.Module") -> "ModuleConfig":
        """Returns the settings of an instance of a linen module."""
        reference = name_object(type(module), WHERE)
        section = describe_module(reference)
        own = {entry.name: entry for entry in dataclasses.fields(type(module))}
        filled = (*_OTHERS, *CLASSES, DTYPE)
        given = {
            name: getattr(module, name)
            for name, entry in own.items()
            if entry.init and name not in filled and not _is_default(getattr(module, name), entry)
        }
        lost = next((name for name in given if name not in section.fields), None)
        if lost:
            raise InputError(f"model.{lost}: a module as a field cannot be a setting; must be left at its default")
        return cls.from_dict({"module": reference, **given})

    @classmethod
    def of_defaults(cls, module: str) -> "ModuleConfig":
        """Returns the defaults of a module, not yet checked to be complete."""
        section = describe_module(read_reference(module, WHERE))
        return cls(section.reference, _write(section.defaults), "")

    @property
    def can_be_divided(self) -> bool:
        """Always false, as random numbers and batch normalisation of the module would differ between devices."""
        return False

    @property
    def couples_examples(self) -> bool:
        """Always true, as it is not known what the module does with a batch."""
        return True

    def list_layers(self, image_shape: Shape, classes: int | None) -> tuple[Layer, ...]:
        """Returns the layers, found by tracing the module with abstract images.

        Raises:
            InputError: the module cannot take such images, or does not return logits (batch, classes).
            CodeError: the module raised an exception; the message has its first line.
        """
        if classes is None:
            raise InputError(f"{WHERE}={self.module!r}: its layers need a number of classes")
        return _trace_layers(self, image_shape, classes)

    def split(self) -> tuple["ModuleConfig", dict[str, float]]:
        """Returns the settings themselves: all of them are compiled in."""
        return self, {}

    def build(self, classes: int, dtype: "jnp.dtype", axis: str | None = None, observed: bool = False) -> "nn.Module":
        """Returns the linen module, `cnnjax.models.adapter.Adapter`."""
        from cnnjax.models.adapter import Adapter

        return Adapter(self, classes, dtype, axis)

    def make(self, classes: int, dtype: "jnp.dtype") -> "nn.Module":
        """Returns an instance of the user's module.

        Raises:
            InputError: its source is not that of these settings, or it has no field for this dtype.
        """
        import jax.numpy as jnp

        self.check_code()
        section, fields = describe_module(self.module), json.loads(self.fields)
        names = {entry.name for entry in dataclasses.fields(section.kind)}
        filled: dict[str, Any] = {name: classes for name in CLASSES if name in names}
        if DTYPE in names:
            filled[DTYPE] = dtype
        elif dtype != jnp.float32:
            raise InputError(f"train.precision={dtype}: {self.module} has no field dtype; must be float32")
        return section.kind(**{**section.preset, **section.read_live(fields), **filled})  # type: ignore[no-any-return]


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


def list_assigned(assignments: Iterable[str], where: str = WHERE) -> tuple[str, ...]:
    """Returns the import paths that assignments such as ``model.module=nets.py:ResNet`` give `where`, each once.

    Example:
        >>> list_assigned(["train.epochs=1", "model.module=nets.py:ResNet"], "model.module")
        ('nets.py:ResNet',)
    """
    parts = (text.partition("=") for text in assignments)
    return tuple(dict.fromkeys(value.strip() for path, equals, value in parts if equals and path.strip() == where))


def is_linen_module(value: Any) -> bool:
    """Returns whether a value is an instance of a linen module, without importing Flax."""
    linen = sys.modules.get("flax.linen")
    return linen is not None and isinstance(value, linen.Module)


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


def _is_default(value: Any, entry: "dataclasses.Field[Any]") -> bool:
    default = entry.default
    if entry.default_factory is not dataclasses.MISSING:
        default = entry.default_factory()
    return value is default or (type(value) is type(default) and bool(value == default))


@functools.lru_cache(maxsize=256)
def _trace_layers(config: ModuleConfig, image_shape: Shape, classes: int) -> tuple[Layer, ...]:
    from cnnjax.models.adapter import trace_layers

    return trace_layers(config, image_shape, classes)


def describe_module(reference: str) -> CodeSection:
    """Returns the settings of a module, which is imported.

    Raises:
        InputError: there is no such module, it is not a linen module, or a field cannot be a setting.
        CodeError: the import raised an exception.
    """
    from flax import linen as nn

    found = load_object(reference, WHERE)
    kind = found.func if isinstance(found, functools.partial) else found
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise InputError(f"{WHERE}={reference!r}: {_refuse(kind)}")
    return _describe(reference, found)


@functools.lru_cache(maxsize=64)  # a grid describes the module of every cell
def _describe(reference: str, found: Any) -> CodeSection:
    """Returns the settings of a linen class, or of a ``functools.partial`` of one."""
    from flax import linen as nn

    is_partial = isinstance(found, functools.partial)
    kind, preset = (found.func, dict(found.keywords)) if is_partial else (found, {})
    docs = read_docs(kind)
    fields = {}
    for entry in dataclasses.fields(kind):
        if not entry.init or entry.name in (*_OTHERS, *CLASSES, DTYPE):
            continue
        if entry.name in _OWN:
            raise InputError(f"{WHERE}={reference!r}: a field cannot be called {entry.name}; rename it")
        default = preset.get(entry.name, entry.default)
        if default is dataclasses.MISSING and entry.default_factory is not dataclasses.MISSING:
            default = entry.default_factory()  # type: ignore[operator]
        hint = _read_hint(kind, entry.name)
        if isinstance(hint, type) and issubclass(hint, nn.Module):
            continue  # a submodule is no setting
        fields[entry.name] = CodeField.make(hint, default, entry.name, docs.get(entry.name, ""))
    kept = {name: value for name, value in preset.items() if name not in fields or fields[name].default is KEPT}
    return CodeSection("model", "module", reference, kind, fields, kept)


def _refuse(kind: Any) -> str:
    from flax import nnx

    if isinstance(kind, type) and issubclass(kind, nnx.Module):
        return (
            "is an NNX module; must be a linen module (flax.linen.Module), "
            "such as one made by flax.nnx.bridge.to_linen_class"
        )
    return f"is {show(kind)}; must be a linen module, a class derived from flax.linen.Module"


def _read_hint(kind: type, name: str) -> Any:
    """Returns the annotation of a field; ``Any`` if it names something that is imported for type checkers alone."""
    owner = next(base for base in kind.__mro__ if name in inspect.get_annotations(base))
    alone = type(owner.__name__, (), {"__annotations__": {name: inspect.get_annotations(owner)[name]}})
    alone.__module__ = owner.__module__
    try:
        return typing.get_type_hints(alone, include_extras=True)[name]
    except (NameError, TypeError, AttributeError):
        return Any


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


def _write(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))
