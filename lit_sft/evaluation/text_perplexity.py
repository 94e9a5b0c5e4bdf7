"""Perplexity of plain text in sliding windows, and of conversations by segment and mask."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch

from data_modules.encoding.example import Example
from data_modules.encoding.ledger import Ledger
from data_modules.errors import UserError
from lit_sft.evaluation.scores import Metrics, Scored, Skipped, read_items
from lit_sft.evaluation.suite import ConversationSet, TextSet
from lit_sft.metrics.segments import RecordSums, SegmentMetrics
from lit_sft.models.loaded import LoadedModel

_OVER: dict[str, Literal["tokens", "bytes", "characters"]] = {
    "nll": "tokens",
    "bits_per_byte": "bytes",
    "bits_per_character": "characters",
}
"""Metrics and their denominators."""


def score_texts(model: LoadedModel, settings: TextSet, skipped: Skipped) -> Iterator[Scored]:
    """Score every document; each token is scored once, the first after the tokenizer's bos or eos token.

    Metrics: `nll` (nats per token), `bits_per_byte`, `bits_per_character`. The end token is not scored. Starting
    after a bos or eos token follows lm-eval's rolling likelihood.

    Raises:
        UserError: If no document can be read, a window exceeds the context length, or the tokenizer has neither a bos
            nor an eos token.
    """
    window = model.length(settings.window)
    stride = settings.stride or window // 2
    tokenizer = model.tokenizer
    before = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id  # it may be 0
    if before is None:
        raise UserError("this tokenizer has neither a bos nor an eos token to start a text with; expected one of them.")
    for document in read_items(settings.data, settings.rows, skipped, format="text"):
        text = document.turns[0].content
        ids = [before, *model.tokenizer(text, add_special_tokens=False).input_ids]
        places = list(windows(len(ids), window, stride))
        nats = model.nats(ids[begin:end] for begin, end, _ in places)
        total = sum(float(part[first - begin :].sum()) for part, (begin, _, first) in zip(nats, places, strict=True))
        if not math.isfinite(total):
            skipped.add(f"{document.origin}: its likelihood is not finite.")
            continue
        metrics: Metrics = {
            "nll": (total, len(ids) - 1),
            "bits_per_byte": (total / math.log(2), len(text.encode())),
            "bits_per_character": (total / math.log(2), len(text)),
        }
        yield Scored(document.origin, metrics, details={"window": window, "stride": stride})


def windows(length: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Start and end of each window, and the first token it scores; earlier tokens are scored already.

    Args:
        length: Tokens of the document, plus the one before it, which is not scored.
        window: Tokens of a window.
        stride: Tokens between the starts of two windows; less than a window, as its first token has no context.
    """
    done = 1
    for begin in range(0, length, stride):
        end = min(begin + window, length)
        if end > done:
            yield begin, end, done
            done = end
        if end == length:
            return


def score_conversations(model: LoadedModel, settings: ConversationSet, skipped: Skipped) -> Iterator[Scored]:
    """Score every conversation.

    Metrics: `nll/answer`, `bits_per_byte/answer`, `bits_per_character/answer`, and so on for every segment and mask.

    Raises:
        UserError: If no record can be read, or `max_length` exceeds the context length.
    """
    encoder = replace(model.encoder, max_length=model.length(settings.max_length), over_long="truncate")
    examples: list[Example] = []
    ledger, truncated = Ledger(), set()
    for conversation in read_items(settings.data, settings.rows, skipped, settings.format, settings.columns):
        before = ledger.truncated
        try:
            examples += encoder.encode(conversation, ledger)
        except UserError as error:
            skipped.add(str(error))
        if ledger.truncated > before:
            truncated.add(conversation.origin)
    for origin, sums in sorted(_sums(model, examples).items()):
        if all(map(math.isfinite, sums.nats)):
            yield Scored(origin, _metrics(sums), details={"truncated": origin in truncated})
        else:
            skipped.add(f"{origin}: its likelihood is not finite.")


def _sums(model: LoadedModel, examples: list[Example]) -> dict[str, RecordSums]:
    sizes = torch.from_numpy(model.token_sizes).to(model.device)
    sums = SegmentMetrics(sizes, model.encoder.end_token_id, by_record=True).to(model.device)
    for batch, nll in model.scored(examples):
        sums.update(nll, batch)
    return sums.take_records()


def _metrics(sums: RecordSums) -> Metrics:
    return {
        f"{metric}/{name}": (nats if over == "tokens" else nats / math.log(2), float(size))
        for metric, over in _OVER.items()
        for name, (nats, size) in sums.scores(over).items()
    }
