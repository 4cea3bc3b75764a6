"""Functions of the user as settings: ``nets.py:focal``, or with arguments, ``nets.py:focal(gamma=2.0)``.

Such a setting is a string, so it is written in TOML and on the command line as it is in Python. The arguments are
Python literals. `read_function` does without the function itself; `complete_function` and `load_function` import it.
"""

import ast
import functools
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from cnnjax.errors import InputError
from cnnjax.settings.checking import check, check_keys, show
from cnnjax.settings.code import CodeField, read_parameters
from cnnjax.settings.references import (
    REFERENCE,
    Source,
    is_bound,
    is_installed,
    load_object,
    read_reference,
    read_source,
    running_code,
)

_FORM = re.compile(rf"(?P<reference>{REFERENCE})(\((?P<arguments>[^\n]*)\))?")


def is_function(value: Any) -> bool:
    """Returns whether a value names a function of the user.

    Example:
        >>> is_function("nets.py:focal(gamma=2.0)"), is_function("optax:lion"), is_function("crop:4")
        (True, True, False)
    """
    return callable(value) or (isinstance(value, str) and _FORM.fullmatch(value) is not None)


def read_function(value: Any, where: str) -> str:
    """Returns the normal form of a function with its arguments, which is not imported.

    Args:
        value: a function that can be imported by its name; a ``functools.partial`` of one; or a string.
        where: name to show in errors.

    Raises:
        InputError: the value has another form, or the function cannot be imported by its name.

    Example:
        >>> read_function("./nets.py:focal( gamma = 2.0 )", "train.loss")
        'nets.py:focal(gamma=2.0)'
    """
    if isinstance(value, functools.partial) and not value.args:
        return _write(read_reference(value.func, where), value.keywords, where)
    if not isinstance(value, str):
        return read_reference(value, where)
    reference, arguments = split_function(value, where)
    return _write(read_reference(reference, where), arguments, where)


def split_function(text: str, where: str) -> tuple[str, dict[str, Any]]:
    """Returns the reference of a function, and its arguments by name.

    Raises:
        InputError: the text has another form.

    Example:
        >>> split_function("nets.py:focal(gamma=2.0)", "train.loss")
        ('nets.py:focal', {'gamma': 2.0})
    """
    refusal = InputError(f"{where}={show(text)}: must be a function such as nets.py:focal, or nets.py:focal(gamma=2.0)")
    match = _FORM.fullmatch(text)
    if match is None:
        raise refusal
    try:
        call = ast.parse(f"f({match['arguments'] or ''})", mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
            return match["reference"], {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        pass
    raise refusal


def _write(reference: str, arguments: Mapping[str, Any], where: str) -> str:
    for name, value in arguments.items():
        if not _is_plain(value):
            raise InputError(
                f"{where}={show(reference)}: {name}={show(value)}: must be a number, a word, or a list of them"
            )
    listed = ", ".join(f"{name}={arguments[name]!r}" for name in sorted(arguments))
    return f"{reference}({listed})" if listed else reference


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return (isinstance(value, float) and math.isfinite(value)) or isinstance(value, bool | int | str | None)


def complete_function(text: str, given: Collection[str], where: str) -> str:
    """Returns the normal form of a function with its arguments: without arguments at their defaults.

    The function is imported, unless it is given no arguments and is one of an installed package, which may be slow to
    import.

    Args:
        text: the setting, from `read_function`.
        given: names of the parameters that the library gives.
        where: name to show in errors.

    Raises:
        InputError: there is no such function, it has no such parameter, or an argument has another type.
        CodeError: the import raised an exception.

    Example:
        >>> complete_function("math:isclose(rel_tol=0.5, abs_tol=0.0)", ("a", "b"), "metric")
        'math:isclose(rel_tol=0.5)'
    """
    reference, arguments = split_function(text, where)
    if not arguments and is_installed(reference.partition(":")[0], where) and is_bound(reference, where):
        return text
    fields = _read_fields(_load(reference, where), given)
    check_keys(arguments, fields, f"{where}={show(text)}")
    values = {name: fields[name].read(value, f"{where}: {name}") for name, value in arguments.items()}
    return _write(reference, {name: value for name, value in values.items() if value != fields[name].default}, where)


def load_function(text: str, given: Collection[str], where: str, source: str = "") -> Callable[..., Any]:
    """Returns the function that a setting names, with its arguments; imports it.

    It raises exceptions of the user's code as `CodeError`. The same text and source give the same object, so programs
    that were compiled with it are reused until the source changes.

    Args:
        text, given, where: as for `complete_function`.
        source: hash of the source of the function.

    Raises:
        InputError, CodeError: as `complete_function`.
    """
    reference, _ = split_function(text, where)
    return _bind(_load(reference, where), text, tuple(given), where, source)


@functools.lru_cache(maxsize=256)
def _bind(found: Callable[..., Any], text: str, given: tuple[str, ...], where: str, source: str) -> Callable[..., Any]:
    del source  # which is part of the key of the cache
    reference, arguments = split_function(text, where)
    fields = _read_fields(found, given)
    check_keys(arguments, fields, f"{where}={show(text)}")
    bound = {name: check(value, fields[name].live, f"{where}: {name}") for name, value in arguments.items()}

    @functools.wraps(found)
    def run(*values: Any, **named: Any) -> Any:
        with running_code(reference, where):
            return found(*values, **bound, **named)

    return run


def _load(reference: str, where: str) -> Callable[..., Any]:
    found = load_object(reference, where)
    if not callable(found):
        raise InputError(f"{where}={show(reference)}: {show(found)} is no function")
    return found  # type: ignore[no-any-return]


def _read_fields(found: Callable[..., Any], given: Collection[str]) -> dict[str, CodeField]:
    return {name: field for name, field in read_parameters(found).items() if name not in given}


def find_function_source(text: str, where: str) -> Source | None:
    """Returns the source of a function; ``None`` for one of an installed package, whose version is recorded instead.

    Raises:
        InputError: the function has no source.
    """
    reference, _ = split_function(text, where)
    return None if is_installed(reference.partition(":")[0], where) else read_source(reference, where)
