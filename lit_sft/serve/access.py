"""Who may ask: whoever has the key, and without a key only programs of this machine."""

from __future__ import annotations

import hmac
import ipaddress
import re
from typing import Any

from starlette.responses import JSONResponse

from lit_sft.serve.errors import ApiError

_OPEN = ("/health",)
"""Paths for which no key is needed."""


class Guard:
    """Refuses requests without the key. A server without a key refuses names of other hosts.

    A page in a browser can ask any address, and make a name of its own mean this machine; but it then sends that name.

    Args:
        app: Is given the requests that are not refused.
        key: What clients must send; empty for none.
        host: The address that the server listens on.
    """

    def __init__(self, app: Any, key: str, host: str) -> None:
        self._app, self._key, self._host = app, key.encode(), host

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on a request, or answer that it is refused."""
        error = self._error(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
        else:
            await JSONResponse(error.body(), error.status, error.headers)(scope, receive, send)

    def _error(self, scope: Any) -> ApiError | None:
        headers = {name: value for name, value in scope["headers"] if name in (b"authorization", b"host")}
        if not self._key:
            host = headers.get(b"host", b"").decode("latin-1")
            return None if self._is_local(host) else _MISDIRECTED
        if scope["path"] in _OPEN:
            return None
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() != b"bearer" or not given:
            return _NO_KEY
        return None if hmac.compare_digest(given.strip(), self._key) else _WRONG_KEY

    def _is_local(self, host: str) -> bool:
        name = re.sub(r":\d*$", "", host)
        return name == self._host or is_loopback(name.strip("[]"))


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_CHALLENGE = {"www-authenticate": "Bearer"}
_NO_KEY = ApiError(
    401, "You did not provide a key. Send it in the header `Authorization: Bearer KEY`.", headers=_CHALLENGE
)
_WRONG_KEY = ApiError(401, "Incorrect key provided.", code="invalid_api_key", headers=_CHALLENGE)
_MISDIRECTED = ApiError(421, "This server answers requests to this machine only; ask it as localhost or 127.0.0.1.")
