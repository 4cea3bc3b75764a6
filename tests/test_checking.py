"""Values against annotations: valid ones come back in normal form, others are refused with the place of the error."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Optional

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.errors import InputError
from cnnjax.settings.checking import Interval, Reader, check, describe

Positive = Annotated[int, Interval(1)]
Side = int | tuple[int, int]


@dataclass(frozen=True)
class Stem:
    width: Positive
    rate: float = 0.5
    kinds: tuple[Literal["conv", "pool"], ...] = ()


@dataclass(frozen=True)
class Network:
    stem: Stem
    head: Stem | None = None
    made: int = field(default=3, init=False)


FITS = [
    (5, int, 5),
    (5, float, 5.0),
    (-0.0, float, 0.0),
    (np.int64(5), int, 5),
    (np.float32(0.5), float, 0.5),
    (True, bool, True),
    ("a", str, "a"),
    (None, None, None),
    (None, Optional[int], None),  # noqa: UP045
    ([1, "x"], Any, [1, "x"]),
    ([1, 2], tuple[int, ...], (1, 2)),
    ((1, 2), list[float], [1.0, 2.0]),
    ([1, 2], Sequence[int], (1, 2)),
    ([], tuple[int, ...], ()),
    ([], tuple[()], ()),
    ([1, "x"], tuple, (1, "x")),
    ([1, "x"], list, [1, "x"]),
    ([3, 0.5], tuple[int, float], (3, 0.5)),
    ([3, [5, 3]], tuple[Side, ...], (3, (5, 3))),
    ([[1, 2], [3]], tuple[tuple[int, ...], ...], ((1, 2), (3,))),
    (3, int | Literal["same"], 3),
    ("same", int | Literal["same"], "same"),
    (2, Literal[1, 2, "two"], 2),
    (0.5, int | float, 0.5),
    (True, int | bool, True),
    (1, bool | int, 1),
    (4, Positive | None, 4),
    ({"width": 8, "rate": 1}, Stem, Stem(8, 1.0)),
    (Stem(8), Stem, Stem(8)),
    ({"stem": {"width": 8, "kinds": ["conv"]}}, Network, Network(Stem(8, kinds=("conv",)))),
    (12, Annotated[str, Reader(lambda value, where: str(value))], "12"),
]


@pytest.mark.parametrize(("value", "annotation", "normal"), FITS)
def test_valid_values_are_returned_in_normal_form(value, annotation, normal):
    found = check(value, annotation, "x")
    assert found == normal
    assert type(found) is type(normal)
    assert repr(found) == repr(normal), "-0.0 is 0.0"
    assert check(found, annotation, "x") == found


REFUSED = [
    ("5", int, "x='5': must be an integer, not str"),
    (5.0, int, "x=5.0: must be an integer, not float"),
    (True, int, "x=True: must be an integer, not bool"),
    (True, float, "x=True: must be a number, not bool"),
    (1, bool, "x=1: must be true or false, not int"),
    (math.nan, float, "x=nan: must be a finite number"),
    (math.inf, float | None, "x=inf: must be a finite number"),
    (0, None, "x=0: must be none"),
    (None, int, "x=None: must be an integer, not NoneType"),
    (0, Positive | None, "x=0: must be >= 1"),
    ("abc", tuple[str, ...], "x='abc': must be a list of strings"),
    (3, tuple[int, ...], "x=3: must be a list of integers, such as [32, 64]"),
    ([1, 2, 3], tuple[int, int], "x=[1, 2, 3]: must be a list of 2 integers"),
    ((1,), tuple[int, str], "x=[1]: must be a list of 2: an integer; a string"),
    ([1, 0], tuple[Positive, ...], "x[1]=0: must be >= 1"),
    ([1, [2, "3"]], tuple[Side, ...], "x[1][1]='3': must be an integer, not str"),
    ([1, "3"], tuple[Side, ...], "x[1]='3': must be an integer or a list of 2 integers"),
    ("sane", Literal["valid", "same"] | Side, "x='sane': must be valid, same, an integer, or a list of 2 integers; d"),
    (0, Literal["all"] | Positive, "x=0: must be all or an integer >= 1"),
    (True, Literal[1, 2], "x=True: must be one of 1, 2"),
    (1.0, Literal[1, 2], "x=1.0: must be one of 1, 2"),
    ("rleu", Literal["relu", "elu"], "x='rleu': must be one of relu, elu; did you mean 'relu'?"),
    ({"stem": {"width": 8}, "hed": None}, Network, "x: unknown key 'hed'; did you mean 'head'?; legal: stem, head"),
    ({"stem": {"width": 0}}, Network, "x.stem.width=0: must be >= 1"),
    ({"stem": {"width": 1, "kinds": ["conv", "pol"]}}, Network, "x.stem.kinds[1]='pol': must be one of conv, pool; di"),
    ({"stem": {"width": 1}, "head": {"width": "8"}}, Network, "x.head.width='8': must be an integer, not str"),
    ({"stem": {}}, Network, "x.stem: width is missing; must be given"),
    ({"stem": Stem(0)}, Network, "x.stem.width=0: must be >= 1"),
    (3, Stem, "x=3: must be a table of settings, or a Stem"),
    (print, Callable[[int], int], "x: a setting cannot be of type"),
    (3, complex, "x: a setting cannot be of type"),
]


@pytest.mark.parametrize(("value", "annotation", "message"), REFUSED)
def test_invalid_values_are_refused_with_the_place_of_the_error(value, annotation, message):
    with pytest.raises(InputError) as refusal:
        check(value, annotation, "x")
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


annotations = st.recursive(
    st.sampled_from([int, float, bool, str, Positive, Literal["a", "b"], Literal[1], Stem]),
    lambda inner: (
        inner.map(lambda kind: tuple[kind, ...])
        | inner.map(lambda kind: list[kind])
        | inner.map(lambda kind: kind | None)
        | st.tuples(inner, inner).map(lambda kinds: tuple[kinds])
        | st.tuples(inner, inner).map(lambda kinds: kinds[0] | kinds[1])
    ),
    max_leaves=4,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.sampled_from(["a", "b", "c"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["width", "rate"]), inner, max_size=2),
)


def read(value, annotation) -> tuple[Any, str]:
    """Returns the normal form of a value, or ``None``, and the message of a refusal."""
    try:
        return check(value, annotation, "x"), ""
    except InputError as error:
        return None, str(error)


@given(annotations, values)
def test_any_value_is_read_to_a_stable_form_or_refused_in_one_line(annotation, value):
    normal, refusal = read(value, annotation)
    assert (not refusal and check(normal, annotation, "x") == normal) or refusal.startswith("x")
    assert "\n" not in refusal + describe(annotation)
