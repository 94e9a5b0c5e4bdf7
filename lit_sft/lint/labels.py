"""Which tokens of a row are supervised, and what is wrong with that. Works on any trainer's ids and labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_modules.encoding.example import Example
from data_modules.rendering.masking import Weights
from data_modules.rendering.segments import SegmentKind

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """The tokens of a row with what is known about each.

    Attributes:
        ids: Tokens, (T,).
        weights: The weight of each in the loss, (T,); 0 if not supervised.
        is_end: Whether it is a token that ends answers, (T,).
        is_padding: Whether it is padding, (T,).
        is_template: Whether it is fixed text of the chat template, (T,).
        is_tool_result: Whether it is part of a tool's result, (T,).
        pad_id: The pad token, if padding could be masked by id; None if it is known not to be.
        example: The example it was made of, for showing its kinds; None for a dump.
    """

    ids: npt.NDArray[np.int64]
    weights: Weights
    is_end: Flags
    is_padding: Flags
    is_template: Flags
    is_tool_result: Flags
    pad_id: int | None = None
    example: Example | None = None

    @property
    def is_supervised(self) -> Flags:
        """Whether each token is supervised, (T,)."""
        return self.weights > 0


_PADDING, _TEMPLATE, _TOOL_RESULT = map(int, (SegmentKind.PADDING, SegmentKind.TEMPLATE, SegmentKind.TOOL_RESULT))
"""As plain numbers, which numpy compares with more quickly."""


def row_of_example(example: Example, weights: Weights, end_token_id: int) -> LabelledRow:
    """An example of ours as a row: what its tokens are is known.

    Args:
        example: Any example.
        weights: Its weights under the training mask, (T,).
        end_token_id: The token that ends answers.
    """
    kinds = example.kinds
    return LabelledRow(
        ids=example.input_ids.astype(np.int64),
        weights=weights,
        is_end=example.input_ids == end_token_id,
        is_padding=kinds == _PADDING,
        is_template=kinds == _TEMPLATE,
        is_tool_result=kinds == _TOOL_RESULT,
        example=example,
    )


def faults_of(row: LabelledRow) -> Iterator[tuple[str, int]]:
    """The label rules that a row breaks, each with the position of the first token at fault.

    If everything is supervised, or nothing, that is the only fault but for padding.
    """
    supervised = row.is_supervised
    if (wrong := supervised & row.is_padding).any():
        yield "padding-supervised", _first(wrong)
    if not supervised.any():
        yield "nothing-supervised", 0
        return
    real = ~row.is_padding
    if (supervised | row.is_end)[real][1:].all():
        yield "everything-supervised", 1
        if not (supervised & row.is_end).any() and row.is_end.any():
            yield _end_rule(row, _first(row.is_end)), _first(row.is_end)
        return
    if (wrong := supervised & row.is_tool_result).any():
        yield "tool-result-supervised", _first(wrong)
    if (wrong := supervised & row.is_template & real).any():
        yield "template-supervised", _first(wrong)
    if (wrong := _unsupervised_ends(row)).any():
        yield _end_rule(row, _first(wrong)), _first(wrong)


def is_stop_trained(row: LabelledRow) -> bool:
    """Whether any end token is supervised."""
    return bool((row.is_supervised & row.is_end & ~row.is_padding).any())


def _unsupervised_ends(row: LabelledRow) -> Flags:
    """End tokens that are not supervised, though the token before them is. Those after a tool's result do not count."""
    supervised = row.is_supervised
    speaks = supervised & ~(row.is_end | row.is_padding | row.is_tool_result)
    wrong = np.zeros(len(row.ids), dtype=bool)
    wrong[1:] = speaks[:-1] & row.is_end[1:] & ~supervised[1:]
    return wrong


def _end_rule(row: LabelledRow, place: int) -> str:
    return "pad-masks-end" if row.pad_id is not None and row.ids[place] == row.pad_id else "end-token-unsupervised"


def _first(flags: Flags) -> int:
    return int(np.flatnonzero(flags)[0])
