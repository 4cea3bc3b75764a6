"""The page of a comparison: whole, safe with any name, and, in a real browser, sortable, readable and alone."""

import dataclasses
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cnnjax.reports.page import write_html
from comparison_helpers import RULES, make_arms, make_example, make_findings

HOSTILE = (
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(2)>", "{{ 7 * 7 }}", "</svg><b>$x$", "a\x00\x1b[31m",
)  # fmt: skip
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Reader(HTMLParser):
    """Collects elements, text, and tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.elements, self.text, self.open, self.wrong = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


@pytest.fixture(scope="module")
def page():
    return write_html(make_example())


@pytest.fixture(scope="module")
def hostile_page():
    arms, _ = make_arms({"model.padding": ("plain", *HOSTILE), "model.filters": ("1", "2")}, leave_out_last=False)
    arms[3] = dataclasses.replace(arms[3], records={}, problem=HOSTILE[0])
    return write_html(make_findings(arms, arms[0].name, title=HOSTILE[0], command=HOSTILE[1], facts=HOSTILE))


class TestPage:
    def test_is_well_formed(self, page):
        reader = read(page)
        assert (reader.open, reader.wrong) == ([], [])

    def test_begins_with_sentences_and_ends_with_the_command(self, page):
        headings = re.findall("<h2>(.*?)</h2>", page)
        assert headings == [
            "Summary", "Differences between arms", "Runs of the same seed",
            "Accuracy against parameters", "Shares of the variance", "Main effects", "Interactions",
            "Effects at equal size", "Factor against factor", "Learning curves", "Tables", "Confusions",
            "The hardest images", "Failures", "Provenance",
        ]  # fmt: skip
        assert "<pre><code>python -m experiments.compare example" in page.partition("Provenance</h2>")[2]

    def test_refers_to_nothing_outside(self, page):
        for tag, attributes in read(page).elements:
            assert tag not in ("link", "iframe", "object", "embed", "base")
            for name in ("src", "href", "xlink:href", "srcset", "action"):
                value = attributes.get(name) or "#"
                assert value.startswith(("#", "data:image/png;base64,")), value
        assert not re.search(r"@import|url\((?!#)", page)

    def test_forbids_requests_by_its_policy(self, page):
        policy = dict(read(page).elements[3][1])["content"]
        assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")

    def test_identifiers_are_unique_and_references_found(self, page):
        attributes = [each for _, each in read(page).elements]
        names = [each["id"] for each in attributes if "id" in each]
        assert len(names) == len(set(names))
        targets = re.findall(r"url\(#([^)]+)\)", page) + re.findall(r'href="#([^"]+)"', page)
        assert set(targets) <= set(names)

    def test_every_picture_has_a_name_for_those_who_do_not_see_it(self, page):
        pictures = [each for tag, each in read(page).elements if tag == "svg"]
        assert len(pictures) == 11
        assert all(each["role"] == "img" and len(each["aria-label"]) > 20 for each in pictures)

    def test_pictures_take_the_colour_of_the_page(self, page):
        for svg in re.findall("<svg.*?</svg>", page, re.DOTALL):
            assert "#1b1b1c" not in svg
            assert "currentColor" in svg
            assert ET.fromstring(svg).tag.endswith("svg")

    def test_is_the_same_every_time(self, page):
        assert write_html(make_example()) == page

    def test_says_what_failed(self, page):
        failures = page.partition("Failures</h2>")[2]
        assert "diverged: padding=same, strides=2, filters=[16,32], seed=0" in failures
        assert "invalid: padding=valid, strides=2, filters=[4,8]: model: MaxPool_1" in failures
        assert "failed: " in failures

    def test_verdicts_are_written_out(self, page):
        for word in ("better", "worse", "undecided"):
            assert f'<span class="verdict {word}">{word}</span>' in page

    def test_leaves_out_pictures_without_results_and_says_why(self):
        arms, _ = make_arms({"model.padding": ("valid", "same")}, seeds=(0,), leave_out_last=False, epochs=1)
        page = write_html(make_findings(arms, arms[0].name))
        assert "<h2>Learning curves</h2>" not in page
        assert "not drawn: learning curves: No completed run has more than one epoch." in page
        assert "Every run that has ended has a score" in page
        assert "makes this report again" not in page
        assert read(page).wrong == []

    def test_names_stay_text_whatever_they_are(self, hostile_page):
        reader = read(hostile_page)
        assert reader.wrong == []
        tags = [tag for tag, _ in reader.elements]
        assert tags.count("script") == 1
        assert not {"img", "b"} & set(tags)
        text = "".join(reader.text)
        assert all(name in text for name in HOSTILE[:4])
        assert not any(attribute.startswith("on") for _, each in reader.elements for attribute in each)
        assert "\x00" not in hostile_page
        assert "\x1b" not in hostile_page

    def test_one_undecided_comparison_is_not_counted(self):
        base = "model.padding=valid, model.strides=1, model.filters=[8,16]"
        findings = make_findings(make_arms()[0], base, rules=dataclasses.replace(RULES, alpha=0.01))
        (said,) = re.findall("<li>(.*would be decided.*)</li>", write_html(findings))
        assert said.startswith("The undecided comparison would be decided by 17 seeds in all, ")
        assert "<code>ablations.run --top-up</code>" in said

    def test_code_in_sentences_is_set_as_code(self):
        page = write_html(dataclasses.replace(make_example(), remarks=("as `ls -l <b>` says; a lone ` stays",)))
        assert "<li>as <code>ls -l &lt;b&gt;</code> says; a lone ` stays</li>" in page

    @pytest.mark.slow
    def test_of_a_large_study_stays_small(self):
        levels = {"model.dense": tuple(str(width) for width in range(10)), "model.padding": tuple("abcdef")}
        arms, _ = make_arms(levels, seeds=range(20), leave_out_last=False)
        assert len(write_html(make_findings(arms, arms[0].name)).encode()) < 5_000_000


CONTRASTS = """() => [...document.querySelectorAll(
  "h1, .facts, li, figcaption, td, th button, a, .verdict, svg text"
)].map((element) => [element.tagName, getComputedStyle(element)[element.tagName === "text" ? "fill" : "color"]])"""
CELLS = "(column) => [...document.querySelector('table').tBodies[0].rows].map((row) => row.cells[column].textContent)"


def find_column(tab, table, heading):
    return tab.locator("table").nth(table).locator("th").all_text_contents().index(heading)


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs pip install 'cnnjax[browser]'")
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("needs a Chromium on the path (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, tmp_path):
    """Opens a page from disk; what it asks for, and what goes wrong in it, is kept."""
    contexts = []

    def open_page(text, **options):
        path = Path(tmp_path / "report.html")
        path.write_text(text, "utf-8")
        contexts.append(chromium.new_context(**options))
        tab = contexts[-1].new_page()
        tab.requests, tab.troubles = [], []
        tab.on("request", lambda request: tab.requests.append(request.url))
        tab.on("pageerror", lambda error: tab.troubles.append(str(error)))
        tab.on("console", lambda message: tab.troubles.append(message.text))
        tab.on("dialog", lambda dialog: (tab.troubles.append(dialog.message), dialog.dismiss()))
        tab.goto(path.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()


def luminance(colour):
    values = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    dark, light = sorted(map(luminance, (first, second)))
    return (light + 0.05) / (dark + 0.05)


def background(tab):
    return tab.evaluate("() => getComputedStyle(document.body).backgroundColor")


@pytest.mark.slow
class TestInABrowser:
    def test_loads_nothing_but_itself(self, visit, page):
        tab = visit(page)
        tab.mouse.wheel(0, 100_000)
        tab.wait_for_timeout(200)
        assert [url for url in tab.requests if not url.startswith("data:")] == [tab.url]
        assert tab.troubles == []

    def test_sorts_by_clicks_numbers_as_numbers(self, visit, page):
        tab = visit(page)
        heading = tab.locator("table").first.get_by_role("button", name="parameters", exact=True)
        column = find_column(tab, 0, "parameters")
        before = tab.evaluate(CELLS, column)
        heading.click()
        head = tab.locator("table").first.locator("th").nth(column)
        assert head.get_attribute("aria-sort") == "ascending"
        rising = [int(text.replace(",", "")) for text in tab.evaluate(CELLS, column) if text]
        assert rising == sorted(rising) != [int(text.replace(",", "")) for text in before if text]
        heading.click()
        assert head.get_attribute("aria-sort") == "descending"
        falling = tab.evaluate(CELLS, column)
        assert falling[-1] == "" == before[4]
        assert [int(text.replace(",", "")) for text in falling if text] == rising[::-1]

    def test_sorts_differences_by_their_sign(self, visit, page):
        tab = visit(page)
        table, column = tab.locator("table").nth(1), find_column(tab, 1, "difference")
        table.get_by_role("button", name="difference", exact=True).click()
        differences = [float(text) for text in table.locator(f"tbody td:nth-child({column + 1})").all_text_contents()]
        assert differences == sorted(differences)
        assert differences[0] < -1 < 1 < differences[-1]

    def test_sorts_by_the_keyboard_texts_as_texts(self, visit, page):
        tab = visit(page)
        tab.locator("table").first.get_by_role("button", name="padding", exact=True).focus()
        tab.keyboard.press("Enter")
        texts = tab.evaluate(CELLS, 0)
        assert texts == sorted(texts)
        tab.keyboard.press("Tab")
        tab.keyboard.press("Space")
        assert tab.locator("th[aria-sort]").count() == 1
        assert tab.evaluate("() => document.activeElement.textContent") == "strides"

    def test_tables_are_whole_without_scripts(self, visit, page):
        tab = visit(page, java_script_enabled=False)
        assert tab.locator("table").first.locator("tbody tr").count() == 15
        assert not tab.locator("#theme").is_visible()

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_text_is_readable_in_light_and_dark(self, visit, page, scheme):
        tab = visit(page, color_scheme=scheme)
        paper = background(tab)
        assert (luminance(paper) < 0.1) == (scheme == "dark")
        on_cells = {"rgb(0, 0, 0)", "rgb(255, 255, 255)"}  # numbers on the colours of a heat map
        for tag, colour in tab.evaluate(CONTRASTS):
            assert (tag == "text" and colour in on_cells) or contrast(colour, paper) >= 4.5, (tag, colour, paper)

    def test_the_button_switches_between_light_and_dark(self, visit, page):
        tab = visit(page, color_scheme="light")
        light = background(tab)
        tab.locator("#theme").click()
        assert luminance(background(tab)) < 0.1 < luminance(light)
        tab.locator("#theme").click()
        assert background(tab) == light

    def test_a_dark_page_is_printed_light(self, visit, page):
        tab = visit(page, color_scheme="dark")
        tab.emulate_media(media="print", color_scheme="dark")
        assert luminance(background(tab)) > 0.9
        assert tab.pdf().startswith(b"%PDF")

    @pytest.mark.parametrize("width", [320, 360, 800])
    def test_a_narrow_screen_scrolls_boxes_but_never_the_page(self, visit, page, hostile_page, width):
        for text in (page, hostile_page):
            tab = visit(text, viewport={"width": width, "height": 700})
            assert tab.evaluate("() => document.documentElement.scrollWidth") <= width
        assert tab.evaluate("() => [...document.querySelectorAll('.box')].some((b) => b.scrollWidth > b.clientWidth)")

    def test_hostile_names_are_text(self, visit, hostile_page):
        tab = visit(hostile_page)
        tab.wait_for_timeout(200)
        assert tab.troubles == []
        assert tab.locator("h1").text_content() == HOSTILE[0]
        assert tab.locator("#provenance code").text_content() == HOSTILE[1]
        assert tab.locator("img").count() == 0
        assert tab.title() == HOSTILE[0]
        assert [url for url in tab.requests if not url.startswith("data:")] == [tab.url]
