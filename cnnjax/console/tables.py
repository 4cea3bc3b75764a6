"""Tables and documents as text: for a terminal, in Markdown, in LaTeX, in HTML, and as CSV.

On a terminal, paragraphs and columns stay within its width, and a word is cut only if it is longer than a line. Columns
that have no room beside the others are printed below them, with the same leading columns repeated.
"""

import csv
import html
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_GAP = 2


def fold(text: str, width: int | None, hang: str = "", cut_words: bool = True) -> list[str]:
    """Returns a text as lines of at most `width` columns, broken at spaces.

    Args:
        text: words with single spaces between them.
        width: columns of a line; ``None`` leaves the text as it is.
        hang: text before every line but the first.
        cut_words: cuts words that are longer than a line; without it they stay whole, as paths should that are copied.

    Example:
        >>> fold("seeds needed by 12", 9, hang="- ")
        ['seeds', '- needed', '- by 12']
    """
    if width is None:
        return [text]
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        if line and count_columns(f"{line} {word}") > width:
            lines.append(line)
            line = hang + word
        else:
            line = f"{line} {word}" if line else word
        while cut_words and count_columns(line) > width:
            cut = _find_cut(line, max(width, len(hang) + 1))
            lines.append(line[:cut])
            line = hang + line[cut:]
    return [*lines, line]


def capitalize(text: str) -> str:
    """Returns a text that is not empty with its first letter in upper case, as at the beginning of a sentence."""
    return f"{text[0].upper()}{text[1:]}"


def align_table(rows: Sequence[Sequence[str]], right: Sequence[bool], width: int | None) -> str:
    """Returns a table as text, with a rule below its headings.

    Args:
        rows: the headings, then the cells.
        right: which columns are set to the right; their cells are numbers, and never folded.
        width: columns of the terminal; ``None`` puts every row on one line.
    """
    if width is None:
        return _align_block(rows, right, [max(map(count_columns, column)) for column in zip(*rows, strict=True)])
    columns = list(zip(*rows, strict=True))
    least = [_find_least(column, is_right) for column, is_right in zip(columns, right, strict=True)]
    blocks = []
    for chosen in _group(least, _count_keys(least, right, width), width):
        full = [max(map(count_columns, columns[index])) for index in chosen]
        widths = _shrink(full, [least[index] for index in chosen], width - _GAP * (len(chosen) - 1))
        block = [[row[index] for index in chosen] for row in rows]
        blocks.append(_align_block(block, [right[index] for index in chosen], widths))
    return "\n\n".join(blocks)


def align_right(rows: Sequence[Sequence[str]], gap: int = _GAP, *, equal: bool = False) -> str:
    """Returns rows of words as text, with every column set to the right.

    Args:
        rows: the rows, all with the same number of words.
        gap: spaces between two columns.
        equal: gives all columns the width of the widest.

    Example:
        >>> print(align_right([["1", "10"], ["100", "2"]], gap=1, equal=True))
          1  10
        100   2
    """
    widths = [max(map(count_columns, column)) for column in zip(*rows, strict=True)]
    if equal:
        widths = [max(widths)] * len(widths)
    padded = ([_pad(word, width, True) for word, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join((" " * gap).join(row) for row in padded)


def count_columns(text: str) -> int:
    """Returns how many columns of a terminal a text takes."""
    from rich.cells import cell_len

    return cell_len(text)


def _find_cut(text: str, width: int) -> int:
    """Returns how many characters fit, at least one."""
    return next((end for end in range(len(text), 1, -1) if count_columns(text[:end]) <= width), 1)


def _find_least(column: Sequence[str], is_right: bool) -> int:
    heading, *cells = column
    parts = [*heading.split(), *(cells if is_right else (word for cell in cells for word in cell.split()))]
    return max(map(count_columns, parts), default=0)


def _count_keys(least: Sequence[int], right: Sequence[bool], width: int) -> int:
    """Returns how many leading columns, which name what a row is about, leave room for each other column."""
    leading = list(right).index(True) if True in right else 1
    for keys in range(leading, 1, -1):
        if sum(least[:keys]) + _GAP * keys + max(least[keys:], default=0) <= width:
            return keys
    return 1


def _group(least: Sequence[int], keys: int, width: int) -> list[list[int]]:
    """Returns the columns of each block of a table; all blocks begin with the leading `keys` columns."""
    blocks = [list(range(keys))]
    for column in range(keys, len(least)):
        needed = sum(least[index] + _GAP for index in blocks[-1]) + least[column]
        if needed > width and len(blocks[-1]) > keys:
            blocks.append(list(range(keys)))
        blocks[-1].append(column)
    return blocks


def _shrink(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Returns the widths, with the widest made narrower until all fit; words are cut only if nothing else helps."""
    found = list(widths)
    for floor in (least, [1] * len(found)):
        while sum(found) > room and (wide := [index for index in range(len(found)) if found[index] > floor[index]]):
            found[max(wide, key=found.__getitem__)] -= 1
    return found


def _align_block(rows: Sequence[Sequence[str]], right: Sequence[bool], widths: Sequence[int]) -> str:
    heading, *lines = (_align_row(row, right, widths, is_heading=number == 0) for number, row in enumerate(rows))
    rule = "-" * (sum(widths) + _GAP * (len(widths) - 1))
    return "\n".join([*heading, rule, *(line for row in lines for line in row)])


def _align_row(row: Sequence[str], right: Sequence[bool], widths: Sequence[int], is_heading: bool) -> list[str]:
    cells = [fold(cell, max(width, 1)) for cell, width in zip(row, widths, strict=True)]
    height = max(map(len, cells))
    above = [height - len(cell) if is_heading else 0 for cell in cells]
    padded = [
        [_pad(line, width, is_right) for line in (*[""] * before, *cell, *[""] * (height - before - len(cell)))]
        for cell, before, width, is_right in zip(cells, above, widths, right, strict=True)
    ]
    return [(" " * _GAP).join(parts).rstrip() for parts in zip(*padded, strict=True)]


def _pad(text: str, width: int, is_right: bool) -> str:
    space = " " * (width - count_columns(text))
    return space + text if is_right else text + space


Value = str | int | float | None


@dataclass(frozen=True)
class Column:
    """A column: its heading, the format of its numbers as for ``format()``, and whether it is set to the right."""

    heading: str
    format: str = ""
    right: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: its columns.
        rows: its rows, with one value per column; ``None`` is an empty cell.
        title: what it shows, without a full stop.
        bold: (row, column) of every cell in bold; the terminal and CSV have no bold.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    title: str = ""
    bold: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Document:
    """Tables with the text above and below them.

    Attributes:
        title: the title of the document.
        facts: short texts for the line under the title.
        tables: the tables, in order.
        notes: the lines below the tables; code stands between backticks.
        summary: the lines to read first: above the tables, but below them in LaTeX.
        command: the command that makes the document again, shown after the notes.
    """

    title: str
    facts: tuple[str, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    summary: tuple[str, ...] = ()
    command: str = ""

    def __str__(self) -> str:
        return write_terminal(self)

    def _repr_html_(self) -> str:
        return write_html(self)


def write_terminal(document: Document, width: int | None = None) -> str:
    """Returns a document as aligned text.

    Args:
        document: the document.
        width: columns of the terminal, in which long texts are folded; ``None`` puts every row and text on one line.
    """
    above = _fold([document.title], width), _fold([", ".join(document.facts)], width)
    tables = (_join_lines(_fold([table.title], width), _align(table, width)) for table in document.tables)
    notes = (*document.notes, *([f"made by: {document.command}"] if document.command else []))
    return _join_parts(_join_lines(*above), _fold(document.summary, width), *tables, _fold(notes, width))


def write_markdown(document: Document) -> str:
    """Returns a document as Markdown, with tables in the form that GitHub reads."""
    above = (f"## {_escape_markdown(_clean(document.title))}", _escape_markdown(_clean(", ".join(document.facts))))
    parts = [*above, _list_markdown(document.summary)]
    for table in document.tables:
        rules = tuple("---:" if column.right else "---" for column in table.columns)
        headings, *rows = _write_rows(table, _escape_markdown, "**{}**")
        parts += [f"### {_escape_markdown(_clean(table.title))}"] if table.title else []
        parts += [_join_lines(*(f"| {' | '.join(row)} |" for row in (headings, rules, *rows)))]
    made = f"- made by: {_quote_markdown(_clean(document.command))}" if document.command else ""
    return _join_parts(*parts, _join_lines(_list_markdown(document.notes), made))


def write_html(document: Document) -> str:
    """Returns a document as HTML elements, for a notebook."""
    above = [_write_element("h3", document.title), _write_element("p", ", ".join(document.facts))]
    tables = [part for table in document.tables for part in (_write_element("p", table.title), _write_grid(table))]
    notes = (*document.notes, *([f"made by: `{document.command}`"] if document.command else []))
    sentences = [[_write_element("p", sentence) for sentence in part] for part in (document.summary, notes)]
    return _join_lines(*above, *sentences[0], *tables, *sentences[1])


def write_latex(document: Document) -> str:
    """Returns a document as LaTeX: a ``table`` of the package ``booktabs`` per table; the sentences follow the last."""
    environments = []
    for table in document.tables:
        in_bold = "The highest mean is in bold" if table.bold else ""
        caption = _join_sentences(document.title, table.title, in_bold, ", ".join(document.facts))
        notes = _list_latex(document) if table is document.tables[-1] else ()
        environments.append(_write_environment(table, caption, notes))
    return _join_parts(*environments)


def write_csv(table: Table) -> str:
    """Returns a table as CSV: texts in quotes, numbers in full precision, nothing for ``None``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(column.heading for column in table.columns)
    writer.writerows(table.rows)
    return text.getvalue().removesuffix("\n")


def _write_rows(table: Table, escape: Callable[[str], str], bold: str = "{}") -> list[tuple[str, ...]]:
    """Returns the headings and the cells as texts; `bold` is put around those that are in bold."""
    headings = tuple(escape(_clean(column.heading)) for column in table.columns)
    rows = [
        [escape(_clean(write_value(value, column))) for column, value in zip(table.columns, row, strict=True)]
        for row in table.rows
    ]
    for row, column in table.bold:
        rows[row][column] = bold.format(rows[row][column])
    return [headings, *map(tuple, rows)]


def write_value(value: Value, column: Column) -> str:
    """Returns a value as text, in the format of its column; an empty text for ``None``."""
    if value is None:
        return ""
    return value if isinstance(value, str) else format(value, column.format)


def _join_sentences(*texts: str) -> str:
    found = (text if re.match(r"\S*[.=]", text) else capitalize(text) for text in texts if text)
    return " ".join(text if text.endswith((".", "?", "!")) else f"{text}." for text in found)


def _write_environment(table: Table, caption: str, notes: Sequence[str]) -> str:
    headings, *rows = (rf"{' & '.join(row)} \\" for row in _write_rows(table, _escape_latex, r"\textbf{{{}}}"))
    alignment = "".join("r" if column.right else "l" for column in table.columns)
    return _join_lines(
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape_latex(_clean(caption))}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        headings,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {note}" for note in notes),
        r"\end{table}",
    )


def _write_element(tag: str, text: str) -> str:
    return f"<{tag}>{_write_sentence(text, html.escape, _mark_code)}</{tag}>" if text else ""


def _mark_code(code: str) -> str:
    return f"<code>{html.escape(code)}</code>"


def _write_grid(table: Table) -> str:
    sides = [f' style="text-align: {"right" if column.right else "left"}"' for column in table.columns]
    headings, *rows = _write_rows(table, html.escape, "<b>{}</b>")
    lines = [
        "".join(f"<{tag}{side}>{text}</{tag}>" for side, text in zip(sides, row, strict=True))
        for tag, row in (("th", headings), *(("td", row) for row in rows))
    ]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _list_markdown(lines: Sequence[str]) -> str:
    return _join_lines(*(f"- {_write_sentence(line, _escape_markdown, _quote_markdown)}" for line in lines))


def _list_latex(document: Document) -> list[str]:
    sentences = (*document.summary, *document.notes)
    written = [_write_sentence(sentence, _escape_latex, _typeset_latex) for sentence in sentences]
    return [*written, *([f"made by: {_typeset_latex(_clean(document.command))}"] if document.command else [])]


def _write_sentence(text: str, escape: Callable[[str], str], quote: Callable[[str], str]) -> str:
    return "".join(quote(part) if is_code else escape(part) for part, is_code in split_code(_clean(text)))


def split_code(text: str) -> list[tuple[str, bool]]:
    """Returns the parts of a sentence, each with whether it is code, which stands between two backticks.

    Example:
        >>> split_code("as `ls -l` says")
        [('as ', False), ('ls -l', True), (' says', False)]
    """
    parts = re.split(r"`([^`]+)`", text)
    return [(part, place % 2 == 1) for place, part in enumerate(parts) if part]


def _align(table: Table, width: int | None) -> str:
    return align_table(_write_rows(table, str), [column.right for column in table.columns], width)


def _fold(texts: Iterable[str], width: int | None) -> str:
    return "\n".join(line for text in texts if text for line in fold(_clean(text), width, hang="  "))


def _join_lines(*lines: str) -> str:
    return "\n".join(filter(None, lines))


def _join_parts(*parts: str) -> str:
    return "\n\n".join(filter(None, parts))


def _clean(text: str) -> str:
    """Returns a text as one line of printable characters."""
    return "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in " ".join(text.split()))


def _escape_markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\g<0>", text)


def _quote_markdown(code: str) -> str:
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    fence, space = "`" * (longest + 1), " " * (code.startswith("`") or code.endswith("`"))
    return f"{fence}{space}{code}{space}{fence}"


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(mark, mark) for mark in _DASHES.sub("\N{HYPHEN}", text))


def _typeset_latex(code: str) -> str:
    return rf"\texttt{{{_escape_latex(code)}}}"


# An underscore inside a word is no emphasis.
_MARKDOWN = re.compile(r"[\\|`*<&~]|(?<![^\W_])_|_(?![^\W_])")
# Two hyphens, as an option begins with, would be set as a dash.
_DASHES = re.compile(r"-(?=-)")
# A bracket or a star that begins a row would be taken for an argument of the end of the row before.
_LATEX = (
    {mark: f"\\{mark}" for mark in "&%$#_{}"}
    | {mark: f"{{{mark}}}" for mark in "[]*"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "²": r"$^2$",
        "\N{HYPHEN}": "{-}",
    }
)
