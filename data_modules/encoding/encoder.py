"""Encodes segments as token ids, and shortens conversations that are too long."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from data_modules.digests import digest_of
from data_modules.encoding.convention_runs import runs_of
from data_modules.encoding.counting import count_answers_read, count_tokens
from data_modules.encoding.example import Example
from data_modules.encoding.ledger import Ledger
from data_modules.encoding.losses import Part, turns_in
from data_modules.encoding.strings import EncodedSegment, Known, StringEncoder, UnencodableError, length
from data_modules.encoding.truncation import newest_that_fits, runs_that_fit, shorten
from data_modules.encoding.unknown_text import TextCheck
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation
from data_modules.rendering.conventions import ResolvedConvention
from data_modules.rendering.masking import Weights
from data_modules.rendering.segments import Segment, SegmentKind
from data_modules.rendering.templates import AnyTemplate, Template

OverLong = Literal["drop", "truncate", "split", "error"]

_LAST_TURN = np.iinfo(np.int16).max


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
            `error`: stop the run. A preference pair loses the oldest exchanges of its prompt, or is left out.
        continues: Whether documents are beginnings of texts to continue. They get no end token, and long ones are cut
            at the start.
        convention: Encodes and cuts answered conversations as another trainer would; `over_long` has no effect then.
    """

    tokenizer: PreTrainedTokenizerBase
    template: AnyTemplate
    max_length: int
    over_long: OverLong = "truncate"
    continues: bool = False
    convention: ResolvedConvention | None = None

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise UserError(f"--data.max_length {self.max_length}: expected at least 1 token.")

    def for_prompts(self, max_length: int, *, continues: bool) -> Encoder:
        """The same for prompts, which are truncated, never dropped or cut by a convention."""
        return replace(self, max_length=max_length, over_long="truncate", continues=continues, convention=None)

    @cached_property
    def end_token_id(self) -> int:
        """The one token that ends every answer; generation stops on it."""
        return self._strings.end_token_id

    @cached_property
    def tokenizer_digest(self) -> str:
        """A digest of everything in the tokenizer that ids depend on. Takes half a second for 150,000 tokens."""
        tokenizer = self.tokenizer
        return digest_of([tokenizer.backend_tokenizer.to_str(), tokenizer.bos_token, tokenizer.eos_token])

    def encode(self, conversation: Conversation, ledger: Ledger | None = None) -> list[Example]:
        """Encode a conversation as examples: none if dropped, several if split, otherwise one.

        Args:
            conversation: An answered conversation, a document or a bare prompt.
            ledger: Records what happened, if given.

        Raises:
            OverLongError: If it is too long and `over_long` is `error`.
            UserError: If the template or the tokenizer rejects it, or it has too many turns.
        """
        known: Known = {}
        try:
            encoded = self._encoded(conversation, known)
            if conversation.rejected is not None:
                return self._encode_pair(conversation, conversation.rejected, encoded, known, ledger)
        except UnencodableError as error:
            raise UserError(f"{conversation.origin}: {error}") from None
        if self.convention is not None and conversation.is_answered:
            return self._encode_by_convention(self.convention, conversation, encoded, ledger)
        if length(encoded) <= self.max_length:
            parts = [Part(range(len(conversation.turns)), encoded, encoded)]
        elif self.over_long == "error":
            raise self._over_long(conversation, length(encoded))
        else:
            parts = list(self._shorten(conversation, encoded, known))
        examples = [_example(part.kept, conversation.origin) for part in parts]
        if ledger is not None:
            self._count(ledger, conversation, encoded, encoded, parts)
        return examples

    def _over_long(self, conversation: Conversation, length: int) -> OverLongError:
        return OverLongError(
            f"{conversation.origin}: {length} tokens; expected at most {self.max_length}. Raise `--data.max_length`, "
            f"or set `--data.over_long` to truncate{', split' * (conversation.rejected is None)} or drop."
        )

    def _encode_pair(
        self,
        conversation: Conversation,
        rejected: Conversation,
        encoded: list[EncodedSegment],
        known: Known,
        ledger: Ledger | None,
    ) -> list[Example]:
        """A preference pair as one example. If it is too long, both lose the same exchanges; answers are never cut.

        Of an unpaired answer, the other document is the bare prompt.
        """
        chosen = replace(conversation, rejected=None)
        wholes = [encoded, self._encoded(rejected, known)]
        if len({tuple(token for item in whole for token in item.ids) for whole in wholes}) == 1:
            raise UserError(
                f"{chosen.origin}: 'chosen' and 'rejected' have the same tokens. Remove the record, or set "
                "`--data.on_invalid drop`."
            )
        longest = max(map(length, wholes))
        halves, kept = [chosen, rejected], wholes
        if longest > self.max_length and self.over_long == "error":
            raise self._over_long(conversation, longest)
        if longest > self.max_length and self.over_long != "drop":
            longer = halves[length(wholes[1]) == longest]
            part = newest_that_fits(longer, self.max_length, _Measure(self, known))[0]
            left = len(part.exchanges())
            halves = [half.with_exchanges(half.exchanges()[-left:]) for half in halves]
            kept = [self._encoded(half, known) for half in halves]
        fits = max(map(length, kept)) <= self.max_length
        if ledger is not None:
            parts = [Part(turns_in(halves[0], chosen), kept[0], kept[0])] if fits else []
            self._count(ledger, chosen, [*wholes[0], *wholes[1]], wholes[0], parts, longest)
            ledger.pairs += fits
            ledger.unpaired += fits * conversation.is_unpaired
            ledger.rejected_tokens += fits * length(kept[1])
        if not fits:
            return []
        return [replace(_example(kept[0], chosen.origin), rejected=_example(kept[1], chosen.origin))]

    def _encode_by_convention(
        self,
        convention: ResolvedConvention,
        conversation: Conversation,
        ordinary: list[EncodedSegment],
        ledger: Ledger | None,
    ) -> list[Example]:
        whole, tokens = (convention.encode(conversation, limit) for limit in (_NO_LIMIT, self.max_length))
        complete = ordinary if whole is None else runs_of(whole)
        parts = [] if tokens is None else [Part(range(len(conversation.turns)), complete, runs_of(tokens))]
        if ledger is not None:
            self._count(ledger, conversation, ordinary, complete, parts)
        if tokens is None:
            return []
        return [replace(_example(parts[0].kept, conversation.origin), labelled=np.asarray(tokens.trained))]

    def _count(
        self,
        ledger: Ledger,
        conversation: Conversation,
        ordinary: list[EncodedSegment],
        complete: list[EncodedSegment],
        parts: list[Part],
        longest: int | None = None,
    ) -> None:
        """Count a conversation. `ordinary` is our own encoding of it, `complete` that which was shortened.

        `longest` is the length of the longer document of a pair.
        """
        # first, because it may fail: a record must be counted completely or not at all
        lost = None
        if not self._text_check.knows_every_byte:
            contents = (item for item in ordinary if not item.segment.control)
            lost = next(filter(None, (self._text_check.lost(item.segment.text, item.ids) for item in contents)), None)
        ledger.count_length(longest or length(complete), self.max_length, is_text=conversation.is_text)
        count_tokens(ledger, complete, parts, self.end_token_id)
        count_answers_read(ledger, conversation, complete)
        if lost is not None:
            ledger.count_unknown_text(f"{conversation.origin}: {lost}")

    def _shorten(self, conversation: Conversation, encoded: list[EncodedSegment], known: Known) -> Iterator[Part]:
        if self.over_long == "drop":
            return
        if conversation.is_text:
            yield from (Part((0,), encoded, block) for block in self._cut_text(encoded))
            return
        choose = runs_that_fit if self.over_long == "split" else newest_that_fits
        for part in choose(conversation, self.max_length, _Measure(self, known)):
            whole = encoded if part is conversation else self._encoded(part, known)
            short = shorten(whole, self.max_length, lambda segments: self._strings_of(segments, known))
            if short is not None:
                yield Part(turns_in(part, conversation), whole, short)

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

    def _encoded(self, conversation: Conversation, known: Known) -> list[EncodedSegment]:
        """Render and encode. `known` collects what is encoded, so that nothing is encoded twice."""
        segments = _with_weights(self.template.render(conversation), conversation)
        if self.continues and conversation.is_text:
            segments = [part for part in segments if not part.control]
        return self._strings_of(segments, known)

    def _strings_of(self, segments: list[Segment], known: Known) -> list[EncodedSegment]:
        """Encode segments, with the token that starts a document. Chat templates of tokenizers write it themselves."""
        encoded = self._strings.encode(segments, known)
        start = self._document_start
        is_text = bool(segments) and segments[0].kind is SegmentKind.TEXT
        if not is_text and not isinstance(self.template, Template):
            return encoded
        if start and encoded and encoded[0].ids[:1] != start:
            first = replace(segments[0], kind=SegmentKind.TEXT if is_text else SegmentKind.TEMPLATE)
            encoded.insert(0, EncodedSegment(replace(first, text="", control=True), start))
        return encoded

    @cached_property
    def _strings(self) -> StringEncoder:
        end = str(self.template.end)
        fixed = self.template.fixed if isinstance(self.template, Template) else end
        return StringEncoder(self.tokenizer, end, fixed)

    def ids_of_prompt(self, text: str) -> list[int]:
        """The ids of a rendered prompt as any client encodes it; quick if `encode` has just encoded it."""
        return self._strings.ids_of(text)

    def ids_of_document(self, text: str) -> list[int]:
        """The ids of a text to continue, as any client encodes it, with the token that starts a document."""
        ids = self._strings.ids_of(text)
        start = self._document_start
        return ids if ids[: len(start)] == start else start + ids

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


_NO_LIMIT = 2**31


@dataclass(frozen=True, slots=True)
class _Measure:
    """Measures parts of a conversation, of which most is encoded already."""

    encoder: Encoder
    known: Known

    def length(self, part: Conversation) -> int:
        return length(self.encoder._encoded(part, self.known))


_BYTES = {kind: bytes([kind]) for kind in SegmentKind}


def _example(encoded: Sequence[EncodedSegment], origin: str) -> Example:
    if encoded[-1].segment.turn > _LAST_TURN:
        raise UserError(
            f"{origin}: {encoded[-1].segment.turn + 1:,} turns in one example; expected at most {_LAST_TURN + 1:,}. "
            "Split the conversation, lower `--data.max_length`, or set `--data.on_invalid drop`."
        )
    # one number after the other takes as long as all the rest: each array is made at once
    kinds = bytearray().join([_BYTES[item.segment.kind] * len(item.ids) for item in encoded])
    turns = array("h")
    for item in encoded:
        turns.extend(array("h", [item.segment.turn]) * len(item.ids))
    return Example(
        input_ids=np.array(list(chain.from_iterable([item.ids for item in encoded])), dtype=np.int32),
        kinds=np.frombuffer(kinds, dtype=np.uint8),
        turns=np.frombuffer(turns, dtype=np.int16),
        origin=origin,
        message_weights=_message_weights(encoded),
    )


def _with_weights(segments: list[Segment], conversation: Conversation) -> list[Segment]:
    """Segments with the weights of their messages. Those of weight 0 have a kind of their own."""
    weights = [turn.weight or 1.0 for turn in conversation.turns]
    if weights.count(1.0) == len(weights):
        return segments
    return [replace(segment, weight=weights[segment.turn]) for segment in segments]


def _message_weights(encoded: Sequence[EncodedSegment]) -> Weights:
    """The weight of every turn, (number of turns,); empty if all are 1."""
    if all(item.segment.weight == 1 for item in encoded):
        return np.zeros(0, dtype=np.float32)
    weights = {item.segment.turn: item.segment.weight for item in encoded}
    return np.asarray([weights.get(turn, 1.0) for turn in range(max(weights) + 1)], dtype=np.float32)
