"""Chats through OpenAI's own client: the same answers as without a server."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra `serve`")
pytest.importorskip("openai", reason="needs the extra `endpoint`")

from lit_sft.models.generation import GenerationRequest, GenerationSettings
from lit_sft.models.loaded import LoadedModel
from tests.lit_sft.serve.running import HELLO, RunningServer, answer_of, prompt_of


def chat(server: RunningServer, **settings: Any) -> Any:
    usual = {"model": "tiny", "messages": HELLO, "max_tokens": 12, "temperature": 0}
    with server.client() as client:
        return client.chat.completions.create(**(usual | settings))


def streamed(server: RunningServer, **settings: Any) -> tuple[dict[int, str], list[Any]]:
    """The texts of all choices, and all parts."""
    usual = {"model": "tiny", "messages": HELLO, "max_tokens": 12, "temperature": 0, "stream": True}
    with server.client() as client:
        parts = list(client.chat.completions.create(**(usual | settings)))
    texts: dict[int, str] = {}
    for choice in (choice for part in parts for choice in part.choices):
        texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    return texts, parts


def bytes_of(tokens: list[Any]) -> bytes:
    return bytes(byte for each in tokens for byte in each.bytes)


def test_an_answer_is_the_one_that_the_model_gives_without_a_server(server: RunningServer, model: LoadedModel) -> None:
    found = chat(server)
    (choice,) = found.choices
    assert choice.message.content == answer_of(model, prompt_of(model))
    assert (choice.message.role, choice.finish_reason, choice.logprobs) == ("assistant", "length", None)
    num_prompt = len(prompt_of(model))
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (num_prompt, 12)
    assert found.usage.total_tokens == num_prompt + 12
    assert (found.object, found.model, found.id[:9]) == ("chat.completion", "tiny", "chatcmpl-")


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.3, "top_p": 0.9, "seed": 7}], ids=["greedy", "sampled"])
def test_a_streamed_answer_is_the_whole_one(server: RunningServer, settings: dict[str, Any]) -> None:
    whole = chat(server, **settings)
    texts, parts = streamed(server, **settings)
    assert texts == {0: whole.choices[0].message.content}
    assert parts[0].choices[0].delta.role == "assistant"
    assert parts[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert {part.object for part in parts} == {"chat.completion.chunk"}
    assert len({part.id for part in parts}) == 1
    assert all(part.usage is None for part in parts)


def test_the_last_part_has_the_usage_if_asked_for(server: RunningServer, model: LoadedModel) -> None:
    _, parts = streamed(server, stream_options={"include_usage": True})
    assert parts[-1].choices == []
    assert parts[-1].usage.prompt_tokens == len(prompt_of(model))
    assert parts[-1].usage.completion_tokens == 12


def test_the_same_seed_gives_the_same_answers_and_none_gives_others(server: RunningServer, model: LoadedModel) -> None:
    settings = {"temperature": 1.5, "seed": 3}
    first = chat(server, **settings).choices[0].message.content
    assert first == answer_of(model, prompt_of(model), temperature=1.5, seed=3)
    assert first == chat(server, **settings).choices[0].message.content
    assert len({chat(server, temperature=1.5).choices[0].message.content for _ in range(3)}) > 1


def test_several_choices_are_sampled_on_their_own(server: RunningServer, model: LoadedModel) -> None:
    found = chat(server, n=3, temperature=1.5, seed=3)
    texts = [choice.message.content for choice in found.choices]
    assert texts == [answer_of(model, prompt_of(model), temperature=1.5, seed=3 + n) for n in range(3)]
    assert found.usage.prompt_tokens == len(prompt_of(model))
    assert found.usage.completion_tokens == 36
    parts, _ = streamed(server, n=3, temperature=1.5, seed=3)
    assert parts == dict(enumerate(texts))


def test_an_answer_ends_before_a_stop_string(server: RunningServer) -> None:
    whole = chat(server, max_tokens=40).choices[0].message.content
    stop = whole[20:22]
    for settings in ({"stop": stop}, {"stop": ["never", stop]}):
        (choice,) = chat(server, max_tokens=40, **settings).choices
        assert choice.message.content == whole[: whole.index(stop)]
        assert choice.finish_reason == "stop"
        texts, parts = streamed(server, max_tokens=40, **settings)
        assert texts == {0: choice.message.content}
        assert parts[-1].choices[0].finish_reason == "stop"


def test_an_answer_that_the_model_ends_has_the_reason_stop(server: RunningServer, model: LoadedModel) -> None:
    seed = next(
        seed
        for seed in range(200)
        if model.answer_requests(
            [GenerationRequest(prompt_of(model), GenerationSettings(60, 1.5), seed)]
        )[0].ended
    )  # fmt: skip
    (choice,) = chat(server, max_tokens=60, temperature=1.5, seed=seed, logprobs=True).choices
    assert choice.finish_reason == "stop"
    assert bytes_of(choice.logprobs.content).decode(errors="replace") == choice.message.content


def test_log_probabilities_are_those_of_the_tokens_of_the_text(server: RunningServer, model: LoadedModel) -> None:
    request = GenerationRequest(prompt_of(model), GenerationSettings(12), num_likeliest=2)
    (expected,) = model.answer_requests([request])
    (choice,) = chat(server, logprobs=True, top_logprobs=2).choices
    for shown, known in zip(choice.logprobs.content, expected.logprobs, strict=True):
        assert shown.bytes == [known.token]  # the ids of this tokenizer are bytes
        assert shown.logprob == pytest.approx(known.logprob)
        assert [(each.bytes, each.logprob) for each in shown.top_logprobs] == [
            ([token], pytest.approx(logprob)) for token, logprob in known.likeliest
        ]
    _, parts = streamed(server, logprobs=True)
    pieces = [choice.logprobs.content for part in parts for choice in part.choices if choice.logprobs]
    assert [each.bytes for piece in pieces for each in piece] == [[each.token] for each in expected.logprobs]
    assert not any(each.top_logprobs for piece in pieces for each in piece)


def test_log_probabilities_leave_out_the_stop_string(server: RunningServer) -> None:
    whole = chat(server, max_tokens=40).choices[0].message.content
    stop = next(character for character in whole[15:] if character.isascii())
    settings = {"max_tokens": 40, "stop": stop, "logprobs": True}
    (choice,) = chat(server, **settings).choices
    data = bytes_of(choice.logprobs.content)
    assert data.decode(errors="replace") == choice.message.content
    _, parts = streamed(server, **settings)
    pieces = [choice.logprobs.content for part in parts for choice in part.choices if choice.logprobs]
    assert b"".join(map(bytes_of, pieces)) == data


def test_conversations_are_rendered_with_the_models_template(server: RunningServer, model: LoadedModel) -> None:
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
        {"role": "assistant", "content": "Hi!", "refusal": None, "tool_calls": None},
        {"role": "user", "content": "One", "name": "Ann"},
        {"role": "user", "content": "Two"},
    ]
    text = (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi!"
        "<|im_end|>\n<|im_start|>user\nOne\n\nTwo<|im_end|>\n<|im_start|>assistant\n"
    )
    found = chat(server, messages=messages)
    prompt = model.encoder.ids_of_prompt(text)
    assert found.choices[0].message.content == answer_of(model, prompt)
    assert found.usage.prompt_tokens == len(prompt)


def test_an_empty_answer_can_be_sent_back(server: RunningServer, model: LoadedModel) -> None:
    """It is left out of the prompt, so that two messages of the user stand in a row, which are joined."""
    whole = chat(server).choices[0].message.content
    empty = chat(server, stop=whole[0]).choices[0].message
    assert empty.content == ""
    again = {"role": "user", "content": "Please answer."}
    found = chat(server, messages=[*HELLO, empty.model_dump(), again])
    prompt = prompt_of(model, f"{HELLO[0]['content']}\n\nPlease answer.")
    assert found.choices[0].message.content == answer_of(model, prompt)
    assert found.usage.prompt_tokens == len(prompt)


def test_an_answer_of_nothing_but_thinking_can_be_sent_back(server: RunningServer, model: LoadedModel) -> None:
    thought = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\n \n"}
    found = chat(server, messages=[*HELLO, thought, {"role": "user", "content": "Please answer."}])
    prompt = prompt_of(model, f"{HELLO[0]['content']}\n\nPlease answer.")
    assert found.choices[0].message.content == answer_of(model, prompt)
    assert found.usage.prompt_tokens == len(prompt)


def test_settings_that_change_nothing_are_accepted(server: RunningServer) -> None:
    neutral = {
        "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "tools": [], "tool_choice": "none",
        "response_format": {"type": "text"}, "user": "somebody", "store": False, "stop": None, "n": None,
        "service_tier": "auto", "metadata": {"purpose": "test"},
        "extra_body": {"best_of": 1},
    }  # fmt: skip
    assert chat(server, **neutral).choices[0].message.content == chat(server).choices[0].message.content
    assert chat(server, temperature=1.0, top_p=0).choices == chat(server).choices  # only the likeliest is left


def test_a_chat_without_a_limit_gets_the_servers_or_what_fits(server: RunningServer, model: LoadedModel) -> None:
    with server.client() as client:
        found = client.chat.completions.create(model="tiny", messages=HELLO, temperature=0)
    room = 512 - len(prompt_of(model))
    assert found.choices[0].message.content == answer_of(model, prompt_of(model), num=room)
    both = chat(server, max_completion_tokens=3, max_tokens=3)
    assert both.usage.completion_tokens == 3


def test_all_models_are_listed_and_answer(server: RunningServer) -> None:
    with server.client() as client:
        assert [each.id for each in client.models.list()] == ["tiny", "other/name"]
        assert client.models.retrieve("other/name").object == "model"
    found = chat(server, model="other/name")
    assert found.model == "other/name"
    assert found.choices[0].message.content == chat(server).choices[0].message.content
