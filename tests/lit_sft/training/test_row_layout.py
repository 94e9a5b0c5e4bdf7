from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy, SingleDeviceStrategy

from data_modules.errors import UserError
from data_modules.sft_data_module import SFTDataModule
from data_modules.text_data_module import TextDataModule
from lit_sft.models.loss import token_nll
from lit_sft.training.row_layout import row_layout
from tests.conftest import alpaca_rows
from tests.training import make_module, make_trainer, train

MakeData = Callable[..., SFTDataModule]
RECURRENT = {
    "model_type": "qwen3_5_text", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8,
    "num_attention_heads": 4, "num_key_value_heads": 2, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
    "max_position_embeddings": 512, "initializer_range": 0.2,
}  # fmt: skip


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_a_recurrent_model_is_trained_one_document_per_row_and_says_so(
    make_data: MakeData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = []
    for packing in (True, False):
        data = make_data(alpaca_rows(20), batch_size=4, val_fraction=0.2, packing=packing)
        caplog.clear()
        with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
            module = train(data, tmp_path, make_module(backbone={"config": RECURRENT}), max_steps=3)
        said = "qwen3_5_text: every document is computed in a row of its own, because some of its layers are recurrent"
        assert said in caplog.text
        assert all(batch.boundaries is None for batches in data.train_dataloader() for batch in batches)
        found.append((weights(module), module.metrics["val"]["loss"]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-5)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-5)


def test_packed_text_is_taken_apart_for_a_recurrent_model(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n\n".join("word " * n for n in (3, 40, 7, 1, 25, 12, 9, 30)), "utf-8")
    data = TextDataModule(
        train=str(tmp_path / "texts.txt"), tokenizer="examples/tokenizer", txt_documents="paragraph", block_size=64,
        blocks="best_fit", val_fraction=0.0, cache_dir=None,
    )  # fmt: skip
    module = make_module(backbone={"config": RECURRENT})
    trainer = make_trainer(tmp_path, max_steps=1, limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    batches = [batch for batches in data.train_dataloader() for batch in batches if batch.boundaries is not None]
    assert batches
    for batch in batches:
        nll = token_nll(module.backbone, batch)
        alone = []
        for ids in batch.input_ids[0].split(batch.lengths):
            logits = module.backbone(input_ids=ids[None], use_cache=False).logits[0, :-1]
            alone.append(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none"))
        torch.testing.assert_close(nll, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_fsdp2_is_refused_where_text_would_need_rows_of_its_own(make_data: MakeData, tmp_path: Path) -> None:
    module = train(make_data(alpaca_rows(8)), tmp_path, make_module(backbone={"config": RECURRENT}), max_steps=1)
    sharded, single = (SimpleNamespace(strategy=s) for s in (ModelParallelStrategy(), SingleDeviceStrategy("cpu")))
    with pytest.raises(UserError, match=r"ModelParallelStrategy with a qwen3_5_text model and text"):
        row_layout(module.backbone, object(), sharded)  # type: ignore[arg-type]
    assert row_layout(module.backbone, module.data, sharded) == (False, frozenset())  # type: ignore[arg-type]
    assert row_layout(module.backbone, object(), single) == (False, frozenset())  # type: ignore[arg-type]
