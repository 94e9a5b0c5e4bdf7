"""Perplexity of plain text in sliding windows, and of conversations by segment and mask."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch

from data_modules.encoding import Example
from lit_sft.evaluation.records import Figures, Scored, Skipped, read_items
from lit_sft.evaluation.subject import Subject
from lit_sft.evaluation.suite import ConversationSet, TextSet
from lit_sft.metrics import RecordSums, SegmentMetrics

_OVER: dict[str, Literal["tokens", "bytes", "characters"]] = {
    "nll": "tokens",
    "bits_per_byte": "bytes",
    "bits_per_character": "characters",
}
"""Figures and what they are per."""


def score_texts(subject: Subject, settings: TextSet, skipped: Skipped) -> Iterator[Scored]:
    """Nats and bits of every document; each token is scored once, and only a document's first not at all.

    Figures: `nll` (nats per token), `bits_per_byte`, `bits_per_character`. Its end token is not scored.

    Raises:
        ValueError: If nothing can be read, or the model cannot read a window.
    """
    window = subject.length(settings.window)
    stride = settings.stride or max(1, window // 2)
    for text in read_items(settings.data, settings.rows, skipped, format="text"):
        (example,) = replace(subject.encoder, max_length=10**9).encode(text)
        ids = [int(i) for i in example.input_ids if i != subject.encoder.end_token_id]
        if len(ids) < 2:
            skipped.add(f"{text.origin}: {len(ids)} tokens; nothing predicts the first.")
            continue
        places = list(windows(len(ids), window, stride))
        nats = subject.nats(ids[begin:end] for begin, end, _ in places)
        total = sum(float(part[first - begin :].sum()) for part, (begin, _, first) in zip(nats, places, strict=True))
        sizes = subject.token_sizes[ids[1:]].sum(axis=0)
        figures: Figures = {
            "nll": (total, len(ids) - 1),
            "bits_per_byte": (total / math.log(2), float(sizes[0])),
            "bits_per_character": (total / math.log(2), float(sizes[1])),
        }
        yield Scored(text.origin, figures, details={"window": window, "stride": stride})


def windows(length: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Where windows begin and end, and the first token that each scores: those before it have been scored.

    Args:
        length: Tokens of the document.
        window: Tokens of a window.
        stride: From the beginning of one to that of the next, at most a window.
    """
    done = 1
    for begin in range(0, length, stride):
        end = min(begin + window, length)
        if end > done:
            yield begin, end, max(done, begin + 1)
            done = end
        if end == length:
            return


def score_conversations(subject: Subject, settings: ConversationSet, skipped: Skipped) -> Iterator[Scored]:
    """Nats and bits of every conversation.

    Figures: `nll/answer`, `bits_per_byte/answer`, `bits_per_character/answer`, and of every other segment and mask.

    Raises:
        ValueError: If nothing can be read, or the model cannot read so many tokens.
    """
    encoder = replace(subject.encoder, max_length=subject.length(settings.max_length), over_long="truncate")
    examples: list[Example] = []
    for conversation in read_items(settings.data, settings.rows, skipped, format=settings.format):
        try:
            examples += encoder.encode(conversation)
        except ValueError as error:
            skipped.add(str(error))
    for origin, sums in sorted(_sums(subject, examples).items()):
        yield Scored(origin, _figures(sums))


def _sums(subject: Subject, examples: list[Example]) -> dict[str, RecordSums]:
    sizes = torch.from_numpy(subject.token_sizes).to(subject.device)
    metrics = SegmentMetrics(sizes, subject.encoder.end_token_id, by_record=True).to(subject.device)
    for batch, nll in subject.scored(examples):
        metrics.update(nll, batch)
    return metrics.take_records()


def _figures(sums: RecordSums) -> Figures:
    return {
        f"{figure}/{name}": (nats if over == "tokens" else nats / math.log(2), float(size))
        for figure, over in _OVER.items()
        for name, (nats, size) in sums.scores(over).items()
    }
