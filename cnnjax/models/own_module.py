"""A Flax module of the user as a network, by its import path, such as ``nets.py:ResNet``: its fields are settings.

A stored configuration is read without importing the module; `ModuleConfig.make` imports it, and refuses other code.
"""

import dataclasses
import functools
import inspect
import json
import sys
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnnjax.errors import InputError
from cnnjax.models.network import Layer, Shape
from cnnjax.settings.checking import show
from cnnjax.settings.code import KEPT, CodeConfig, CodeField, CodeSection, write_fields
from cnnjax.settings.documentation import read_docs
from cnnjax.settings.references import load_object, name_object, read_reference

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
        return cls(section.reference, write_fields(section.defaults), "")

    def can_be_divided(self, image_shape: Shape, classes: int) -> bool:
        """Returns whether shares of a batch give the same as the whole, which is tried."""
        from cnnjax.models.division import is_divisible

        return is_divisible(self, image_shape, classes)

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


def is_linen_module(value: Any) -> bool:
    """Returns whether a value is an instance of a linen module, without importing Flax."""
    linen = sys.modules.get("flax.linen")
    return linen is not None and isinstance(value, linen.Module)


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
    found = f"the class {kind.__name__}" if isinstance(kind, type) else show(kind)
    return f"is {found}; must be a linen module, a class derived from flax.linen.Module"


def _read_hint(kind: type, name: str) -> Any:
    """Returns the annotation of a field; ``Any`` if it names something that is imported for type checkers alone."""
    owner = next(base for base in kind.__mro__ if name in inspect.get_annotations(base))
    alone = type(owner.__name__, (), {"__annotations__": {name: inspect.get_annotations(owner)[name]}})
    alone.__module__ = owner.__module__
    try:
        return typing.get_type_hints(alone, include_extras=True)[name]
    except (NameError, TypeError, AttributeError):
        return Any
