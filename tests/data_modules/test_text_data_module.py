"""The data module of text runs: what it trains on, what it evaluates on, and how it resumes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_modules.encoding.block_plans import BlockPolicy
from data_modules.errors import UserError
from data_modules.rendering.segments import SegmentKind
from data_modules.text_data_module import TextDataModule
from lit_sft.training.module import LitCausalLM
from tests.conftest import END, articles
from tests.lit_sft.training.test_resuming import Diary, assert_same_end
from tests.training import make_module, make_trainer

MakeText = Callable[..., TextDataModule]

pytestmark = [
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]

POLICIES: list[tuple[BlockPolicy, bool]] = [
    ("stream", False),
    ("best_fit", False),
    ("sentence_end", False),
    ("sentence_end", True),
    ("document", True),
]


def _texts_of(data: TextDataModule, split: str) -> list[str]:
    return [data.tokenizer.decode(ids).removesuffix("<|endoftext|>") for ids in _documents_of(data, split)]


def _documents_of(data: TextDataModule, split: str) -> list[list[int]]:
    shards = data.stores[split].shards
    starts = shards.starts.tolist()
    return [shards.tokens(a, b).tolist() for a, b in pairwise(starts)]


def test_every_document_is_in_one_split_and_ends_with_the_end_token(make_text: MakeText) -> None:
    texts = articles(60)
    data = make_text(texts, val_fraction=0.2, test_fraction=0.2)
    splits = {split: _texts_of(data, split) for split in ("train", "val", "test")}
    assert sorted(chain(*splits.values())) == sorted(texts)
    assert all(splits.values())
    assert all(ids[-1] == END for ids in _documents_of(data, "train"))
    # by content: the order of the documents does not matter
    again = make_text(texts[::-1], val_fraction=0.2, test_fraction=0.2)
    assert {split: sorted(_texts_of(again, split)) for split in splits} == {k: sorted(v) for k, v in splits.items()}


@pytest.mark.parametrize("attention", ["isolated", "across"])
@pytest.mark.parametrize(("policy", "keep_rest"), POLICIES)
def test_batches_predict_every_token_but_the_first_of_a_sequence(
    make_text: MakeText, policy: BlockPolicy, keep_rest: bool, attention: str
) -> None:
    data = make_text(articles(30), blocks=policy, keep_rest=keep_rest, document_attention=attention, batch_size=3)
    ledger, batches = data.ledgers["train"]["blocks"], list(data.train_dataloader())
    tokens = targets = sequences = 0
    for batch in batches:
        for part in batch:
            flat = part.input_ids.flatten()
            tokens, targets, sequences = tokens + len(flat), targets + len(part.targets), sequences + len(part.lengths)
            assert (part.positions.flatten()[part.targets] > 0).all()
            assert (part.kinds == SegmentKind.TEXT).all()
            assert torch.equal(torch.nonzero(part.weights.flatten()).flatten(), part.targets)
    assert (tokens, targets) == (ledger["kept"], ledger["kept"] - sequences)
    assert sum(batch[0].normaliser for batch in batches) == targets
    if attention == "across":
        assert sequences == ledger["blocks"]


def test_first_token_of_a_later_document_is_predicted_across_documents_only(make_text: MakeText) -> None:
    predicted = {}
    for attention in ("isolated", "across"):
        data = make_text(["ab", "cd"], document_attention=attention, shuffle=False)
        (((batch,),)) = list(data.train_dataloader())
        predicted[attention] = batch.input_ids.flatten()[batch.targets].tolist()
    assert predicted == {"isolated": [*b"b", END, *b"d", END], "across": [*b"b", END, *b"cd", END]}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_epochs_have_all_blocks_in_another_order(make_text: MakeText, num_workers: int) -> None:
    data = make_text(articles(30), num_workers=num_workers)
    loader, orders = data.train_dataloader(), []
    for epoch in range(2):
        loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        orders.append([origin for batch in loader for part in batch for origin in part.origins])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    assert [o for batch in make_text(articles(30)).train_dataloader() for p in batch for o in p.origins] == orders[0]


def test_evaluation_depends_on_neither_blocks_nor_batches(make_text: MakeText, tmp_path: Path) -> None:
    module = make_module()
    found = []
    for settings in (
        {"blocks": "stream"},
        {"blocks": "sentence_end", "document_attention": "across"},
        {"eval_batch_size": 1, "block_size": 16, "eval_window": 32},
        {"token_budget": 40},
    ):
        data = make_text(articles(40), val_fraction=0.4, **settings)
        make_trainer(tmp_path).validate(module, datamodule=data, verbose=False)
        found.append(module.metrics["val"])
    for metrics in found[1:]:
        assert metrics == pytest.approx(found[0], rel=1e-6)
    documents = _documents_of(data, "val")
    assert found[0]["tokens/text"] == sum(len(ids) - 1 for ids in documents)
    assert found[0]["bits_per_byte/text"] > 0


def _run(make_text: MakeText, folder: Path, diary: Diary, **fit: Any) -> LitCausalLM:
    """Two epochs of several batches, two per step, with dropout."""
    data = make_text(articles(30), val_fraction=0.2, batch_size=4, blocks="best_fit", seed=3, block_size=40)
    module = make_module(dropout=0.1, schedule="linear")
    trainer = make_trainer(folder, callbacks=[diary], max_epochs=2, accumulate_grad_batches=2, val_check_interval=3)
    trainer.fit(module, datamodule=data, weights_only=True, **fit)
    return module


def test_resuming_at_any_point_is_bit_identical_to_an_uninterrupted_run(make_text: MakeText, tmp_path: Path) -> None:
    straight = Diary(tmp_path)
    end = _run(make_text, tmp_path, straight)
    assert len({entry[4] for entry in straight.entries}) > 8
    for moment in ("batch 0.2", "end of epoch 0", "start of 1.1", "batch 1.3"):
        resumed = Diary()
        ends = _run(make_text, tmp_path, resumed, ckpt_path=straight.saved[moment])
        assert resumed.entries == straight.entries[len(straight.entries) - len(resumed.entries) :], moment
        assert_same_end(end, ends)


def test_a_run_with_other_blocks_is_not_resumed(make_text: MakeText, tmp_path: Path) -> None:
    first = make_text(articles(10))
    module, trainer = make_module(), make_trainer(tmp_path)
    trainer.fit(module, datamodule=first)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    other = make_text(articles(10), blocks="document")
    with pytest.raises(UserError, match=r'--data\.blocks was "stream" and is now "document"'):
        make_trainer(tmp_path, max_epochs=2).fit(
            make_module(), datamodule=other, ckpt_path=tmp_path / "end.ckpt", weights_only=True
        )


def test_train_steps_are_the_blocks_of_each_step(make_text: MakeText) -> None:
    data = make_text(articles(20), batch_size=2, shuffle=False)
    steps = list(islice(data.train_steps(accumulate=2), 3))
    assert [len(batch) for batch in steps[0]] == [2, 2]
    assert sorted(index for batch in steps[0] for index in batch) == [0, 1, 2, 3]


def test_beginnings_of_validation_documents(make_text: MakeText) -> None:
    data = make_text(articles(40), val_fraction=0.3)
    texts = _texts_of(data, "val")
    examples = data.beginnings(3)
    for text, example in zip(texts, examples, strict=False):
        begun, rest = example.prompt_ids(), example.answer_ids()
        assert len(begun) == min(32, len(begun) + len(rest), (len(begun) + len(rest)) // 2)
        assert text.encode().startswith(bytes(begun))
        assert np.array_equal(example.input_ids, [*begun, *rest])
    assert data.prompt("Once", "prompt").prompt_ids() == list(b"Once")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block_size": 1}, r"--data\.block_size 1: expected at least 2 tokens"),
        ({"eval_window": 0}, r"--data\.eval_window 0: expected at least 2 tokens"),
        ({"block_size": 64, "context_length": 48}, r"--data\.block_size 64: the model reads at most 48 tokens"),
        ({"blocks": "streams"}, r"--data\.blocks streams: expected one of stream, .*did you mean stream\?"),
        ({"document_attention": "on"}, r"--data\.document_attention on: expected one of isolated, across"),
        ({"keep_rest": True}, r"--data\.keep_rest true: --data\.blocks stream drops nothing; leave it out"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, r"expected shares of the training records"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TextDataModule("texts.txt", **settings)


def test_block_size_is_the_context_length_up_to_1024() -> None:
    assert TextDataModule("a.txt", context_length=256).block_size == 256
    assert TextDataModule("a.txt", context_length=4096).block_size == 1024
    assert TextDataModule("a.txt", context_length=4096, block_size=2048).eval_window == 2048


def test_missing_splits_are_refused_by_the_command_that_needs_them(make_text: MakeText) -> None:
    data = make_text(articles(5))
    with pytest.raises(UserError, match=r"nothing to validate: set `--data\.val FILE`"):
        data.setup("validate")
    assert data.val_dataloader() == []
    with pytest.raises(UserError, match=r"^no data: set `--data\.train FILE`"):
        TextDataModule(tokenizer=data.tokenizer).prepare_data()
    with pytest.raises(UserError, match="predict answers prompts"):
        _ = data.predict_store
