"""Completions through OpenAI's own client."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra `serve`")
pytest.importorskip("openai", reason="needs the extra `endpoint`")

from lit_sft.models.generation import GenerationRequest, GenerationSettings
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.next_token import TokenLogprob
from lit_sft.serve.logprobs import ReportedTokens, starts_of
from tests.conftest import IM_START
from tests.lit_sft.serve.running import RunningServer, answer_of

TEXT = "The sheep 羊"
IDS = list(TEXT.encode())


def complete(server: RunningServer, prompt: Any = TEXT, **settings: Any) -> Any:
    with server.client() as client:
        found = client.completions.create(**({"model": "tiny", "prompt": prompt, "temperature": 0} | settings))
        return list(found) if settings.get("stream") else found


def test_a_text_is_continued_by_16_tokens(server: RunningServer, model: LoadedModel) -> None:
    found = complete(server)
    assert found.choices[0].text == answer_of(model, IDS, num=16)
    assert (found.object, found.choices[0].finish_reason) == ("text_completion", "length")
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(IDS), 16)


def test_texts_and_ids_one_or_several_are_prompts(server: RunningServer, model: LoadedModel) -> None:
    other = [5, 6, 7]
    expected = {id(prompt): answer_of(model, prompt, num=4) for prompt in (IDS, other)}
    for prompt, wanted in (
        (IDS, [IDS]),
        ([TEXT], [IDS]),
        ([TEXT, "\x05\x06\x07"], [IDS, other]),
        ([IDS, other], [IDS, other]),
    ):
        found = complete(server, prompt, max_tokens=4, n=2)
        assert [choice.text for choice in found.choices] == [expected[id(each)] for each in wanted for _ in range(2)]
        assert [choice.index for choice in found.choices] == list(range(2 * len(wanted)))
        assert found.usage.prompt_tokens == sum(map(len, wanted))


def test_markers_in_a_prompt_are_tokens_as_for_any_client(server: RunningServer, model: LoadedModel) -> None:
    found = complete(server, "<|im_start|>user\n")
    assert found.usage.prompt_tokens == 6
    assert found.choices[0].text == answer_of(model, [IM_START, *b"user\n"], num=16)


def test_a_streamed_completion_is_the_whole_one(server: RunningServer) -> None:
    whole = complete(server, [TEXT, "x"], max_tokens=30, logprobs=1)
    settings = {"stream": True, "stream_options": {"include_usage": True}}
    parts = complete(server, [TEXT, "x"], max_tokens=30, logprobs=1, **settings)
    for choice in whole.choices:
        pieces = [each for part in parts for each in part.choices if each.index == choice.index]
        assert "".join(piece.text for piece in pieces) == choice.text
        assert pieces[-1].finish_reason == "length"
        told = [piece.logprobs for piece in pieces if piece.logprobs]
        assert [token for each in told for token in each.tokens] == choice.logprobs.tokens
        assert [value for each in told for value in each.token_logprobs] == pytest.approx(
            choice.logprobs.token_logprobs
        )
    assert parts[-1].usage == whole.usage


def test_log_probabilities_are_parallel_lists(server: RunningServer) -> None:
    found = complete(server, max_tokens=5, logprobs=2).choices[0].logprobs
    assert len(found.tokens) == len(found.token_logprobs) == len(found.top_logprobs) == len(found.text_offset) == 5
    for token, logprob, likeliest in zip(found.tokens, found.token_logprobs, found.top_logprobs, strict=True):
        assert likeliest[token] == logprob == max(likeliest.values())
        assert len(likeliest) == 2
    assert complete(server, max_tokens=5, logprobs=0).choices[0].logprobs.top_logprobs is None


@pytest.mark.parametrize("echo", [False, True])
def test_the_token_that_was_taken_is_among_the_likeliest(server: RunningServer, echo: bool) -> None:
    """As in the API: up to one more than requested."""
    found = complete(server, max_tokens=30, temperature=1.5, seed=1, logprobs=2, echo=echo).choices[0].logprobs
    sizes = []
    for token, logprob, likeliest in list(zip(found.tokens, found.token_logprobs, found.top_logprobs, strict=True))[
        echo:
    ]:
        assert likeliest[token] == logprob
        sizes.append(len(likeliest))
    assert {*sizes} == {2, 3}


def test_no_tokens_can_be_asked_for(server: RunningServer) -> None:
    found = complete(server, [TEXT, "x"], max_tokens=0, n=2, logprobs=1)
    assert [(each.text, each.finish_reason, each.logprobs.tokens) for each in found.choices] == [("", "length", [])] * 4
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(IDS) + 1, 0)
    parts = complete(server, [TEXT, "x"], max_tokens=0, n=2, stream=True)
    assert [(each.index, each.finish_reason) for part in parts for each in part.choices] == [
        (index, "length") for index in range(4)
    ]


def test_the_likeliest_tokens_are_null_only_where_none_were_requested(server: RunningServer) -> None:
    for settings, expected in (({}, []), ({"echo": True}, [None])):
        for count, likeliest in ((3, expected), (0, None)):
            (choice,) = complete(server, "x", max_tokens=0, logprobs=count, **settings).choices
            assert choice.logprobs.top_logprobs == likeliest
            assert len(choice.logprobs.tokens) == len(expected)
    parts = complete(server, "x", max_tokens=30, temperature=1.5, seed=1, logprobs=3, stream=True)
    told = [each.logprobs for part in parts for each in part.choices if each.logprobs]
    assert [len(each.top_logprobs) for each in told] == [len(each.tokens) for each in told]


def test_an_echo_has_the_log_probabilities_of_the_prompt(server: RunningServer, model: LoadedModel) -> None:
    found = complete(server, echo=True, logprobs=1, max_tokens=2)
    (choice,) = found.choices
    assert choice.text == TEXT + answer_of(model, IDS, num=2)
    nats = model.nats([IDS])[0]
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.top_logprobs[0] is None
    assert choice.logprobs.token_logprobs[1 : len(IDS)] == pytest.approx((-nats[1:]).tolist(), abs=1e-5)
    assert len(choice.logprobs.tokens) == len(IDS) + 2
    assert choice.logprobs.text_offset[:6] == [0, 1, 2, 3, 4, 5]
    assert found.usage.completion_tokens == 2


def test_offsets_count_characters_also_after_bytes_that_are_none(server: RunningServer) -> None:
    (choice,) = complete(server, [0x80, *"a羊b".encode()], echo=True, logprobs=0, max_tokens=0).choices
    assert choice.text == "\ufffda羊b"
    assert choice.logprobs.text_offset == [0, 1, 2, 2, 2, 3]


@pytest.mark.parametrize("seed", range(10))
def test_offsets_are_the_same_streamed_and_not(server: RunningServer, seed: int) -> None:
    settings = {"max_tokens": 40, "temperature": 2, "seed": seed, "logprobs": 3}
    (whole,) = complete(server, **settings).choices
    found, texts, offset = whole.logprobs, [], 0
    for part in complete(server, stream=True, **settings):
        for each in part.choices:
            if each.logprobs:
                texts += zip(each.logprobs.tokens, each.logprobs.text_offset, strict=True)
                assert not each.logprobs.text_offset or each.logprobs.text_offset[0] >= offset
            offset += len(each.text)
    assert texts == [*zip(found.tokens, found.text_offset, strict=True)]
    for text, begin in texts:
        assert text.startswith(("bytes:", "<|im_end|>")) or whole.text[begin:].startswith(text)


def test_tokens_of_several_characters_begin_where_they_do_whatever_the_pieces() -> None:
    """A stop string that may come holds back a part of a token, and a token can hold parts of two characters."""
    data = ["a羊b", "羊".encode()[:2], "羊".encode()[2:] + b"\xe7", b"cd", b"x"]
    words = [each.encode() if isinstance(each, str) else each for each in data]
    tokens = [TokenLogprob(number, -1.0) for number in range(len(words))]
    reported = ReportedTokens(words.__getitem__, None)
    pieces = [("a羊", tokens[:1]), ("b", tokens[1:2]), ("羊\ufffdc", tokens[2:4]), ("dx", tokens[4:])]
    found = [[(each.id, each.start) for each in reported.add(*piece)] for piece in pieces]
    assert found == [[(0, 0)], [], [(1, 3), (2, 3), (3, 5)], [(4, 7)]]
    assert starts_of(range(len(words)), words.__getitem__) == [0, 3, 3, 5, 7]


def test_an_echo_can_be_all_that_is_wanted(server: RunningServer) -> None:
    both = complete(server, [IDS, [9, 9]], echo=True, logprobs=0, max_tokens=0)
    assert [choice.text for choice in both.choices] == [TEXT, "\t\t"]
    assert [len(choice.logprobs.tokens) for choice in both.choices] == [len(IDS), 2]
    assert both.usage.completion_tokens == 0
    plain = complete(server, echo=True, max_tokens=1)
    assert plain.choices[0].text.startswith(TEXT)
    assert plain.choices[0].logprobs is None


def test_the_end_token_has_a_log_probability(server: RunningServer, model: LoadedModel) -> None:
    """lm-eval leaves out the last token of an echo, which it takes for the generated one."""
    settings = GenerationSettings(60, 1.5)
    seeds = (seed for seed in range(200) if model.answer_requests([GenerationRequest(IDS, settings, seed)])[0].ended)
    asked = {"max_tokens": 60, "temperature": 1.5, "seed": next(seeds), "logprobs": 0}
    found = complete(server, echo=True, **asked)
    assert found.choices[0].finish_reason == "stop"
    assert found.choices[0].logprobs.tokens[-1] == "<|im_end|>"
    assert len(found.choices[0].logprobs.tokens) == len(IDS) + found.usage.completion_tokens
    parts = complete(server, stream=True, **asked)
    told = [each.logprobs.tokens for part in parts for each in part.choices if each.logprobs]
    assert told[-1][-1] == "<|im_end|>"
    assert sum(map(len, told)) == found.usage.completion_tokens


def test_many_prompts_are_scored_in_one_request(server: RunningServer) -> None:
    """As many as lm-eval sends with a large batch: scoring them takes one place in the queue."""
    prompts = [[n, n + 1, n + 2] for n in range(63)]
    found = complete(server, prompts, echo=True, logprobs=1, max_tokens=1)
    assert [choice.logprobs.tokens[0] for choice in found.choices][5:8] == ["\x05", "\x06", "\x07"]
    alone = complete(server, prompts[40], echo=True, logprobs=1, max_tokens=1).choices[0]
    assert found.choices[40].logprobs.token_logprobs[1:] == pytest.approx(alone.logprobs.token_logprobs[1:])
