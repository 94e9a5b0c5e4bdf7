"""Batches of text: what is a row, what is predicted, and which position every token has."""

from __future__ import annotations

import numpy as np

from data_modules.batching.text_batches import collate_texts
from data_modules.encoding.text_store import TextSequence
from data_modules.rendering.segments import SegmentKind


def _sequence(*ids: int, source: int = -1) -> TextSequence:
    return TextSequence(np.asarray(ids, dtype=np.int32), f"document {ids[0]}", source)


def test_sequences_of_equal_length_are_rows() -> None:
    batch = collate_texts([[_sequence(1, 2, 3)], [_sequence(4, 5, 6, source=2)]])
    assert batch.input_ids.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert batch.positions.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert batch.weights.tolist() == [[0, 1, 1], [0, 1, 1]]
    assert batch.targets.tolist() == [1, 2, 4, 5]
    assert batch.boundaries is None
    assert batch.sources == (-1, 2)
    assert batch.documents_at(batch.targets).tolist() == [0, 0, 1, 1]
    assert batch.normaliser == 4


def test_other_sequences_share_a_row_with_positions_that_restart() -> None:
    batch = collate_texts([[_sequence(1, 2), _sequence(3, 4, 5)], [_sequence(6)]], normaliser=10)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert batch.positions.tolist() == [[0, 1, 0, 1, 2, 0]]
    assert batch.targets.tolist() == [1, 3, 4]
    assert batch.boundaries is not None
    assert batch.boundaries.tolist() == [0, 2, 5, 6]
    assert batch.documents_at(batch.targets).tolist() == [0, 1, 1]
    assert batch.origins == ("document 1", "document 3", "document 6")
    assert batch.normaliser == 10
    assert set(batch.kinds.flatten().tolist()) == {SegmentKind.TEXT}


def test_a_dummy_batch_predicts_nothing() -> None:
    batch = collate_texts([[_sequence(1, 2, 3)]], normaliser=4, counts=False)
    assert batch.targets.tolist() == []
    assert float(batch.weights.sum()) == 0
    assert batch.num_tokens == 0
