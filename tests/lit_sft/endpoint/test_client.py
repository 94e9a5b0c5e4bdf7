"""What is sent to an endpoint, and how long to wait before trying again."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lit_sft.endpoint.chat import EndpointError, NotSentError, Request
from lit_sft.endpoint.client import Endpoint
from tests.lit_sft.endpoint.conftest import JSON, SCHEMA, StartStub, client_of, forms_of
from tests.lit_sft.stub_server import Draw

pytest.importorskip("openai")

HELLO = Request((("user", "hello"),), max_tokens=8)


def test_a_request_is_sent_as_given(start_stub: StartStub) -> None:
    server = start_stub()
    client = client_of(server)
    messages = (("system", "be brief"), ("user", "你好"), ("assistant", "好"), ("user", "再见 \ud800"))
    reply = client.ask(Request(messages, max_tokens=9, temperature=0.7, top_p=0.9, seed=3, schema=SCHEMA))
    client.ask(HELLO)
    client.close()
    strict = {"name": "reply", "strict": True, "schema": SCHEMA}
    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": role, "content": content.replace("\ud800", "\ufffd")} for role, content in messages],
            "max_tokens": 9,
            "temperature": 0.7,
            "top_p": 0.9,
            "seed": 3,
            "response_format": {"type": "json_schema", "json_schema": strict},
        },
        {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "temperature": 0.0},
    ]
    assert (reply.text, reply.tokens_read, reply.tokens_written, reply.finish_reason) == ("yes", 7, 1, "stop")


def test_no_key_is_taken_from_the_environment_unless_asked_for(start_stub: StartStub) -> None:
    server = start_stub()
    client = client_of(server, key="")
    client.ask(HELLO)
    client.close()
    assert server.headers is not None
    assert server.headers[0]["authorization"] == "Bearer EMPTY"


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "3600"}, 60.0),
        ({"Retry-After": "0"}, 0.5),
        ({"Retry-After": "soon"}, 0.5),
        ({}, 0.5),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:09 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 9.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:28:09 GMT"}, 0.5),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.5),
    ],
    ids=str,
)
def test_a_server_says_how_long_to_wait(start_stub: StartStub, headers: dict[str, str], pause: float) -> None:
    server, waited, said = start_stub(), list[float](), list[str]()
    server.draw = Draw(rates={"429": 1.0})
    server.too_many = headers

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    client = client_of(server, retries=1, pause=wait, log=said.append)
    with pytest.raises(EndpointError, match="Error code: 429"):
        client.ask(HELLO)
    client.close()
    assert waited == [pause]
    assert said == [f"{server.address}: Error code: 429 (Too Many Requests): as drawn; trying again after {pause:g} s"]


def test_while_a_server_asks_to_wait_nothing_new_is_sent(start_stub: StartStub) -> None:
    server, waited = start_stub(), list[float]()
    server.draw, server.too_many = Draw(rates={"429": 1.0}), {"Retry-After": "50"}

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    client = client_of(server, pause=wait)
    with pytest.raises(EndpointError):
        client.ask(HELLO)
    server.draw = Draw()
    client.ask(HELLO)
    client.close()
    assert len(waited) == 1
    assert 0 < waited[0] <= 50


def test_requests_are_spread_evenly_below_the_rate(start_stub: StartStub) -> None:
    server, waited = start_stub(), list[float]()

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    client = client_of(server, rate=0.6, pause=wait)  # one every 100 s
    for _ in range(4):
        client.ask(HELLO)
    client.close()
    assert [round(seconds, -1) for seconds in waited] == [100, 200, 300]


def test_nothing_that_listens_is_said_at_once_and_without_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    waited = list[float]()

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    client = Endpoint(address, "m", key="k", timeout=60.0, retries=5, concurrency=8, pause=wait)
    for _ in range(5):
        with pytest.raises(EndpointError, match=r"Connection error \(Connection refused\)$"):
            client.ask(HELLO)
    with pytest.raises(NotSentError, match="not sent: 5 requests in a row"):
        client.ask(HELLO)
    client.close()
    assert not waited
    assert client.stopped.endswith("check the address and that the server runs")


def test_a_server_that_stops_listening_may_come_back(start_stub: StartStub) -> None:
    server, waited = start_stub(), list[float]()

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    client = client_of(server, retries=3, pause=wait)
    server.draw = Draw(rates={"drop": 1.0})
    with pytest.raises(EndpointError) as raised:
        client.ask(HELLO)
    assert raised.value.may_be_billed
    server.draw = Draw()
    client.ask(HELLO)
    server.close()
    with pytest.raises(EndpointError):
        client.ask(HELLO)
    client.close()
    assert waited == [0.5, 1.0, 2.0] * 2


def test_a_server_that_never_replies_is_given_up_after_few_timeouts(start_stub: StartStub) -> None:
    server = start_stub(draw=Draw(rates={"hang": 1.0}))

    async def wait(seconds: float) -> None:
        pass

    client = client_of(server, retries=50, timeout=0.05, pause=wait)
    for _ in range(5):
        with pytest.raises(EndpointError, match="Timeout"):
            client.ask(HELLO)
    client.close()
    assert server.faults["hang"] == 5 + 4
    assert client.stopped.endswith("or raise `timeout`")


@pytest.mark.parametrize(
    ("status", "advice"),
    [("401", "check the key"), ("404", "which usually ends in /v1"), ("429", "lower `concurrency`, or set `rate`")],
)
def test_what_to_do_about_a_refusal(start_stub: StartStub, status: str, advice: str) -> None:
    server = start_stub(draw=Draw(rates={status: 1.0}))
    client = client_of(server)
    for _ in range(5):
        with pytest.raises(EndpointError):
            client.ask(HELLO)
    client.close()
    assert client.stopped.endswith(advice)


@pytest.mark.parametrize(("count", "said"), [(1, "the only request to"), (3, "3 requests in a row to")])
def test_an_endpoint_that_answered_no_request_is_dead_however_few_there_were(
    start_stub: StartStub, count: int, said: str
) -> None:
    client = client_of(start_stub(draw=Draw(rates={"401": 1.0})))
    for _ in range(count):
        with pytest.raises(EndpointError):
            client.ask(HELLO)
    assert not client.stopped
    client.conclude()
    client.close()
    assert client.stopped.startswith(said)
    assert client.stopped.endswith("check the key")


def test_an_endpoint_that_answered_some_requests_is_not_dead_at_the_end(start_stub: StartStub) -> None:
    server = start_stub()
    client = client_of(server)
    client.ask(HELLO)
    server.draw = Draw(rates={"500": 1.0})
    with pytest.raises(EndpointError):
        client.ask(HELLO)
    client.conclude()
    assert not client.stopped
    client.close()


def test_a_refusal_in_its_own_field_is_the_reply(start_stub: StartStub) -> None:
    server = start_stub()
    message = {"role": "assistant", "content": None, "refusal": "I cannot write that."}
    server.body = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})
    client = client_of(server)
    assert client.ask(JSON).text == "I cannot write that."
    client.close()


def test_faults_at_known_rates_are_survived(start_stub: StartStub) -> None:
    rates = {"429": 0.1, "429 bare": 0.1, "500": 0.1, "drop": 0.1, "cut": 0.1}
    server = start_stub(lambda body: body["messages"][0]["content"], Draw(0, rates))

    async def wait(seconds: float) -> None:
        pass

    client = client_of(server, retries=20, pause=wait)
    requests = [Request((("user", f"number {number}"),), max_tokens=8) for number in range(100)]
    with ThreadPoolExecutor(8) as pool:
        texts = [reply.text for reply in pool.map(client.ask, requests)]
    client.close()
    assert texts == [f"number {number}" for number in range(100)]
    drawn = Counter({fault: server.faults[fault] for fault in rates})
    assert all(5 <= count <= 35 for count in drawn.values()), drawn  # of 200 attempts
    assert set(server.replies.values()) == {1}


def test_a_server_that_wants_another_name_for_the_limit_gets_it(start_stub: StartStub) -> None:
    server = start_stub()

    class Refusing(Draw):
        def fault(self, digest: str, attempt: int) -> str:
            assert server.bodies is not None
            return "400" if "max_tokens" in server.bodies[-1] else ""

    server.draw = Refusing()
    server.message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    client = client_of(server)
    assert [client.ask(request).text for request in (JSON, HELLO, JSON)] == ["yes"] * 3
    client.close()
    assert [body.get("max_completion_tokens") for body in server.bodies or []] == [None, 8, 8, 8]
    assert forms_of(server) == ["json_schema", "json_schema", "none", "json_schema"]


@pytest.mark.parametrize(
    ("body", "pattern", "requests"),
    [
        ({"error": {"message": "upstream is busy", "code": 502}}, r"^Error code: 502 \(Bad Gateway\): upstream is", 3),
        ({"error": {"message": "slow down", "code": "429"}}, r"^Error code: 429 \(Too Many Requests\): slow down$", 3),
        ({"error": {"message": "no such model", "code": 404}}, r"^Error code: 404 \(Not Found\): no such model$", 1),
        ({"error": "k is a wrong key"}, r"^an error without a code: \*\*\* is a wrong key$", 1),
        ("<html> k </html>", "^not a chat completion: not JSON; it begins with '<html> \\*\\*\\* </html>'$", 1),
        ({"choices": []}, "^not a chat completion: expected `choices`", 1),
    ],
    ids=str,
)
def test_an_error_inside_a_reply_counts_as_that_error(
    start_stub: StartStub, body: dict[str, Any] | str, pattern: str, requests: int
) -> None:
    server = start_stub()
    server.body = body if isinstance(body, str) else json.dumps(body)

    async def wait(seconds: float) -> None:
        pass

    client = client_of(server, retries=2, pause=wait)
    with pytest.raises(EndpointError, match=pattern):
        client.ask(HELLO)
    client.close()
    assert len(server.bodies or []) == requests


def test_more_threads_than_requests_at_once_wait_their_turn(start_stub: StartStub) -> None:
    together, under_way, most = threading.Barrier(3), Counter[str](), []

    def write(body: dict[str, Any]) -> str:
        with lock:
            under_way["now"] += 1
            most.append(under_way["now"])
        together.wait(60)  # three at once, or none ever replies
        with lock:
            under_way["now"] -= 1
        return "yes"

    lock = threading.Lock()
    client = client_of(start_stub(write), concurrency=3)
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda _: client.ask(HELLO).text, range(24)))
    client.close()
    assert replies == ["yes"] * 24
    assert max(most) == 3


def test_requests_that_wait_their_turn_are_not_sent_once_the_endpoint_is_dead(start_stub: StartStub) -> None:
    server = start_stub(draw=Draw(rates={"drop": 1.0}))
    client = client_of(server, concurrency=1)

    def ask(_: int) -> str:
        with pytest.raises(EndpointError) as caught:
            client.ask(HELLO)
        return type(caught.value).__name__

    with ThreadPoolExecutor(30) as pool:
        kinds = Counter(pool.map(ask, range(30)))
    assert server.attempts.total() == kinds["EndpointError"] < 30
    assert kinds["NotSentError"] > 0
