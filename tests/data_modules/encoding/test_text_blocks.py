"""Which tokens form each block, and what becomes of the others."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules.encoding.block_plans import BlockPolicy, packed_rows
from data_modules.encoding.text_blocks import BlockLedger, Blocks, Piece
from tests.data_modules.encoding.text_shards import STOP, FakeShards, of_letters, shown

POLICIES = get_args(BlockPolicy)

DOCUMENTS = st.lists(
    st.lists(st.sampled_from([STOP, 2, 3, 4]), max_size=20).map(lambda ids: [*ids, 0]), max_size=8
).map(FakeShards)
"""Every document ends with the end token; a third of the others end a sentence."""


def _texts(shards: FakeShards, blocks: Blocks) -> list[str]:
    return ["".join(shown(shards, piece.start, piece.stop) for piece in blocks[i]) for i in range(len(blocks))]


EXAMPLE = of_letters("a.aE", "bbb.bb.E")


@pytest.mark.parametrize(
    ("policy", "keep_rest", "expected", "cropped", "sentences_cut"),
    [
        ("stream", False, ["a.aEbb", "b.bb.E"], 0, 1),
        ("best_fit", False, ["bbb.bb", "a.aE.E"], 0, 1),
        ("sentence_end", False, ["a.aE", "bbb."], 4, 0),
        ("sentence_end", True, ["a.aE", "bbb.", "bb.E"], 0, 0),
        ("document", False, ["a.aE", "bbb.bb"], 2, 1),
        ("document", True, ["a.aE", "bbb.bb", ".E"], 0, 1),
    ],
)
def test_blocks_of_each_policy(
    policy: BlockPolicy, keep_rest: bool, expected: list[str], cropped: int, sentences_cut: int
) -> None:
    blocks = Blocks(policy, 6, EXAMPLE, keep_rest=keep_rest)
    assert _texts(EXAMPLE, blocks) == expected
    assert blocks.ledger == BlockLedger(
        documents=2,
        tokens=12,
        blocks=len(expected),
        kept=12 - cropped,
        cropped=cropped,
        padding=6 * len(expected) - 12 + cropped,
        documents_cut=1,
        documents_dropped=0,
        sentences_cut=sentences_cut,
    )


def test_pieces_name_their_document_and_whether_they_continue_it() -> None:
    blocks = Blocks("stream", 6, EXAMPLE)
    assert blocks[0] == [(0, 4, False, 0), (4, 6, False, 1)]
    assert blocks[1] == [(6, 12, True, 1)]
    with pytest.raises(IndexError, match="block 2 of 2"):
        blocks[2]


def test_sentence_end_drops_an_article_whose_first_sentence_is_too_long() -> None:
    shards = of_letters("aaaaaaaa.aE", "b.E")
    blocks = Blocks("sentence_end", 4, shards)
    assert _texts(shards, blocks) == ["b.E"]
    assert blocks.ledger.documents_dropped == 1
    assert blocks.ledger.cropped == 11


def test_sentence_end_with_the_rest_goes_on_after_a_sentence_that_is_too_long() -> None:
    shards = of_letters("a.bbbbbbbb.cc.dE")
    assert _texts(shards, Blocks("sentence_end", 4, shards, keep_rest=True)) == ["a.", "cc.", "dE"]


def test_sentence_end_with_the_rest_skips_to_the_end_of_an_article_without_full_stops() -> None:
    shards = FakeShards([[2] * 10_000 + [0], [2, 0]])
    blocks = Blocks("sentence_end", 4, shards, keep_rest=True)
    assert [blocks[i] for i in range(len(blocks))] == [[(10_001, 10_003, False, 1)]]
    assert blocks.ledger.cropped == 10_001


def test_best_fit_packs_documents_whole_into_the_fullest_row_with_room() -> None:
    shards = of_letters("aaE", "bbbbE", "cE", "ddddddE")
    assert sorted(_texts(shards, Blocks("best_fit", 8, shards))) == ["aaEbbbbE", "cE", "ddddddE"]


def test_best_fit_packs_each_window_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_modules.encoding.block_plans._WINDOW", 2)
    shards = of_letters("aE", "bbbE", "cE", "dddE")
    assert _texts(shards, Blocks("best_fit", 4, shards)) == ["bbbE", "aE", "dddE", "cE"]


def test_packed_rows_need_as_few_rows_as_known() -> None:
    # Johnson's example: best fit decreasing is optimal here
    assert packed_rows(np.array([6, 5, 4, 3, 2]), 10).tolist() == [0, 1, 0, 1, 1]


def test_blocks_of_some_documents() -> None:
    shards = of_letters("aaE", "bbE", "ccE", "ddE")
    for policy, expected in {
        "stream": ["bbEd", "dE"],
        "document": ["bbE", "ddE"],
        "sentence_end": ["bbE", "ddE"],
    }.items():
        blocks = Blocks(policy, 4, shards, np.array([1, 3]))  # type: ignore[arg-type]
        assert _texts(shards, blocks) == expected
        assert [blocks[len(blocks) - 1][-1].document] == [3]


def test_cuts_far_apart_and_close_together_are_counted_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    shards = FakeShards([[1, 2] * 50 + [0], [2] * 20_000 + [0], [1] * 30 + [0]])
    expected = Blocks("stream", 7, shards).ledger
    monkeypatch.setattr("data_modules.encoding.text_blocks._GAP", 1)
    assert Blocks("stream", 7, shards).ledger == expected
    monkeypatch.setattr("data_modules.encoding.text_blocks._CUTS_AT_ONCE", 3)
    assert Blocks("stream", 7, shards).ledger == expected
    cuts = [place for place in range(7, shards.starts[-1], 7) if place not in shards.starts]
    assert expected.sentences_cut == sum(shards.ids[place - 1] != STOP for place in cuts)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("keep_rest", [False, True])
@settings(max_examples=40)
@given(shards=DOCUMENTS, size=st.integers(1, 20))
def test_every_token_is_in_one_block_or_counted(
    policy: BlockPolicy, keep_rest: bool, shards: FakeShards, size: int
) -> None:
    blocks = Blocks(policy, size, shards, keep_rest=keep_rest)
    pieces = [piece for index in range(len(blocks)) for piece in blocks[index]]
    seen = np.zeros(len(shards.ids), dtype=int)
    for piece in pieces:
        assert piece.start < piece.stop
        assert shards.starts[piece.document] <= piece.start < piece.stop <= shards.starts[piece.document + 1]
        assert piece.continues == (piece.start > shards.starts[piece.document])
        seen[piece.start : piece.stop] += 1
    ledger = blocks.ledger
    assert set(seen) <= {0, 1}
    assert (ledger.tokens, ledger.kept, ledger.cropped) == (len(seen), seen.sum(), (seen == 0).sum())
    assert ledger.blocks * size == ledger.kept + ledger.padding
    _check_sizes(blocks, size)
    _check_documents(shards, ledger, seen, pieces)


def _check_sizes(blocks: Blocks, size: int) -> None:
    for index in range(len(blocks)):
        lengths = [piece.stop - piece.start for piece in blocks[index]]
        assert blocks.num_tokens(index) == sum(lengths) <= size
        assert blocks.num_pieces(index) == len(lengths) > 0


def _check_documents(shards: FakeShards, ledger: BlockLedger, seen: np.ndarray, pieces: list[Piece]) -> None:
    """Count what the ledger counts, from the pieces alone."""
    whole = {(piece.start, piece.stop) for piece in pieces}
    documents = list(pairwise(shards.starts.tolist()))
    assert ledger.documents == len(documents)
    assert ledger.documents_cut == sum(document not in whole for document in documents)
    assert ledger.documents_dropped == sum(not seen[start:stop].any() for start, stop in documents)
    inner = {piece.stop for piece in pieces} - {stop for _, stop in documents}
    assert ledger.sentences_cut == sum(shards.ids[place - 1] != STOP for place in inner)


@pytest.mark.parametrize("keep_rest", [False, True])
@settings(max_examples=40)
@given(shards=DOCUMENTS, size=st.integers(1, 20))
def test_sentence_end_blocks_end_with_a_sentence_or_their_article(
    keep_rest: bool, shards: FakeShards, size: int
) -> None:
    blocks = Blocks("sentence_end", size, shards, keep_rest=keep_rest)
    for index in range(len(blocks)):
        (piece,) = blocks[index]
        start, stop = shards.starts[piece.document], shards.starts[piece.document + 1]
        assert shards.ids[piece.stop - 1] == STOP or piece.stop == stop
        if not keep_rest:
            assert piece.start == start
            # nothing more would have fitted
            assert not (shards.ids[piece.stop : min(start + size, stop)] == STOP).any() or piece.stop == stop


@settings(max_examples=40)
@given(shards=DOCUMENTS, size=st.integers(1, 20))
def test_best_fit_cuts_only_documents_longer_than_a_block(shards: FakeShards, size: int) -> None:
    assert Blocks("best_fit", size, shards).ledger.documents_cut == sum(len(each) > size for each in shards.documents)
