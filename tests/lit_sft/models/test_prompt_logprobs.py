from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lit_sft.models.adapters import causal_lm
from lit_sft.models.generation import GenerationRequest, GenerationSettings
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.prompt_logprobs import prompt_logprobs
from tests.conftest import MODELS
from tests.lit_sft.models.test_generation import PROMPTS, build


@pytest.mark.parametrize("name", MODELS)
def test_scores_of_a_prompt_equal_those_of_the_answer_and_a_plain_forward_pass(
    name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = LoadedModel("tiny", build(name, tokenizer).double(), tokenizer, "chatml")
    settings = GenerationSettings(max_new_tokens=100)
    (answer,) = model.answer_requests([GenerationRequest(PROMPTS[1], settings, num_likeliest=3)])
    ids = PROMPTS[1] + [each.token for each in answer.logprobs]
    scored = prompt_logprobs(model, ids, 3)
    assert scored[0] is None
    for made, read in zip(answer.logprobs, scored[len(PROMPTS[1]) :], strict=True):
        assert read is not None
        assert read.token == made.token
        assert read.logprob == pytest.approx(made.logprob, abs=1e-5)  # generation scores in float32
        assert [index for index, _ in read.likeliest] == [index for index, _ in made.likeliest]
    nats = model.nats([ids])[0]
    assert [-each.logprob for each in scored if each] == pytest.approx(nats[1:].tolist(), abs=1e-6)


def test_only_a_few_rows_of_logits_are_in_memory_at_a_time(tokenizer: PreTrainedTokenizerFast) -> None:
    model = LoadedModel("tiny", build("llama", tokenizer), tokenizer, "chatml")
    sizes: list[int] = []
    head = causal_lm(model.backbone).get_output_embeddings()
    head.register_forward_hook(lambda module, given, logits: sizes.append(logits.numel() // logits.shape[-1]))
    ids = [number % 250 for number in range(300)]
    scored = prompt_logprobs(model, ids, 1)
    assert (sum(sizes), max(sizes)) == (299, 64)
    nats = model.nats([ids])[0]
    assert [-each.logprob for each in scored if each] == pytest.approx(nats[1:].tolist(), abs=1e-5)


def test_ids_that_only_pad_the_vocabulary_have_no_probability(tokenizer: PreTrainedTokenizerFast) -> None:
    backbone = build("gpt2", tokenizer)
    causal_lm(backbone).resize_token_embeddings(len(tokenizer) + 30, mean_resizing=False)
    model = LoadedModel("tiny", backbone, tokenizer, "chatml")
    (_, score) = prompt_logprobs(model, [1, 2], 300)
    assert score is not None
    assert len(score.likeliest) == len(tokenizer)
    assert sum(torch.tensor([value for _, value in score.likeliest]).exp()) == pytest.approx(1.0, abs=1e-5)
