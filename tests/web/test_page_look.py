"""The page at two sizes, in light and dark: what is in sight, what stands in rows, and what axe finds."""

from __future__ import annotations

import pytest
from PIL import Image
from tests.support.browser import overflow, shot
from tests.support.visit import DESKTOP, PHONE, Visit

pytestmark = pytest.mark.browser

SIZES = {"desktop": DESKTOP, "phone": PHONE}
SEEN = """e => { const box = e.getBoundingClientRect();
    return box.top >= 0 && box.bottom <= window.innerHeight && box.left >= 0 && box.right <= window.innerWidth; }"""
TOPS = "all => all.map(e => Math.round(e.getBoundingClientRect().top))"
SERIOUS = ("serious", "critical")


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids="-".join)
def visit(request, browser, address):
    size, scheme = request.param
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)
    visit = Visit(context, address)
    visit.name = f"{size}-{scheme}"
    yield visit
    visit.close()
    context.close()


def findings(page) -> list[str]:
    """What axe has against the page, if it is serious."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra `browser`")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]} {node['failureSummary'][:300]}"
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


def test_answers_and_pictures_are_in_sight_after_asking(visit):
    page = visit.page
    shot(page, f"{visit.name}-before")
    assert overflow(page) <= 0
    assert page.get_by_role("button", name="Ask", exact=True).evaluate(SEEN)
    assert findings(page) == []
    visit.ask()
    visit.done()
    page.wait_for_timeout(1000)  # scrolling there takes its time
    shot(page, visit.name, whole=False)
    shot(page, f"{visit.name}-whole")
    for number in (0, 1):
        assert visit.card(number).locator(".vp-answer").evaluate(SEEN)
        assert visit.card(number).locator("svg, img").first.evaluate(SEEN)
    assert overflow(page) <= 0
    assert findings(page) == []


def test_cards_stand_in_rows(context, address):
    visit = Visit(context, address, **{"try": "tome,11"})
    visit.ask()
    visit.done()
    for part in (".vp-answer", ".vp-verdicts", ".vp-card :is(.vp-panels, img):first-child", ".vp-facts"):
        tops = visit.page.locator(f".vp-results {part}").evaluate_all(TOPS)
        assert len(tops) >= 2, part
        assert len(set(tops[:2])) == 1, (part, tops)
    names = [visit.card(number).locator("dt").all_inner_texts() for number in (0, 1)]
    assert names[0] == names[1]
    facts = [visit.card(number).locator("dt").evaluate_all(TOPS) for number in (0, 1)]
    assert facts[0] == facts[1]
    visit.close()


def test_tokens_are_counted_before_anybody_asks(context, address):
    visit = Visit(context, address)
    first, second, third = (visit.page.locator(f"#vp-choice-{number} .vp-count") for number in (1, 2, 3))
    assert first.inner_text().split() == ["64", "of", "576", "tokens"]
    assert third.inner_text() == ""
    slider = visit.page.get_by_role("slider", name="Keep 1, %")
    slider.press("End")
    visit.linked("vlm-pruner,100")
    first.get_by_text("576 of 576").wait_for()
    visit.choose("Method 2", "V2Drop")
    visit.linked("v2drop,11")
    line = visit.page.locator("#vp-choice-2 .vp-line")
    line.get_by_text("left at the end").wait_for()
    assert "a layer on average. Keeps the tokens that the layer before changed most" in line.inner_text()
    assert second.inner_text().split() == ["64", "of", "576", "tokens"]
    visit.close()


def test_an_empty_question_leaves_the_results_as_they_are(context, address):
    visit = Visit(context, address)
    visit.ask()
    visit.done()
    before = visit.page.locator("#vp-results").inner_html()
    visit.page.get_by_label("Question", exact=True).fill("  ")
    visit.ask()
    assert visit.alert() == "the question is empty"
    assert visit.page.locator("#vp-results").inner_html() == before
    assert "Done." in visit.page.locator("#vp-status").inner_text()
    visit.close()


def test_what_was_typed_stays_with_another_picture_and_what_was_suggested_does_not(context, address, tmp_path):
    Image.radial_gradient("L").resize((300, 200)).save(tmp_path / "mine.png")
    Image.radial_gradient("L").resize((100, 200)).save(tmp_path / "other.png")
    visit = Visit(context, address)
    question = visit.page.get_by_label("Question", exact=True)
    question.fill("Is it a hat?")
    visit.upload(tmp_path / "mine.png")
    visit.page.get_by_text("Your picture, 300 x 200 pixels").wait_for()
    assert question.input_value() == "Is it a hat?"
    visit.page.locator("#vp-code").get_by_text("open_shown('mine.png')").wait_for()
    question.fill("What is shown here?")
    visit.upload(tmp_path / "other.png")
    visit.page.locator("#vp-code").get_by_text("open_shown('other.png')").wait_for()
    visit.page.get_by_role("radio", name="Photograph: Cat").check(force=True)
    visit.linked("photo-chelsea")
    assert question.input_value() == "What animal is this?"
    visit.close()


def test_agreement_about_what_the_model_does_not_know_is_no_good_sign(context, address, tmp_path):
    visit = Visit(context, address, picture="photo-rocket")
    visit.ask()
    visit.done()
    assert "outside what the embedded model knows: it guesses" in visit.page.locator("#vp-status").inner_text()
    assert visit.page.locator(".vp-same, .vp-other").count() == 0
    assert visit.page.locator(".vp-even").count() == 2
    assert "struck" in visit.card(0).locator("img").first.get_attribute("alt")
    shot(visit.page, "guesses", whole=False)
    visit.close()
