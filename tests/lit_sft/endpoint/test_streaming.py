"""Streaming a reply from an endpoint."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from data_modules.errors import UserError
from lit_sft.endpoint.chat import EndpointError, Request
from lit_sft.endpoint.streaming import StreamingEndpoint
from tests.lit_sft.streaming_server import StreamingServer

REQUEST = Request((("system", "Be brief."), ("user", "Hello \ud800")), max_tokens=7, temperature=0.5, top_p=0.9, seed=3)
KEY = "sk-local-0123456789abcdef"


@pytest.fixture
def server() -> Iterator[StreamingServer]:
    running = StreamingServer()
    yield running
    running.close()


@pytest.fixture
def endpoint(server: StreamingServer) -> Iterator[StreamingEndpoint]:
    opened = StreamingEndpoint(f"http://{server.place}", None)
    yield opened
    opened.close()


def test_a_reply_is_passed_on_while_it_is_written(server: StreamingServer, endpoint: StreamingEndpoint) -> None:
    texts: list[str] = []
    server.reason = "length"
    assert endpoint.stream(REQUEST, lambda text: not texts.append(text)) == "length"
    assert texts == ["He", "Hello", "Hello 你好", "Hello 你好!"]
    (body,) = server.bodies
    assert body == {
        "model": "only", "stream": True, "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "seed": 3,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello \ufffd"}],
    }  # fmt: skip
    assert server.headers[0]["authorization"] == "Bearer EMPTY"


def test_a_reply_that_is_no_longer_wanted_is_ended(server: StreamingServer, endpoint: StreamingEndpoint) -> None:
    server.pieces = ["word "] * 100_000
    assert endpoint.stream(REQUEST, lambda text: len(text) < 10) == ""
    assert server.is_hung_up.wait(60)


def test_a_reply_that_breaks_off_is_no_reply(server: StreamingServer, endpoint: StreamingEndpoint) -> None:
    server.is_broken_off = True
    texts: list[str] = []
    with pytest.raises(EndpointError, match=rf"ends without a finish_reason \(http://{server.place}\)"):
        endpoint.stream(REQUEST, lambda text: not texts.append(text))
    assert texts[-1] == "Hello 你好!"


@pytest.mark.parametrize(
    ("model", "page", "problem"),
    [
        (
            "m",
            "<html>hello</html>",
            "sent no chat completion (text/html; expected text/event-stream); check the address",
        ),
        ("m", '{"choices": []}', "sent no chat completion (text/html"),
        ("m", "<p>\ndata: here\n\n</p>", "JSONDecodeError"),
        (None, "<html>hello</html>", "sent no list of models; check the address"),
    ],
)
def test_what_is_no_api_is_an_error_that_names_the_address(
    server: StreamingServer, model: str | None, page: str, problem: str
) -> None:
    server.page = page
    endpoint = StreamingEndpoint(f"http://user:secret-password@{server.place}", model)
    with pytest.raises(EndpointError) as error:
        endpoint.stream(REQUEST, lambda text: pytest.fail("no text came"))
    endpoint.close()
    assert f"http://***@{server.place}" in str(error.value)
    assert problem in str(error.value)
    assert "secret" not in str(error.value)


def test_a_server_that_wants_another_name_for_the_limit_gets_it(
    server: StreamingServer, endpoint: StreamingEndpoint
) -> None:
    server.error = (400, "use max_completion_tokens")
    with pytest.raises(EndpointError, match=r"400.*use max_completion_tokens"):
        endpoint.stream(REQUEST, lambda text: True)
    assert ["max_tokens" in body for body in server.bodies] == [True, False]
    assert server.bodies[1]["max_completion_tokens"] == 7


@pytest.mark.parametrize("is_prompt_too_long", [False, True])
def test_where_the_limit_does_not_fit_the_context_none_is_sent(
    server: StreamingServer, endpoint: StreamingEndpoint, is_prompt_too_long: bool
) -> None:
    server.error = (400, "This model's maximum context length is 8 tokens.")
    server.is_without_limit_accepted = not is_prompt_too_long
    if is_prompt_too_long:
        with pytest.raises(EndpointError, match="maximum context length is 8"):
            endpoint.stream(REQUEST, lambda text: True)
    else:
        assert endpoint.stream(REQUEST, lambda text: True) == "stop"
    assert ["max_tokens" in body for body in server.bodies] == [True, False]


@pytest.mark.parametrize("models", [[], ["b", "a"]])
def test_the_model_has_to_be_named_unless_there_is_one(
    server: StreamingServer, endpoint: StreamingEndpoint, models: list[str]
) -> None:
    server.models = models
    listed = ", ".join(sorted(models)) or "none"
    with pytest.raises(EndpointError, match=rf"lists {len(models)} models \({listed}\); name one"):
        endpoint.stream(REQUEST, lambda text: True)
    named = StreamingEndpoint(f"http://{server.place}", "b")
    assert named.stream(REQUEST, lambda text: True) == "stop"
    assert server.bodies[0]["model"] == "b"
    named.close()


def test_credentials_are_shown_neither_in_text_nor_in_errors(server: StreamingServer) -> None:
    endpoint = StreamingEndpoint(f"http://{server.place}?token=query-0123456789", None, key=KEY)
    server.pieces = ["Your key is ", KEY[:12], KEY[12:], " and query-0123456789."]
    texts: list[str] = []
    endpoint.stream(REQUEST, lambda text: not texts.append(text))
    assert texts[-1] == "Your key is *** and ***."
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    server.error = (401, f"wrong key {KEY}")
    with pytest.raises(EndpointError) as error:
        endpoint.stream(REQUEST, lambda text: True)
    endpoint.close()
    assert "wrong key ***" in str(error.value)
    assert "0123456789" not in f"{error.value} {endpoint.shown}"


def test_a_server_that_is_not_there_is_named() -> None:
    endpoint = StreamingEndpoint("http://user:secret-password@127.0.0.1:9/v1", "m")
    with pytest.raises(EndpointError, match=r"Connection error \(http://\*\*\*@127.0.0.1:9/v1\)"):
        endpoint.stream(REQUEST, lambda text: True)
    endpoint.close()


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="not an HTTP address"):
        StreamingEndpoint("ftp://host", None)
