"""Checks values against type annotations, with one clear line for a value that is not valid.

A dataclass states each rule once, in the annotation of the field: ``epochs: Annotated[int, Interval(1)] = 5``. `check`
raises an error for a value that the annotation does not allow. It returns the value in normal form (an integer given
for a float becomes a float, a list given for a tuple becomes a tuple), so values that mean the same compare equal.
"""

import collections.abc
import dataclasses
import difflib
import math
import numbers
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cnnjax.errors import InputError
from cnnjax.machine.files import DEEPEST


@dataclass(frozen=True)
class Interval:
    """The allowed range of a number: ``low <= x <= high``; an open end is not in the range itself.

    Example:
        >>> str(Interval(0, 1, open_high=True)), 1 in Interval(0, 1, open_high=True)
        ('>= 0 and < 1', False)
    """

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        low = f"{'>' if self.open_low else '>='} {self.low:g}"
        if self.high == math.inf:
            return low
        return f"{low} and {'<' if self.open_high else '<='} {self.high:.10g}"


Count = Annotated[int, Interval(1, 2**31 - 1)]
Fraction = Annotated[float, Interval(0, 1, open_high=True)]


@dataclass(frozen=True)
class Reader:
    """A function in an annotation that checks values, for rules that types cannot express.

    Attributes:
        read: takes the value and the name to show in errors; returns the normal form or raises `InputError`.
    """

    read: Callable[[Any, str], Any]


MOST_SHOWN = 200
"""Most characters of a value that an error shows."""


def check(value: Any, annotation: Any, where: str) -> Any:
    """Returns `value` in the normal form of `annotation`.

    The only conversions are from an integer to a float, from numpy's numbers to Python's, and between lists and tuples.

    Args:
        value: any value, as read from a dict, JSON or TOML, or given by a caller.
        annotation: ``int``, ``float``, ``bool``, ``str``, ``None`` or ``Any``; a ``Literal``; a ``tuple``, ``list`` or
            ``Sequence`` (whose values become tuples); a dataclass, given as an instance or as a mapping of its fields;
            a union, of which the first member that accepts the value is used; one of these ``Annotated`` with an
            `Interval` or a `Reader`.
        where: dotted name to show in errors, such as ``train.epochs``.

    Raises:
        InputError: the value is not valid, or `annotation` is none of these.

    Example:
        >>> check([3, [5, 3]], tuple[int | tuple[int, int], ...], "kernels")
        (3, (5, 3))
    """
    if isinstance(annotation, type) and annotation in _TYPE_NAMES:
        return _check_scalar(value, annotation, where)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _check_annotated(value, arguments[0], arguments[1:], where)
    if origin in (Union, types.UnionType):
        return _check_union(value, annotation, where)
    if origin is Literal:
        return choice(value, arguments, where)
    if (origin or annotation) in _LISTS:
        return _check_list(value, annotation, where)
    if annotation in (None, types.NoneType):
        if value is not None:
            raise InputError(f"{where}={show(value)}: must be none")
        return None
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return _check_dataclass(value, annotation, where)
    if annotation is Any:
        return value
    raise InputError(f"{where}: a setting cannot be of type {annotation}; legal: {_LEGAL_TYPES}")


def take_arrays(value: Any, where: str, depth: int = 0) -> Any:
    """Converts ranges, and numpy's scalars and arrays, at any depth of `value`, to Python's numbers, strings and lists.

    Raises:
        InputError: lists are nested deeper than `DEEPEST`, or contain themselves.
    """
    if depth > DEEPEST:
        raise InputError(f"{where}: nested too deep; must have at most {DEEPEST} lists inside one another")
    if isinstance(value, dict):
        return {key: take_arrays(part, where, depth + 1) for key, part in value.items()}
    if isinstance(value, range):
        return list(value)
    if isinstance(value, list | tuple):
        parts = [take_arrays(part, where, depth + 1) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    return value.tolist() if hasattr(value, "tolist") and not isinstance(value, type) else value


def choice(value: Any, legal: Iterable[Any], where: str) -> Any:
    """Returns `value` if it is in `legal`; else raises `InputError` with all legal values and the nearest one."""
    legal = tuple(legal)
    for word in legal:
        if isinstance(value, type(word)) and isinstance(value, bool) == isinstance(word, bool) and value == word:
            return value
    words = [str(word) for word in legal]
    raise InputError(f"{where}={show(value)}: must be one of {', '.join(words)}{near_match(value, words)}")


def check_keys(table: Iterable[str], legal: Iterable[str], where: str) -> None:
    """Raises `InputError` for the first key that is not in `legal`, and suggests the nearest one."""
    legal = tuple(legal)
    for key in table:
        if key not in legal:
            raise InputError(f"{where}: unknown key {key!r}{near_match(key, legal)}; legal: {', '.join(legal)}")


def near_match(word: Any, legal: Iterable[str]) -> str:
    """Returns the part of a message that suggests the nearest legal word, or "" if none is near.

    Example:
        >>> near_match("sme", ["valid", "same"])
        "; did you mean 'same'?"
    """
    matches = difflib.get_close_matches(str(word), list(legal), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def plural(noun: str, number: int) -> str:
    """Returns a noun in the form that follows a number.

    Example:
        >>> plural("seed", 1), plural("seed", 5)
        ('seed', 'seeds')
    """
    return noun if number == 1 else f"{noun}s"


def write_count(number: int, noun: str) -> str:
    """Returns a number with its noun.

    Example:
        >>> write_count(1, "seed"), write_count(1770, "pair")
        ('1 seed', '1,770 pairs')
    """
    return f"{number:,} {plural(noun, number)}"


def show(value: Any) -> str:
    """Returns `value` as an error shows it: its ``repr`` in one line that is not too long, with tuples as lists.

    Example:
        >>> show(("same", 5)), show(10**300)[-9:]
        ("['same', 5]", '00000 ...')
    """
    text = f"[{', '.join(map(show, value))}]" if isinstance(value, list | tuple) else repr(value)
    line = " ".join(text.splitlines())
    return line if len(line) <= MOST_SHOWN else f"{line[:MOST_SHOWN]} ..."


def describe(annotation: Any) -> str:
    """Returns the legal values of `annotation` in words.

    Example:
        >>> describe(Literal["same"] | Annotated[int, Interval(0)] | tuple[int, int])
        'same, an integer >= 0, or a list of 2 integers'
    """
    words = _list_alternatives(annotation)
    if len(words) < 3:
        return " or ".join(words)
    return f"{', '.join(words[:-1])}, or {words[-1]}"


def _list_alternatives(annotation: Any) -> list[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        marks = [f" {mark}" for mark in arguments[1:] if isinstance(mark, Interval)]
        return ["".join([describe(arguments[0]), *marks])]
    if origin in (Union, types.UnionType):
        return list(dict.fromkeys(word for member in arguments for word in _list_alternatives(member)))
    if origin is Literal:
        return [str(word) for word in arguments]
    if (origin or annotation) in _LISTS:
        return [_describe_list(annotation)]
    if annotation in (None, types.NoneType):
        return ["none"]
    return [_TYPE_NAMES.get(annotation, "a table of settings" if dataclasses.is_dataclass(annotation) else "anything")]


def _describe_list(annotation: Any) -> str:
    parts, length = _list_parts(annotation)
    kinds = set(parts)
    if len(kinds) > 1:
        return f"a list of {length}: {'; '.join(map(describe, parts))}"
    count = "" if length is None else f"{length} "
    if not kinds or kinds == {Any}:
        return f"a list of {count}values"
    (kind,) = kinds
    intervals = [mark for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, Interval)]
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if plain not in _PLURALS:
        return f"a list of {count}entries, each {describe(kind)}"
    is_example = plain is int and length is None and all(32 in interval and 64 in interval for interval in intervals)
    return f"a list of {count}{_PLURALS[plain]}{', such as [32, 64]' if is_example else ''}"


def _list_parts(annotation: Any) -> tuple[tuple[Any, ...], int | None]:
    """Returns the types of a list's entries, and their number; ``None`` if any number of one type is allowed."""
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple and not (len(arguments) == 2 and arguments[1] is ...):
        return arguments, len(arguments)
    return arguments[:1] or (Any,), None


def _check_annotated(value: Any, annotation: Any, marks: tuple[Any, ...], where: str) -> Any:
    for mark in marks:
        if isinstance(mark, Reader):
            return mark.read(value, where)
    value = check(value, annotation, where)
    for mark in marks:
        if isinstance(mark, Interval) and value is not None and value not in mark:
            raise InputError(f"{where}={value!r}: must be {mark}")
    return value


def _check_union(value: Any, annotation: Any, where: str) -> Any:
    members = [member for member in get_args(annotation) if member is not types.NoneType]
    if value is None and types.NoneType in get_args(annotation):
        return None
    refusals: list[InputError] = []
    for member in members:
        try:
            return check(value, member, where)
        except InputError as error:
            refusals.append(error)
    # If one member of the union fits but for a part of the value, its error says more than what the whole must be.
    inner = [error for error in refusals if str(error).startswith((f"{where}[", f"{where}."))]
    if len(members) == 1 or len(inner) == 1:
        raise (refusals if len(members) == 1 else inner)[0]
    words = [word for member in members if get_origin(member) is Literal for word in map(str, get_args(member))]
    raise InputError(f"{where}={show(value)}: must be {describe(annotation)}{near_match(value, words)}")


def _check_list(value: Any, annotation: Any, where: str) -> Any:
    parts, length = _list_parts(annotation)
    if not isinstance(value, list | tuple) or length not in (None, len(value)):
        raise InputError(f"{where}={show(value)}: must be {describe(annotation)}")
    kinds = parts if length is not None else parts * len(value)
    checked = [
        check(part, kind, f"{where}[{index}]") for index, (part, kind) in enumerate(zip(value, kinds, strict=True))
    ]
    return checked if (get_origin(annotation) or annotation) is list else tuple(checked)


def _check_dataclass(value: Any, kind: type, where: str) -> Any:
    fields = {entry.name: entry for entry in dataclasses.fields(kind) if entry.init}
    if isinstance(value, kind):
        value = {name: getattr(value, name) for name in fields}
    if not isinstance(value, Mapping):
        raise InputError(f"{where}={show(value)}: must be a table of settings, or a {kind.__name__}")
    check_keys(value, fields, where)
    for name, entry in fields.items():
        if name not in value and entry.default is entry.default_factory is dataclasses.MISSING:
            raise InputError(f"{where}: {name} is missing; must be given, as it has no default")
    hints = typing.get_type_hints(kind, include_extras=True)
    return kind(**{name: check(part, hints[name], f"{where}.{name}") for name, part in value.items()})


def _check_scalar(value: Any, kind: Any, where: str) -> Any:
    if kind in (int, float):
        value = _as_builtin(value, kind, where)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{where}={show(value)}: must be {_TYPE_NAMES[kind]}, not {type(value).__name__}")
    if kind is float and not math.isfinite(value):
        raise InputError(f"{where}={value!r}: must be a finite number")
    return value + 0.0 if kind is float else value  # -0.0 and 0.0 are one value, with one run key


def _as_builtin(value: Any, kind: type, where: str) -> Any:
    """Converts numbers of other types, such as numpy's, to Python's; never a float to an integer."""
    wanted = numbers.Integral if kind is int else numbers.Real
    if isinstance(value, bool) or not isinstance(value, wanted):
        return value
    try:
        return kind(value)
    except OverflowError:
        raise InputError(f"{where}: must be a finite number, not so large an integer") from None


_TYPE_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
_PLURALS = {int: "integers", float: "numbers", bool: "true or false", str: "strings"}
_LISTS = (tuple, list, collections.abc.Sequence)
_LEGAL_TYPES = "int, float, bool, str, None, Any, Literal, tuple, list, Sequence, dataclasses, and unions of these"
