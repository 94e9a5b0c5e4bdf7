"""What only a CUDA GPU can show: variable-length attention, fp16 with its loss scale, and equality with the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from callbacks import RunHealth
from data_modules.batching.batch import collate
from data_modules.rendering.masking import MASKS
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models import attention
from lit_sft.models.attention import (
    Documents,
    _dense,
    _has_flash,
    _sdpa,
    _variable_keys,
    _variable_length,
    shared_documents,
)
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.generation import GenerationSettings, generate
from lit_sft.models.linear_cross_entropy import linear_cross_entropy
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.loss import supervised_loss, token_nll
from lit_sft.models.tree_attention import Stretches
from tests.conftest import MODELS, alpaca_rows, chat_rows
from tests.training import make_module, train

MakeData = Callable[..., SFTDataModule]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here"),
]


def relative_error(ours: torch.Tensor, exact: torch.Tensor) -> float:
    difference = ours.detach().double().cpu() - exact.detach().double().cpu()
    return float(difference.norm() / exact.detach().double().norm())


def check_exact(ours: torch.Tensor, inputs: tuple[torch.Tensor, ...], attend: Callable[..., torch.Tensor]) -> None:
    """Compare output and gradients with those of the same inputs in float64, to the spacing of their own dtype."""
    exact_inputs = [tensor.detach().double().requires_grad_() for tensor in inputs]
    exact, spacing = attend(*exact_inputs), torch.finfo(inputs[0].dtype).eps
    assert relative_error(ours, exact) < 2 * spacing
    weight = torch.randn(ours.shape, device="cuda", generator=torch.Generator("cuda").manual_seed(1))
    grads = torch.autograd.grad((ours.float() * weight).sum(), inputs)
    for a, b in zip(grads, torch.autograd.grad((exact * weight).sum(), exact_inputs), strict=True):
        assert relative_error(a, b) < 4 * spacing


@pytest.mark.parametrize("key_heads", [8, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_variable_length_attention_equals_the_dense_mask(dtype: torch.dtype, key_heads: int) -> None:
    lengths = (300, 1, 77, 512)
    boundaries = torch.tensor([0, 300, 301, 378, 890], dtype=torch.int32, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v = (
        torch.randn(1, heads, sum(lengths), 64, device="cuda", generator=generator).to(dtype).requires_grad_()
        for heads in (8, key_heads, key_heads)
    )
    assert _has_flash(q)
    ours = _variable_length(q, k, v, Documents(lengths, boundaries), None).transpose(1, 2)
    check_exact(ours, (q, k, v), lambda *exact: _dense(*exact, lengths, None, 0.0, None))


@pytest.mark.parametrize("key_heads", [8, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_with_more_keys_than_queries_equals_the_dense_mask(dtype: torch.dtype, key_heads: int) -> None:
    tree = Stretches((300, 50, 1, 77, 20, 200), (-1, 0, 1, 0, -1, 4))
    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v = (
        torch.randn(1, heads, tree.starts[-1], 64, device="cuda", generator=generator).to(dtype).requires_grad_()
        for heads in (8, key_heads, key_heads)
    )
    ours = _variable_keys(q, k, v, shared_documents(tree, q.device), None)
    check_exact(ours, (q, k, v), lambda *exact: _sdpa(*exact, None, 0.0, mask=tree.visible(q.device, None)))


def test_a_beginning_of_many_branches_has_exact_gradients_the_same_every_time() -> None:
    """Its keys' gradients are sums over all branches, which bfloat16 cannot hold while they grow."""
    tree = Stretches((64, *[16] * 500), (-1, *[0] * 500))
    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v = (
        torch.randn(1, 4, tree.starts[-1], 64, device="cuda", generator=generator).bfloat16().requires_grad_()
        for _ in range(3)
    )
    exact_inputs = [t.detach().double().requires_grad_() for t in (q, k, v)]
    exact = _sdpa(*exact_inputs, None, 0.0, mask=tree.visible(q.device, None))
    expected = torch.autograd.grad(exact.sum(), exact_inputs)[2]
    values = [
        torch.autograd.grad(_variable_keys(q, k, v, shared_documents(tree, q.device), None).float().sum(), v)[0]
        for _ in range(2)
    ]
    assert torch.equal(*values)
    assert relative_error(values[0][:, :, :64], expected[:, :, :64]) < 2 * torch.finfo(torch.bfloat16).eps


def test_rotary_models_use_flash_attention_under_autocast(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their queries and keys are float32 there, which flash attention does not take."""
    used = []
    monkeypatch.setattr(attention, "_flash", lambda *a, flash=attention._flash: used.append(a[0].dtype) or flash(*a))
    data = make_data(chat_rows(8), template="chatml")
    model = build_backbone(BackboneSettings(config=MODELS["qwen2"]), data.tokenizer).cuda()
    for shares in (False, True):
        given = {"mask": MASKS["whole_sequence"], "pack": True, "share_prefixes": shares}
        batch = collate(list(data.stores["train"]), **given).to("cuda")  # type: ignore[arg-type]
        with torch.autocast("cuda", torch.bfloat16):
            supervised_loss(model, batch)[0].backward()
    assert used == [torch.bfloat16] * 4  # two layers, without and with a tree


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shares", [False, True])
def test_packed_loss_and_gradients_equal_those_of_the_cpu(name: str, shares: bool, make_data: MakeData) -> None:
    data = make_data(chat_rows(8), template="chatml")
    torch.manual_seed(0)
    model = build_backbone(BackboneSettings(config=MODELS[name]), data.tokenizer)
    examples = list(data.stores["train"])
    batch = collate(examples, mask=MASKS["firefly_multi_turn"], pack=True, share_prefixes=shares)
    assert (batch.tree is not None) == shares
    results = []
    for device in ("cpu", "cuda"):
        model.to(device).zero_grad()
        total, nll = supervised_loss(model, batch.to(device))
        total.backward()
        results.append((total, nll, [p.grad.cpu().clone() for p in model.parameters()]))  # type: ignore[union-attr]
    (cpu_total, cpu_nll, cpu_grads), (total, nll, grads) = results
    assert relative_error(total, cpu_total) < 1e-5
    assert relative_error(nll, cpu_nll) < 1e-5
    for a, b in zip(grads, cpu_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_a_changed_document_does_not_change_its_neighbours_under_bf16(name: str, make_data: MakeData) -> None:
    data = make_data(chat_rows(8), template="plain")
    model = build_backbone(BackboneSettings(config=MODELS[name]), data.tokenizer).cuda().eval()
    batch = collate(list(data.stores["train"]), mask=MASKS["whole_sequence"], pack=True).to("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        before = token_nll(model, batch)
        start, stop = batch.boundaries[1:3].tolist()  # type: ignore[index]
        batch.input_ids[0, start:stop] = 7
        after = token_nll(model, batch)
    outside = (batch.targets < start) | (batch.targets >= stop)
    assert torch.equal(before[outside], after[outside])
    assert not torch.equal(before[~outside], after[~outside])


@pytest.mark.parametrize("name", MODELS)
def test_an_evaluation_scores_as_on_the_cpu(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    subject = LoadedModel("model", build_backbone(BackboneSettings(config=MODELS[name]), tokenizer).eval(), tokenizer)
    sequences = [list(f"The mill stands by the river, {n} times.".encode()) for n in range(9)]
    expected = subject.nats(sequences)
    subject.backbone.to("cuda")
    for ours, exact in zip(subject.nats(sequences), expected, strict=True):
        assert ours == pytest.approx(exact, rel=1e-4)
    how = GenerationSettings(max_new_tokens=8, temperature=1.0)
    assert subject.answer(sequences, how) == [subject.answer([one], how)[0] for one in sequences]


@pytest.mark.filterwarnings("ignore:trainer.precision")
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "16-mixed"])
def test_every_precision_trains_with_clipping_and_counts_exactly(
    make_data: MakeData, tmp_path: Path, precision: str, tuning: str
) -> None:
    data = make_data(alpaca_rows(40), template="plain", val_fraction=0.3, batch_size=4)
    settings: dict[str, Any] = {"gradient_clip_val": 1.0, "accumulate_grad_batches": 2, "max_epochs": 4}
    module = make_module(tuning=tuning, lr=1e-2)
    train(data, tmp_path, module, accelerator="cuda", precision=precision, **settings)
    before, after = module.metrics_before, module.metrics["val"]
    assert after["nll/output_only"] < before["nll/output_only"] - 0.1
    assert after["tokens/answer"] == data.ledgers["val"]["tokens"]["kept"]["final_answer"]


@pytest.mark.filterwarnings("ignore:trainer.precision")
def test_float32_weights_clipping_and_warm_up_prevent_fp16_divergence(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(alpaca_rows(64), batch_size=4, template="plain", mask="output_only", val_fraction=0.2)
    common: dict[str, Any] = {"max_epochs": 6, "accelerator": "gpu"}
    with pytest.raises(ValueError, match=r"expected a finite number[\s\S]*fp16 weights"):
        train(data, tmp_path, make_module(lr=1e-3), precision="16-true", callbacks=[RunHealth()], **common)
    health = RunHealth(every_n_steps=1)
    cured = make_module(lr=1e-3, warmup_ratio=0.1)
    cured = train(data, tmp_path, cured, precision="16-mixed", gradient_clip_val=1.0, callbacks=[health], **common)
    exact = train(data, tmp_path, make_module(lr=1e-3, warmup_ratio=0.1), gradient_clip_val=1.0, **common)
    assert cured.metrics["val"]["loss"] == pytest.approx(exact.metrics["val"]["loss"], rel=0.05)
    assert health.skipped_steps < 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_linear_cross_entropy_equals_full_logits(dtype: torch.dtype) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    rows = torch.randn(9000, 64, device="cuda", generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(5000, 64, device="cuda", generator=generator).mul(0.1).to(dtype).requires_grad_()
    ids = torch.randint(5000, (9000,), device="cuda", generator=generator)
    shares = torch.rand(9000, device="cuda", generator=generator)
    loss, nll = linear_cross_entropy(rows, weight, None, ids, shares)
    exact_rows, exact_weight = (t.detach().double().requires_grad_() for t in (rows, weight))
    exact_nll = torch.nn.functional.cross_entropy(exact_rows @ exact_weight.T, ids, reduction="none")
    exact = (exact_nll * shares.double()).sum()
    spacing = max(torch.finfo(dtype).eps, 1e-5)
    assert relative_error(nll, exact_nll) < spacing
    ours = torch.autograd.grad(loss, (rows, weight))
    for a, b in zip(ours, torch.autograd.grad(exact, (exact_rows, exact_weight)), strict=True):
        assert relative_error(a, b) < 4 * spacing


def test_greedy_answers_equal_those_of_the_cpu(make_data: MakeData) -> None:
    data = make_data(alpaca_rows(12), template="plain")
    torch.manual_seed(1)
    model = build_backbone(BackboneSettings(config=MODELS["qwen2"]), data.tokenizer)
    prompts = [example.prompt_ids() for example in data.stores["train"]]
    settings = GenerationSettings(max_new_tokens=8)
    answers = [
        generate(model.to(d), prompts, tokenizer=data.tokenizer, end_token_id=data.end_token_id, settings=settings)
        for d in ("cpu", "cuda")
    ]
    assert answers[0] == answers[1]
