"""The HTML report: one file, nothing fetched, everything said."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from tests.support.browser import chromium
from tests.support.tiny import checkpoint
from typer.testing import CliRunner

from vlm_pruner.cli import app

SCREENSHOTS = Path(__file__).parents[2] / "out" / "screenshots"


class Links(HTMLParser):
    """Collects every address that a browser would follow or load by itself."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action", "data")]
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report")
    Image.radial_gradient("L").resize((500, 400)).convert("RGB").save(folder / "cup.png")
    words = [
        "report",
        folder / "cup.png",
        "what is <b>this</b> ?",
        "--model",
        checkpoint(),
        "--methods",
        "random, none",
    ]
    words += ["--keep", "192,0.111", "--max-new-tokens", 3, "-o", folder / "new" / "r.html"]
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    return (folder / "new" / "r.html").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_anywhere(page):
    links = Links(page)
    assert links.open == []  # every element is closed
    assert links.addresses
    assert all(a.startswith("data:") for a in links.addresses)
    assert not re.search(r"https?://|@import|url\(|<script", page)


def test_every_run_has_its_card_picture_plan_and_row(page):
    assert page.count("<article") == 4
    assert page.count('alt="Tokens kept by Random') == 2
    assert page.count("&quot;version&quot;: 1") == 2
    for text in ("Random, 192 tokens", "Random, 11.1 % of the tokens", "192/576", "64/576", "prefill, ms"):
        assert text in page


def test_it_says_what_was_asked_about_when_and_with_what(page):
    head = page[: page.index("</header>")]
    assert re.search(
        r"Image: cup\.png, 500 x 400 pixels\. Made \d{4}-\d\d-\d\dT\S+ with vlm-pruner \S+, torch \S+,", head
    )
    assert page.count("tokens a layer on average") == 4


def test_text_from_outside_is_escaped(page):
    assert "<b>this</b>" not in page
    assert "what is &lt;b&gt;this&lt;/b&gt; ?" in page


def test_it_fits_phones_prints_and_knows_dark_mode(page):
    for rule in ("width=device-width", "@media print", "prefers-color-scheme: dark", "min-width: 760px"):
        assert rule in page


def test_the_file_is_small(page):
    assert len(page) < 400_000


@pytest.mark.browser
def test_a_browser_shows_it_whole_on_a_phone_a_screen_and_paper(page, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for width, media in ((390, "screen"), (1400, "screen"), (794, "print")):
            tab = browser.new_page(viewport={"width": width, "height": 900})
            asked, said = [], []
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.on("console", lambda message, said=said: said.append(message.text))
            tab.emulate_media(media=media)
            tab.goto(file.as_uri())
            tab.screenshot(path=SCREENSHOTS / f"report-{media}-{width}.png", full_page=True)
            assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
            assert said == []
            assert tab.evaluate("document.documentElement.scrollWidth") == width
            images = tab.evaluate(
                "[...document.images].filter(i => i.checkVisibility()).map(i => i.complete && i.naturalWidth)"
            )
            assert len(images) == 3
            assert all(images)
            cells = tab.locator("tbody td:visible").evaluate_all(
                "all => all.map(cell => cell.firstChild.getBoundingClientRect().right <= window.innerWidth)"
            )
            assert len(cells) == 5 * 12
            assert all(cells), "no column is cut off"
            assert tab.get_by_role("table").get_by_role("row").count() == 6
            columns = tab.evaluate("getComputedStyle(document.querySelector('.cards')).gridTemplateColumns")
            assert (len(columns.split()) == 1) is (width == 390)
            tab.close()
