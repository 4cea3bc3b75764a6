"""Functions of the user as settings: ``nets.py:focal``, or with arguments, ``nets.py:focal(gamma=2.0)``.

Such a setting is a string, so it is written in TOML and on the command line as it is in Python. The arguments are
Python literals. Reading a setting does not import the function; `load_function` does.
"""

import ast
import functools
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from cnnjax.errors import InputError
from cnnjax.settings.checking import check, check_keys, show
from cnnjax.settings.code import read_parameters
from cnnjax.settings.references import Source, is_installed, load_object, read_reference, read_source, running_code

_FORM = re.compile(r"(?P<reference>[^:\n]+:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)(\((?P<arguments>[^\n]*)\))?")


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
    match = _FORM.fullmatch(text)
    try:
        assert match is not None
        call = ast.parse(f"f({match['arguments'] or ''})", mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        assert not call.args
        return match["reference"], {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (AssertionError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise InputError(
            f"{where}={show(text)}: must be a function such as nets.py:focal, or nets.py:focal(gamma=2.0)"
        ) from None


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


def load_function(text: str, filled: Collection[str], where: str) -> Callable[..., Any]:
    """Returns the function that a setting names, with its arguments; imports it.

    Until its source changes, the same text gives the same object, so programs that were compiled with it are reused.

    Args:
        text: the setting.
        filled: names of the parameters that the library gives.
        where: name to show in errors.

    Raises:
        InputError: there is no such function, it has no such parameter, or an argument has another type.
        CodeError: the import raised an exception.

    Example:
        >>> load_function("math:isclose(rel_tol=0.5)", ("a", "b"), "metric")(2, 3)
        True
    """
    reference, arguments = split_function(text, where)
    found = load_object(reference, where)
    if not callable(found):
        raise InputError(f"{where}={show(text)}: {show(found)} is no function")
    return _bind(found, text, tuple(filled), where) if arguments else found


@functools.lru_cache(maxsize=256)
def _bind(found: Callable[..., Any], text: str, filled: tuple[str, ...], where: str) -> Callable[..., Any]:
    arguments = split_function(text, where)[1]
    fields = {name: field for name, field in read_parameters(found).items() if name not in filled}
    check_keys(arguments, fields, f"{where}={show(text)}")
    return functools.partial(
        found, **{name: check(value, fields[name].live, f"{where}: {name}") for name, value in arguments.items()}
    )


def find_sources(texts: Iterable[str], where: str) -> dict[str, Source]:
    """Returns the sources of functions by their references, without those of installed packages.

    Raises:
        InputError: a function has no source.
    """
    references = dict.fromkeys(split_function(text, where)[0] for text in texts)
    own = (reference for reference in references if not is_installed(reference.partition(":")[0], where))
    return {reference: read_source(reference, where) for reference in own}


def call_function(function: Callable[..., Any], text: str, where: str, *arguments: Any, **named: Any) -> Any:
    """Calls a function of the user.

    Raises:
        CodeError: the function raised an exception; its lines are those of the user's own files.
    """
    reference, _ = split_function(text, where)
    with running_code(reference, where):
        return function(*arguments, **named)
