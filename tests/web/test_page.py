"""The page in a real browser: `vlm-pruner demo` on the embedded model, driven like a visitor would."""

from __future__ import annotations

from contextlib import suppress

import pytest
from PIL import Image
from tests.support.browser import shot
from tests.support.visit import DESKTOP, Visit

pytestmark = pytest.mark.browser


def test_upload_a_video_and_scrub_through_its_frames(context, address, tmp_path):
    frames = [Image.new("RGB", (160, 120), (40 * n, 90, 90)) for n in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=200)
    visit = Visit(context, address)
    visit.upload(tmp_path / "a.gif")
    visit.page.get_by_text("Your video, 4 frames of 0.8 seconds").wait_for()
    visit.page.get_by_role("button", name="Ask").click()
    visit.done()
    slider, films = visit.page.get_by_label("Frame", exact=True), visit.page.locator(".vp-film")
    assert films.count() >= 1
    assert slider.get_attribute("max") == "4"
    for number, seconds in ((1, "0.0 s"), (3, "0.4 s")):
        slider.fill(str(number))
        shown = films.first.locator("figure:visible")
        assert shown.count() == 1
        assert shown.inner_text().startswith(seconds)
        assert films.first.locator(".vp-now").get_attribute("data-frame") == str(number - 1)
    shot(visit.page, "video")
    visit.close()


def test_ask_and_see_the_answers_side_by_side(context, address):
    visit = Visit(context, address)
    assert visit.page.title() == "vlm-pruner"
    visit.ask()
    visit.done()
    assert visit.page.locator(".vp-card").count() == 3
    assert "576 of 576 tokens" in visit.card(0).inner_text()
    assert "MARCH" in visit.card(0).inner_text()
    for number in (1, 2):
        assert "64 of 576 tokens" in visit.card(number).inner_text()
        assert visit.card(number).locator("svg g rect").count() == 64
    visit.card(1).get_by_text("Plan (JSON)").click()
    assert '"method": "vlm-pruner"' in visit.card(1).locator("pre").inner_text()
    shot(visit.page, "desktop")
    visit.close()


def test_budget_method_and_place_can_be_changed_with_the_keyboard(context, address):
    visit = Visit(context, address)
    slider = visit.page.get_by_role("slider", name="Keep 1, %")
    slider.focus()
    for _ in range(14):
        slider.press("ArrowRight")
    visit.choose("Method 2", "FastV")
    visit.choose("Where 2", "layer 3 of 8")
    visit.linked("fastv,11,3")
    visit.page.get_by_label("Question", exact=True).press("Enter")
    visit.done()
    assert "144 of 576 tokens" in visit.card(1).inner_text()
    assert "FastV" in visit.card(2).inner_text()
    assert "at decoder layer 3" in visit.card(2).inner_text()
    visit.close()


def test_files_that_cannot_be_used_are_refused_and_the_page_lives_on(context, address, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    Image.radial_gradient("L").resize((300, 200)).save(tmp_path / "mine.png")
    visit = Visit(context, address)
    visit.upload(tmp_path / "broken.png")
    assert "'broken.png' is not a readable image" in visit.alert()
    visit.upload(tmp_path / "huge.png")
    visit.page.get_by_role("alert").get_by_text("10000 x 10000 = 100 megapixels; at most 64 are read").wait_for()
    shot(visit.page, "refused")
    with (tmp_path / "vast.png").open("wb") as file:
        file.truncate(65_000_000)
    (tmp_path / "note.txt").write_text("no picture")
    for name, message in (
        ("vast.png", "'vast.png' has 65 MB; at most 64 are read"),
        ("note.txt", "'note.txt' is neither an image nor a video"),
    ):
        visit.upload(tmp_path / name)
        visit.page.get_by_role("alert").get_by_text(message).wait_for()
    visit.upload(tmp_path / "mine.png")
    visit.page.get_by_text("Your picture, 300 x 200 pixels").wait_for()
    assert visit.page.get_by_role("alert").count() == 0
    visit.ask()
    visit.done()
    assert visit.page.locator(".vp-card").count() == 3
    visit.close()


def test_two_visitors_at_once_are_both_served(browser, address, hold):
    contexts = [browser.new_context(viewport=DESKTOP) for _ in range(2)]
    first, second = visits = [Visit(context, address) for context in contexts]
    first.ask()
    first.done("Answer 1 of 3: All tokens.")
    second.ask()
    second.done("Waiting for 1 answer of other visitors, then: All tokens.")
    hold.unlink()
    for visit in visits:
        visit.done()
        assert visit.page.locator(".vp-card[data-state=done]").count() == 3
    for visit, context in zip(visits, contexts, strict=True):
        visit.close()
        context.close()


def test_a_run_can_be_stopped_and_another_begun(context, address):
    from playwright.sync_api import TimeoutError

    visit = Visit(context, address)
    visit.choose("Method 3", "ToMe")
    for _ in range(10):  # a machine may be done before the click arrives
        visit.ask()
        with suppress(TimeoutError):
            visit.page.locator("#vp-stop:enabled").click(timeout=2000)
        visit.wait_until("/Stopped|Done/.test(document.querySelector('#vp-status').innerText)")
        if "Stopped." in visit.page.locator("#vp-status").inner_text():
            break
    visit.done("Stopped.")
    assert visit.page.locator(".vp-card[data-state=stopped]").count() >= 1
    visit.ask()
    visit.done()
    assert visit.page.locator(".vp-card[data-state=done]").count() == 4
    visit.close()


def test_the_selection_plays_in_its_order(context, address):
    visit = Visit(context, address, **{"try": "vlm-pruner,11"})
    visit.ask()
    visit.done()
    slider = visit.page.get_by_role("slider", name="Order of selection")
    shown = visit.card(1).locator("svg g rect:visible")
    slider.press("Home")
    assert shown.count() == 0
    for _ in range(25):
        slider.press("ArrowRight")
    assert shown.count() == 16
    assert {int(rank) for rank in shown.evaluate_all("all => all.map(cell => cell.dataset.rank)")} == set(range(16))
    assert visit.page.locator("#vp-shown").inner_text() == "the first 25 %"
    visit.page.get_by_role("button", name="Play").click()
    visit.page.locator("#vp-shown").get_by_text("all that was kept").wait_for()
    assert shown.count() == 64
    visit.close()


def test_a_link_brings_everything_back(context, address):
    query = {"picture": "scene-counting", "question": "Is there a sun?", "try": "divprune,20,2", "tokens": "8"}
    visit = Visit(context, address, **query)
    assert visit.page.get_by_label("Question", exact=True).input_value() == "Is there a sun?"
    assert visit.chosen("Method 1") == "DivPrune"
    assert visit.chosen("Where 1") == "layer 2 of 8"
    assert visit.page.get_by_role("slider", name="Keep 1, %").input_value() == "20"
    link = visit.page.locator("#vp-link a").get_attribute("href")
    assert link == f"{address}/?picture=scene-counting&question=Is+there+a+sun%3F&tokens=8&try=divprune,20,2"
    assert 'vp.prune(loaded.model, "divprune", keep=0.2, layer=2)' in visit.page.locator("#vp-code").inner_text()
    shot(visit.page, "link")
    visit.close()
    broken = Visit(context, address, picture="nowhere", **{"try": "vlm-prunner,11"})
    assert "did you mean 'vlm-pruner'?" in broken.alert()
    assert "there is no picture 'nowhere'" in broken.alert()
    broken.close()


NAMELESS = """() => [...document.querySelectorAll('input, button, select, textarea, summary')]
    .filter(e => e.offsetParent !== null)
    .filter(e => !(e.getAttribute('aria-label') || e.labels?.[0]?.textContent.trim() || e.textContent.trim()))
    .map(e => e.outerHTML.slice(0, 200))"""


def test_every_control_has_a_name_and_can_be_reached_with_the_keyboard(context, address):
    visit = Visit(context, address)
    assert visit.page.evaluate(NAMELESS) == []
    groups = visit.page.locator("fieldset").evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
    assert groups == ["Pictures", "Questions to try"]
    reached = set()
    visit.page.locator("body").press("Tab")
    for _ in range(80):
        reached.add(
            visit.page.evaluate(
                "() => { const e = document.activeElement; return e.getAttribute('aria-label') || e.innerText"
                " || e.labels?.[0]?.innerText || '' }"
            ).strip()
        )
        visit.page.keyboard.press("Tab")
    assert {"Ask", "Method 1", "Where 3", "Keep 2, %", "Click to upload or drop files"} <= reached
    visit.close()
