from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from data_modules.batch import Batch, collate
from data_modules.masking import MASKS
from lit_sft.loss import token_nll
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
def batch(make_data) -> Batch:  # type: ignore[no-untyped-def]
    data = make_data(chat_rows(5))
    return collate(list(data.stores["train"]), mask=MASKS["firefly_multi_turn"])


@pytest.mark.parametrize("name", [*MODELS, *SCALED])
def test_token_nll_equals_cross_entropy_on_the_models_own_logits(name: str, batch: Batch) -> None:
    model = random_model((MODELS | SCALED)[name])
    nll = token_nll(model, batch)
    logits = model(input_ids=batch.input_ids).logits
    full = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), batch.input_ids[:, 1:].flatten(), reduction="none"
    )
    shifted = torch.cat([torch.zeros(len(batch.origins), 1), full.view(len(batch.origins), -1)], dim=1)
    torch.testing.assert_close(nll, shifted.flatten()[batch.targets], rtol=1e-5, atol=1e-5)


def test_padding_does_not_change_a_row(make_data) -> None:  # type: ignore[no-untyped-def]
    examples = list(make_data(chat_rows(5)).stores["train"])
    model = random_model(MODELS["gpt2"])
    together = token_nll(model, collate(examples, mask=MASKS["whole_sequence"]))
    alone = torch.cat([token_nll(model, collate([e], mask=MASKS["whole_sequence"])) for e in examples])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_no_target_still_gives_a_graph_and_zero_gradients(make_data) -> None:  # type: ignore[no-untyped-def]
    examples = list(make_data([{"text": "abc"}], mask="whole_sequence").stores["train"])
    model = random_model(MODELS["gpt2"])
    nll = token_nll(model, collate(examples, mask=MASKS["output_only"]))
    assert nll.shape == (0,)
    nll.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_evaluation_in_chunks_equals_training_in_one(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_sft.loss._ROWS_AT_ONCE", 7)
    model = random_model(MODELS["qwen2"])
    with torch.no_grad():
        chunked = token_nll(model, batch)
    torch.testing.assert_close(chunked, token_nll(model, batch).detach(), rtol=1e-6, atol=1e-6)
