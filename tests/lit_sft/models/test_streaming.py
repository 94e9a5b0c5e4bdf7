"""One sampler: streamed, in batches and one by one, the same answers; stop strings, cancelling, log-probabilities."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data_modules.errors import UserError
from lit_sft.models.adapters import LoraSettings, causal_lm, with_adapters
from lit_sft.models.generation import (
    Generated,
    GenerationRequest,
    GenerationSettings,
    answer_requests,
    lock_of,
)
from lit_sft.models.next_token import TokenLogprob
from lit_sft.models.unfinished import Piece
from tests.conftest import END, MODELS
from tests.lit_sft.models.test_generation import PROMPTS, build

WORDS = (
    "the",
    "sheep",
    "羊在山上吃草",
    "🐑",
    "sleeps",
    "😀👩\u200d👩\u200d👧",
    "你好，世界！",
    "on a hill",
    "é",
    "\n",
    "4 + 4 = 8",
)
GREEDY = GenerationSettings(max_new_tokens=8)
SAMPLED = replace(GREEDY, temperature=1.2, top_p=0.95)


@pytest.fixture(scope="module")
def bundled() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained("examples/tokenizer")  # type: ignore[no-any-return]


def mixed_texts(count: int) -> list[str]:
    """English, Chinese and emoji, of very different lengths."""
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(count)]


def exact(model: torch.nn.Module) -> torch.nn.Module:
    """In float64: rounding, which depends on a batch's shape, is far below any difference between two tokens."""
    return model.double()


def ask(model: torch.nn.Module, tokenizer: Any, requests: list[GenerationRequest], **options: Any) -> list[Generated]:
    return answer_requests(model, requests, tokenizer=tokenizer, end_token_id=END, **options)


class Heard:
    """Keeps the pieces of an answer."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []

    def __call__(self, piece: Piece) -> None:
        self.pieces.append(piece)

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


def check_equal_however_made(
    model: torch.nn.Module, tokenizer: Any, settings: GenerationSettings, texts: list[str]
) -> list[Generated]:
    requests = [GenerationRequest(tokenizer(text).input_ids, settings, seed) for seed, text in enumerate(texts)]
    batched = ask(model, tokenizer, requests, batch_size=16)
    alone, together = [Heard() for _ in requests], [Heard() for _ in requests]
    one_by_one = [
        ask(model, tokenizer, [replace(each, listener=heard)])[0] for each, heard in zip(requests, alone, strict=True)
    ]
    heard_by = [replace(each, listener=heard) for each, heard in zip(requests, together, strict=True)]
    assert one_by_one == batched == ask(model, tokenizer, heard_by[::-1], batch_size=16)[::-1]
    for answer, *listeners in zip(batched, alone, together, strict=True):
        for heard in listeners:
            assert heard.text == answer.text
            assert all(piece.text for piece in heard.pieces)
    return batched


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", MODELS)
def test_streamed_and_batched_answers_equal_those_one_by_one(
    name: str, settings: GenerationSettings, bundled: PreTrainedTokenizerFast
) -> None:
    answers = check_equal_however_made(exact(build(name, bundled)), bundled, settings, mixed_texts(12))
    assert len({answer.text for answer in answers}) > 6


@pytest.mark.slow
@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", MODELS)
def test_200_answers_are_equal_however_they_are_made(
    name: str, settings: GenerationSettings, bundled: PreTrainedTokenizerFast
) -> None:
    settings = replace(settings, max_new_tokens=24)
    answers = check_equal_however_made(exact(build(name, bundled)), bundled, settings, mixed_texts(200))
    num_replaced = sum("\ufffd" in answer.text for answer in answers)
    print(f"{name}: {len({*answers})} different of {len(answers)}, {num_replaced} with a replacement character")


def test_requests_of_a_batch_have_their_own_settings(tokenizer: PreTrainedTokenizerFast) -> None:
    model = exact(build("qwen2", tokenizer))
    settings = [GREEDY, SAMPLED, replace(SAMPLED, max_new_tokens=3), replace(GREEDY, max_new_tokens=11)]
    requests = [GenerationRequest(prompt, each, seed=5) for prompt, each in zip(PROMPTS, settings, strict=False)]
    together = ask(model, tokenizer, requests)
    assert together == [ask(model, tokenizer, [each])[0] for each in requests]
    assert [answer.num_tokens for answer in together] == [8, 8, 3, 11]


def test_a_short_answer_beside_a_long_one_does_not_exceed_the_context(tokenizer: PreTrainedTokenizerFast) -> None:
    """A finished row goes on until its batch is finished: GPT-2 has no position after the last."""
    requests = [
        GenerationRequest([7] * 500, replace(GREEDY, max_new_tokens=4)),
        GenerationRequest([8] * 20, replace(GREEDY, max_new_tokens=40)),
    ]
    answers = ask(build("gpt2", tokenizer), tokenizer, requests)
    assert [answer.num_tokens for answer in answers] == [4, 40]


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", MODELS)
def test_answers_that_fill_the_context_are_made_together(
    name: str, settings: GenerationSettings, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Each has another limit, the length of the context without its prompt, and all are as they would be alone."""
    model = exact(build(name, tokenizer))
    with torch.no_grad():
        causal_lm(model).get_output_embeddings().weight[END] = 0.0  # it rarely ends an answer
    settings, steps = replace(settings, max_new_tokens=1000), []  # type: ignore[var-annotated]
    hook = model.register_forward_hook(lambda *_: steps.append(1))
    requests = [GenerationRequest([length % 200] * length, settings, length) for length in (511, 505, 480, 490, 440)]
    alone = [ask(model, tokenizer, [each])[0] for each in requests]
    num_alone = len(steps)
    together = ask(model, tokenizer, requests)
    hook.remove()
    assert together == alone
    full = [each for each, request in zip(alone, requests, strict=True) if len(request.prompt) + each.num_tokens == 512]
    assert len(full) >= 4
    assert len(steps) - num_alone <= 72 + 4  # as many as the longest answer alone, and the other prompts once more


def test_an_answer_ends_before_a_stop_string(tokenizer: PreTrainedTokenizerFast) -> None:
    model = exact(build("gpt2", tokenizer))
    requests = [GenerationRequest(prompt, replace(GREEDY, max_new_tokens=20)) for prompt in PROMPTS]
    whole = ask(model, tokenizer, requests)
    stops = [answer.text[5:7] for answer in whole]
    heard = [Heard() for _ in requests]
    stopped = ask(model, tokenizer, [
        replace(each, stop=("nowhere", stop), listener=listener)
        for each, stop, listener in zip(requests, stops, heard, strict=True)
    ])  # fmt: skip
    for answer, before, stop, listener in zip(stopped, whole, stops, heard, strict=True):
        assert answer.text == before.text.split(stop)[0] == listener.text
        assert answer.stopped_by == stop
        assert (answer.ended, answer.is_cut, answer.is_cancelled) == (False, False, False)
        assert answer.num_tokens < before.num_tokens


def test_cancelling_one_answer_leaves_the_others_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    model = exact(build("llama", tokenizer))
    requests = [GenerationRequest(prompt, GREEDY) for prompt in PROMPTS]
    whole = ask(model, tokenizer, requests)
    asked = iter(range(100))
    requests[1] = replace(requests[1], is_cancelled=lambda: next(asked) == 3)
    cancelled = ask(model, tokenizer, requests)
    assert cancelled[1].is_cancelled
    assert not cancelled[1].is_cut
    assert cancelled[1].num_tokens == 3
    assert whole[1].text.startswith(cancelled[1].text.rstrip("\ufffd"))
    assert [cancelled[0], *cancelled[2:]] == [whole[0], *whole[2:]]


def test_no_further_token_is_computed_for_cancelled_requests(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("llama", tokenizer)
    monkeypatch.setattr(type(model), "generate", lambda *_, **__: pytest.fail("generated for nobody"))
    requests = [GenerationRequest(prompt, GREEDY, is_cancelled=lambda: True) for prompt in PROMPTS]
    assert ask(model, tokenizer, requests) == [Generated("", 0, False, is_cancelled=True)] * len(PROMPTS)


def test_a_batch_ends_when_all_its_answers_are_cancelled(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build("llama", tokenizer)
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    model.register_forward_hook(count)
    long = replace(GREEDY, max_new_tokens=200)
    requests = [GenerationRequest(prompt, long, is_cancelled=lambda: steps >= 4) for prompt in PROMPTS]
    answers = ask(model, tokenizer, requests)
    assert all(answer.is_cancelled for answer in answers)
    assert steps == 4


def test_log_probabilities_are_those_of_the_model(tokenizer: PreTrainedTokenizerFast) -> None:
    model = exact(build("gpt2", tokenizer))
    heard = Heard()
    request = GenerationRequest(PROMPTS[1], SAMPLED, seed=2, num_likeliest=3, listener=heard)
    (answer,) = ask(model, tokenizer, [request])
    tokens = [each.token for each in answer.logprobs]
    assert len(tokens) == answer.num_tokens == 8
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([[*PROMPTS[1], *tokens]])).logits[0, :, : len(tokenizer)]
    expected = torch.log_softmax(logits, dim=-1)[len(PROMPTS[1]) - 1 : -1]
    for row, each in zip(expected, answer.logprobs, strict=True):
        assert each.logprob == pytest.approx(float(row[each.token]), abs=1e-5)
        values, ids = row.topk(3)
        assert [token for token, _ in each.likeliest] == ids.tolist()
        assert [value for _, value in each.likeliest] == pytest.approx(values.tolist(), abs=1e-5)
    assert tuple(each for piece in heard.pieces for each in piece.logprobs) == answer.logprobs


def test_log_probabilities_cost_nothing_unless_asked_for(tokenizer: PreTrainedTokenizerFast) -> None:
    model = exact(build("gpt2", tokenizer))
    requests = [GenerationRequest(PROMPTS[0], GREEDY), GenerationRequest(PROMPTS[1], GREEDY, num_likeliest=0)]
    without, with_them = ask(model, tokenizer, requests)
    assert without.logprobs == ()
    assert all(isinstance(each, TokenLogprob) and each.likeliest == () for each in with_them.logprobs)
    assert replace(with_them, logprobs=()) == ask(model, tokenizer, [replace(requests[1], num_likeliest=None)])[0]


def test_no_global_random_state_is_read_or_changed(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("qwen2", tokenizer)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    first = ask(model, tokenizer, [GenerationRequest(PROMPTS[0], SAMPLED)])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert repr(np.random.get_state()) == repr(states[2])
    torch.manual_seed(99)
    # another thread may draw meanwhile: its random numbers must not come twice
    monkeypatch.setattr(torch.random, "fork_rng", lambda *_, **__: pytest.fail("the global state was put back"))
    assert ask(model, tokenizer, [GenerationRequest(PROMPTS[0], SAMPLED)]) == first


def test_threads_take_turns_with_a_model(tokenizer: PreTrainedTokenizerFast) -> None:
    model = exact(build("qwen2", tokenizer))
    model.train()
    requests = [GenerationRequest(prompt, SAMPLED, seed) for seed, prompt in enumerate(PROMPTS * 2)]
    alone = [ask(model, tokenizer, [each])[0] for each in requests]
    attention = causal_lm(model).config._attn_implementation
    found: dict[int, Generated] = {}

    def answer(index: int) -> None:
        torch.set_num_threads(1)
        found[index] = ask(model, tokenizer, [requests[index]])[0]

    threads = [threading.Thread(target=answer, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index] for index in range(len(requests))] == alone
    assert all(module.training for module in model.modules())
    assert causal_lm(model).config._attn_implementation == attention


def test_a_model_has_one_lock_with_and_without_its_adapters(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build("gpt2", tokenizer)
    lock = lock_of(model)
    assert lock_of(with_adapters(model, LoraSettings(rank=2))) is lock  # type: ignore[arg-type]
    assert lock_of(build("gpt2", tokenizer)) is not lock


def test_an_error_of_a_listener_ends_the_batch_and_leaves_the_model_as_it_was(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = build("gpt2", tokenizer)
    model.train()

    def fail(piece: Piece) -> None:
        raise OSError("the client has gone")

    defaults = model.generation_config
    with pytest.raises(OSError, match="the client has gone"):
        ask(model, tokenizer, [GenerationRequest(PROMPTS[0], GREEDY, listener=fail)])
    assert all(module.training for module in model.modules())
    assert model.generation_config is defaults
    assert not ask(model, tokenizer, [GenerationRequest(PROMPTS[0], GREEDY)])[0].is_cancelled


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompt": []}, "the prompt has no tokens; expected at least one."),
        ({"stop": ("a", "")}, "a stop string is empty; expected at least one character."),
        ({"num_likeliest": -1}, "num_likeliest -1: expected at least 0."),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        GenerationRequest(**({"prompt": [1]} | changed))
    assert str(raised.value) == message
