from __future__ import annotations

import re
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from data_modules.batching.batch import Batch, collate
from data_modules.errors import UserError
from data_modules.rendering.masking import MASKS
from lit_sft.models.adapters import LoraSettings, with_adapters
from lit_sft.models.architectures import PLAIN, SPECIAL, has_dropout, special_attention, with_dropout
from lit_sft.models.attention import has_document_attention, use_document_attention
from lit_sft.models.generation import GenerationSettings, generate
from lit_sft.models.loss import check_logits, logits_of, supervised_loss
from tests.random_trees import random_examples

VOCABULARY = 259

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "ffn_dim": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "sliding_window": 5, "window_size": 5,
    "use_sliding_window": True, "max_window_layers": 2, "word_embed_proj_dim": 32, "rotary_dim": 4,
    "attention_types": [[["global", "local"], 2]], "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "mamba_n_heads": 4,
    "mamba_d_head": 16, "mamba_d_state": 8, "num_heads": 8, "state_size": 8, "n_groups": 1,
    "final_logit_softcapping": 4.0, "query_pre_attn_scalar": 12, "logits_scaling": 3.0, "logit_scale": 0.5,
    "embedding_multiplier": 3.0, "residual_multiplier": 0.7, "attention_multiplier": 0.3,
}  # fmt: skip
"""Sizes and scalings by the names of many models; each takes those that it knows."""

OWN = {
    "mamba2": {"hidden_size": 32, "num_heads": 8, "head_dim": 8, "expand": 2, "num_hidden_layers": 2},
    "granitemoehybrid": {
        "hidden_size": 32, "intermediate_size": 48, "shared_intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2,
        "layer_types": ["mamba", "attention"], "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8,
    },
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128},
}  # fmt: skip


def small_model(kind: str) -> PreTrainedModel:
    """A random model in float64, with weights that are large enough for every token to count."""
    base = AutoConfig.for_model(kind)
    names = {*base.to_dict(), *base.attribute_map}
    values = OWN.get(kind) or {k: v for k, v in SIZES.items() if k in names and base.attribute_map.get(k) not in SIZES}
    ends = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    config = with_dropout(AutoConfig.for_model(kind, **values, **ends), 0.0)
    if kind in ("gemma3_text", "cohere2", "exaone4", "olmo3"):
        config.layer_types = ["sliding_attention", "full_attention"] * 2
    # the usual kernel for experts takes no float64
    experts = {"experts_implementation": "eager"} if any("expert" in name for name in names) else {}
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, **experts)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
        else:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model.double().eval()


@cache
def batches() -> tuple[Batch, Batch, Batch]:
    """The same documents with shared beginnings, packed and padded."""
    layouts: list[dict[str, bool]] = [{"pack": True, "share_prefixes": True}, {"pack": True}, {"pack": False}]
    examples = random_examples(3, VOCABULARY)
    shared, packed, padded = (collate(examples, mask=MASKS["whole_sequence"], **layout) for layout in layouts)
    assert shared.tree is not None
    assert max(packed.lengths) > 3 * SIZES["sliding_window"]
    return shared, packed, padded


def alone(model: PreTrainedModel) -> torch.Tensor:
    """The nats of all targets, from the model's own logits of each document alone."""
    packed = batches()[1]
    found = []
    for ids in packed.input_ids[0].split(packed.lengths):
        logits = model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0, :-1]
        found.append(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none"))
    return torch.cat(found)


def results(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    total, nll = supervised_loss(model, batch)
    total.backward()
    return nll, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def check_layouts(model: PreTrainedModel, exact: float = 1e-6) -> None:
    """Every layout gives the nats of the documents alone, and one gradient for every parameter."""
    expected = alone(model)
    grads_alone = torch.autograd.grad(expected.sum(), list(model.parameters()), allow_unused=True)
    by_name = {
        name: grad for (name, _), grad in zip(model.named_parameters(), grads_alone, strict=True) if grad is not None
    }
    use_document_attention(model)
    for batch in batches():
        nll, grads = results(model, batch)
        torch.testing.assert_close(nll.double(), expected.detach().double(), rtol=0, atol=2e-6)
        assert grads.keys() == by_name.keys()
        for name, grad in grads.items():
            scale = float(by_name[name].norm())
            assert float((grad - by_name[name]).norm()) <= exact * max(scale, 1.0), name


@pytest.mark.parametrize("kind", PLAIN)
def test_documents_of_a_row_are_those_of_the_model_alone(kind: str) -> None:
    model = small_model(kind)
    assert special_attention(model) is None
    check_layouts(model)
    assert has_document_attention(model)


@pytest.mark.parametrize("kind", SPECIAL)
def test_documents_of_special_models_get_rows_of_their_own(kind: str) -> None:
    model = small_model(kind)
    assert special_attention(model) == SPECIAL[kind]
    check_logits(model)
    check_layouts(model, exact=1e-5)  # recurrent layers compute in float32, whatever the weights are
    assert not has_document_attention(model)


@pytest.mark.parametrize("kind", ["bloom", "lfm2", "mamba2", "qwen3_5_text", "qwen3_next"])
def test_one_row_would_mix_the_documents_of_special_models(kind: str) -> None:
    model, packed = small_model(kind), batches()[1]
    with torch.no_grad():
        states = model.base_model(input_ids=packed.input_ids, use_cache=False).last_hidden_state[0]
        nll = torch.nn.functional.cross_entropy(
            logits_of(model, states[packed.targets - 1]), packed.input_ids[0, packed.targets], reduction="none"
        )
        assert float((nll - alone(model)).abs().max()) > 0.1


@pytest.mark.parametrize("kind", [*PLAIN, *SPECIAL])
def test_prompts_of_a_batch_are_answered_as_alone(kind: str, tokenizer: PreTrainedTokenizerFast) -> None:
    model = small_model(kind).float()
    use_document_attention(model)
    before = model.config._attn_implementation
    prompts = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [20], [30, 31, 32]]
    settings = GenerationSettings(max_new_tokens=8)
    given = {"tokenizer": tokenizer, "end_token_id": 2, "settings": settings}
    together = generate(model, prompts, **given)
    assert together == [generate(model, [prompt], **given)[0] for prompt in prompts]
    assert model.config._attn_implementation == before


EXPERTS = ("granitemoe", "mixtral", "olmoe", "qwen3_moe")


@pytest.mark.parametrize("kind", [kind for kind in PLAIN if kind not in EXPERTS])
def test_adapters_on_all_linear_layers_learn(kind: str) -> None:
    model = small_model(kind)
    use_document_attention(model)
    adapted = with_adapters(model, LoraSettings(rank=2)).double()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    (total, _), (other, _) = (supervised_loss(adapted, batch) for batch in batches()[:2])
    assert float(total.detach()) == pytest.approx(float(other.detach()), rel=1e-6)
    total.backward()
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert all(parameter.grad is not None for name, parameter in adapted.named_parameters() if name in trained)
    assert len({re.sub(r"\.lora_.*", "", name) for name in trained}) >= 4 * 4


@pytest.mark.parametrize("kind", EXPERTS)
def test_adapters_for_experts_are_refused(kind: str) -> None:
    model = small_model(kind)
    use_document_attention(model)
    with pytest.raises(UserError, match=f"all-linear: the experts of {kind} are not linear layers"):
        with_adapters(model, LoraSettings(rank=2))
    adapted = with_adapters(model, LoraSettings(rank=2, target_modules=["q_proj", "v_proj"])).double()
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(trained) == 4 * 2 * 2
    totals = [float(supervised_loss(adapted, batch)[0].detach()) for batch in batches()]
    assert totals == pytest.approx([totals[0]] * 3, rel=1e-6)


def test_capped_scores_are_special_whatever_the_model() -> None:
    model = small_model("gemma3_text")
    model.config.attn_logit_softcapping = 50.0
    assert special_attention(model) == "it caps the scores of its attention"


@pytest.mark.parametrize(("multiplier", "is_refused"), [(0.5, True), (1.0, False)])
def test_models_with_other_logits_are_refused(multiplier: float, is_refused: bool) -> None:
    config = AutoConfig.for_model(
        "falcon_h1", hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=50, mamba_d_ssm=64, mamba_n_heads=4, mamba_d_head=16, mamba_n_groups=1,
        mamba_d_state=8, lm_head_multiplier=multiplier,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).train()
    message = r"^--model\.backbone: models of type falcon_h1 are not supported"
    with pytest.raises(UserError, match=message) if is_refused else nullcontext():
        check_logits(model)
    assert model.training


@pytest.mark.parametrize(
    ("kind", "setting"),
    [("opt", "dropout"), ("biogpt", "hidden_dropout_prob"), ("starcoder2", "residual_dropout"), ("opt", "layerdrop")],
)
def test_dropout_by_functions_counts_as_dropout(kind: str, setting: str) -> None:
    model = small_model(kind)
    assert not has_dropout(model)
    setattr(model.config, setting, 0.1)
    assert has_dropout(model)


def test_the_documented_models_are_those_of_the_code() -> None:
    text = (Path(__file__).parents[3] / "docs/models.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] == "| `"]
    special = {cells[0].strip("`"): cells[1] for cells in rows if cells[0] != "`model_type`"}
    plain = re.search(r"(?s)<!-- plain -->\n(.*?)\n\n", text)
    assert plain is not None
    assert tuple(re.findall(r"`(\w+)`", plain[1])) == PLAIN
    assert special == SPECIAL
