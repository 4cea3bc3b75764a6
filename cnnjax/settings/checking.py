"""Checking a value against a type annotation and an interval, with one clear line when it does not fit.

A dataclass states each rule once, where the field stands: ``epochs: Annotated[int, Interval(1)] = 5``. `check` reads
the annotation, refuses what it does not allow and returns the value in its normal form (an integer given for a float
becomes a float), so that equal meanings become equal values.
"""

import difflib
import math
import numbers
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cnnjax.errors import InputError
from cnnjax.machine.files import DEEPEST


@dataclass(frozen=True)
class Interval:
    """The legal range of a number: ``low <= x <= high``, an end being excluded where it is marked open."""

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


def check(value: Any, annotation: Any, where: str) -> Any:
    """Returns `value` in the normal form of `annotation`.

    Args:
        value: anything, as read from a dict, JSON, TOML or a caller.
        annotation: ``int``, ``float``, ``bool``, ``str``, a ``Literal`` of strings, one of these or ``None``, or one of
            these ``Annotated`` with an `Interval`.
        where: the dotted name that an error shows, such as ``train.epochs``.

    Raises:
        InputError: the value is of another type, or outside the interval or the set.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _check_interval(check(value, arguments[0], where), arguments[1], where)
    if origin in (Union, types.UnionType):
        (inner,) = (a for a in arguments if a is not type(None))
        return None if value is None else check(value, inner, where)
    if origin is Literal:
        return choice(value, arguments, where)
    if annotation in (int, float):
        value = _as_builtin(value, annotation, where)
    if not isinstance(value, annotation) or (annotation is int and isinstance(value, bool)):
        raise InputError(f"{where}={value!r}: must be {_TYPE_NAMES[annotation]}, not {type(value).__name__}")
    if annotation is float and not math.isfinite(value):
        raise InputError(f"{where}={value!r}: must be a finite number")
    return value + 0.0 if annotation is float else value  # -0.0 and 0.0 are one value, with one run key


def take_arrays(value: Any, where: str, depth: int = 0) -> Any:
    """Returns `value` with numpy's scalars and arrays, at any depth, as Python's numbers, strings and lists.

    Raises:
        InputError: lists are nested deeper than `DEEPEST`, or for ever.
    """
    if depth > DEEPEST:
        raise InputError(f"{where}: nested too deep; must have at most {DEEPEST} lists inside one another")
    if isinstance(value, dict):
        return {key: take_arrays(part, where, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [take_arrays(part, where, depth + 1) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    return value.tolist() if hasattr(value, "tolist") and not isinstance(value, type) else value


def choice(value: Any, legal: Iterable[str], where: str) -> Any:
    """Returns `value` if it is one of the strings in `legal`; raises `InputError` with the set and a near match."""
    legal = tuple(legal)
    if value in legal and isinstance(value, str):
        return value
    raise InputError(f"{where}={value!r}: must be one of {', '.join(legal)}{near_match(value, legal)}")


def near_match(word: Any, legal: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the nearest legal word, or nothing where none is near."""
    matches = difflib.get_close_matches(str(word), list(legal), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _as_builtin(value: Any, kind: type, where: str) -> Any:
    """Turns numbers of other kinds, such as numpy's, into Python's; never a float into an integer."""
    wanted = numbers.Integral if kind is int else numbers.Real
    if isinstance(value, bool) or not isinstance(value, wanted):
        return value
    try:
        return kind(value)
    except OverflowError:
        raise InputError(f"{where}: must be a finite number, not so large an integer") from None


def _check_interval(value: Any, interval: Interval, where: str) -> Any:
    if value not in interval:
        raise InputError(f"{where}={value!r}: must be {interval}")
    return value


_TYPE_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
