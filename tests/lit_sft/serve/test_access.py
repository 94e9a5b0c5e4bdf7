"""Who may ask a server."""

from __future__ import annotations

import http.client
import json

import pytest

pytest.importorskip("starlette", reason="needs the extra `serve`")
pytest.importorskip("openai", reason="needs the extra `endpoint`")

import openai

from lit_sft.models.loaded import LoadedModel
from lit_sft.serve.access import is_loopback
from tests.lit_sft.serve.running import HELLO, RunningServer, running

KEY = "correct-horse-battery-staple"


def status_of(server: RunningServer, path: str, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", path, headers=headers)
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def test_only_clients_with_the_key_are_answered(model: LoadedModel) -> None:
    settings = {"model": "tiny", "messages": HELLO, "max_tokens": 2}
    with running({"tiny": lambda: model}, key=KEY) as server:
        with server.client(api_key=KEY) as client:
            assert client.chat.completions.create(**settings).usage.completion_tokens == 2
        for wrong in ("wrong", KEY[:-1], KEY + "x"):
            with server.client(api_key=wrong) as client, pytest.raises(openai.AuthenticationError) as raised:
                client.chat.completions.create(**settings)
            assert (raised.value.status_code, raised.value.code) == (401, "invalid_api_key")
            assert wrong not in raised.value.body["message"]
        for headers in ({}, {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}, {"Authorization": "Bearer "}):
            for path in ("/v1/models", "/metrics", "/nothing"):
                assert status_of(server, path, **headers) == 401
        assert status_of(server, "/metrics", Authorization=f"bearer {KEY}") == 200
        assert status_of(server, "/health") == 200
        assert status_of(server, "/v1/models", Host="models.example.org", Authorization=f"Bearer {KEY}") == 200
        assert KEY not in json.dumps(server.lines)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:80", "LOCALHOST", "[::1]:8000", "127.1.2.3"])
def test_a_server_without_a_key_answers_this_machine(server: RunningServer, host: str) -> None:
    assert status_of(server, "/v1/models", Host=host) == 200


@pytest.mark.parametrize("host", ["evil.example.org", "localhost.evil.example.org", "10.0.0.1", "", "localhost@evil"])
def test_a_server_without_a_key_refuses_names_that_a_page_gave_this_machine(server: RunningServer, host: str) -> None:
    for path in ("/v1/models", "/health", "/metrics"):
        assert status_of(server, path, Host=host) == 421


def test_no_page_of_another_site_is_allowed_to_read_answers(server: RunningServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("OPTIONS", "/v1/chat/completions", headers={"Origin": "https://evil.example.org"})
    response = connection.getresponse()
    connection.close()
    assert response.status == 405
    assert not [name for name, _ in response.getheaders() if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_addresses_of_this_machine_are_recognised(host: str, is_local: bool) -> None:
    assert is_loopback(host) is is_local
