"""The HTML page from its entries alone."""

from __future__ import annotations

import re

from PIL import Image

from vlm_pruner.viz import Entry, report_page

FULL = Entry("All tokens", "four", None, 0.9, 0.9, ["576"])
SAME = Entry("Random, 64 tokens", "four", True, 0.8, 0.8, ["64"])
OTHER = Entry("Grid, 64 tokens", "f<ve", False, 0.6, 0.1, ["64"])


def cards(*entries: Entry) -> list[str]:
    page = report_page(
        question="How many?", image=Image.new("RGB", (8, 8)), entries=entries, columns=["tokens"], model="m", notes=()
    )
    return re.findall("<article.*?</article>", page)


def test_an_equal_answer_has_one_pair_of_bars():
    (card,) = cards(FULL, SAME)
    assert re.findall("Probability of “(.*?)”", card) == ["four"]
    assert re.findall(r"<b>([\d.]+)</b>", card) == ["0.900", "0.800"]
    assert "same answer as with all tokens" in card


def test_the_head_says_what_was_asked_about_when_and_with_what():
    page = report_page(
        question="How many?", image=Image.new("RGB", (8, 8)), entries=[FULL, SAME], columns=["tokens"], model="m",
        about="Image: <cup>.png, 8 x 8 pixels. Made today with vlm-pruner 0.1.0.",
    )  # fmt: skip
    head = page[: page.index("</header>")]
    assert "Image: &lt;cup&gt;.png, 8 x 8 pixels. Made today with vlm-pruner 0.1.0." in head
    assert page.count('data-name="tokens"') == 2


def test_another_answer_also_shows_how_sure_it_was_of_that():
    (card,) = cards(FULL, OTHER)
    assert re.findall("Probability of “(.*?)”", card) == ["four", "f&lt;ve"]
    assert re.findall(r"<b>([\d.]+)</b>", card) == ["0.900", "0.100", "0.600"]
    assert "differs from all tokens" in card
