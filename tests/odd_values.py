"""Values of many types, for tests that an argument takes a value or refuses it in one line."""

import numpy as np
import pandas as pd

from cnnjax import InputError

ODD = (
    *(None, True, 3, -1, 10**400, 0.5, float("nan"), 1j, "", "x", b"x"),
    *([], [[1, 2], [3]], ["a", "b"], (), {}, {1: 2}, {None: None}, {"a": {"b": {"c": 1}}}, {1, 2}, range(2)),
    *(np.zeros((2, 2)), np.array(3), np.array(["a", "b"]), pd.DataFrame(), (n for n in range(3)), object(), int, print),
)


def check_each(call, values=ODD):
    """Calls a function with each value; it may return, or refuse the value in one line."""
    for value in values:
        try:
            call(value)
        except InputError as refusal:
            listed = str(refusal).splitlines()
            assert len(listed) == 1 or "errors" in listed[0], value  # a list of several mistakes
