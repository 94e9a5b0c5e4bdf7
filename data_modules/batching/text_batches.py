"""Batches of text: sequences of equal length as rows, others packed in one row. There is no padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from data_modules.batching.batch import Batch
from data_modules.encoding.text_store import TextSequence
from data_modules.rendering.segments import SegmentKind


def collate_texts(
    items: Sequence[Sequence[TextSequence]], *, normaliser: float | None = None, counts: bool = True
) -> Batch:
    """Make a batch of blocks or windows.

    Args:
        items: The sequences of each.
        normaliser: Total weight of the optimiser step. None: the total of this batch.
        counts: False for a dummy batch, which gets no weights and no targets.
    """
    sequences = [sequence for item in items for sequence in item]
    lengths = tuple(len(sequence.input_ids) for sequence in sequences)
    are_rows = len(set(lengths)) == 1
    shape = (len(lengths), lengths[0]) if are_rows else (1, sum(lengths))
    starts = np.cumsum((0, *lengths))
    positions = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    predicted = (positions > 0) & counts  # nothing predicts the first token of a sequence
    kind = SegmentKind.TEXT if counts else SegmentKind.PADDING
    return Batch(
        input_ids=torch.from_numpy(np.concatenate([each.input_ids for each in sequences]).astype(np.int64)).view(shape),
        kinds=torch.full(shape, int(kind), dtype=torch.uint8),
        turns=torch.zeros(shape, dtype=torch.int16),
        weights=torch.from_numpy(predicted.astype(np.float32)).view(shape),
        targets=torch.from_numpy(np.flatnonzero(predicted)),
        normaliser=float(predicted.sum()) if normaliser is None else normaliser,
        origins=tuple(sequence.origin for sequence in sequences),
        positions=torch.from_numpy(positions).view(shape),
        lengths=lengths,
        sources=tuple(sequence.source for sequence in sequences),
        boundaries=None if are_rows else torch.from_numpy(starts.astype(np.int32)),
    )
