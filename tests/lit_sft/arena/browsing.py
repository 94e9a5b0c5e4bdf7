"""The arena's page in a real browser, for tests."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lit_sft.arena.battles import VoteFile
from lit_sft.arena.visits import Arena
from lit_sft.models.generation import GenerationSettings
from tests.lit_sft.arena.scripted import ScriptedPlayer

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LONGEST_MS = 120_000.0
"""How long to wait for a change of the page, in milliseconds."""


@contextmanager
def a_browser() -> Iterator[Any]:
    """A browser of this machine, driven by Playwright; skips the test where either is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs `make test-arena`, which installs playwright")
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        pytest.skip("needs a browser: apt-get install chromium fonts-wqy-zenhei")
    with playwright.sync_playwright() as driver:
        # the sandbox needs rights that containers lack
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@contextmanager
def served(
    folder: Path, *players: ScriptedPlayer, source: random.Random | None = None, port: int = 0, **options: Any
) -> Iterator[str]:
    """Serve a page with players from this process; gives its address. Votes go to `votes.jsonl` in the folder."""
    pytest.importorskip("gradio", reason="needs `make test-arena`, which installs gradio")
    from lit_sft.arena.page import make_page
    from lit_sft.arena.page_server import serve_page

    votes = VoteFile(folder / "votes.jsonl")
    arena = Arena(players, GenerationSettings(64, 0.7, 0.95), votes, source=source)
    page = make_page(arena, title="Arena", about="two models", **options)
    yield serve_page(page, host="127.0.0.1", port=port)
    page.close(verbose=False)
    arena.end()


class Tab:
    """A tab of the browser with the page.

    Args:
        context: A context of the browser; tabs of one context share what the browser stores.
        address: The page's.
        viewport: Width and height.

    Attributes:
        page: Playwright's.
        requests: Addresses of all requests.
        errors: What the browser reported.
    """

    def __init__(self, context: Any, address: str, viewport: tuple[int, int] = (1280, 900)) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(LONGEST_MS)
        self.page.set_viewport_size({"width": viewport[0], "height": viewport[1]})
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._note)
        self.page.goto(address)
        self._wait_until_loaded("")

    def _wait_until_loaded(self, tab_before: str) -> None:
        self.box.wait_for()
        self.page.wait_for_function(
            "before => ![null, before].includes(sessionStorage.getItem('arena.tab'))", arg=tab_before
        )

    def _note(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    @property
    def box(self) -> Any:
        """The box for a message."""
        return self.page.locator(".message textarea >> visible=true")

    def send(self, text: str) -> None:
        """Type a message and press Enter."""
        self.box.fill(text)
        self.box.press("Enter")

    def show_blind(self) -> None:
        """Switch to blind votes."""
        self.page.get_by_role("tab", name="Blind vote").click()

    def answers(self) -> list[str]:
        """The answers that are shown."""
        return list(self.page.locator(".answered >> visible=true").all_inner_texts())

    def wait_for_answers(self, *expected: str) -> None:
        """Wait until these answers are shown, column by column."""
        self.page.wait_for_function(
            "expected => JSON.stringify([...document.querySelectorAll('.answered')].filter(e => e.offsetParent)"
            ".map(e => e.innerText)) === JSON.stringify(expected)",
            arg=list(expected),
        )

    def button(self, name: str, number: int = 0) -> Any:
        """A button that is shown."""
        return self.page.get_by_role("button", name=name, exact=True).locator("visible=true").nth(number)

    def wait_until_enabled(self, name: str, number: int = 0) -> Any:
        """Wait until a button can be clicked; returns it."""
        button = self.button(name, number)
        button.wait_for()
        button.element_handle().wait_for_element_state("enabled")
        return button

    def wait_for_text(self, text: str) -> None:
        """Wait until the page shows a text."""
        self.page.get_by_text(text).locator("visible=true").first.wait_for()

    def reload(self) -> None:
        """Reload the page. What Gradio reports because its connection ends is not an error."""
        before, tab = len(self.errors), self.page.evaluate("sessionStorage.getItem('arena.tab')")
        self.page.reload()
        self._wait_until_loaded(tab)
        leaving = ("AbortError", "Connection errored out")
        self.errors[before:] = [each for each in self.errors[before:] if not any(word in each for word in leaving)]
