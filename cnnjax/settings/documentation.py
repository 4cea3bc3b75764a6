"""The documentation of the fields of a dataclass, read from its source, for ``--help``."""

import ast
import functools
import inspect
import io
import itertools
import re
import textwrap
import tokenize


@functools.cache
def read_docs(kind: type) -> dict[str, str]:
    """Returns the documentation of the fields of a class and of its bases, by field.

    It is the docstring below the field, the comment behind it or above it, or its entry below ``Attributes:`` in the
    docstring of the class. Fields without any are left out, as are classes whose source is not known.

    Example:
        >>> from cnnjax import TrainConfig
        >>> read_docs(TrainConfig)["epochs"]
        'Passes over the training examples.'
    """
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        try:
            text = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):  # such as a class of a compiled module
            continue
        definition = ast.parse(text).body[0]
        assert isinstance(definition, ast.ClassDef)
        docs |= _read_attributes(inspect.getdoc(base) or "")
        docs |= _read_comments(text, definition)
        docs |= _read_docstrings(definition)
    return docs


def _read_attributes(text: str) -> dict[str, str]:
    """Returns the entries below ``Attributes:`` or ``Args:`` in a docstring, as Google's style writes them."""
    heading = re.search(r"^(Attributes|Args):\s*$", text, re.MULTILINE)
    if heading is None:
        return {}
    entries = re.findall(r"^ +(\w+)(?: \([^)\n]*\))?: (.+(?:\n {6,}.+)*)", text[heading.end() :], re.MULTILINE)
    return {name: " ".join(doc.split()) for name, doc in entries}


def _read_comments(text: str, definition: ast.ClassDef) -> dict[str, str]:
    """Returns the comments behind fields, or on the lines above them."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
    docs = {}
    for name, field in _list_fields(definition):
        behind = comments.get(field.end_lineno or field.lineno)
        lines = [behind] if behind else []
        number = field.lineno - 1
        while not behind and (comment := comments.get(number)) and comment.line.lstrip().startswith("#"):
            lines.insert(0, comment)
            number -= 1
        docs[name] = " ".join(line.string.lstrip("#: ") for line in lines)
    return {name: doc for name, doc in docs.items() if doc}


def _read_docstrings(definition: ast.ClassDef) -> dict[str, str]:
    followers = dict(itertools.pairwise(definition.body))
    docs = {}
    for name, field in _list_fields(definition):
        doc = followers.get(field)
        if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant) and isinstance(doc.value.value, str):
            docs[name] = " ".join(doc.value.value.split())
    return docs


def _list_fields(definition: ast.ClassDef) -> list[tuple[str, ast.AnnAssign]]:
    entries = [entry for entry in definition.body if isinstance(entry, ast.AnnAssign)]
    return [(entry.target.id, entry) for entry in entries if isinstance(entry.target, ast.Name)]
