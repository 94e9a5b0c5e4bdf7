from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from lit_sft.models.attention import (
    Documents,
    _dense,
    document_attention,
    ordinary_attention,
    use_document_attention,
)

LENGTHS = (3, 1, 7, 2)
DOCUMENTS = Documents(LENGTHS, torch.tensor([0, 3, 4, 11, 13], dtype=torch.int32))


def qkv(dtype: torch.dtype = torch.float64, key_heads: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, heads, sum(LENGTHS), 8) for heads in (4, key_heads, key_heads)]
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


def brute_force(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int = 99) -> torch.Tensor:
    """Softmax over the earlier tokens of the same document, token by token."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    starts = [
        start for start, length in zip(DOCUMENTS.boundaries.tolist(), LENGTHS, strict=False) for _ in range(length)
    ]
    outputs = []
    for position, start in enumerate(starts):
        seen = slice(max(start, position - window + 1), position + 1)
        scores = torch.einsum("bhd,bhtd->bht", query[:, :, position], key[:, :, seen]) * 0.3
        outputs.append(torch.einsum("bht,bhtd->bhd", F.softmax(scores, -1), value[:, :, seen]))
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("window", [None, 3])
def test_documents_attend_to_their_own_earlier_tokens_only(key_heads: int, window: int | None) -> None:
    given = qkv(key_heads=key_heads)
    output, _ = document_attention(
        torch.nn.Module(), *given, None, scaling=0.3, documents=DOCUMENTS, sliding_window=window
    )
    expected = brute_force(*given, window=window or 99)
    torch.testing.assert_close(output, expected)
    for ours, theirs in zip(
        torch.autograd.grad(output.square().sum(), given),
        torch.autograd.grad(expected.square().sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_dense_fallback_equals_attention_per_document() -> None:
    given = qkv(key_heads=2)
    dense = _dense(*given, LENGTHS, 0.3, 0.0, None)
    pieces, _ = document_attention(torch.nn.Module(), *given, None, scaling=0.3, documents=DOCUMENTS)
    torch.testing.assert_close(dense.transpose(1, 2), pieces)


@pytest.mark.parametrize("rotated", [torch.bfloat16, torch.float32])
def test_bfloat16_on_a_cpu_is_computed_in_float32_even_under_autocast(rotated: torch.dtype) -> None:
    query, key, value = qkv(torch.bfloat16)
    given = (query.to(rotated), key.to(rotated), value)  # rotary embeddings return float32 under autocast
    exact, _ = document_attention(
        torch.nn.Module(), *(t.float() for t in given), None, scaling=0.3, documents=DOCUMENTS
    )
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = document_attention(torch.nn.Module(), *given, None, scaling=0.3, documents=DOCUMENTS)
    assert output.dtype is torch.bfloat16
    torch.testing.assert_close(output, exact.to(torch.bfloat16), rtol=0, atol=0)


def test_rows_without_documents_are_plain_causal() -> None:
    query, key, value = qkv()
    output, _ = document_attention(torch.nn.Module(), query, key, value, None, scaling=0.3)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3)
    torch.testing.assert_close(output, expected.transpose(1, 2))


def test_a_cache_is_refused_instead_of_answering_wrongly() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    model = LlamaForCausalLM(config).eval()
    ids = torch.tensor([[3, 14, 15, 9]])
    arguments = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    expected = model.generate(ids, **arguments)
    use_document_attention(model)
    with pytest.raises(RuntimeError, match="`with ordinary_attention"):
        model.generate(ids, **arguments)
    assert model.generate(ids, use_cache=False, **arguments).tolist() == expected.tolist()
    with ordinary_attention(model):
        assert model.generate(ids, **arguments).tolist() == expected.tolist()
