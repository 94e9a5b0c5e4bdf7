from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from data_modules.batching.batch import collate
from data_modules.encoding.example import Example
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import SegmentKind
from lit_sft.models.attention import shares_prefixes, use_document_attention
from lit_sft.models.loss import token_nll
from lit_sft.models.rope import depends_on_length, document_lengths

SIZES = {
    "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "vocab_size": 11, "pad_token_id": None,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.5, 2.0, 2.5],
    "long_factor": [4.0, 5.0, 6.0, 7.0], "original_max_position_embeddings": 16, "factor": 4.0,
}  # fmt: skip
OTHERS: dict[str, dict[str, Any]] = {
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "yarn": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16},
    "llama3": {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}  # fmt: skip


def make_model(kind: str, rope: dict[str, Any]) -> PreTrainedModel:
    torch.manual_seed(0)
    original = {"original_max_position_embeddings": 16} if kind == "phi3" else {}  # its own field goes first
    config = AutoConfig.for_model(kind, **SIZES, **original, rope_parameters=dict(rope))
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def documents(*lengths: int) -> list[Example]:
    generator = np.random.default_rng(1)
    return [
        Example(
            generator.integers(0, 11, length).astype(np.int32),
            np.full(length, SegmentKind.TEXT, dtype=np.uint8),
            np.zeros(length, dtype=np.int16),
            str(length),
        )
        for length in lengths
    ]


def nll(model: PreTrainedModel, examples: list[Example], *, pack: bool) -> list[list[float]]:
    batch = collate(examples, mask=MASKS["whole_sequence"], pack=pack, share_prefixes=True)
    found = token_nll(model, batch)
    of_target = batch.documents_at(batch.targets)
    return [found[of_target == index].tolist() for index in range(len(examples))]


def of_transformers(model: PreTrainedModel, example: Example) -> list[float]:
    ids = torch.from_numpy(example.input_ids).long().unsqueeze(0)
    logits = model(ids, use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none").tolist()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "phi3"])
@pytest.mark.parametrize("pack", [True, False])
def test_every_document_has_the_frequencies_of_its_own_length(kind: str, pack: bool) -> None:
    examples = documents(9, 16, 17, 5, 40)
    plain = make_model(kind, LONGROPE)
    expected = [of_transformers(plain, example) for example in examples]
    model = make_model(kind, LONGROPE)
    use_document_attention(model)
    for _ in range(2):  # nothing is left of the call before
        found = nll(model, examples, pack=pack)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-6)
    assert nll(model, examples[:1], pack=pack)[0] == pytest.approx(expected[0], abs=1e-6)


def test_without_this_a_long_document_changes_its_neighbour() -> None:
    examples = documents(9, 40)
    model = make_model("llama", LONGROPE)
    use_document_attention(model)
    alone = nll(model, examples[:1], pack=True)[0]
    del model.model.rotary_emb.forward
    assert nll(model, examples, pack=True)[0] != pytest.approx(alone, abs=1e-3)


@pytest.mark.parametrize("name", OTHERS)
def test_other_types_do_not_depend_on_neighbours_up_to_the_model_s_length(name: str) -> None:
    examples = documents(9, 17, 64)
    plain = make_model("llama", OTHERS[name])
    expected = [of_transformers(plain, example) for example in examples]
    model = make_model("llama", OTHERS[name])
    use_document_attention(model)
    assert not depends_on_length(model)
    for ours, theirs in zip(nll(model, examples, pack=True), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_beginnings_of_longer_documents_are_not_shared() -> None:
    model = make_model("llama", LONGROPE)
    use_document_attention(model)
    assert depends_on_length(model)
    assert not shares_prefixes(model)
    long, short = documents(40, 12)
    short = Example(long.input_ids[:12], short.kinds, short.turns, "12")
    found = nll(model, [short, long], pack=True)
    assert found[0] != pytest.approx(found[1][:11], abs=1e-3)
    assert found[0] == pytest.approx(nll(model, [short], pack=True)[0], abs=1e-9)


def test_the_length_of_a_document_is_found_from_its_positions() -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1, 0], [3, 4, 0, 0, 1, 2]])
    assert document_lengths(positions).tolist() == [[3, 3, 3, 2, 2, 1], [5, 5, 1, 3, 3, 3]]
    assert document_lengths(torch.tensor([[7], [20]])).tolist() == [[8], [21]]  # a token after others, in a cache
