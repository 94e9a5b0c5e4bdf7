"""Encodes the segments of a conversation as token ids.

A prompt is one string to the tokenizer, as it is for every client that sends it to a model, so a token may cover the
end of a message and the template's text after it. Borders stand only around what the model emits and at the end token,
because generation begins and ends there. Each token belongs to the segment that contains its first character.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby
from typing import NamedTuple
from unicodedata import is_normalized

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from data_modules.encoding.tokenizers import bytes_per_token, special_ids
from data_modules.encoding.words import num_added_tokens, words_of
from data_modules.errors import UserError
from data_modules.rendering.segments import ASSISTANT_KINDS, Segment, SegmentKind

_EMITTED = frozenset((*ASSISTANT_KINDS, SegmentKind.TEXT))


class UnencodableError(UserError):
    """The tokenizer cannot encode a text."""


@dataclass(frozen=True, slots=True)
class EncodedSegment:
    """A segment and the tokens whose first character it contains.

    Attributes:
        segment: The segment.
        ids: Its tokens.
        starts: Character of the segment's text at which each token starts. Only for parts of a prompt.
    """

    segment: Segment
    ids: list[int]
    starts: Sequence[int] = ()


def length(encoded: Iterable[EncodedSegment]) -> int:
    """Number of tokens."""
    return sum(len(item.ids) for item in encoded)


class _String(NamedTuple):
    """Adjacent segments that are encoded together.

    Attributes:
        parts: The text of each segment, and whether markers in it become tokens.
        before: Text that the tokenizer reads before it, because the first token depends on it; not part of the result.
        is_emitted: Whether the model emits it.
    """

    parts: tuple[tuple[str, bool], ...]
    before: str
    is_emitted: bool

    @property
    def text(self) -> str:
        """All parts."""
        return "".join([text for text, _ in self.parts])


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Ids, and the character at which each starts; no characters for text that the model emits."""

    ids: list[int]
    starts: Sequence[int] = ()


Known = dict[_String, _Tokens]
"""What has been encoded of one conversation."""


@dataclass(frozen=True)
class StringEncoder:
    """Encodes segments with a tokenizer.

    Args:
        tokenizer: A fast Hugging Face tokenizer.
        end: The end token of an answer.
        fixed: Contains the fixed text of the template: markers in it become tokens there, never in contents.
    """

    tokenizer: PreTrainedTokenizerBase
    end: str
    fixed: str

    def encode(self, segments: Sequence[Segment], known: Known) -> list[EncodedSegment]:
        """Encode the segments of a conversation.

        Args:
            segments: From its beginning.
            known: Collects what is encoded, so that parts of one conversation share the work.

        Raises:
            UnencodableError: If the tokenizer cannot encode a text.
        """
        strings = list(self._strings(segments))
        new = [string for string, _ in strings if string not in known]
        if new:
            self._add(dict.fromkeys(new), known)
        return [item for string, group in strings for item in _assigned(known[string], group)]

    def _strings(self, segments: Sequence[Segment]) -> Iterator[tuple[_String, list[Segment]]]:
        """The segments between two borders, and the string that they make."""
        previous: Segment | None = None
        for (is_emitted, is_end), run in groupby(segments, self._side):
            group = list(run)
            if previous is None or is_end:
                before = ""
            else:
                before = self._before_emitted(group[0].text, previous) if is_emitted else self._before_prompt
            yield _String(tuple([(part.text, part.control) for part in group]), before, is_emitted), group
            previous = group[-1]

    def _side(self, segment: Segment) -> tuple[bool, bool]:
        is_emitted = segment.kind in _EMITTED and not segment.is_read
        return is_emitted, segment.control and segment.text == self.end

    def _add(self, strings: Iterable[_String], known: Known) -> None:
        alone, joined = [], []
        for string in strings:
            if string.before:
                joined.append(string)
            elif all(control for _, control in string.parts):
                known[string] = self._fixed_text(string.text)
            elif len(string.parts) == 1 and string.is_emitted:
                alone.append(string)
            else:
                joined.append(string)
        for string, ids in zip(alone, self.contents([string.text for string in alone]), strict=True):
            known[string] = _Tokens(ids)
        texts = [string.before + string.text for string in joined]
        located = self._located(texts)
        self._newest.clear()
        self._newest.update((text, tokens.ids) for text, tokens in zip(texts, located, strict=True))
        for string, tokens in zip(joined, located, strict=True):
            known[string] = self._checked(string, tokens)

    def ids_of(self, text: str) -> list[int]:
        """The ids of a text as any client encodes it: its markers become tokens, whoever wrote them.

        Quick if it is a prompt of the conversation that was encoded last.
        """
        newest = self._newest.get(text)
        return self._batch([text], plain=False)[0] if newest is None else newest

    @cached_property
    def _newest(self) -> dict[str, list[int]]:
        return {}

    def control(self, text: str) -> list[int]:
        """Encode fixed text of the template."""
        return self._fixed_text(text).ids

    def _fixed_text(self, text: str) -> _Tokens:
        if text not in self._of_fixed_text:
            (self._of_fixed_text[text],) = self._located([text])
        return self._of_fixed_text[text]

    @cached_property
    def _of_fixed_text(self) -> dict[str, _Tokens]:
        return {}

    @cached_property
    def _num_added(self) -> int:
        return num_added_tokens(self.tokenizer)

    def _located(self, texts: list[str], *, plain: bool = False) -> list[_Tokens]:
        """Encode, and find the character at which each token starts."""
        located = []
        for text, ids in zip(texts, self._batch(texts, plain=plain), strict=True):
            starts = self._counted_starts(text, ids)
            if starts is None:
                (encoding,) = self._encodings([text], plain=plain, places=True)
                ids, starts = encoding.ids, _starts(encoding)
            located.append(_Tokens(ids, starts))
        return located

    def _batch(self, texts: list[str], *, plain: bool) -> list[list[int]]:
        """The ids of texts.

        Args:
            texts: Any.
            plain: Whether special tokens are plain text.
        """
        words = words_of(self.tokenizer, self._num_added)
        found = [None if words is None else words.of(text, plain=plain) for text in texts]
        rest = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        encodings = iter(self._encodings(rest, plain=plain))
        return [next(encodings).ids if ids is None else ids for ids in found]

    def _encodings(self, texts: list[str], *, plain: bool, places: bool = False) -> list[Encoding]:
        """Encode with the bare backend: the wrapper adds offsets, which take as long as the rest.

        Args:
            texts: Any.
            plain: Whether special tokens are plain text; each call of the wrapper resets this.
            places: Whether to find the place of each token in the text.
        """
        if not texts:
            return []
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = plain
        encode = backend.encode_batch if places else backend.encode_batch_fast
        try:
            encodings: list[Encoding] = encode(texts, add_special_tokens=False)
        except Exception as error:  # the only type that the backend raises
            raise UnencodableError(
                f"the tokenizer cannot encode this text ({error}); use a tokenizer with an unknown token, or set "
                "`--data.on_invalid drop`."
            ) from None
        finally:
            backend.encode_special_tokens = False
        return encodings

    def _counted_starts(self, text: str, ids: list[int]) -> list[int] | None:
        """The starts of tokens from their sizes; None if they do not simply add up to the text."""
        sizes = bytes_per_token(self.tokenizer, len(self.tokenizer))
        if sizes is None or not (text.isascii() or is_normalized("NFC", text)):
            return None
        *starts, size = accumulate(map(sizes.__getitem__, ids), initial=0)
        if text.isascii():
            return starts if size == len(text) else None
        raw = np.frombuffer(text.encode(), dtype=np.uint8)
        characters = np.cumsum(raw & 0xC0 != 0x80) - 1  # the other bytes continue a character
        return characters[starts].tolist() if size == len(raw) else None

    def contents(self, texts: list[str]) -> list[list[int]]:
        """Encode text written by people and models: markers in it are plain text, never tokens.

        Raises:
            UnencodableError: If the tokenizer cannot encode a text.
        """
        return [
            ids if self.reserved_ids.isdisjoint(ids) else self._broken_up(text)
            for text, ids in zip(texts, self._batch(texts, plain=True), strict=True)
        ]

    def contents_with_places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The same ids of one text, and the characters that each token covers, as the tokenizer reports."""
        (whole,) = self._encodings([text], plain=True, places=True)
        if self.reserved_ids.isdisjoint(ids := whole.ids):
            return ids, whole.offsets
        pieces = self._inside_markers.split(text)
        starts = accumulate(map(len, pieces), initial=0)
        encodings = self._encodings(pieces, plain=True, places=True)
        places = [(at + a, at + b) for at, each in zip(starts, encodings, strict=False) for a, b in each.offsets]
        return [index for each in encodings for index in each.ids], places

    def _broken_up(self, text: str) -> list[int]:
        """Encode markers in two halves: some tokenizers match markers that are not flagged as special anyway."""
        return [index for ids in self._batch(self._inside_markers.split(text), plain=True) for index in ids]

    def _checked(self, string: _String, tokens: _Tokens) -> _Tokens:
        """The tokens of a string; encoded with more care if its contents have markers, which must not become tokens."""
        if string.before:
            skipped = len(self.control(string.before))
            starts = [max(0, start - len(string.before)) for start in tokens.starts[skipped:]]
            tokens = _Tokens(tokens.ids[skipped:], starts)
        is_safe = self.reserved_ids.isdisjoint(tokens.ids) or self._are_all_fixed(string, tokens)
        return tokens if is_safe else self._between_markers(string)

    def _are_all_fixed(self, string: _String, tokens: _Tokens) -> bool:
        """Whether reserved tokens occur in the template's text only."""
        borders = list(accumulate((len(text) for text, _ in string.parts), initial=0))
        ends = [*tokens.starts[1:], borders[-1]]
        for place in [place for place, index in enumerate(tokens.ids) if index in self.reserved_ids]:
            start, end = tokens.starts[place], ends[place]
            touched = range(bisect_right(borders, start) - 1, bisect_left(borders, max(end, start + 1)))
            if not all(string.parts[part][1] for part in touched):
                return False
        return True

    def _between_markers(self, string: _String) -> _Tokens:
        """Encode the text between the template's own markers as plain text."""
        ids: list[int] = []
        starts: list[int] = []
        place = 0
        for is_marker, run in groupby(self._split_at_markers(string), lambda piece: piece[1]):
            pieces = [text for text, _ in run]
            for text in pieces if is_marker else ["".join(pieces)]:
                found = self._fixed_text(text) if is_marker else self._plain_text(text)
                ids += found.ids
                starts += [place + start for start in found.starts]
                place += len(text)
        return _Tokens(ids, starts)

    def _split_at_markers(self, string: _String) -> Iterator[tuple[str, bool]]:
        """The text of a string in pieces, and which of them are markers of the template."""
        for text, control in string.parts:
            if not control:
                yield text, False
                continue
            tokens = self._fixed_text(text)
            ends = [*tokens.starts[1:], len(text)]
            for index, start, end in zip(tokens.ids, tokens.starts, ends, strict=True):
                if start < end:
                    yield text[start:end], index in self.reserved_ids

    def _plain_text(self, text: str) -> _Tokens:
        """Encode text without markers, with the character at which each token starts."""
        (whole,) = self._located([text], plain=True)
        if self.reserved_ids.isdisjoint(whole.ids):
            return whole
        pieces = self._inside_markers.split(text)
        found = self._located(pieces, plain=True)
        places = accumulate(map(len, pieces), initial=0)
        starts = [place + start for place, tokens in zip(places, found, strict=False) for start in tokens.starts]
        return _Tokens([index for tokens in found for index in tokens.ids], starts)

    @cached_property
    def _inside_markers(self) -> re.Pattern[str]:
        """Matches between the first and second character of every reserved marker."""
        markers = [marker for marker, index in self.tokenizer.get_vocab().items() if index in self.reserved_ids]
        return re.compile("|".join(f"(?<={re.escape(m[0])})(?={re.escape(m[1:])})" for m in markers if m[1:]))

    @cached_property
    def reserved_ids(self) -> frozenset[int]:
        """Ids that contents must never produce: special tokens, the end token and the template's markers."""
        added = self.tokenizer.get_added_vocab().items()
        fixed = (index for token, index in added if token in self.fixed)
        return frozenset({*special_ids(self.tokenizer), self.end_token_id, *fixed})

    @cached_property
    def end_token_id(self) -> int:
        """The one token that ends every answer.

        Raises:
            UserError: If the end is not one token.
        """
        ids = self.control(self.end)
        if len(ids) != 1:
            raise UserError(f"the end token {self.end!r} is encoded as {len(ids)} tokens; expected one.")
        return ids[0]

    @cached_property
    def _before_prompt(self) -> str:
        """What the tokenizer must read before a prompt that follows an answer: the end token, if it makes a difference.

        Some end tokens swallow the white space after them, and some tokenizers begin a text with a space mark.
        """
        after = {text: self.control(self.end + text) for text in ("x", "\nx", " x")}
        return self.end if any(ids != [self.end_token_id, *self.control(x)] for x, ids in after.items()) else ""

    def _before_emitted(self, text: str, prompt_end: Segment) -> str:
        """The same before text that the model emits: it continues the prompt, which may end with a special token.

        A line break is a token of its own, except perhaps before another.
        """
        if not self._begins_with_mark:
            return ""
        last = self.control(prompt_end.text)[-1] if prompt_end.control else None
        marker = self.tokenizer.added_tokens_decoder.get(last)
        if marker is not None and not marker.rstrip:
            return str(marker.content)
        return "." if text.startswith("\n") else "\n"

    @cached_property
    def _begins_with_mark(self) -> bool:
        """Whether the tokenizer puts a space mark before every text."""
        return self.control("\nx")[len(self.control("\n")) :] != self.control("x")


def _starts(encoding: Encoding) -> list[int]:
    """Where each token starts. Tokens cover the text without gaps: some tokenizers report them without their spaces."""
    starts: list[int] = []
    end = 0
    for first, after in encoding.offsets:
        starts.append(max(starts[-1] if starts else 0, min(first, end)))
        end = max(end, after)
    return starts


def _assigned(tokens: _Tokens, group: list[Segment]) -> list[EncodedSegment]:
    """The tokens of a string by segment."""
    if len(group) == 1:
        return [EncodedSegment(group[0], tokens.ids, tokens.starts)]
    items, first, character = [], 0, 0
    for segment in group:
        after = character + len(segment.text)
        end = bisect_left(tokens.starts, after, first) if segment is not group[-1] else len(tokens.ids)
        starts = [start - character for start in tokens.starts[first:end]]
        items.append(EncodedSegment(segment, tokens.ids[first:end], starts))
        first, character = end, after
    return items
