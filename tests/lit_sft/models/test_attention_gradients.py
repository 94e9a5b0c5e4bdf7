from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_sft.models import attention, tree_attention
from lit_sft.models.attention import Documents, SharedDocuments, document_attention
from lit_sft.models.attention_gradients import LONG, backward_in_blocks
from lit_sft.models.tree_attention import Stretches

SHARED = Stretches((290, 270, 40, 300, 30), (-1, 0, 0, -1, 3))
"""Long and short parts, causal and not."""

REPEATED = Stretches((30, 290, 50, 280), (-1, 0, 0, 0))
"""A beginning that is repeated before long stretches and a short one."""

HEADS = [(6, 6), (6, 2), (4, 1)]


@pytest.fixture(autouse=True)
def every_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MULTIPLIES_BF16", True)


def given(length: int, heads: tuple[int, int], *, bias: float = 0.0, rows: int = 1) -> list[Tensor]:
    """Queries, keys and values laid out as by a model, and a gradient of the output, in float64; exact in bf16."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(rows, length, h, 16) for h in (heads[0], heads[1], heads[1], heads[0])]
    tensors = [torch.randn(s, generator=generator).bfloat16().double().transpose(1, 2) for s in shapes]
    tensors[1] = tensors[1] + bias * torch.randn(1, heads[1], 1, 16, generator=generator).double()
    return tensors


def gradients(attend: Callable[..., Tensor], tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    inputs = [tensor.to(dtype).requires_grad_() for tensor in tensors[:3]]
    output = attend(*inputs)
    return list(torch.autograd.grad(output, inputs, tensors[3].to(output.dtype)))


def dense(mask: Tensor) -> Callable[..., Tensor]:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True)


def under_autocast(documents: Documents | SharedDocuments | None) -> Callable[..., Tensor]:
    """What a rotary model computes: float32 queries and keys, values in bf16."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            output, _ = document_attention(
                torch.nn.Module(), query, key, value.bfloat16(), None, scaling=0.3, documents=documents
            )
        return output.transpose(1, 2)

    return attend


def errors(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    return [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("bias", [0.0, 10.0])  # keys of some models have a lot in common
def test_gradients_are_more_exact_than_those_of_attention_in_bf16(heads: tuple[int, int], bias: float) -> None:
    tensors = given(300, heads, bias=bias)
    attend = dense(torch.ones(300, 300, dtype=torch.bool).tril())
    exact = gradients(attend, tensors, torch.float64)
    ours = errors(gradients(under_autocast(None), tensors, torch.float32), exact)
    usual = errors(gradients(attend, tensors, torch.bfloat16), exact)
    for our_error, usual_error in zip(ours, usual, strict=True):
        assert 1e-4 < our_error < min(0.006, 1.5 * usual_error)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("tree", [Stretches((290, 40, 260, 2), (-1,) * 4), SHARED, REPEATED])
def test_parts_of_every_length_give_the_gradients_of_a_dense_mask(heads: tuple[int, int], tree: Stretches) -> None:
    boundaries = torch.tensor(tree.starts, dtype=torch.int32)
    documents = SharedDocuments(tree) if max(tree.parents) >= 0 else Documents(tree.lengths, boundaries)
    tensors = given(tree.starts[-1], heads, bias=3.0)
    exact = gradients(dense(tree.visible(torch.device("cpu"), None)), tensors, torch.float64)
    found = gradients(under_autocast(documents), tensors, torch.float32)
    for document in (slice(*bounds) for bounds in zip(tree.starts, tree.starts[1:], strict=False)):
        parts = [[tensor[:, :, document] for tensor in some] for some in (found, exact)]
        assert max(errors(*parts)) < 0.006


def test_a_backward_pass_under_autocast_gives_the_same_gradients() -> None:
    tensors = given(LONG, (4, 2))
    expected = gradients(under_autocast(None), tensors, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(under_autocast(None), tensors, torch.float32)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_rows_of_a_padded_batch_are_independent() -> None:
    tensors = given(LONG + 37, (4, 2), rows=3)
    together = gradients(under_autocast(None), tensors, torch.float32)
    for row in range(3):
        alone = gradients(under_autocast(None), [tensor[row : row + 1] for tensor in tensors], torch.float32)
        for ours, theirs in zip(alone, together, strict=True):
            torch.testing.assert_close(ours[0], theirs[row], rtol=1e-2, atol=1e-5)


def test_the_forward_pass_is_that_of_float32() -> None:
    query, key, value = (tensor.float() for tensor in given(LONG, (4, 2))[:3])
    output = under_autocast(None)(query, key, value)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3, enable_gqa=True)
    assert torch.equal(output, expected.bfloat16())


@pytest.mark.parametrize(
    ("length", "dtype", "dropout", "has_products", "uses_blocks"),
    [
        (LONG, torch.bfloat16, 0.0, True, True),
        (LONG - 1, torch.bfloat16, 0.0, True, False),
        (LONG, torch.float32, 0.0, True, False),
        (LONG, torch.float16, 0.0, True, False),
        (LONG, torch.bfloat16, 0.5, True, False),
        (LONG, torch.bfloat16, 0.0, False, False),
    ],
)
def test_blocks_are_for_long_documents_in_bf16_without_dropout(
    length: int, dtype: torch.dtype, dropout: float, has_products: bool, uses_blocks: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    calls = []

    def counted(*args: Tensor | bool | float | None) -> tuple[Tensor, Tensor, Tensor]:
        calls.append(args)
        return backward_in_blocks(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(tree_attention, "backward_in_blocks", counted)
    monkeypatch.setattr(attention, "MULTIPLIES_BF16", has_products)
    inputs = [tensor.to(dtype).requires_grad_() for tensor in given(length, (4, 2))[:3]]
    output, _ = document_attention(torch.nn.Module(), *inputs, None, scaling=0.3, dropout=dropout)
    output.sum().backward()
    assert bool(calls) == uses_blocks
    assert all(tensor.grad is not None for tensor in inputs)


def test_hidden_scores_may_be_as_large_as_they_like() -> None:
    """The score of a later key can exceed the normaliser by more than float32's exponential holds."""
    tensors = given(LONG, (2, 2))
    tensors[1][:, :, -1] = 40.0 * tensors[0][:, :, 5]
    attend = dense(torch.ones(LONG, LONG, dtype=torch.bool).tril())
    exact = gradients(attend, tensors, torch.float64)
    assert max(errors(gradients(under_autocast(None), tensors, torch.float32), exact)) < 0.01
