"""A stub server, and requests to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.lit_sft.stub_server import Draw, StubServer, Write

StartStub = Callable[..., StubServer]


@pytest.fixture
def start_stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartStub]:
    """Starts a stub server; the key is in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    started: list[StubServer] = []

    def _start(write: Write = lambda body: "yes", draw: Draw | None = None) -> StubServer:
        server = StubServer(write, draw)
        server.bodies, server.headers = [], []
        started.append(server)
        return server

    yield _start
    for server in started:
        server.close()
