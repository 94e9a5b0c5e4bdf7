"""The fused head under every loss of a token, against autograd on full logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_sft.models.linear_cross_entropy import linear_cross_entropy
from lit_sft.models.objectives import dft_factors
from lit_sft.models.token_loss import Reference, TokenLoss, token_losses
from tests.lit_sft.models.test_linear_cross_entropy import case, relative_error

LOSSES = {
    "nll": TokenLoss(),
    "smoothing": TokenLoss(smoothing=0.1),
    "factors": TokenLoss(factor_of=dft_factors),
    "kl": TokenLoss(kl_weight=0.5),
    "all": TokenLoss(smoothing=0.1, factor_of=dft_factors, kl_weight=2.0),
}
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def reference_of(dtype: torch.dtype, weight: Tensor, *, has_own_head: bool) -> Reference:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(37, 16, generator=generator, dtype=torch.float64).to(dtype)
    if not has_own_head:
        return Reference(rows, weight, None)
    head = torch.randn(53, 16, generator=generator, dtype=torch.float64).to(dtype)
    return Reference(rows, head, torch.randn(53, generator=generator, dtype=torch.float64).to(dtype))


def exact(
    values: list[Tensor | None], reference: Reference | None, how: TokenLoss
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The same with autograd on full logits in float64."""
    wide = [v.detach().double().requires_grad_() if v is not None and v.is_floating_point() else v for v in values]
    rows, weight, bias, ids, shares = wide
    others = None if reference is None else F.linear(*(None if t is None else t.detach().double() for t in reference))
    losses, nll = token_losses(F.linear(rows, weight, bias), ids, how, others)  # type: ignore[arg-type]
    total = (losses * shares.detach()).sum()  # type: ignore[union-attr]
    return total, nll, list(torch.autograd.grad(total, [t for t in (rows, weight, bias) if t is not None]))


@pytest.mark.parametrize("chunk", [5, 1000])
@pytest.mark.parametrize("has_own_head", [True, False])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_loss_is_within_the_precision_of_its_dtype(
    dtype: torch.dtype, name: str, has_own_head: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lit_sft.models.linear_cross_entropy._CHUNK_ON_CPU", chunk)
    monkeypatch.setattr("lit_sft.models.linear_cross_entropy._ROWS_IN_CACHE", 4)
    how, given = LOSSES[name], case(dtype)
    reference = reference_of(dtype, given[1], has_own_head=has_own_head) if how.kl_weight else None
    before = None if reference is None else [None if t is None else t.detach().clone() for t in reference]
    expected, expected_nll, gradients = exact(list(given), reference, how)
    loss, nll = linear_cross_entropy(*given, how, reference)
    tolerance = torch.finfo(dtype).eps * (20 if dtype in (torch.float64, torch.float32) else 2)
    assert relative_error(loss, expected) < tolerance
    assert relative_error(nll, expected_nll) < tolerance
    for ours, theirs in zip(torch.autograd.grad(loss, list(given[:3])), gradients, strict=True):  # type: ignore[arg-type]
        assert relative_error(ours, theirs) < 4 * tolerance
        assert ours.dtype == dtype
    for tensor, copy in zip(reference or (), before or (), strict=True):
        assert tensor is None or torch.equal(tensor, copy)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LOSSES)
def test_a_second_backward_pass_gives_the_same(name: str) -> None:
    how, given = LOSSES[name], case(torch.float64)
    reference = reference_of(torch.float64, given[1], has_own_head=True) if how.kl_weight else None
    loss, _ = linear_cross_entropy(*given, how, reference)
    first = [gradient.clone() for gradient in torch.autograd.grad(loss, list(given[:3]), retain_graph=True)]  # type: ignore[arg-type]
    for one, two in zip(first, torch.autograd.grad(loss, list(given[:3])), strict=True):  # type: ignore[arg-type]
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", ["nll", "smoothing", "kl"])  # factors have no gradient, which numeric ones would have
def test_gradcheck(name: str) -> None:
    how, (rows, weight, bias, ids, shares) = LOSSES[name], case(torch.float64, 5)
    reference = reference_of(torch.float64, weight, has_own_head=True) if how.kl_weight else None
    if reference is not None:
        reference = reference._replace(hidden_states=reference.hidden_states[:5])
    assert torch.autograd.gradcheck(
        lambda *x: linear_cross_entropy(*x, ids, shares, how, reference)[0], (rows, weight, bias)
    )


def test_a_head_that_both_share_is_cast_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In half precision a second copy of the head would take as much memory again."""
    rows, weight, _, ids, shares = case(torch.float32, bias=False)
    casts = []
    cast = Tensor.to
    monkeypatch.setattr(
        Tensor, "to", lambda tensor, *args: (casts.append(tensor.shape), cast(tensor, *args))[1]
    )  # fmt: skip
    with torch.autocast("cpu", torch.bfloat16):
        linear_cross_entropy(rows, weight, None, ids, shares, LOSSES["kl"], Reference(rows.detach(), weight, None))
    assert casts.count(weight.shape) == 1


def test_a_model_that_equals_its_reference_has_no_divergence_and_no_gradient_of_it() -> None:
    rows, weight, bias, ids, shares = case(torch.float64)
    found = []
    for how, reference in ((TokenLoss(), None), (LOSSES["kl"], Reference(rows.detach(), weight.detach(), bias))):
        loss, _ = linear_cross_entropy(rows, weight, bias, ids, shares, how, reference)
        found.append((loss.detach(), *torch.autograd.grad(loss, (rows, weight))))
    for plain, compared in zip(*found, strict=True):
        torch.testing.assert_close(plain, compared, rtol=1e-10, atol=1e-10)
