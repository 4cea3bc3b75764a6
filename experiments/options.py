"""The options that a dataclass of arguments stands for: one for every field, and for every setting of a configuration.

A field that is a `Settings` is a table of settings: ``model: ModelConfig`` has the options ``--model.padding`` and so
on. `Option` says, in a field's annotation, what its name and type do not::

    out: Annotated[Path, Option(metavar="DIR")] = Path("runs")
"""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cnnjax.settings import Settings


@dataclass(frozen=True)
class Option:
    """What an annotation says of an option.

    Attributes:
        metavar: stands for the value in the help.
        name: in place of the field's; a table of settings with an empty name gives its settings no prefix.
        aliases: further names.
        positional: typed without a name.
        advanced: listed by ``--help-all`` alone.
    """

    metavar: str = ""
    name: str | None = None
    aliases: tuple[str, ...] = ()
    positional: bool = False
    advanced: bool = False


ADVANCED = Option(advanced=True)


@dataclass(frozen=True)
class Entry:
    """An option of a command.

    Attributes:
        name: as it is typed, without the dashes before it: ``model.kernel-size``.
        path: of the value, from the arguments on: ``("run", "model", "kernel_size")``.
        hint: the annotation of the value.
        default: the value where the option is not given.
        owner: the class whose field it is.
        option: what the annotation says of it.
    """

    name: str
    path: tuple[str, ...]
    hint: Any
    default: Any
    owner: type
    option: Option

    @property
    def is_setting(self) -> bool:
        """Whether the value is part of a configuration, which checks it itself."""
        return issubclass(self.owner, Settings)

    @property
    def is_flag(self) -> bool:
        """Whether the option takes no value."""
        return self.hint is bool

    @property
    def is_repeated(self) -> bool:
        """Whether the option may be given again, each time with one value."""
        return not self.is_setting and get_origin(self.hint) is tuple and get_args(self.hint)[-1] is ...

    @property
    def kinds(self) -> frozenset[Any]:
        """The types, without their parameters, that the value may be of."""
        return _list_kinds(self.hint)

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that the value must be one of, where there are any."""
        inner = get_args(self.hint)[0] if self.is_repeated else self.hint
        return get_args(inner) if get_origin(inner) is Literal else ()

    @property
    def values(self) -> int | None:
        """How many words the value is, where it is always the same number of several."""
        (kind, *others) = (part for part in get_args(self.hint) or (self.hint,) if part is not type(None))
        is_fixed = get_origin(kind) is tuple and not others and not self.is_setting
        return len(get_args(kind)) if is_fixed else None

    @property
    def names(self) -> tuple[str, ...]:
        """The option as it is typed, with its aliases."""
        return (f"--{self.name}", *self.option.aliases)

    @property
    def negation(self) -> str | None:
        """What turns off a setting that is a flag: ``--model.no-use-bias``."""
        section, _, name = self.name.rpartition(".")
        return f"--{section}.no-{name}" if self.is_flag and self.is_setting else None


def list_options(arguments: Any) -> tuple[Entry, ...]:
    """Returns the options of a dataclass of arguments, whose values are the defaults, in the order of its fields."""
    return tuple(_list_fields(arguments, (), ""))


def _list_fields(values: Any, path: tuple[str, ...], prefix: str) -> Iterator[Entry]:
    hints = typing.get_type_hints(type(values), include_extras=True)
    for field in dataclasses.fields(values):
        hint, option = _split_hint(hints[field.name])
        value = getattr(values, field.name)
        name = field.name.replace("_", "-") if option.name is None else option.name
        inner = (*path, field.name)
        if isinstance(value, Settings):
            yield from _list_fields(value, inner, f"{prefix}{name}." if name else prefix)
        else:
            yield Entry(f"{prefix}{name}", inner, hint, value, _find_owner(type(values), field.name), option)


def _split_hint(hint: Any) -> tuple[Any, Option]:
    """Returns an annotation without its `Option`, and that."""
    if get_origin(hint) is not Annotated:
        return hint, Option()
    inner, *marks = get_args(hint)
    options = [mark for mark in marks if isinstance(mark, Option)]
    others = [mark for mark in marks if not isinstance(mark, Option)]
    return functools.reduce(lambda kind, mark: Annotated[kind, mark], others, inner), (*options, Option())[0]


def _find_owner(kind: type, name: str) -> type:
    return next(owner for owner in kind.__mro__ if name in inspect.get_annotations(owner))


def _list_kinds(hint: Any) -> frozenset[Any]:
    origin = get_origin(hint)
    if origin is Annotated:
        return _list_kinds(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return frozenset().union(*map(_list_kinds, get_args(hint)))
    return frozenset({origin or hint})
