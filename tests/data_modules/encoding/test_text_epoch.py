"""Which blocks an epoch has, without a mixture and with one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from data_modules.encoding.text_epoch import block_ledgers, training_blocks, wanted_blocks
from data_modules.encoding.text_store import TrainingBlocks
from data_modules.errors import UserError
from data_modules.records.mix import MixSource
from tests.data_modules.encoding.text_shards import FakeShards, of_letters

SHARDS = FakeShards([[2, 3, 4, 0]] * 30 + [[5, 6, 0]] * 10, sources=[0] * 30 + [1] * 10)


def _epoch(*mix: MixSource, **settings: Any) -> TrainingBlocks:
    given = {"policy": "stream", "size": 6, "attention": "isolated", "keep_rest": False} | settings
    return training_blocks(SHARDS, mix, **given)


def _sources(blocks: TrainingBlocks) -> Counter[int]:
    return Counter(blocks[index][0].source for index in range(len(blocks)))


def test_without_a_mixture_every_block_is_in_the_epoch_once() -> None:
    blocks = _epoch()
    assert len(blocks) == 25
    whole, by_source = block_ledgers(blocks, ())
    assert (whole["tokens"], whole["kept"], by_source) == (150, 150, {})


def test_a_block_has_documents_of_one_source_only() -> None:
    blocks = _epoch(MixSource("a", ["a"]), MixSource("b", ["b"]), policy="best_fit", size=64)
    for index in range(len(blocks)):
        assert len({sequence.source for sequence in blocks[index]}) == 1


def test_repeats_are_blocks_of_a_source() -> None:
    blocks = _epoch(MixSource("a", ["a"], repeats=0.5), MixSource("b", ["b"], repeats=2.5))
    assert _sources(blocks) == {0: 10, 1: 12}  # of 20 and 5 blocks
    again = _epoch(MixSource("a", ["a"], repeats=0.5), MixSource("b", ["b"], repeats=2.5))
    assert blocks.rows is not None
    assert again.rows is not None
    assert np.array_equal(blocks.rows, again.rows)
    # every block of b twice, and some a third time
    assert sorted(Counter(blocks.rows[blocks.rows >= 20].tolist()).values()) == [2, 2, 2, 3, 3]


def test_weights_are_shares_of_the_tokens_of_an_epoch() -> None:
    mix = (MixSource("a", ["a"], weight=1), MixSource("b", ["b"], weight=3))
    blocks = _epoch(*mix, policy="document", size=10)
    tokens = Counter[int]()
    for index in range(len(blocks)):
        tokens[blocks[index][0].source] += blocks.num_tokens(index)
    assert tokens[0] + tokens[1] == pytest.approx(150, abs=4)
    assert tokens[1] / tokens[0] == pytest.approx(3, rel=0.1)
    _, by_source = block_ledgers(blocks, mix)
    assert {name: each["epoch"]["tokens"] for name, each in by_source.items()} == {"a": tokens[0], "b": tokens[1]}


def test_wanted_blocks_follow_from_the_mean_length_of_blocks() -> None:
    blocks = _epoch(MixSource("a", ["a"]), MixSource("b", ["b"]), policy="document", size=10)
    ledgers = [part.ledger for part in blocks.parts]
    mix = (MixSource("a", ["a"], weight=0.5), MixSource("b", ["b"], weight=0.5))
    assert wanted_blocks(mix, ledgers) == [round(75 / 4), round(75 / 3)]


def test_documents_without_a_block_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"^the training documents: nothing to train on, because no sentence of their 150 tokens fits"
    ):
        _epoch(policy="sentence_end", size=2)
    shards = of_letters("aaE", "E", sources=[0, 1])
    mix = (MixSource("a", ["a.txt"]), MixSource("b", ["b.txt"]))
    with pytest.raises(UserError, match=r"^--data\.mix b: its documents \(b\.txt\): nothing to train on, .* empty"):
        training_blocks(shards, mix, policy="stream", size=4, attention="across", keep_rest=False)
