from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from data_modules.batching.batch import Batch, collate
from data_modules.encoding.example import Example
from data_modules.rendering.masking import MASKS
from lit_sft.models.adapters import LoraSettings, causal_lm
from lit_sft.models.attention import use_document_attention
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.loss import supervised_loss, token_nll
from tests.conftest import MODELS, chat_rows

# architectures that change their logits after the head
SCALED = {
    "cohere": {"model_type": "cohere", "logit_scale": 0.25, "hidden_size": 32, "intermediate_size": 64,
               "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2},
    "granite": {"model_type": "granite", "logits_scaling": 3.0, "hidden_size": 32, "intermediate_size": 64,
                "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2},
    "gemma2": {"model_type": "gemma2", "final_logit_softcapping": 0.02, "hidden_size": 32, "intermediate_size": 64,
               "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16},
}  # fmt: skip


def random_model(settings: dict[str, object]) -> torch.nn.Module:
    torch.manual_seed(0)
    values = {key: value for key, value in settings.items() if key != "model_type"}
    config = AutoConfig.for_model(settings["model_type"], vocab_size=259, pad_token_id=None, **values)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def examples(make_data) -> list[Example]:  # type: ignore[no-untyped-def]
    return list(make_data(chat_rows(5)).stores["train"])


def reference(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Cross-entropy of every target, from the full logits of its document alone."""
    per_document = []
    for ids in _documents(batch):
        logits = model(input_ids=ids.unsqueeze(0)).logits[0, :-1].float()
        nll = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        per_document.append(torch.cat([torch.zeros(1), nll]))
    width = batch.input_ids.shape[1]
    if batch.boundaries is not None:
        return torch.cat(per_document)[batch.targets]
    padded = torch.stack([torch.nn.functional.pad(nll, (0, width - len(nll))) for nll in per_document])
    return padded.flatten()[batch.targets]


def _documents(batch: Batch) -> list[torch.Tensor]:
    if batch.boundaries is not None:
        return list(batch.input_ids[0].split(list(batch.lengths)))
    return [row[:length] for row, length in zip(batch.input_ids, batch.lengths, strict=True)]


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("name", list(MODELS))
def test_bf16_autocast_is_within_its_own_error_of_float32(name: str, pack: bool, examples: list[Example]) -> None:
    model = random_model(MODELS[name])
    use_document_attention(model)  # type: ignore[arg-type]
    batch = collate(examples, mask=MASKS["firefly_multi_turn"], pack=pack)
    results = []
    for is_narrow in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_narrow):
            total, nll = supervised_loss(model, batch)
        gradients = torch.autograd.grad(total, list(model.parameters()))
        results.append((nll, torch.cat([gradient.flatten() for gradient in gradients])))
    (exact_nll, exact), (nll, narrow) = results
    spacing = torch.finfo(torch.bfloat16).eps
    assert 0 < float((nll - exact_nll).norm() / exact_nll.norm()) < spacing
    assert 0 < float((narrow - exact).norm() / exact.norm()) < 4 * spacing


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("name", [*MODELS, *SCALED])
def test_loss_and_nll_equal_cross_entropy_on_full_logits_of_each_document(
    name: str, pack: bool, examples: list[Example], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = random_model((MODELS | SCALED)[name])
    batch = collate(examples, mask=MASKS["firefly_multi_turn"], reduction="turn", pack=pack)
    expected = reference(model, batch)
    shares = batch.weights.flatten()[batch.targets]
    expected_grads = torch.autograd.grad((expected * shares).sum(), list(model.parameters()))
    use_document_attention(model)
    total, nll = supervised_loss(model, batch)
    torch.testing.assert_close(nll, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(token_nll(model, batch), nll, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(total, list(model.parameters())), expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_changed_document_does_not_change_its_neighbours(name: str, examples: list[Example]) -> None:
    model = random_model(MODELS[name])
    use_document_attention(model)
    batch = collate(examples, mask=MASKS["whole_sequence"], pack=True)
    before = token_nll(model, batch)
    start, stop = int(batch.boundaries[1]), int(batch.boundaries[2])  # type: ignore[index]
    batch.input_ids[0, start:stop] = 7
    after = token_nll(model, batch)
    outside = (batch.targets < start) | (batch.targets >= stop)
    assert torch.equal(before[outside], after[outside])
    assert not torch.equal(before[~outside], after[~outside])
    assert not set(batch.boundaries.tolist()) & set(batch.targets.tolist())  # type: ignore[union-attr]


def test_no_target_still_gives_a_graph_and_zero_gradients(examples: list[Example]) -> None:
    for pack in (False, True):
        batch = collate(examples, mask=MASKS["output_only"], pack=pack)
        batch.targets = batch.targets[:0]
        model = random_model(MODELS["gpt2"])
        total, nll = supervised_loss(model, batch)
        assert (total.item(), nll.shape) == (0.0, (0,))
        total.backward()
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_scoring_in_chunks_equals_scoring_at_once(examples: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(MODELS["qwen2"])
    batch = collate(examples, mask=MASKS["whole_sequence"])
    at_once = token_nll(model, batch)
    monkeypatch.setattr("lit_sft.models.loss._ROWS_AT_ONCE", 7)
    torch.testing.assert_close(token_nll(model, batch), at_once, rtol=1e-6, atol=1e-6)


def test_an_adapter_on_the_head_is_not_dropped(tokenizer: PreTrainedTokenizerFast, examples: list[Example]) -> None:
    torch.manual_seed(0)
    lora = LoraSettings(rank=2, target_modules=["lm_head", "q_proj"])
    model = build_backbone(BackboneSettings(config=MODELS["llama"], tuning="lora", lora=lora), tokenizer)
    head = causal_lm(model).get_output_embeddings()
    torch.nn.init.normal_(head.lora_B["default"].weight)
    batch = collate(examples, mask=MASKS["whole_sequence"], pack=True)
    total, nll = supervised_loss(model, batch)
    torch.testing.assert_close(nll, reference(causal_lm(model), batch).detach(), rtol=1e-4, atol=1e-4)
    total.backward()
    assert head.lora_B["default"].weight.grad.abs().sum() > 0
