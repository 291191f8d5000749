"""A headless Chromium of the system and pages in it that keep a record of what must not happen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

SHOTS = Path(__file__).parents[2] / "out" / "screenshots"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LOCAL = {"127.0.0.1", "localhost"}
WAIT = 60_000  # milliseconds; a busy machine is slow, not wrong


def find() -> str:
    """The browser's path; skips the test where Playwright or a browser is missing."""
    pytest.importorskip("playwright", reason="needs the extra `browser`")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)}")
    return path


@contextmanager
def chromium() -> Iterator:
    """A running browser of Playwright; skips the test where Playwright or a browser is missing."""
    path = find()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


class Watch:
    """What a page complained about, and whom it asked."""

    def __init__(self, page) -> None:
        self.complaints: list[str] = []
        self.outside: list[str] = []
        page.set_default_timeout(WAIT)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("request", self._request)
        page.on("response", self._response)

    def _console(self, message) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.type}: {message.text}")

    def _request(self, request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob", "file") and parts.hostname not in LOCAL:
            self.outside.append(request.url)

    def _response(self, response) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url}")

    def check(self) -> None:
        """Nothing was complained about, nobody outside was asked."""
        assert not self.outside, self.outside
        assert not self.complaints, self.complaints


def shot(page, name: str, *, whole: bool = True) -> Path:
    """A picture of the page, or of what is in sight of it, under out/screenshots, for people to look at."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    path = SHOTS / f"{name}.png"
    page.screenshot(path=str(path), full_page=whole)
    return path


def overflow(page) -> int:
    """Pixels by which the page is wider than its window."""
    return page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
