"""Limits how often an address may guess the password of the page."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import Any

MOST_GUESSES = 10
"""Wrong passwords of an address within a minute; after them, even the right one is refused for a while."""

_SECONDS = 60.0

_REFUSAL = b'{"detail": "Too many wrong passwords. Try again in a minute."}'


class LoginLimit:
    """Refuses logins of an address that has sent too many wrong passwords. An ASGI middleware.

    Args:
        app: The ASGI application; answers a wrong password with a status from 400 on.
        now: The time in seconds.
    """

    def __init__(self, app: Callable[..., Any], now: Callable[[], float] = time.monotonic) -> None:
        self._app, self._now = app, now
        self._guesses: dict[str, list[float]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request."""
        if scope["type"] != "http" or not _is_login(scope):
            await self._app(scope, receive, send)
            return
        guesses = self._recent(_source(scope))
        if len(guesses) >= MOST_GUESSES:
            headers = [(b"content-type", b"application/json"), (b"retry-after", b"%d" % _SECONDS)]
            await send({"type": "http.response.start", "status": 429, "headers": headers})
            await send({"type": "http.response.body", "body": _REFUSAL})
            return
        guess = self._now()
        guesses.append(guess)  # before it is checked, so that many at once are not all let through

        async def send_noted(message: Any) -> None:
            is_right = message["type"] == "http.response.start" and message["status"] < 400
            if is_right and guess in guesses:
                guesses.remove(guess)
            await send(message)

        await self._app(scope, receive, send_noted)

    def _recent(self, source: str) -> list[float]:
        """The times of the wrong guesses within the last minute. Those of all addresses before it are forgotten."""
        since = self._now() - _SECONDS
        for each in [*self._guesses]:
            self._guesses[each][:] = [guess for guess in self._guesses[each] if guess > since]
            if not self._guesses[each]:
                del self._guesses[each]
        return self._guesses.setdefault(source, [])


def _is_login(scope: Any) -> bool:
    return scope["method"] == "POST" and bool(scope["path"].rstrip("/").endswith("/login"))


def _source(scope: Any) -> str:
    """The address of a client; of IPv6, the network, in which a client may choose any address."""
    host = str((scope.get("client") or ("",))[0]).partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address) or address.ipv4_mapped:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False))
