"""Encodes segments as token ids, and shortens conversations that are too long."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from data_modules.encoding.example import Example
from data_modules.encoding.ledger import Ledger
from data_modules.encoding.tokenizers import special_ids
from data_modules.encoding.truncation import EncodedSegment, length, newest_that_fits, runs_that_fit, shorten
from data_modules.encoding.unknown_text import TextCheck
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message
from data_modules.rendering.segments import ANSWER_KINDS, SegmentKind
from data_modules.rendering.templates import AnyTemplate, Template

OverLong = Literal["drop", "truncate", "split", "error"]

_LAST_TURN = np.iinfo(np.int16).max


class UnencodableError(UserError):
    """The tokenizer cannot encode a text."""


class OverLongError(UserError):
    """A conversation is longer than the limit, and `over_long` is `error`."""


@dataclass(frozen=True)
class Encoder:
    """Encodes conversations with a template and a tokenizer.

    Args:
        tokenizer: A fast Hugging Face tokenizer.
        template: Renders conversations.
        max_length: Maximum number of tokens in an example.
        over_long: What to do with longer conversations. `drop`: leave them out. `truncate`: cut, in this order, the
            oldest exchanges, context, most of the question, the system text, the end of the answer. `split`: split
            between turns (a document: anywhere) into parts that fit; a single exchange that does not fit is truncated.
            `error`: stop the run.
        continues: Whether documents are beginnings of texts to continue. They get no end token, and long ones are cut
            at the start.
    """

    tokenizer: PreTrainedTokenizerBase
    template: AnyTemplate
    max_length: int
    over_long: OverLong = "truncate"
    continues: bool = False
    _control_ids: dict[str, list[int]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise UserError(f"--data.max_length {self.max_length}: expected at least 1 token.")

    @cached_property
    def end_token_id(self) -> int:
        """The one token that ends every answer; generation stops on it."""
        ids = self._encode_control(str(self.template.end))
        if len(ids) != 1:
            raise UserError(f"the end token {self.template.end!r} is encoded as {len(ids)} tokens; expected one.")
        return ids[0]

    def encode(self, conversation: Conversation, ledger: Ledger | None = None) -> list[Example]:
        """Encode a conversation as examples: none if dropped, several if split, otherwise one.

        Args:
            conversation: An answered conversation, a document or a bare prompt.
            ledger: Records what happened, if given.

        Raises:
            OverLongError: If it is too long and `over_long` is `error`.
            UserError: If the template or the tokenizer rejects it, or it has too many turns.
        """
        known: dict[str, list[int]] = {}
        try:
            encoded = self._encoded(conversation, known)
        except UnencodableError as error:
            raise UserError(f"{conversation.origin}: {error}") from None
        if length(encoded) <= self.max_length:
            kept = [encoded]
        elif self.over_long == "error":
            raise OverLongError(
                f"{conversation.origin}: {length(encoded)} tokens; expected at most {self.max_length}. Raise "
                "`--data.max_length`, or set `--data.over_long` to truncate, split or drop."
            )
        else:
            kept = list(self._shorten(conversation, encoded, known))
        examples = [_example(part, conversation.origin) for part in kept]
        if ledger is not None:
            # first, because it may fail: a record must be counted completely or not at all
            lost = next(filter(None, (self._text_check.lost(text, ids) for text, ids in known.items())), None)
            ledger.count_length(length(encoded), self.max_length, is_text=conversation.is_text)
            _count(ledger, encoded, kept, self.end_token_id)
            if lost is not None:
                ledger.count_unknown_text(f"{conversation.origin}: {lost}")
        return examples

    def _shorten(
        self, conversation: Conversation, encoded: list[EncodedSegment], known: dict[str, list[int]]
    ) -> Iterator[list[EncodedSegment]]:
        if self.over_long == "drop":
            return
        if conversation.is_text:
            yield from self._cut_text(encoded)
            return
        choose = runs_that_fit if self.over_long == "split" else newest_that_fits
        for part in choose(conversation, self.max_length, _Measure(self, known)):
            short = shorten(encoded if part is conversation else self._encoded(part, known), self.max_length)
            if short is not None:
                yield short

    def _cut_text(self, encoded: list[EncodedSegment]) -> Iterator[list[EncodedSegment]]:
        """Split a document into blocks; only the first if truncating. Blocks of one token have nothing to predict."""
        segment, ids = encoded[-1].segment, [token for item in encoded for token in item.ids]
        if self.continues:
            opening = ids[: len(self._document_start)]
            yield [EncodedSegment(segment, opening + ids[len(ids) - self.max_length + len(opening) :])]
            return
        starts = range(0, len(ids), self.max_length) if self.over_long == "split" else range(1)
        for start in starts:
            block = ids[start : start + self.max_length]
            if len(block) > 1:
                yield [EncodedSegment(segment, block)]

    def _encoded(self, conversation: Conversation, known: dict[str, list[int]]) -> list[EncodedSegment]:
        """Render and encode. `known` collects the ids of contents, so that none is encoded twice."""
        segments = self.template.render(conversation)
        if self.continues and conversation.is_text:
            segments = [part for part in segments if not part.control]
        new = list(dict.fromkeys(part.text for part in segments if not part.control and part.text not in known))
        known.update(zip(new, self._encode_contents(new), strict=True))
        encoded = [
            EncodedSegment(part, self._encode_control(part.text) if part.control else known[part.text])
            for part in segments
        ]
        start = self._document_start
        if start and encoded and encoded[0].ids[:1] != start:
            first = replace(segments[0], kind=SegmentKind.TEXT if conversation.is_text else SegmentKind.TEMPLATE)
            encoded.insert(0, EncodedSegment(replace(first, text="", control=True), start))
        return encoded

    @property
    def starts_documents(self) -> bool:
        """Whether every document begins with the tokenizer's bos."""
        return bool(self._document_start)

    @cached_property
    def _document_start(self) -> list[int]:
        """The token that this tokenizer puts before every text (Llama's bos), if any."""
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and self.tokenizer("").input_ids[:1] == [bos] else []

    @cached_property
    def _text_check(self) -> TextCheck:
        return TextCheck(self.tokenizer)

    def _encode_control(self, text: str) -> list[int]:
        if text not in self._control_ids:
            self._control_ids[text] = self.tokenizer(text, add_special_tokens=False).input_ids
        return self._control_ids[text]

    def _encode_contents(self, texts: list[str]) -> list[list[int]]:
        """Encode text written by people and models: markers in it are plain text, never tokens."""
        if not texts:
            return []
        return [
            self._encode_broken_up(text) if not self._reserved_ids.isdisjoint(ids) else ids
            for text, ids in zip(texts, self._encode_plain(texts), strict=True)
        ]

    def _encode_plain(self, texts: list[str]) -> list[list[int]]:
        """Encode without special tokens, with the bare backend: the wrapper is a third slower, as it adds offsets."""
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # treat them as plain text; each call of the wrapper resets this
        try:
            return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
        except Exception as error:  # the only type that the backend raises
            raise UnencodableError(
                f"the tokenizer cannot encode this text ({error}); use a tokenizer with an unknown token, or set "
                "`--data.on_invalid drop`."
            ) from None

    def _encode_broken_up(self, text: str) -> list[int]:
        """Encode markers in two halves: some tokenizers match markers that are not flagged as special anyway."""
        return [index for ids in self._encode_plain(self._inside_markers.split(text)) for index in ids]

    @cached_property
    def _inside_markers(self) -> re.Pattern[str]:
        """Matches between the first and second character of every reserved marker."""
        markers = [marker for marker, index in self.tokenizer.get_vocab().items() if index in self._reserved_ids]
        return re.compile("|".join(f"(?<={re.escape(m[0])})(?={re.escape(m[1:])})" for m in markers if m[1:]))

    @cached_property
    def _reserved_ids(self) -> frozenset[int]:
        """Ids that contents must never produce: special tokens and the template's markers."""
        fixed = repr(self.template) if isinstance(self.template, Template) else ""
        markers = (index for token, index in self.tokenizer.get_added_vocab().items() if token in fixed)
        return frozenset({*special_ids(self.tokenizer), self.end_token_id, *markers})


@dataclass(frozen=True, slots=True)
class _Measure:
    """Measures parts of a conversation whose contents are already encoded."""

    encoder: Encoder
    known: dict[str, list[int]]

    def length(self, part: Conversation) -> int:
        return length(self.encoder._encoded(part, self.known))

    def least(self, turn: Message) -> int:
        return sum(self._least(text) for text in (turn.content, turn.context))

    def _least(self, text: str) -> int:
        # templates may strip the contents
        return min((len(self.known[form]) for form in (text, text.strip()) if form in self.known), default=0)


def _example(encoded: list[EncodedSegment], origin: str) -> Example:
    if encoded[-1].segment.turn > _LAST_TURN:
        raise UserError(
            f"{origin}: {encoded[-1].segment.turn + 1:,} turns in one example; expected at most {_LAST_TURN + 1:,}. "
            "Split the conversation, lower `--data.max_length`, or set `--data.on_invalid drop`."
        )
    lengths = [len(item.ids) for item in encoded]
    return Example(
        input_ids=np.concatenate([np.asarray(item.ids, dtype=np.int32) for item in encoded]),
        kinds=np.repeat(np.asarray([item.segment.kind for item in encoded], dtype=np.uint8), lengths),
        turns=np.repeat(np.asarray([item.segment.turn for item in encoded], dtype=np.int16), lengths),
        origin=origin,
    )


def _count(ledger: Ledger, encoded: list[EncodedSegment], kept: list[list[EncodedSegment]], end_token_id: int) -> None:
    flat = [item for part in kept for item in part]
    read, left = _tokens_by_kind(encoded), _tokens_by_kind(flat)
    ledger.count_tokens(read, left, dropped=not kept)
    ends, ends_left = _ends(encoded, end_token_id), _ends(flat, end_token_id)
    ledger.count_end_tokens(ends, ends_left)
    ledger.count_answers(ends, _answers_with_tokens(flat), ends_left)
    if _has_several_answers(encoded):
        ledger.dialogues_read += 1
        ledger.dialogues_kept += any(map(_has_several_answers, kept))
    ledger.untrained_ends += sum(_ends_untrained(part) for part in kept)
    ledger.dropped += not kept
    ledger.split += len(kept) > 1
    ledger.truncated += bool(kept) and bool(_with_answers_merged(read) - _with_answers_merged(left))
    ledger.examples += len(kept)
    ledger.lengths.update(length(part) for part in kept)


def _tokens_by_kind(encoded: list[EncodedSegment]) -> Counter[SegmentKind]:
    counts: Counter[SegmentKind] = Counter()
    for item in encoded:
        counts[item.segment.kind] += len(item.ids)
    return counts


def _with_answers_merged(counts: Counter[SegmentKind]) -> Counter[SegmentKind]:
    """Count final answers as answers, because splitting can turn an answer into a final one without losing tokens."""
    merged = Counter(counts)
    merged[SegmentKind.ANSWER] += merged.pop(SegmentKind.FINAL_ANSWER, 0)
    return merged


def _answers_with_tokens(encoded: list[EncodedSegment]) -> Counter[SegmentKind]:
    """Answers with at least one token left."""
    kinds = (item.segment.kind for item in encoded if item.ids and not item.segment.control)
    return Counter(kind for kind in kinds if kind in ANSWER_KINDS)


def _has_several_answers(encoded: list[EncodedSegment]) -> bool:
    return _answers_with_tokens(encoded).total() > 1


def _ends_untrained(encoded: list[EncodedSegment]) -> bool:
    last = encoded[-1].segment.turn
    return any(item.segment.turn == last and item.segment.kind is SegmentKind.CONTEXT_ANSWER for item in encoded)


def _ends(encoded: list[EncodedSegment], end_token_id: int) -> Counter[SegmentKind]:
    supervised = (*ANSWER_KINDS, SegmentKind.TEXT)
    kinds = (item.segment.kind for item in encoded if item.ids[-1:] == [end_token_id])
    return Counter(kind for kind in kinds if kind in supervised)
