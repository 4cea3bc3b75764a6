"""A table says the same in every format, whatever characters its texts have."""

import csv
import io
import re
import shutil
import subprocess
import unicodedata
from collections import Counter
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.console.tables import (
    Column,
    Document,
    Table,
    align_table,
    fold,
    write_csv,
    write_html,
    write_latex,
    write_markdown,
    write_terminal,
)

HARD = [
    "[16,32]",
    "x|y\nz\\|",
    "漢字 ± é",
    "__init__ a_b *bold* <i>",
    "100% & $5 #1 {a} ~ ^ \\",
    'say "hi", please',
    "",
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def make_table(texts=HARD, title=""):
    columns = (Column("model.kernel_size"), Column("count", ",", True), Column("test accuracy", ".4f", True))
    rows = [(text, 1_000 * index, None if index % 2 else 1 / (index + 3)) for index, text in enumerate(texts)]
    return Table(columns, tuple(rows), title)


def make_document(*tables):
    return Document("Does it matter?", ("study a_b", "5 seeds"), tables or (make_table(),), ("50% failed",))


@given(st.lists(st.tuples(TEXTS, st.none() | st.integers() | st.floats(allow_nan=False)), min_size=1))
def test_csv_is_read_back_with_every_digit(rows):
    text = write_csv(Table((Column("a,b"), Column('c"d')), tuple(rows)))
    headings, *read = csv.reader(io.StringIO(text, newline=""))
    assert headings == ["a,b", 'c"d']
    assert [label for label, _ in read] == [label for label, _ in rows]
    for (_, found), (_, value) in zip(read, rows, strict=True):
        assert found == "" if value is None else type(value)(found) == value


@pytest.mark.parametrize("write", [write_markdown, write_terminal])
def test_the_summary_is_above_the_tables_and_the_notes_are_below(write):
    text = write(Document("title", (), (make_table(),), ("a note",), ("what was found",)))
    assert text.index("title") < text.index("what was found") < text.index("model.kernel") < text.index("a note")


def test_latex_has_the_summary_once():
    document = Document("title", (), (make_table(), make_table()), ("a note",), ("what was found",))
    assert write_latex(document).count("what was found") == 1


def test_markdown_rows_have_one_cell_a_column_and_keep_their_text():
    lines = write_markdown(make_document()).splitlines()
    assert lines[:3] == ["## Does it matter?", "", "study a_b, 5 seeds"]
    assert lines[-1] == "- 50% failed"
    headings, rules, *rows = [_split_markdown(line) for line in lines if line.startswith("|")]
    assert headings == ["model.kernel_size", "count", "test accuracy"]
    assert rules == ["---", "---:", "---:"]
    assert [row[0] for row in rows] == [" ".join(text.split()) for text in HARD]
    assert [row[1] for row in rows] == ["0", "1,000", "2,000", "3,000", "4,000", "5,000", "6,000"]
    assert [row[2] for row in rows] == ["0.3333", "", "0.2000", "", "0.1429", "", "0.1111"]


def _split_markdown(line):
    """Reads a row as GitHub does: at the pipes without a backslash, a backslash being escaped by another one."""
    cells = re.findall(r"((?:\\.|[^\\|])*)\|", line)[1:]
    return [re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell.strip()) for cell in cells]


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_no_text_breaks_a_markdown_table(texts):
    rows = [line for line in write_markdown(make_document(make_table(texts))).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(texts)
    assert {len(_split_markdown(row)) for row in rows} == {3}


def test_html_rows_have_one_cell_a_column_and_keep_their_text():
    page = ElementTree.fromstring(f"<div>{write_html(make_document())}</div>")
    headings, *rows = [["".join(cell.itertext()) for cell in row] for row in page.findall("table/tr")]
    assert headings == ["model.kernel_size", "count", "test accuracy"]
    assert [row[0] for row in rows] == [" ".join(text.split()) for text in HARD]
    assert [row[2] for row in rows] == ["0.3333", "", "0.2000", "", "0.1429", "", "0.1111"]


CODE = Document(
    "title", (), (make_table(),), ("a lone ` mark",), ("as `run --top-up a_b` does",), "run 'a=[1,2]' --x `y`"
)


def test_code_in_sentences_and_the_command_are_set_as_code():
    markdown, latex, terminal = write_markdown(CODE), write_latex(CODE), write_terminal(CODE)
    assert "\n- as `run --top-up a_b` does\n" in markdown
    assert markdown.endswith("\n- a lone \\` mark\n- made by: `` run 'a=[1,2]' --x `y` ``")
    assert r"\par\footnotesize as \texttt{run {-}-top-up a\_b} does" in latex
    assert r"\par\footnotesize made by: \texttt{run 'a={[}1,2{]}' {-}-x `y`}" in latex
    assert terminal.endswith("\na lone ` mark\nmade by: run 'a=[1,2]' --x `y`")


def test_emphasis_is_escaped_and_underscores_inside_words_are_not():
    text = write_markdown(make_document(make_table(["__init__ kernel_size *x* <b>"])))
    assert r"\_\_init\_\_ kernel_size \*x\* \<b>" in text


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_no_text_breaks_a_latex_table(texts):
    latex = write_latex(make_document(make_table(texts)))
    rows = latex.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert len(rows) == len(texts)
    for row in rows:
        assert row.endswith(r" \\")
        assert len(re.findall(r"(?<!\\)&", row)) == 2
        # Nothing special is left but commands, their groups and the ends of cells.
        bare = re.sub(r"\$\\pm\$|\$\^2\$|\\text[a-z]+\{\}|\\[&%$#_{}]|\{[\[\]*-]\}", "", row.removesuffix(r"\\"))
        assert not set(bare.replace("&", "")) & set("\\%$#_{}~^<>|[]*")


def test_latex_is_a_booktabs_table_with_its_caption_and_the_notes_below_the_last():
    latex = write_latex(make_document(make_table(title="model.pool by size"), make_table()))
    first, second = latex.split("\n\n")
    assert first.splitlines()[:6] == [
        r"\begin{table}",
        r"\centering",
        r"\caption{Does it matter? model.pool by size. Study a\_b, 5 seeds.}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"model.kernel\_size & count & test accuracy \\",
    ]
    assert "50" not in first
    assert second.endswith("\\end{tabular}\n\\par\\footnotesize 50\\% failed\n\\end{table}")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs LaTeX")
def test_latex_compiles(tmp_path):
    texts = [text for text in HARD if text.isascii()]
    body = write_latex(make_document(make_table(texts)))
    source = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{body}\n\\end{{document}}"
    (tmp_path / "a.tex").write_text(source)
    subprocess.run(["pdflatex", "-halt-on-error", "a.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_terminal_columns_are_aligned_also_with_wide_characters():
    text = write_terminal(make_document(make_table(["漢字", "[red]plain[/red]"])))
    above, table, notes = text.split("\n\n")
    assert above == "Does it matter?\nstudy a_b, 5 seeds"
    assert notes == "50% failed"
    heading, rule, *rows = table.splitlines()
    assert set(rule) == {"-"}
    assert rows[1].startswith("[red]plain[/red] ")
    assert {_width(line) for line in (heading, rule, rows[0])} == {len(rule)}


def _width(line):
    return sum(2 if unicodedata.east_asian_width(mark) in "WF" else 1 for mark in line)


def test_a_narrow_terminal_cuts_words_only_where_they_have_no_room():
    labels = ["a" * 40, "b" * 70]
    text = write_terminal(make_document(make_table(labels)), width=50)
    assert max(map(len, text.splitlines())) <= 50
    table = text.split("\n\n", 1)[1]
    assert table.count("a" * 40) >= 1
    assert sum(line.count("b") for line in table.splitlines()) % 70 == 0


@given(
    st.lists(st.lists(st.lists(st.text("abcd\u6f22", min_size=1, max_size=9), max_size=6), min_size=4, max_size=4)),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.integers(40, 120),
)
def test_no_line_is_wider_than_the_terminal_and_no_word_that_has_room_is_broken(cells, right, width):
    rows = [("heading of one", "two", "three", "four"), *([" ".join(words) for words in row] for row in cells)]
    widest = max(
        (_width(cell) for row in rows for cell, to_right in zip(row, right, strict=True) if to_right), default=0
    )
    text = align_table(rows, right, width)
    if widest <= 18:  # numbers are not folded: two of them and the gap fit into the narrowest terminal
        assert max(map(_width, text.splitlines())) <= width
    words = Counter(text.split())
    assert Counter(word for row in rows for cell in row for word in cell.split()) <= words


def test_columns_without_room_are_printed_below_with_the_leading_columns_repeated():
    rows = [("arm", "accuracy", "interval", "parameters"), ("padding=same", "0.97 ± 0.01", "[0.96, 0.98]", "62,346")]
    above, below = align_table(rows, [False, True, True, True], 42).split("\n\n")
    assert above.splitlines()[2].split() == ["padding=same", "0.97", "±", "0.01", "[0.96,", "0.98]"]
    assert below.splitlines()[0].split() == ["arm", "parameters"]
    assert below.splitlines()[2].split() == ["padding=same", "62,346"]


@given(st.lists(st.text("abc\u6f22", min_size=1, max_size=60), min_size=1), st.integers(10, 80))
def test_folded_text_has_the_same_characters_in_lines_that_fit(words, width):
    lines = fold(" ".join(words), width, hang="  ")
    assert max(map(_width, lines)) <= width
    assert "".join("".join(lines).split()) == "".join(words)
    assert fold(" ".join(words), None) == [" ".join(words)]


def test_without_a_width_every_row_is_one_line():
    text = write_terminal(make_document(make_table(["a" * 5000])))
    assert "a" * 5000 in text


@pytest.mark.parametrize("write", [write_terminal, write_markdown, write_latex])
def test_control_characters_never_reach_the_reader(write):
    document = Document("t\x1b[31m", ("f\x07",), (make_table(["a\x1b]0;x\x07b\x9b"]),), ("n\x00\nm",))
    assert all(mark.isprintable() or mark == "\n" for mark in write(document))


def test_a_table_without_rows_keeps_its_headings():
    assert write_csv(make_table([])) == '"model.kernel_size","count","test accuracy"'
    assert "| model.kernel_size | count | test accuracy |" in write_markdown(make_document(make_table([])))
    assert "model.kernel_size" in write_terminal(make_document(make_table([])))


def test_a_word_to_be_copied_is_never_broken():
    assert fold("see /a/long/path.txt there", 8, hang="  ", cut_words=False) == ["see", "  /a/long/path.txt", "  there"]
