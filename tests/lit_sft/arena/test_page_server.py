"""What surrounds the page: headers of responses, and the user's proxies."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from lit_sft.arena.page_server import _bypass_proxies, _Guarded, with_host


def answered(**headers: str) -> list[Any]:
    """What the browser gets for a POST request with headers."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"page"})

    async def send(message: Any) -> None:
        sent.append(message)

    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(_Guarded(app)({"type": "http", "method": "POST", "headers": given}, None, send))
    return sent


def test_every_response_forbids_to_load_from_elsewhere() -> None:
    start, body = answered(host="127.0.0.1:7860")
    headers = dict(start["headers"])
    assert headers[b"content-type"] == b"text/html"
    rules = dict(rule.strip().split(" ", 1) for rule in headers[b"content-security-policy"].decode().split(";"))
    assert rules["default-src"] == rules["connect-src"] == "'self'"
    assert not any(word.startswith(("http", "*", "//")) for rule in rules.values() for word in rule.split())
    assert body["body"] == b"page"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:7860", 200),
        ("http://evil.example", 403),
        ("http://127.0.0.1:9", 403),
        ("null", 403),
        ("http://[", 403),
    ],
)
def test_pages_of_other_sites_send_nothing(origin: str, status: int) -> None:
    start, body = answered(host="127.0.0.1:7860", origin=origin)
    assert start["status"] == status
    assert (body["body"] == b"page") is (status == 200)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("0.0.0.0", "http://0.0.0.0:7950/"),
        ("::", "http://[::]:7950/"),
        ("127.0.0.1", "http://127.0.0.1:7950/"),
    ],
)
def test_the_address_has_the_host_that_is_listened_on(host: str, address: str) -> None:
    assert with_host("http://localhost:7950/", host) == address


def test_the_users_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    monkeypatch.setenv("no_proxy", "")
    _bypass_proxies("10.0.0.1")
    assert os.environ["NO_PROXY"] == "intranet.example,127.0.0.1,localhost,10.0.0.1"
    assert os.environ["no_proxy"] == "127.0.0.1,localhost,10.0.0.1"
