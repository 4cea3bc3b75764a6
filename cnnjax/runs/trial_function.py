"""A function of the user as a run: its parameters are settings, and the numbers that it returns are the result.

Such a trial function needs no network and no dataset of this library::

    def trial(seed: int, width: int = 16, norm: str = "group") -> dict[str, float]:
        ...
        return {"accuracy": 0.93, "loss": 0.21}
"""

import functools
import inspect
import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from cnnjax.errors import InputError
from cnnjax.settings.checking import Interval, check, show
from cnnjax.settings.code import CodeConfig, CodeSection, read_parameters
from cnnjax.settings.references import load_object, running_code

WHERE = "trial.function"
ACCURACY = "accuracy"
"""The score by which runs are compared if no other one is asked for."""
_SEED = "seed"
_OWN = ("function", "source")


@dataclass(frozen=True)
class FunctionConfig(CodeConfig):
    """A trial function with its arguments, apart from the seed.

    Attributes:
        function: its import path, such as ``my_trials.py:trial``.
        fields: the arguments as canonical JSON, such as ``{"norm":"group","width":32}``.
        source: SHA-256 of its source.

    Raises:
        InputError: there is no such function, or a parameter has no such value.
        CodeError: importing the function raised an exception.
    """

    section = "trial"
    key = "function"

    function: str
    fields: str
    source: str

    @classmethod
    def describe(cls, reference: str) -> CodeSection:
        """Returns the settings of a function, by `describe_function`."""
        return describe_function(reference)

    def call(self, seed: int) -> dict[str, float]:
        """Calls the function, and returns its scores; NaN and infinities among them.

        Raises:
            InputError: the source is not that of these settings, or the function returns something else than numbers.
            CodeError: the function raised an exception.
        """
        self.check_code()
        section = describe_function(self.function)
        arguments = section.read_live(json.loads(self.fields))
        with running_code(self.function, WHERE):
            found = section.kind(seed=seed, **arguments)
        return _read_scores(found, f"{WHERE}={self.function!r}")


def describe_function(reference: str) -> CodeSection:
    """Returns the settings of a trial function, which is imported: its parameters other than ``seed``.

    Raises:
        InputError: there is no such function, it has no parameter ``seed``, or a parameter cannot be a setting.
        CodeError: the import raised an exception.
    """
    found = load_object(reference, WHERE)
    if not callable(found) or isinstance(found, type):
        raise InputError(f"{WHERE}={reference!r}: is {show(found)}; must be a function, such as def trial(seed, width)")
    return _describe(reference, found)


@functools.lru_cache(maxsize=64)  # a grid describes the function of every cell
def _describe(reference: str, found: Any) -> CodeSection:
    parameters = read_parameters(found)
    if _SEED not in parameters:
        raise InputError(f"{WHERE}={reference!r}: must have a parameter seed, from which all its randomness derives")
    for name, parameter in inspect.signature(found).parameters.items():
        if name not in parameters:
            raise InputError(f"{WHERE}={reference!r}: {parameter} cannot be a setting; must be given by its name")
        if name in _OWN:
            raise InputError(f"{WHERE}={reference!r}: a parameter cannot be called {name}; rename it")
    fields = {name: parameter for name, parameter in parameters.items() if name != _SEED}
    return CodeSection("trial", "function", reference, found, fields)


def _read_scores(found: Any, where: str) -> dict[str, float]:
    scores = found if isinstance(found, Mapping) else {ACCURACY: found}
    for name, value in scores.items():
        number = value.item() if getattr(value, "shape", None) == () else value
        if not isinstance(name, str) or isinstance(number, bool) or not isinstance(number, numbers.Real):
            raise InputError(f"{where}: returned {show(found)}; must return a number, or numbers by name")
    read = {name: _to_float(value) for name, value in scores.items()}
    if ACCURACY in read and math.isfinite(read[ACCURACY]):
        check(read[ACCURACY], Annotated[float, Interval(0, 1)], f"{where}: {ACCURACY}")
    if not read:
        raise InputError(f"{where}: returned no score; must return a number, or numbers by name")
    return read


def _to_float(value: Any) -> float:
    """Returns a number as a float; infinity if it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
