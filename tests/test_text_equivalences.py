"""What must be equal in text runs: documents isolated in blocks and one at a time; blocks and a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

from data_modules.batching.text_batches import collate_texts
from data_modules.encoding.block_plans import BlockPolicy
from data_modules.text_data_module import TextDataModule
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.loss import supervised_loss
from tests.conftest import MODELS, articles

MakeText = Callable[..., TextDataModule]


@pytest.mark.parametrize("policy", ["stream", "best_fit"])
@pytest.mark.parametrize("model", ["gpt2", "qwen2"])
def test_isolated_documents_in_a_block_equal_one_document_at_a_time(
    make_text: MakeText, tokenizer: PreTrainedTokenizerFast, model: str, policy: BlockPolicy
) -> None:
    data = make_text(articles(12), blocks=policy, block_size=64)
    blocks = [data.training_blocks[index] for index in range(len(data.training_blocks))]
    assert any(len(block) > 1 for block in blocks)
    apart = [[sequence] for block in blocks for sequence in block]
    together, gradients = _loss(model, tokenizer, [collate_texts(blocks)])
    alone, gradients_alone = _loss(model, tokenizer, [collate_texts([item]) for item in apart])
    assert together == pytest.approx(alone, rel=1e-6)
    for one, other in zip(gradients, gradients_alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6 * float(other.abs().max()))


def _loss(model: str, tokenizer: PreTrainedTokenizerFast, batches: list[Any]) -> tuple[float, list[torch.Tensor]]:
    """The mean loss of all tokens, and the gradients, in float64 so that only mistakes differ."""
    torch.manual_seed(0)
    backbone = build_backbone(BackboneSettings(config=MODELS[model]), tokenizer).double()
    count = sum(batch.normaliser for batch in batches)
    total = 0.0
    for batch in batches:
        nats, _ = supervised_loss(backbone, batch)
        (nats / count).backward()
        total += float(nats.detach()) / count
    return total, [parameter.grad for parameter in backbone.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("model", ["gpt2", "qwen2"])
def test_blocks_seen_as_one_sequence_equal_a_plain_forward_pass(
    make_text: MakeText, tokenizer: PreTrainedTokenizerFast, model: str
) -> None:
    data = make_text(articles(12), document_attention="across", block_size=64, shuffle=False)
    torch.manual_seed(0)
    backbone = build_backbone(BackboneSettings(config=MODELS[model]), tokenizer)
    full = range(len(data.training_blocks) - 1)  # the last block is shorter
    batch = collate_texts([data.training_blocks[index] for index in full])
    ids = batch.input_ids
    assert ids.shape == (len(full), 64)
    assert torch.equal(ids.flatten(), torch.from_numpy(data.training_blocks.shards.tokens(0, ids.numel())).long())
    loss, _ = supervised_loss(backbone, batch)
    logits = backbone(input_ids=ids).logits
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
