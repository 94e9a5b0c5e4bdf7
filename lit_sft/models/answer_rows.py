"""Rows of an answer with its question and reference, for samples, tests and predictions."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from data_modules.encoding.example import Example
from data_modules.rendering.segments import SegmentKind
from lit_sft.models.generation import Generated


def answer_row(
    example: Example, answer: Generated, tokenizer: PreTrainedTokenizerBase, end_token_id: int
) -> dict[str, Any]:
    """An answer with its question (the last user message), the rendered prompt and the reference."""
    return {
        "origin": example.origin,
        "question": question(example, tokenizer),
        "prompt": str(tokenizer.decode(example.prompt_ids())),
        "answer": answer.text,
        "ended": answer.ended,
        "num_tokens": answer.num_tokens,
        "reference": reference(example, tokenizer, end_token_id),
    }


def question(example: Example, tokenizer: PreTrainedTokenizerBase) -> str:
    """The last user message, or the beginning of a text, decoded."""
    asked = example.kinds == SegmentKind.USER
    if asked.any():
        asked &= example.turns == example.turns[asked].max()
    else:
        asked = example.kinds == SegmentKind.TEXT
    return str(tokenizer.decode(example.input_ids[asked].tolist()))


def reference(example: Example, tokenizer: PreTrainedTokenizerBase, end_token_id: int) -> str | None:
    """The example's own final answer, decoded; None for a bare prompt."""
    ids = example.answer_ids()
    return str(tokenizer.decode([i for i in ids if i != end_token_id])) if ids else None
