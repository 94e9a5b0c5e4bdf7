"""Many clients at once, clients that go, a full queue, models that fail."""

from __future__ import annotations

import gc
import http.client
import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra `serve`")
pytest.importorskip("openai", reason="needs the extra `endpoint`")

import openai
import torch

from data_modules.errors import UserError
from lit_sft.models.adapters import causal_lm
from lit_sft.models.generation import GenerationRequest
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.worker import PendingAnswer
from lit_sft.serve import command
from lit_sft.serve.served import Limits
from tests.conftest import byte_tokenizer
from tests.lit_sft.chat.conftest import never_ending
from tests.lit_sft.serve.running import HELLO, RunningServer, answer_of, occupied, prompt_of, running
from tests.waiting import LONGEST, wait_until


@pytest.fixture(scope="module")
def endless() -> Iterator[RunningServer]:
    """Its model needs minutes for an answer."""
    tokenizer = byte_tokenizer()
    model = LoadedModel("endless", never_ending(tokenizer, 2**16), tokenizer, "chatml")
    with running({"endless": lambda: model}, Limits(max_waiting=3)) as found:
        yield found


@pytest.fixture
def submitted(endless: RunningServer, monkeypatch: pytest.MonkeyPatch) -> list[PendingAnswer]:
    """All requests to the endless model so far."""
    found: list[PendingAnswer] = []
    submit = endless.worker.submit

    def noted(request: GenerationRequest) -> PendingAnswer:
        found.append(submit(request))
        return found[-1]

    monkeypatch.setattr(endless.worker, "submit", noted)
    return found


def endless_request(**settings: Any) -> dict[str, Any]:
    return {"model": "endless", "messages": HELLO, "temperature": 0, "max_tokens": 60_000} | settings


def test_32_clients_at_once_get_their_own_answers(server: RunningServer, model: LoadedModel) -> None:
    texts = [f"{'Hello ' * (number % 5)}{number}" for number in range(32)]

    def ask(text: str) -> tuple[str, str]:
        messages = [{"role": "user", "content": text}]
        settings = {"model": "tiny", "messages": messages, "max_tokens": 12, "temperature": 0.9, "seed": len(text)}
        with server.client() as client:
            whole = client.chat.completions.create(**settings).choices[0].message.content
            parts = list(client.chat.completions.create(**settings, stream=True))
            return whole, "".join(part.choices[0].delta.content or "" for part in parts)

    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(ask, texts))
    for text, (whole, pieces) in zip(texts, answers, strict=True):
        assert whole == pieces == answer_of(model, prompt_of(model, text), temperature=0.9, seed=len(text))


def test_a_client_that_leaves_a_stream_frees_its_place(endless: RunningServer, submitted: list[PendingAnswer]) -> None:
    with endless.client() as client:
        stream = client.chat.completions.create(**endless_request(stream=True, n=2))
        assert [next(iter(stream)) for _ in range(4)]
        assert endless.worker.num_running == 2
        stream.close()
    check_all_cancelled(endless, submitted, 2)


def test_a_client_that_does_not_wait_for_a_whole_answer_frees_its_place(
    endless: RunningServer, submitted: list[PendingAnswer], caplog: pytest.LogCaptureFixture
) -> None:
    connection = sent(endless, n=2)
    wait_until(lambda: endless.worker.num_running == 2)
    connection.close()
    check_all_cancelled(endless, submitted, 2)
    with endless.client() as client:
        client.models.list()  # so that the loop has gone on
    gc.collect()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_a_client_that_leaves_the_queue_frees_its_place(endless: RunningServer, submitted: list[PendingAnswer]) -> None:
    with occupied(endless.worker):
        submitted.clear()  # the one that occupies it
        connections = [sent(endless), sent(endless, stream=True)]
        wait_until(lambda: endless.worker.num_waiting == 2)
        for connection in connections:
            connection.close()
        wait_until(lambda: endless.worker.num_waiting == 0)
    check_all_cancelled(endless, submitted, 2)
    assert [pending.result().num_tokens for pending in submitted] == [0, 0]


def sent(server: RunningServer, **settings: Any) -> http.client.HTTPConnection:
    """A connection on which a request was sent."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    body = json.dumps(endless_request(**settings))
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    return connection


def check_all_cancelled(server: RunningServer, submitted: list[PendingAnswer], num: int) -> None:
    answers = [pending.result(LONGEST) for pending in submitted]
    assert len(answers) == num
    assert all(answer.is_cancelled for answer in answers)
    wait_until(lambda: server.worker.num_running == 0)
    wait_until(lambda: server.lines and " 499, " in server.lines[-1])


def test_a_full_queue_refuses_requests_for_now(endless: RunningServer) -> None:
    with occupied(endless.worker):
        connections = [sent(endless), sent(endless)]
        wait_until(lambda: endless.worker.num_waiting == 2)
        with endless.client() as client, pytest.raises(openai.InternalServerError) as raised:
            client.chat.completions.create(**endless_request(n=2))  # there is room for one
        assert endless.worker.num_waiting == 2
        for connection in connections:
            connection.close()
        wait_until(lambda: endless.worker.num_waiting == 0)
    error = raised.value
    assert (error.status_code, error.code, error.type) == (503, "overloaded", "server_error")
    assert "busy: it would have to queue more than 3 answers" in error.message
    assert error.response.headers["retry-after"] == "1"


def test_a_client_that_tries_again_gets_its_answer(endless: RunningServer) -> None:
    with occupied(endless.worker):
        connections = [sent(endless) for _ in range(3)]
        wait_until(lambda: endless.worker.num_waiting == 3)
        is_refused = threading.Event()

        def leave() -> None:
            wait_until(lambda: " 503, " in endless.lines[-1])
            is_refused.set()
            for connection in connections:
                connection.close()

        with ThreadPoolExecutor(1) as thread, endless.client(max_retries=50) as client:
            thread.submit(leave)
            settings = endless_request(max_tokens=3, stream=True)
            next(iter(client.chat.completions.create(**settings)))  # the refusals come before the stream begins
    assert is_refused.is_set()


def test_a_model_that_cannot_be_loaded_is_tried_again(model: LoadedModel) -> None:
    attempts = iter([UserError("/secret/place: no such folder"), None])

    def load() -> LoadedModel:
        if error := next(attempts):
            raise error
        return model

    with running({"tiny": load}) as server, server.client() as client:
        with pytest.raises(openai.InternalServerError, match="`tiny` could not be loaded") as raised:
            client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2)
        assert raised.value.status_code == 500
        assert "secret" not in str(raised.value)
        assert server.lines[-1].endswith("UserError: /secret/place: no such folder")
        assert client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2).usage.completion_tokens == 2


def test_a_model_that_fails_is_reported_whole_and_streamed(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(requests: Any, batch_size: int = 16) -> Any:
        raise MemoryError("no memory left on the secret device")

    monkeypatch.setattr(model, "answer_requests", fail)
    settings = {"model": "tiny", "messages": HELLO, "max_tokens": 2}
    with running({"tiny": lambda: model}) as server, server.client() as client:
        with pytest.raises(openai.InternalServerError, match="The model failed to answer") as raised:
            client.chat.completions.create(**settings)
        assert raised.value.status_code == 500
        with pytest.raises(openai.APIError, match="The model failed to answer"):
            list(client.chat.completions.create(**settings, stream=True))
        wait_until(lambda: len(server.lines) == 2)
        assert all(line.endswith(": MemoryError: no memory left on the secret device") for line in server.lines)
        assert all(" tiny 500, " in line for line in server.lines)


def test_numbers_that_json_cannot_hold_are_an_error_and_not_an_answer() -> None:
    tokenizer = byte_tokenizer()
    broken = LoadedModel("tiny", never_ending(tokenizer, 512), tokenizer, "chatml")
    with torch.no_grad():
        causal_lm(broken.backbone).get_input_embeddings().weight.fill_(math.nan)
    settings = {"model": "tiny", "messages": HELLO, "max_tokens": 2, "logprobs": True}
    with running({"tiny": lambda: broken}) as server:
        for is_streamed in (False, True):
            with (
                server.client() as client,
                pytest.raises(openai.APIError, match="The server failed; its log says why"),
            ):
                list(client.chat.completions.create(**settings, stream=is_streamed))
        wait_until(lambda: len(server.lines) == 2)
        assert all(" tiny 500, " in line and ": ValueError: " in line for line in server.lines)


def test_a_server_that_shuts_down_says_so_to_those_who_wait() -> None:
    tokenizer = byte_tokenizer()
    model = LoadedModel("endless", never_ending(tokenizer, 2**16), tokenizer, "chatml")
    with running({"endless": lambda: model}) as server, server.client() as client:
        stream = iter(client.chat.completions.create(**endless_request(stream=True)))
        next(stream)
        server.models.close()
        with pytest.raises(openai.APIError, match="The server is shutting down"):
            list(stream)
        with pytest.raises(openai.InternalServerError, match="The server is shutting down"):
            client.chat.completions.create(**endless_request())


def test_requests_without_an_answer_when_the_server_stops_get_an_error_and_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After Ctrl-C, whether the answer is streamed, being made or waited for."""
    monkeypatch.setattr(command, "_SECONDS_TO_FINISH", 0)
    tokenizer = byte_tokenizer()
    model = LoadedModel("endless", never_ending(tokenizer, 2**16), tokenizer, "chatml")
    with running({"endless": lambda: model}, Limits(batch_size=2)) as server, server.client() as client:
        stream = iter(client.chat.completions.create(**endless_request(stream=True)))
        next(stream)
        connections = [sent(server) for _ in range(3)]
        wait_until(lambda: server.worker.num_running + server.worker.num_waiting == 4)
        server.stop()
        with pytest.raises(openai.APIError, match="The server is shutting down"):
            list(stream)
        for connection in connections:
            response = connection.getresponse()
            error = json.loads(response.read())["error"]
            assert (response.status, error["type"]) == (503, "server_error")
            assert error["message"] == "The server is shutting down."
            connection.close()
        assert len(server.lines) == 4
        assert all(" endless 503" in line and line.endswith(": The server is shutting down.") for line in server.lines)
    assert "Traceback" not in capsys.readouterr().err


def test_metrics_and_health(model: LoadedModel) -> None:
    with running({"tiny": lambda: model, "idle": lambda: model}) as server, server.client() as client:
        for stream in (False, True):
            found = client.chat.completions.create(
                model="tiny", messages=HELLO, max_tokens=5, temperature=0, stream=stream
            )
            list(found)
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="made up", prompt="x")
        wait_until(lambda: len(server.lines) == 3)
        text, health = read(server, "/metrics"), read(server, "/health")
    assert json.loads(health) == {"status": "ok"}
    path = "/v1/chat/completions"
    num_prompt = 2.0 * len(prompt_of(model))
    for line in (
        f'lit_sft_requests_total{{model="tiny",path="{path}",status="200"}} 2.0',
        'lit_sft_requests_total{model="",path="/v1/completions",status="404"} 1.0',
        'lit_sft_tokens_total{kind="answer",model="tiny"} 10.0',
        f'lit_sft_tokens_total{{kind="prompt",model="tiny"}} {num_prompt}',
        f'lit_sft_request_seconds_count{{model="tiny",path="{path}"}} 2.0',
        'lit_sft_loaded{model="tiny"} 1.0',
        'lit_sft_loaded{model="idle"} 0.0',
        'lit_sft_running{model="tiny"} 0.0',
        'lit_sft_waiting{model="tiny"} 0.0',
    ):
        assert line in text.splitlines()
    assert "made up" not in text


def read(server: RunningServer, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", path)
    try:
        return connection.getresponse().read().decode()
    finally:
        connection.close()
