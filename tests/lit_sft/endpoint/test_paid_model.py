"""A model whose replies are kept: each is asked for once, before and after a restart, and masked on disk."""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_modules.errors import UserError
from lit_sft.endpoint.chat import EndpointError, NotSentError, Reply, Request
from lit_sft.endpoint.journal import Journal
from lit_sft.endpoint.paid_model import EndpointSettings, PaidModel, open_endpoint
from lit_sft.endpoint.prices import Prices
from tests.lit_sft.endpoint.conftest import StartStub
from tests.lit_sft.stub_server import Draw, StubServer

pytest.importorskip("openai")

HELLO = Request((("user", "hello"),), max_tokens=8, temperature=0.5)


def endpoint_model(server: StubServer, folder: Path, *, offline: bool = False, **changed: Any) -> PaidModel:
    settings = EndpointSettings(**{"endpoint": server.address, "name": "m", "retries": 0} | changed)
    return open_endpoint(settings, Journal(folder / "journal.jsonl"), offline=offline, log=lambda line: None)


class Local:
    """A model in this process, which repeats the last message."""

    def __init__(self) -> None:
        self.asked = list[Request]()
        self.gate = threading.Event()
        self.gate.set()

    def ask(self, request: Request) -> Reply:
        self.asked.append(request)
        self.gate.wait()
        return Reply(request.messages[-1][1], 2, 1)


def local_model(folder: Path, source: Local | None, model: str = "m") -> PaidModel:
    return PaidModel(source, Journal(folder / "journal.jsonl"), place="here", model=model)


def test_a_reply_is_on_disk_before_it_is_returned_and_asked_for_once(tmp_path: Path) -> None:
    source = Local()
    model = local_model(tmp_path, source)
    reply = model.ask(HELLO)
    assert [json.loads(line)["text"] for line in (tmp_path / "journal.jsonl").read_text().splitlines()] == ["hello"]
    assert model.ask(HELLO) == local_model(tmp_path, source).ask(HELLO) == reply
    assert len(source.asked) == 1


def test_a_slash_at_the_end_of_the_address_makes_no_other_requests(start_stub: StartStub, tmp_path: Path) -> None:
    server = start_stub()
    for end in ("", "/"):
        model = endpoint_model(server, tmp_path, endpoint=server.address + end)
        model.ask(HELLO)
        model.close()
    assert server.replies.total() == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"messages": (("user", "hello!"),)}, {"messages": (("system", "hello"),)}, {"max_tokens": 9}, {"top_p": 0.5},
        {"messages": (("user", "hello"), ("user", ""))}, {"temperature": 0.0}, {"seed": 0}, {"schema": {}},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_a_reply_depends_on_makes_another_request(tmp_path: Path, changed: dict[str, Any]) -> None:
    source = Local()
    model = local_model(tmp_path, source)
    for request in (HELLO, replace(HELLO, **changed)):
        model.ask(request)
    assert len(source.asked) == 2


def test_attempts_models_and_places_have_replies_of_their_own(tmp_path: Path) -> None:
    source = Local()
    local_model(tmp_path, source).ask(HELLO)
    local_model(tmp_path, source).ask(HELLO, attempt=2)
    local_model(tmp_path, source, model="other").ask(HELLO)
    PaidModel(source, Journal(tmp_path / "journal.jsonl"), place="there", model="m").ask(HELLO)
    assert len(source.asked) == 4


def test_equal_requests_at_the_same_time_are_sent_once(tmp_path: Path) -> None:
    source = Local()
    source.gate.clear()
    model = local_model(tmp_path, source)
    with ThreadPoolExecutor(4) as pool:
        replies = [pool.submit(model.ask, HELLO) for _ in range(4)]
        other = pool.submit(model.ask, replace(HELLO, seed=1))
        while not source.asked:
            pass
        source.gate.set()
        assert {reply.result().text for reply in [*replies, other]} == {"hello"}
    assert len(source.asked) == 2
    assert model.usage().calls == model.usage().replies == 2


def test_usage_counts_the_replies_used_whenever_they_were_paid_for(tmp_path: Path) -> None:
    source = Local()
    for others in (0, 1):
        model = local_model(tmp_path, source)
        model.prices = Prices(read=10.0, written=40.0, currency="EUR")
        for seed in (1, 2, 2, 3):
            model.ask(replace(HELLO, seed=seed))
        usage = model.usage()
        assert (usage.replies, usage.tokens_read, usage.tokens_written) == (3, 6, 3)
        assert (usage.cost, usage.currency) == (pytest.approx((6 * 10 + 3 * 40) / 1e6), "EUR")
        assert (usage.calls, usage.from_journal) == ((0, 3) if others else (3, 0))
    model.prices = Prices(read=10.0)
    assert model.usage().cost is None


def test_offline_answers_from_the_journal_alone_without_key_or_client(
    start_stub: StartStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_stub()
    reply = endpoint_model(server, tmp_path).ask(HELLO)
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setitem(sys.modules, "openai", None)
    model = endpoint_model(server, tmp_path, offline=True)
    assert model.ask(HELLO) == reply
    with pytest.raises(NotSentError, match="`offline` allows no requests"):
        model.ask(HELLO, attempt=2)
    assert not model.stopped
    model.close()


def test_a_missing_client_or_key_is_said(
    start_stub: StartStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_stub()
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match=r"^--model: .* OPENAI_API_KEY is empty; .* --model\.key_variable to null"):
        endpoint_model(server, tmp_path)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"pip install 'lit_sft\[endpoint\]'"):
        endpoint_model(server, tmp_path, key_variable=None)


def test_after_a_stop_the_journal_still_answers(start_stub: StartStub, tmp_path: Path) -> None:
    server = start_stub()
    model = endpoint_model(server, tmp_path)
    reply = model.ask(HELLO)
    server.draw = Draw(rates={"500": 1.0})
    for attempt in range(2, 7):
        with pytest.raises(EndpointError, match="Error code: 500"):
            model.ask(HELLO, attempt=attempt)
    assert model.ask(HELLO) == reply
    with pytest.raises(NotSentError):
        model.ask(HELLO, attempt=2)
    assert model.stopped.startswith(f"requests stopped: 5 requests in a row to {server.address} failed, the last with")
    assert f"1 reply is kept in {tmp_path / 'journal.jsonl'}; run the same command again" in model.stopped
    model.close()


def test_a_credential_that_a_reply_repeats_is_masked_everywhere(
    start_stub: StartStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-Q7vXb2LmZ9")
    server = start_stub(lambda body: f"{body['messages'][0]['content']} sk-proj-Q7vXb2LmZ9 and hunter2hunter2")
    address = server.address.replace("//", "//carol:hunter2hunter2@")
    for _ in range(2):
        model = endpoint_model(server, tmp_path, endpoint=address)
        reply = model.ask(HELLO)
        assert reply.is_masked
        assert reply.text == "hello *** and ***"
        assert model.usage().masked == 1
        model.close()
    assert len(server.replies) == 1
    assert "Q7vX" not in (tmp_path / "journal.jsonl").read_text()
    assert "hunter" not in (tmp_path / "journal.jsonl").read_text() + repr(model.__dict__)


@pytest.mark.parametrize(
    "setting", [{"timeout": 0.0}, {"retries": -1}, {"concurrency": 0}, {"rate": 0.0}, {"rate": float("nan")}]
)
def test_settings_out_of_range_are_named(setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(UserError, match=f"^{name} [^ ]*: expected "):
        EndpointSettings("http://127.0.0.1/v1", "m", **setting)
