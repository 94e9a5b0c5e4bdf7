"""Training blocks as sequences, and evaluation windows that cover every document."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules.encoding.text_blocks import Blocks
from data_modules.encoding.text_store import EvaluationWindows, TrainingBlocks
from tests.data_modules.encoding.text_shards import FakeShards, of_letters, spelled

SHARDS = of_letters("a.aE", "bbb.bb.E", "ccE", sources=[0, 0, 1])


def test_isolated_documents_of_a_block_are_sequences_of_their_own() -> None:
    blocks = TrainingBlocks(SHARDS, [Blocks("stream", 6, SHARDS)], "isolated")
    assert [[spelled(each.input_ids) for each in blocks[i]] for i in range(3)] == [
        ["a.aE", "bb"],
        ["b.bb.E"],
        ["ccE"],
    ]
    assert [each.origin for i in range(3) for each in blocks[i]] == [
        "document 0",
        "document 1",
        "document 1 from token 2",
        "document 2",
    ]
    assert [blocks.num_targets(i) for i in range(3)] == [4, 5, 2]
    assert blocks.sequence_lengths(0) == [4, 2]
    assert list(blocks.lengths) == [6, 6, 3]
    assert blocks.mean_length == 5.0


def test_documents_seen_as_one_sequence() -> None:
    blocks = TrainingBlocks(SHARDS, [Blocks("stream", 6, SHARDS)], "across")
    (sequence,) = blocks[0]
    assert spelled(sequence.input_ids) == "a.aEbb"
    assert sequence.origin == "document 0 to document 1"
    assert [blocks.num_targets(i) for i in range(3)] == [5, 5, 2]
    assert blocks.sequence_lengths(0) == [6]


def test_blocks_of_several_parts_in_rows() -> None:
    parts = [Blocks("document", 4, SHARDS, np.array([0, 1])), Blocks("document", 4, SHARDS, np.array([2]))]
    blocks = TrainingBlocks(SHARDS, parts, "isolated", np.array([2, 1, 2]))
    assert [spelled(blocks[i][0].input_ids) for i in range(len(blocks))] == ["ccE", "bbb.", "ccE"]
    assert [blocks[i][0].source for i in range(len(blocks))] == [1, 0, 1]
    assert blocks.mean_length == pytest.approx((3 + 4 + 3) / 3)
    with pytest.raises(IndexError, match="block 3 of 3"):
        blocks[3]


def test_windows_begin_with_the_last_token_of_the_one_before() -> None:
    windows = EvaluationWindows(SHARDS, 4)
    assert [spelled(each.input_ids) for (each,) in windows] == ["a.aE", "bbb.", ".bb.", ".E", "ccE"]
    assert [each.origin for (each,) in windows] == ["document 0", *["document 1"] * 3, "document 2"]
    assert [each.source for (each,) in windows] == [0, 0, 0, 0, 1]
    assert windows.lengths.tolist() == [4, 4, 4, 2, 3]
    assert [spelled(each.input_ids) for each in windows.of_documents()] == ["a.aE", "bbb.", "ccE"]


@settings(max_examples=50)
@given(sizes=st.lists(st.integers(1, 20), max_size=8), window=st.integers(2, 9))
def test_windows_predict_every_token_but_the_first_of_a_document_once(sizes: list[int], window: int) -> None:
    numbers = iter(range(1000))
    shards = FakeShards([[next(numbers) for _ in range(size)] for size in sizes])
    windows = EvaluationWindows(shards, window)
    found = [sequence.input_ids for (sequence,) in windows]
    assert [len(ids) for ids in found] == windows.lengths.tolist()
    assert all(2 <= len(ids) <= window for ids in found)
    predicted = [token for ids in found for token in ids[1:].tolist()]
    assert predicted == [token for document in shards.documents for token in document[1:]]
    assert [each.input_ids[0] for each in windows.of_documents()] == [d[0] for d in shards.documents if len(d) > 1]


def test_digest_depends_on_tokens_documents_and_window() -> None:
    texts = (("ab", "c"), ("ab", "d"), ("a", "bc"))
    digests = {EvaluationWindows(of_letters(*each), 4).digest() for each in texts}
    digests.add(EvaluationWindows(of_letters("ab", "c"), 3).digest())
    assert len(digests) == 4
    assert EvaluationWindows(of_letters("ab", "c"), 4).digest() in digests
