from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from data_modules.errors import UserError
from lit_sft.models.adapters import LoraSettings, causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.generation import Generated, GenerationSettings, generate
from lit_sft.models.next_token import Choice, NextToken
from tests.conftest import END, MODELS

PROMPTS = [list(text.encode()) for text in ("a", "hello there", "two words", "The quick brown fox", "x" * 40)]


def build(name: str, tokenizer: PreTrainedTokenizerFast, tuning: str = "full", dropout: float = 0.5) -> torch.nn.Module:
    torch.manual_seed(1)
    settings = BackboneSettings(config=MODELS[name], tuning=tuning, lora=LoraSettings(rank=2), dropout=dropout)  # type: ignore[arg-type]
    model = build_backbone(settings, tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():  # larger than usual, so that answers differ from one another
            parameter.normal_(std=0.3) if parameter.dim() > 1 else None
    return model


def answers(model: Any, tokenizer: Any, prompts: list[list[int]] = PROMPTS, **settings: Any) -> list[Generated]:
    this = GenerationSettings(**({"max_new_tokens": 12} | settings))
    return generate(model, prompts, tokenizer=tokenizer, end_token_id=END, settings=this, seed=3)


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", MODELS)
def test_batched_answers_equal_those_one_by_one(name: str, tuning: str, tokenizer: PreTrainedTokenizerFast) -> None:
    model = build(name, tokenizer, tuning)
    together = answers(model, tokenizer, batch_size=8)
    assert together == [answers(model, tokenizer, [prompt])[0] for prompt in PROMPTS]
    assert len({answer.text for answer in together}) > 1


def greedy_loop(model: torch.nn.Module, prompt: list[int], count: int) -> list[int]:
    """Independent of `generate`: no cache, no padding, one token at a time."""
    model.eval()
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_greedy_answers_equal_a_loop_over_the_argmax(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build("gpt2", tokenizer)
    (answer,) = answers(model, tokenizer, PROMPTS[:1])
    expected = greedy_loop(model, PROMPTS[0], 12)
    assert answer == Generated(str(tokenizer.decode(expected)), 12, ended=False)


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_the_lowest_temperatures_are_greedy_and_the_highest_take_any_known_token(
    top_p: float, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = build("gpt2", tokenizer)
    greedy = answers(model, tokenizer)
    for temperature in (1e-12, 1e-38, 1e-300, math.nextafter(0, 1)):
        assert answers(model, tokenizer, temperature=temperature, top_p=top_p) == greedy
    num_ids = len(tokenizer)
    padded = torch.full((1, num_ids + 5), 3.0)
    for temperature in (1e20, 1e39, 1e300):
        choices = [Choice(temperature, top_p, seed) for seed in range(50)]
        chosen = NextToken(choices, num_ids)(torch.zeros(50, 1, dtype=torch.int64), padded.expand(50, -1)).argmax(1)
        assert chosen.max() < num_ids
        assert len(set(chosen.tolist())) > 30


@pytest.mark.parametrize("temperature", [1, 2])
def test_whole_numbers_are_temperatures_too(temperature: int, tokenizer: PreTrainedTokenizerFast) -> None:
    """Sliders of a page, JSON and YAML give 1, not 1.0."""
    model = build("gpt2", tokenizer)
    found = answers(model, tokenizer, temperature=temperature, top_p=1)
    assert found == answers(model, tokenizer, temperature=float(temperature), top_p=1.0)
    assert found != answers(model, tokenizer)


def test_generation_stops_at_the_end_token_and_says_so(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build("gpt2", tokenizer)
    ids = greedy_loop(model, PROMPTS[0], 12)
    end, length = ids[4], ids.index(ids[4])
    (stopped,) = generate(
        model, PROMPTS[:1], tokenizer=tokenizer, end_token_id=end, settings=GenerationSettings(max_new_tokens=12)
    )
    assert stopped == Generated(str(tokenizer.decode(ids[:length])), length + 1, ended=True)


def test_model_and_random_state_are_restored(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build("qwen2", tokenizer)
    model.train()
    causal_lm(model).model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    defaults = causal_lm(model).generation_config
    random_state = torch.get_rng_state()
    answers(model, tokenizer, temperature=1.0)
    assert [module.training for module in model.modules()] == modes
    assert causal_lm(model).generation_config is defaults
    assert torch.equal(torch.get_rng_state(), random_state)


def test_the_models_own_generation_defaults_do_not_interfere(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build("gpt2", tokenizer)
    plain = answers(model, tokenizer)
    causal_lm(model).generation_config.repetition_penalty = 50.0
    assert answers(model, tokenizer) == plain


def test_sampling_depends_on_the_seed_and_temperature(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build("gpt2", tokenizer)
    sampled = answers(model, tokenizer, temperature=1.5)
    assert sampled == answers(model, tokenizer, temperature=1.5)
    assert sampled != answers(model, tokenizer)


def test_sampling_depends_on_the_prompt_not_on_the_batch(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build("gpt2", tokenizer)
    together = answers(model, tokenizer, temperature=1.0, batch_size=5)
    assert together == answers(model, tokenizer, temperature=1.0, batch_size=2)
    assert together == [answers(model, tokenizer, [prompt], temperature=1.0)[0] for prompt in PROMPTS]
    assert together[::-1] == answers(model, tokenizer, PROMPTS[::-1], temperature=1.0)


def test_tokens_are_sampled_with_their_probabilities(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build("gpt2", tokenizer).eval()
    prompt, count, temperature, top_p = PROMPTS[1], 2000, 0.5, 0.8
    with torch.no_grad():
        probabilities = torch.softmax(model(torch.tensor([prompt])).logits[0, -1] / temperature, dim=-1)
    ordered, tokens = probabilities.sort(descending=True)
    kept = tokens[: int((ordered.cumsum(0) < top_p).sum()) + 1]
    expected = probabilities[kept] / probabilities[kept].sum()
    settings = GenerationSettings(max_new_tokens=1, temperature=temperature, top_p=top_p, batch_size=100)
    drawn = [
        generate(model, [prompt], tokenizer=tokenizer, end_token_id=END, settings=settings, seed=seed)[0].text
        for seed in range(count)
    ]
    texts = [tokenizer.decode([token]) for token in kept.tolist()]
    assert set(drawn) <= {*texts, ""}
    likeliest = drawn.count(texts[0]) / count
    error = float((expected[0] * (1 - expected[0]) / count) ** 0.5)
    assert likeliest == pytest.approx(float(expected[0]), abs=5 * error)


def test_a_prompt_near_the_context_limit_does_not_shorten_the_answers_of_others(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = build("gpt2", tokenizer)
    together = answers(model, tokenizer, [PROMPTS[0], [7] * 508, [8] * 509], batch_size=3)
    assert [answer.num_tokens for answer in together] == [12, 4, 3]


def test_answers_do_not_exceed_the_context(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build("gpt2", tokenizer)
    (answer,) = answers(model, tokenizer, [[7] * 505], max_new_tokens=50)
    assert answer.num_tokens <= 7
    with pytest.raises(ValueError, match="a prompt of 512 tokens leaves no room for an answer: the model reads 512"):
        answers(model, tokenizer, [[7] * 512])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens 0: expected at least 1."),
        ({"batch_size": 0}, "batch_size 0: expected at least 1."),
        ({"temperature": -1.0}, "temperature -1: expected at least 0."),
        ({"temperature": math.nan}, "temperature nan: expected at least 0."),
        ({"temperature": math.inf}, "temperature inf: expected a finite number."),
        ({"top_p": 0.0}, "top_p 0: expected more than 0, at most 1."),
    ],
)
def test_a_setting_out_of_range_is_named_alone(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        GenerationSettings(**settings)
    assert str(raised.value) == message
