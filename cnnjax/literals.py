"""Values as they are typed: TOML literals, and bare words as strings.

``5``, ``0.1``, ``true``, ``[32, 64]`` and ``"valid"`` mean what they mean in TOML; ``valid`` needs no quotes, also
inside a list: ``[same, valid]``.
"""

import re
from typing import Any

from cnnjax.errors import InputError
from cnnjax.inputs import parse_toml

_BARE_WORD = re.compile(r"""("[^"]*"|'[^']*')|(?<![\w.+-])(?!(?:true|false|inf|nan)\b)([A-Za-z_][\w./:-]*)""")

_QUOTED = re.compile(r""""[^"]*"|'[^']*'""")


def read_literal(text: str) -> Any:
    """Returns the value that `text` stands for.

    Raises:
        InputError: it is neither a TOML literal nor a bare word.

    Example:
        >>> read_literal("[same, [[1, 2], [0, 0]]]")
        ['same', [[1, 2], [0, 0]]]
    """
    refusal = InputError(f"{text!r}: must be a number, a word, or a list of them such as [32, 64]")
    if "\n" in text or "#" in _QUOTED.sub("", text):  # which would begin a comment
        raise refusal
    quoted = _BARE_WORD.sub(lambda match: match[1] or f'"{match[2]}"', text)
    try:
        return parse_toml(f"value = {quoted}")["value"]
    except InputError:
        raise refusal from None
