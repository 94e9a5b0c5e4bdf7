"""A stub server, and requests to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lit_sft.endpoint.chat import Request
from lit_sft.endpoint.client import Endpoint
from tests.lit_sft.stub_server import StubServer, stubs

StartStub = Callable[..., StubServer]

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
JSON = Request((("user", "a number, as JSON"),), max_tokens=8, schema=SCHEMA)


def client_of(server: StubServer, **changed: Any) -> Endpoint:
    """A client of a stub server, which never retries."""
    return Endpoint(server.address, "m", **{"key": "k", "timeout": 60.0, "retries": 0, "concurrency": 8} | changed)


def forms_of(server: StubServer) -> list[str]:
    """The form of every request, in order."""
    assert server.bodies is not None
    return [body.get("response_format", {}).get("type", "none") for body in server.bodies]


@pytest.fixture
def start_stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartStub]:
    """Starts a stub server; the key is in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    with stubs(lambda body: "yes") as start:
        yield start
