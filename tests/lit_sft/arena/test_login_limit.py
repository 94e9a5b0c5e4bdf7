"""How often an address may guess the password of the page."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lit_sft.arena.login_limit import MOST_GUESSES, LoginLimit


class Page:
    """A page with a password behind the limit, and a clock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.num_checked = 0
        self.limit = LoginLimit(self.app, now=lambda: self.seconds)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.num_checked += 1
        await asyncio.sleep(0)  # others come in between
        await send({"type": "http.response.start", "status": await receive(), "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def status(self, status: int, host: str = "10.0.0.1", path: str = "/login", method: str = "POST") -> int:
        """The status that a client gets if the page would answer with another one."""
        sent: list[Any] = []

        async def receive() -> int:
            return status

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "client": (host, 5)}
        await self.limit(scope, receive, send)
        return int(sent[0]["status"])

    def statuses(self, *wanted: int, **scope: str) -> list[int]:
        """The same for several requests, all at once."""

        async def together() -> list[int]:
            return await asyncio.gather(*(self.status(each, **scope) for each in wanted))

        return asyncio.run(together())


@pytest.fixture
def page() -> Page:
    return Page()


def test_after_ten_wrong_passwords_even_the_right_one_has_to_wait(page: Page) -> None:
    assert page.statuses(*[400] * MOST_GUESSES) == [400] * MOST_GUESSES
    assert page.statuses(200) == [429]
    assert page.statuses(200, path="/login/") == [429]
    assert page.num_checked == MOST_GUESSES
    page.seconds = 59.0
    assert page.statuses(200) == [429]
    page.seconds = 60.0
    assert page.statuses(200) == [200]


def test_guesses_at_the_same_time_are_not_all_checked(page: Page) -> None:
    assert sorted(page.statuses(*[400] * 100)) == [400] * MOST_GUESSES + [429] * (100 - MOST_GUESSES)


def test_right_passwords_and_other_requests_do_not_count(page: Page) -> None:
    for _ in range(3):
        assert page.statuses(*[200] * MOST_GUESSES) == [200] * MOST_GUESSES
        assert page.statuses(*[404] * 20, path="/theme.css", method="GET") == [404] * 20
        assert page.statuses(*[401] * 20, path="/gradio_api/queue/join") == [401] * 20
    assert page.statuses(*[400] * MOST_GUESSES) == [400] * MOST_GUESSES


def test_every_address_has_its_own_guesses_and_is_forgotten(page: Page) -> None:
    page.statuses(*[400] * MOST_GUESSES)
    assert page.statuses(400, host="10.0.0.2") == [400]
    assert page.statuses(400, host="::ffff:10.0.0.3") == [400]
    assert page.statuses(*[400] * MOST_GUESSES, host="2001:db8::1") == [400] * MOST_GUESSES
    assert page.statuses(400, host="2001:db8::2") == [429], "a client may choose any address of its network"
    assert page.statuses(400, host="2001:db8:0:1::2") == [400]
    page.seconds = 61.0
    assert page.statuses(400, host="") == [400]
    assert list(page.limit._guesses) == [""]
