"""Text runs on several sources, with cleaning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from data_modules.errors import UserError
from data_modules.text_data_module import TextDataModule
from lit_sft.runs.text_report import print_text_ledger
from tests.conftest import articles
from tests.training import make_module, make_trainer

Make = Callable[..., TextDataModule]


@pytest.fixture
def make(tokenizer: PreTrainedTokenizerFast, write: Callable[..., str]) -> Make:
    sheep = [{"text": text} for text in articles(30)]
    goats = [{"content": f"Goats ( ) climb {n} hills."} for n in range(40)]
    files = {"sheep": write("sheep.jsonl", sheep), "goats": write("goats.jsonl", goats)}
    reading = {"goats": {"columns": {"text": "content"}, "cleaning": ["empty_brackets"]}, "sheep": {}}

    def _make(shares: dict[str, dict[str, Any]], **settings: Any) -> TextDataModule:
        mix = [{"name": name, "files": files[name], **reading[name], **own} for name, own in shares.items()]
        defaults = {"tokenizer": tokenizer, "val_fraction": 0.3, "test_fraction": 0.0, "block_size": 64}
        data = TextDataModule(mix=mix, **(defaults | settings))
        data.prepare_data()
        data.setup("fit")
        return data

    return _make


def test_weights_share_the_tokens_of_an_epoch(make: Make) -> None:
    data = make({"sheep": {"weight": 1}, "goats": {"weight": 3}}, blocks="best_fit")
    tokens = Counter[int]()
    for index in range(len(data.training_blocks)):
        tokens[data.training_blocks[index][0].source] += data.training_blocks.num_tokens(index)
    assert [source.name for source in data.mix] == ["goats", "sheep"]
    assert tokens[0] / tokens[1] == pytest.approx(3, rel=0.15)
    ledger = data.ledgers["train"]
    assert ledger["sources"]["goats"]["epoch"]["repeats"] > 1 > ledger["sources"]["sheep"]["epoch"]["repeats"]
    assert ledger["blocks"]["tokens"] == sum(each["blocks"]["tokens"] for each in ledger["sources"].values())
    assert ledger["blocks"]["documents"] == ledger["documents"]


def test_cleaning_and_columns_are_those_of_the_source(make: Make) -> None:
    data = make({"sheep": {}, "goats": {"cap": 5}}, shuffle=False)
    texts = {
        data.tokenizer.decode(sequence.input_ids, skip_special_tokens=True)
        for index in range(len(data.training_blocks))
        for sequence in data.training_blocks[index]
    }
    assert not any("(" in text for text in texts)
    assert any(text.startswith("Goats climb ") for text in texts)
    rules = data.ledgers["train"]["sources"]["goats"]["cleaning"]["rules"]
    assert rules["empty_brackets"]["changed"] == data.ledgers["train"]["sources"]["goats"]["documents"] == 5


def test_metrics_by_source_are_those_of_the_source_alone(make: Make, tmp_path: Path) -> None:
    def validated(data: TextDataModule) -> dict[str, float]:
        module = make_module()
        make_trainer(tmp_path).validate(module, datamodule=data, verbose=False)
        return module.metrics["val"]

    whole = validated(make({"sheep": {"repeats": 2}, "goats": {}}))
    for name in ("sheep", "goats"):
        alone = validated(make({name: {}}))
        assert whole[f"source/{name}/loss"] == pytest.approx(alone["loss"], rel=1e-6)
        for metric in ("nll/text", "perplexity/text", "bits_per_byte/text"):
            assert whole[f"source/{name}/{metric}"] == pytest.approx(alone[metric], rel=1e-6)


def test_the_ledger_is_printed_with_cleaning_and_sources(make: Make) -> None:
    console = Console(width=120, record=True, file=StringIO())
    print_text_ledger(console, make({"sheep": {"repeats": 0.5}, "goats": {}}, blocks="sentence_end"))
    said = console.export_text()
    assert "blocks: sentence_end, 64 tokens, documents isolated" in said
    for line in ("records read", "empty_brackets", "sentences cut", "cropped", "repeats"):
        assert f" {line} " in said
    assert "of the tokens are in no block" in said


def test_changed_shares_are_named_when_a_run_is_resumed(make: Make) -> None:
    one, other = (make({"sheep": {"repeats": repeats}, "goats": {}}).identity() for repeats in (1, 2))
    assert {name for name in one if one[name] != other[name]} == {"--data.mix sheep"}


def test_masks_of_a_source_are_refused(make: Make) -> None:
    with pytest.raises(UserError, match=r"--data\.mix sheep: mask is not a setting of text runs; remove it"):
        make({"sheep": {"mask": "output_only"}})
