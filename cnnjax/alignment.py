"""Text for a terminal: paragraphs and columns within its width, without a word broken that has room.

Columns that have no room beside the others stand below them, behind the same leading columns.
"""

from collections.abc import Sequence

_GAP = 2


def fold(text: str, width: int | None, hang: str = "", cut_words: bool = True) -> list[str]:
    """Returns a text in lines of at most `width` columns, ended at spaces.

    Args:
        text: words with single spaces between them.
        width: columns of a line; ``None`` leaves the text as it is.
        hang: put before every line but the first.
        cut_words: cuts words that are longer than a line; else they stay whole, as paths that are to be copied.

    Example:
        >>> fold("seeds needed by 12", 9, hang="- ")
        ['seeds', '- needed', '- by 12']
    """
    if width is None:
        return [text]
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        if line and measure(f"{line} {word}") > width:
            lines.append(line)
            line = hang + word
        else:
            line = f"{line} {word}" if line else word
        while cut_words and measure(line) > width:
            cut = _find_cut(line, max(width, len(hang) + 1))
            lines.append(line[:cut])
            line = hang + line[cut:]
    return [*lines, line]


def align(rows: Sequence[Sequence[str]], right: Sequence[bool], width: int | None) -> str:
    """Returns a table as text, with a rule below its headings.

    Args:
        rows: the headings, then the cells.
        right: which columns are set to the right; their cells are numbers, and never folded.
        width: of the terminal; ``None`` gives every row one line.
    """
    if width is None:
        return _align_block(rows, right, [max(map(measure, column)) for column in zip(*rows, strict=True)])
    columns = list(zip(*rows, strict=True))
    least = [_find_least(column, is_right) for column, is_right in zip(columns, right, strict=True)]
    blocks = []
    for chosen in _group(least, _count_keys(least, right, width), width):
        full = [max(map(measure, columns[index])) for index in chosen]
        widths = _shrink(full, [least[index] for index in chosen], width - _GAP * (len(chosen) - 1))
        block = [[row[index] for index in chosen] for row in rows]
        blocks.append(_align_block(block, [right[index] for index in chosen], widths))
    return "\n\n".join(blocks)


def measure(text: str) -> int:
    """Returns how many columns of a terminal a text takes."""
    from rich.cells import cell_len

    return cell_len(text)


def _find_cut(text: str, width: int) -> int:
    """Returns how many characters fit, at least one."""
    return next((end for end in range(len(text), 1, -1) if measure(text[:end]) <= width), 1)


def _find_least(column: Sequence[str], is_right: bool) -> int:
    heading, *cells = column
    parts = [*heading.split(), *(cells if is_right else (word for cell in cells for word in cell.split()))]
    return max(map(measure, parts), default=0)


def _count_keys(least: Sequence[int], right: Sequence[bool], width: int) -> int:
    """Returns how many leading columns say what a row is about and leave room for every other column."""
    leading = list(right).index(True) if True in right else 1
    for keys in range(leading, 1, -1):
        if sum(least[:keys]) + _GAP * keys + max(least[keys:], default=0) <= width:
            return keys
    return 1


def _group(least: Sequence[int], keys: int, width: int) -> list[list[int]]:
    """Returns the columns of every block of the table."""
    blocks = [list(range(keys))]
    for column in range(keys, len(least)):
        needed = sum(least[index] + _GAP for index in blocks[-1]) + least[column]
        if needed > width and len(blocks[-1]) > keys:
            blocks.append(list(range(keys)))
        blocks[-1].append(column)
    return blocks


def _shrink(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Returns the widths with the widest made narrower until they fit; words are cut only where nothing else helps."""
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
    space = " " * (width - measure(text))
    return space + text if is_right else text + space
