"""The demo page in a browser, driven like a visitor would."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from tests.support.browser import Watch
from tests.support.demo_server import HOLD, OUTSIDE

__all__ = ["DESKTOP", "PHONE", "Visit", "demo"]

ROOT = Path(__file__).parents[2]
DESKTOP, PHONE = {"width": 1400, "height": 800}, {"width": 390, "height": 844}


@contextmanager
def demo(folder: Path) -> Iterator[str]:
    """The address of the page on a free port, in a process of its own that is stopped like a user stops it.

    Args:
        folder: for what the server says on stderr; a file "hold" in it makes every answer wait.
    """
    log = folder / "stderr"
    command = [sys.executable, "-m", "tests.support.demo_server", "demo", "--port", "0", "--minutes", "25"]
    environment = os.environ | {HOLD: str(folder / "hold")}
    with log.open("w") as errors:
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, f"{line!r}\n{log.read_text()}"
        yield found[0]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        server.stdout.close()
    said = log.read_text()
    assert OUTSIDE not in said
    assert "Traceback" not in said


class Visit:
    """One visitor's page."""

    def __init__(self, context, address: str, **query: str) -> None:
        self.page = context.new_page()
        self.watch = Watch(self.page)
        self.page.goto(f"{address}/?{urlencode(query)}")
        self.linked("picture=")

    def wait_until(self, script: str) -> None:
        self.page.wait_for_function(f"() => {script}")

    def linked(self, part: str) -> None:
        """Wait until the link has it: the server has answered to the last change."""
        self.wait_until(f"document.querySelector('#vp-link')?.innerText.includes('{part}')")

    def ask(self) -> None:
        self.page.get_by_role("button", name="Ask", exact=True).click()

    def done(self, text: str = "Done.") -> None:
        self.page.get_by_role("status").get_by_text(text).wait_for()

    def card(self, number: int):
        return self.page.locator(".vp-card").nth(number)

    def alert(self) -> str:
        self.page.get_by_role("alert").first.wait_for()
        return self.page.get_by_role("alert").first.inner_text()

    def upload(self, path: Path) -> None:
        self.page.locator("#vp-upload input[type=file]").set_input_files(str(path))

    def choose(self, label: str, option: str) -> None:
        """Go to an option with the keyboard alone."""
        box = self.page.get_by_label(label, exact=True)
        box.press("Home")
        for _ in range(box.locator("option").count()):
            if self.chosen(label) == option:
                return
            box.press("ArrowDown")
        raise AssertionError(f"{label} does not offer {option}")

    def chosen(self, label: str) -> str:
        """The name of the option, without the line that says what it does."""
        return self.page.get_by_label(label, exact=True).locator("option:checked").inner_text().split(" – ")[0]

    def close(self) -> None:
        self.watch.check()
        self.page.close()
