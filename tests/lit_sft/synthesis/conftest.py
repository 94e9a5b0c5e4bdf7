"""A stub model, and a synthesis with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lit_sft.synthesis.settings import ModelSettings, SynthesisSettings
from lit_sft.synthesis.synthesize import synthesize
from tests.lit_sft.stub_server import StubServer, stubs
from tests.lit_sft.synthesis.writer import write_pairs

StartStub = Callable[..., StubServer]
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def start_stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartStub]:
    """Starts a stub model that writes pairs."""
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    with stubs(write_pairs) as start:
        yield start


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a synthesis into the folder `out`."""

    def _run(server: StubServer, model: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
        own = ModelSettings(**{"endpoint": server.address, "name": "m", "retries": 0, **(model or {})})
        given = {"output": str(tmp_path / "out"), "checks": ["duplicates"], **settings}
        return synthesize(SynthesisSettings(model=own, **given))

    return _run
