from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_sft.models.linear_cross_entropy import linear_cross_entropy


def case(
    dtype: torch.dtype, count: int = 37, *, bias: bool = True
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(count, 16, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(53, 16, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    shift = torch.randn(53, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() if bias else None
    ids = torch.randint(53, (count,), generator=generator)
    return rows, weight, shift, ids, torch.rand(count, generator=generator)


def reference(rows: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    nll = F.cross_entropy(F.linear(rows, weight, bias), ids, reduction="none")
    return (nll * shares.to(nll.dtype)).sum(), nll


def relative_error(ours: Tensor, exact: Tensor) -> float:
    return float((ours.detach().double() - exact.detach().double()).norm() / exact.detach().double().norm())


@pytest.mark.parametrize("chunk", [1, 10, 1000])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_loss_nll_and_gradients_equal_those_on_full_logits(
    dtype: torch.dtype, tolerance: float, bias: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lit_sft.models.linear_cross_entropy._CHUNK_ON_CPU", chunk)
    given = case(dtype, bias=bias)
    inputs = [tensor for tensor in given[:3] if tensor is not None]
    (loss, nll), (exact, exact_nll) = linear_cross_entropy(*given), reference(*given)
    torch.testing.assert_close(loss, exact, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(nll, exact_nll, rtol=tolerance, atol=tolerance)
    factor = 1.7
    ours, theirs = torch.autograd.grad(factor * loss, inputs), torch.autograd.grad(factor * exact, inputs)
    for a, b in zip(ours, theirs, strict=True):
        assert relative_error(a, b) < tolerance
        assert a.dtype == dtype


def test_a_second_backward_pass_gives_the_same_gradients_and_changes_none() -> None:
    rows, weight, bias, *rest = case(torch.float64)
    assert bias is not None
    loss, _ = linear_cross_entropy(rows, weight, bias, *rest)
    first = torch.autograd.grad(loss, (rows, weight, bias), retain_graph=True)
    copies = [gradient.clone() for gradient in first]
    second = torch.autograd.grad(3 * loss, (rows, weight, bias))
    for gradient, copy, again in zip(first, copies, second, strict=True):
        assert torch.equal(gradient, copy)
        torch.testing.assert_close(again, 3 * copy)


@pytest.mark.parametrize("chunk", [5, 1000])
@pytest.mark.parametrize("first", [0, 20, 50])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.bfloat16, 0.02)])
def test_rows_count_as_if_they_were_written_into_the_head(
    dtype: torch.dtype, tolerance: float, first: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lit_sft.models.linear_cross_entropy._CHUNK_ON_CPU", chunk)
    states, weight, bias, ids, shares = case(dtype)
    ids[::3] = first + 1
    new = torch.randn(3, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype).requires_grad_()
    written = torch.cat([weight[:first], new, weight[first + 3 :]])
    inputs = (states, weight, bias, new)
    loss, nll = linear_cross_entropy(states, weight, bias, ids, shares, rows=new, first=first)
    exact, exact_nll = reference(states.double(), written.double(), bias.double(), ids, shares)  # type: ignore[union-attr]
    torch.testing.assert_close(nll.double(), exact_nll, rtol=10 * tolerance, atol=10 * tolerance)
    ours, theirs = torch.autograd.grad(loss, inputs), torch.autograd.grad(exact, inputs)  # type: ignore[arg-type]
    for a, b in zip(ours, theirs, strict=True):
        assert relative_error(a, b) < tolerance


def test_gradcheck() -> None:
    rows, weight, bias, ids, shares = case(torch.float64, 5)
    assert torch.autograd.gradcheck(lambda *x: linear_cross_entropy(*x, ids, shares)[0], (rows, weight, bias))


@pytest.mark.parametrize("count", [37, 1])
@pytest.mark.parametrize("chunk", [5, 1000])
@pytest.mark.parametrize("rows_in_cache", [1, 4, 1000])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precisions_are_within_their_own_error(
    dtype: torch.dtype, rows_in_cache: int, chunk: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lit_sft.models.linear_cross_entropy._ROWS_IN_CACHE", rows_in_cache)
    monkeypatch.setattr("lit_sft.models.linear_cross_entropy._CHUNK_ON_CPU", chunk)
    monkeypatch.setattr("lit_sft.models.linear_cross_entropy._COLUMNS_IN_CACHE", 9 * rows_in_cache)
    given = case(dtype, count)
    exact_given = [
        t.detach().double().requires_grad_() if t is not None and t.is_floating_point() else t for t in given
    ]
    loss, nll = linear_cross_entropy(*given)
    exact, exact_nll = reference(*exact_given)  # type: ignore[arg-type]
    spacing = torch.finfo(dtype).eps
    assert relative_error(loss, exact) < spacing
    assert relative_error(nll, exact_nll) < spacing
    ours = torch.autograd.grad(loss, list(given[:3]))  # type: ignore[arg-type]
    for a, b in zip(ours, torch.autograd.grad(exact, exact_given[:3]), strict=True):  # type: ignore[arg-type]
        assert relative_error(a, b) < 4 * spacing


def test_what_is_in_cache_does_not_change_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for in_cache in (1, 16, 1000):
        monkeypatch.setattr("lit_sft.models.linear_cross_entropy._ROWS_IN_CACHE", in_cache)
        monkeypatch.setattr("lit_sft.models.linear_cross_entropy._COLUMNS_IN_CACHE", 16 * in_cache)
        monkeypatch.setattr("lit_sft.models.linear_cross_entropy._CHUNK_ON_CPU", 10)
        given = case(torch.bfloat16, bias=False)
        loss, nll = linear_cross_entropy(*given)
        results.append((nll, *torch.autograd.grad(loss, list(given[:2]))))  # type: ignore[arg-type]
    for other in results[1:]:
        assert all(torch.equal(ours, first) for ours, first in zip(other, results[0], strict=True))


def test_tiny_shares_do_not_underflow_in_fp16() -> None:
    rows, weight, _, ids, shares = case(torch.float16, bias=False)
    gradients = []
    for scale in (1.0, 2.0**-20):
        loss, _ = linear_cross_entropy(rows, weight, None, ids, shares * scale)
        # what a loss scale does: the gradient comes back to its size in the backward pass
        gradients.append(torch.autograd.grad(loss / scale, [rows, weight]))
    for plain, tiny in zip(*gradients, strict=True):
        assert relative_error(tiny, plain) < 1e-3


def test_products_follow_autocast_and_gradients_the_parameters() -> None:
    rows, weight, bias, ids, shares = case(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss, nll = linear_cross_entropy(rows, weight, bias, ids, shares)
    exact, exact_nll = reference(rows, weight, bias, ids, shares)
    assert nll.dtype is torch.float32
    assert 1e-7 < relative_error(nll, exact_nll.detach()) < 0.01
    for ours, theirs in zip(
        torch.autograd.grad(loss, [rows, weight]), torch.autograd.grad(exact, [rows, weight]), strict=True
    ):
        assert ours.dtype is torch.float32
        assert relative_error(ours, theirs) < 0.02


def test_frozen_head_gets_no_gradient_and_no_rows_give_zero() -> None:
    rows, weight, _, ids, shares = case(torch.float32)
    frozen = weight.detach()
    loss, _ = linear_cross_entropy(rows, frozen, None, ids, shares)
    loss.backward()
    assert frozen.grad is None
    assert rows.grad is not None
    empty, nll = linear_cross_entropy(rows[:0], weight, None, ids[:0], shares[:0])
    empty.backward()
    assert (empty.item(), nll.shape) == (0.0, (0,))
    assert not weight.grad.any()  # type: ignore[union-attr]


def test_scoring_without_gradients_keeps_no_graph() -> None:
    with torch.no_grad():
        loss, nll = linear_cross_entropy(*case(torch.float32))
    assert not loss.requires_grad
    assert not nll.requires_grad
