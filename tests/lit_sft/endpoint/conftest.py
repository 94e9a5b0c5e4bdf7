"""A stub server, and requests to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.lit_sft.stub_server import StubServer, stubs

StartStub = Callable[..., StubServer]


@pytest.fixture
def start_stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartStub]:
    """Starts a stub server; the key is in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    with stubs(lambda body: "yes") as start:
        yield start
