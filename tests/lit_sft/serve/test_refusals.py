"""Bad requests: the status, type, param and code that the API documents, and a message that says what to do."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra `serve`")
pytest.importorskip("openai", reason="needs the extra `endpoint`")

import openai

from data_modules.errors import UserError
from lit_sft.models.loaded import LoadedModel
from lit_sft.serve.errors import reason_for_client
from tests.conftest import byte_tokenizer
from tests.lit_sft.serve.running import HELLO, RunningServer, running

TOO_LONG = [{"role": "user", "content": "x" * 500}]


def messages(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": "text"} for role in roles]


@pytest.mark.parametrize(
    ("settings", "param", "code", "message"),
    [
        ({"temperature": 2.5}, "temperature", "decimal_above_max_value", "Expected a value <= 2, but got 2.5 instead."),
        ({"temperature": "hot"}, "temperature", "invalid_type", "expected a decimal, but got a string instead."),
        ({"top_p": -1}, "top_p", "decimal_below_min_value", "Expected a value >= 0, but got -1 instead."),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value", "Expected a value >= 1, but got 0 instead."),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type", "expected an integer, but got a decimal instead."),
        ({"max_tokens": True}, "max_tokens", "invalid_type", "expected an integer, but got a boolean instead."),
        ({"max_tokens": 5, "max_completion_tokens": 3}, "max_tokens", "invalid_value", "Send one of them."),
        ({"user": 3}, "user", "invalid_type", "expected a string, but got an integer instead."),
        ({"metadata": {"a": 1}}, "metadata", "invalid_type", "expected an object of strings"),
        ({"service_tier": "flex"}, "service_tier", "unsupported_value", "not supported by this server."),
        ({"n": 99}, "n", "integer_above_max_value", "Expected a value <= 16, but got 99 instead."),
        ({"seed": 2**63}, "seed", "integer_above_max_value", f"Expected a value <= {2**63 - 1},"),
        ({"stop": [1]}, "stop", "invalid_type", "expected a string or an array of strings, but got an array instead."),
        ({"stop": ""}, "stop", "empty_string", "Expected at least one character."),
        ({"stop": ["a", "b"] + [str(n) for n in range(15)]}, "stop", "array_above_max_length", "length 17 instead."),
        ({"logprobs": 3}, "logprobs", "invalid_type", "expected a boolean, but got an integer instead."),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "integer_above_max_value", "value <= 20"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value", "set 'logprobs' to true as well."),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value", "set 'stream' to true"),
        ({"extra_body": {"temprature": 1}}, "temprature", "unknown_parameter", "Did you mean temperature?"),
        ({"presence_penalty": 1.0}, "presence_penalty", "unsupported_value", "not supported by this server."),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_value", "not supported by this server."),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_value", "not supported"),
        ({"messages": []}, "messages", "empty_array", "Expected at least one message."),
        ({"messages": messages("user") * 2049}, "messages", "array_above_max_length", "length 2049 instead."),
        ({"messages": "hi"}, "messages", "invalid_type", "expected an array of objects, but got a string instead."),
        ({"messages": ["hi"]}, "messages[0]", "invalid_type", "expected an object."),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter", "Missing required"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter", "Missing required"),
        ({"messages": messages("king")}, "messages[0].role", "invalid_value", "Supported values are: 'system'"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages[0].content", "empty_string", "only white space"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
            "invalid_value",
            "Supported values are: 'text'",
        ),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}, "messages[0].tool_calls",
         "unsupported_value", "not supported"),
        ({"messages": [*HELLO, {"role": "assistant", "content": ""}]}, "messages", "invalid_value", "not the user's"),
        ({"messages": messages("user", "assistant")}, "messages", "invalid_value", "is not the user's"),
        ({"messages": messages("assistant", "user")}, "messages", "invalid_value", "begins with an answer"),
        ({"messages": messages("user", "system", "user")}, "messages", "invalid_value", "expected it first."),
        ({"messages": TOO_LONG}, "messages", "context_length_exceeded", "maximum context length is 512 tokens"),
        ({"max_tokens": 500}, "messages", "context_length_exceeded", "500 in the completion)"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(
    server: RunningServer, settings: dict[str, Any], param: str, code: str, message: str
) -> None:
    with server.client() as client, pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**({"model": "tiny", "messages": HELLO} | settings))
    error = raised.value
    assert (error.status_code, error.type, error.param, error.code) == (400, "invalid_request_error", param, code)
    assert message in error.body["message"]


@pytest.mark.parametrize(
    ("settings", "param", "code", "message"),
    [
        ({"prompt": []}, "prompt", "invalid_type", "an array of arrays of token ids"),
        ({"prompt": ""}, "prompt", "empty_string", "Expected text to continue."),
        ({"prompt": [1, "x"]}, "prompt", "invalid_type", "but got an array instead."),
        ({"prompt": [[1], []]}, "prompt", "invalid_type", "but got an array instead."),
        ({"prompt": ["x"] * 65}, "prompt", "array_above_max_length", "maximum length 64"),
        ({"prompt": ["x"] * 60, "n": 2}, "prompt", "invalid_value", "asks for 120 answers; this server queues at most"),
        ({"prompt": [259]}, "prompt", "invalid_value", "no token with id 259; this model has 259."),
        ({"prompt": [[1], [-1]]}, "prompt[1]", "invalid_value", "no token with id -1"),
        ({"prompt": "x", "logprobs": 30}, "logprobs", "integer_above_max_value", "Expected a value <= 20"),
        ({"prompt": "x", "logprobs": True}, "logprobs", "invalid_type", "expected an integer"),
        ({"prompt": "x", "echo": True, "stream": True}, "echo", "unsupported_value", "cannot be combined"),
        ({"prompt": "x", "suffix": "y"}, "suffix", "unsupported_value", "not supported"),
        (
            {"prompt": "x" * 512},
            "prompt",
            "context_length_exceeded",
            "your prompt has 512 tokens, which leaves no room",
        ),
        ({"prompt": "x", "max_tokens": 512}, "prompt", "context_length_exceeded", "you requested 513 tokens"),
    ],
)
def test_a_wrong_field_of_a_completion_is_named(
    server: RunningServer, settings: dict[str, Any], param: str, code: str, message: str
) -> None:
    with server.client() as client, pytest.raises(openai.BadRequestError) as raised:
        client.completions.create(**({"model": "tiny"} | settings))
    assert (raised.value.param, raised.value.code) == (param, code)
    assert message in raised.value.body["message"]


def test_what_is_far_too_long_is_refused_without_encoding_it(server: RunningServer, encoded: list[int]) -> None:
    """Others would have to wait meanwhile."""
    text = "Hello, 羊! " * 200_000
    with server.client() as client:
        with pytest.raises(openai.BadRequestError, match=r"your messages have at least .* tokens") as raised:
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": text}])
        assert (raised.value.param, raised.value.code) == ("messages", "context_length_exceeded")
        with pytest.raises(openai.BadRequestError, match=r"your prompt has at least .* tokens") as raised:
            client.completions.create(model="tiny", prompt=[text, "x"])
        assert (raised.value.param, raised.value.code) == ("prompt", "context_length_exceeded")
    assert max(encoded, default=0) < 1000


def test_what_the_template_leaves_out_does_not_count(model: LoadedModel, encoded: list[int]) -> None:
    """Templates of tokenizers often cut off white space."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    trimming = LoadedModel("trimming", model.backbone, tokenizer, "tokenizer")
    with running({"tiny": lambda: trimming}) as server, server.client() as client:
        settings = {"model": "tiny", "max_tokens": 3}
        plain = client.chat.completions.create(messages=HELLO, **settings)
        padded = [{"role": "user", "content": HELLO[0]["content"] + " " * 100_000}]
        found = client.chat.completions.create(messages=padded, **settings)
        assert found.usage.prompt_tokens == plain.usage.prompt_tokens
        with pytest.raises(openai.BadRequestError, match="messages have at least"):
            client.chat.completions.create(messages=[{"role": "user", "content": "x" * 100_000}], **settings)
    assert max(encoded) < 1000


def test_what_only_those_who_train_can_do_is_no_advice_for_clients() -> None:
    """The settings of a run are not those of a request."""
    for text, shown in (
        ("the conversation: turn 2 is odd; expected even. Fix it, or set `--data.on_invalid drop`.",
         "turn 2 is odd; expected even."),
        ("the conversation: cannot be encoded (x.y); use another, or set `--data.on_invalid drop`.",
         "cannot be encoded (x.y)."),
        ("the template has no place for it.", "the template has no place for it."),
    ):  # fmt: skip
        assert reason_for_client(UserError(text)) == shown


def test_a_model_that_does_not_exist_is_not_found(server: RunningServer) -> None:
    with server.client() as client:
        with pytest.raises(openai.NotFoundError, match="`nothing` does not exist; this server has tiny") as raised:
            client.chat.completions.create(model="nothing", messages=HELLO)
        assert raised.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("nothing")


def ask(server: RunningServer, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    try:
        headers = {"Content-Type": "application/json"} | {
            name.replace("_", "-"): text for name, text in headers.items()
        }
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"model": NaN}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[]", "is an array; expected an object"),
        (b"{}", "Missing required parameter: 'model'."),
        (b'{"model": "tiny"}', "Missing required parameter: 'messages'."),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}', "not valid Unicode"),
    ],
)
def test_a_body_that_is_no_request_is_refused(server: RunningServer, body: bytes, message: str) -> None:
    status, found = ask(server, "POST", "/v1/chat/completions", body)
    assert status == 400
    assert found["error"]["type"] == "invalid_request_error"
    assert message in found["error"]["message"]


def test_only_json_is_read(server: RunningServer) -> None:
    """A page of any site may send a form or plain text to this address without asking."""
    status, found = ask(server, "POST", "/v1/chat/completions", b"{}", Content_Type="text/plain")
    assert status == 415
    assert found["error"]["code"] == "unsupported_content_type"


def test_a_large_body_is_not_read_to_its_end(server: RunningServer) -> None:
    status, found = ask(server, "POST", "/v1/chat/completions", b" " * (4 * 2**20 + 1))
    assert status == 413
    assert "at most 4,194,304 bytes" in found["error"]["message"]


def test_unknown_paths_and_methods_are_refused(server: RunningServer) -> None:
    status, found = ask(server, "POST", "/v1/embeddings", b"{}")
    assert (status, found["error"]["message"]) == (404, "Invalid URL (POST /v1/embeddings).")
    status, found = ask(server, "GET", "/v1/chat/completions")
    assert (status, found["error"]["code"]) == (405, "method_not_supported")


def test_the_log_does_not_repeat_what_clients_sent(server: RunningServer) -> None:
    ask(
        server,
        "POST",
        "/v1/chat/completions",
        json.dumps({"model": "tiny", "messages": HELLO, "seed": "s3cret"}).encode(),
    )
    assert server.lines[-1].startswith("/v1/chat/completions 400, ")
    assert server.lines[-1].endswith(": invalid_type")
    assert not [line for line in server.lines if "羊" in line or "s3cret" in line]
