"""The text of an answer while its tokens arrive: whole characters only, and nothing from a stop string on."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_REPLACEMENT = "\ufffd"
"""Decoders write it in place of bytes that are not (or not yet) a character."""

_BYTE = re.compile("<0x[0-9A-F]{2}>")
"""A token for one byte, in SentencePiece vocabularies."""


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of tokens, as it is: special tokens stay, and spaces are not tidied up."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


class Characters:
    """Decodes tokens one by one. The joined pieces are the decoded whole.

    Only a few tokens are decoded at a time: those of the last piece, for what decoders do at borders (SentencePiece
    drops a space at the start), and those that follow.

    Args:
        tokenizer: Decodes.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: list[int] = []  # the tokens of the last piece
        self._known_text = ""
        self._new: list[int] = []

    def push(self, token: int) -> str:
        """Add a token.

        Returns:
            The text that is certain now; empty while a character lacks bytes.
        """
        self._new.append(token)
        # if one byte of a row is wrong, SentencePiece replaces all of them: wait for the end of the row
        if _BYTE.fullmatch(str(self._tokenizer.convert_ids_to_tokens(token))):
            return ""
        return self._piece(is_last=False)

    def finish(self) -> str:
        """The rest of the text, with a replacement character for what never became one."""
        return self._piece(is_last=True)

    def _piece(self, *, is_last: bool) -> str:
        text = text_of(self._tokenizer, self._known + self._new)
        if text.endswith(_REPLACEMENT) and not is_last:
            return ""
        piece = text[len(self._known_text) :]
        if piece:
            self._known, self._new = self._new, []
            self._known_text = text_of(self._tokenizer, self._known)
        return piece


class TextStream:
    """The text of an answer, token by token, up to a stop string.

    Args:
        tokenizer: Decodes.
        stop: Strings that end the answer. They are not part of it.

    Attributes:
        stopped_by: The stop string that was found. Of several, the one that starts first.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()) -> None:
        self.stopped_by: str | None = None
        self._characters = Characters(tokenizer)
        self._stop = tuple(stop)
        self._held = ""  # may turn out to be the start of a stop string

    def push(self, token: int) -> str:
        """Add a token; returns the text that is certain now."""
        return self._passed(self._characters.push(token), is_last=False)

    def finish(self) -> str:
        """The rest of the text, when no token follows."""
        return "" if self.stopped_by is not None else self._passed(self._characters.finish(), is_last=True)

    def _passed(self, new: str, *, is_last: bool) -> str:
        text = self._held + new
        found = [(text.index(each), each) for each in self._stop if each in text]
        if found:
            place, self.stopped_by = min(found)
            self._held = ""
            return text[:place]
        held = 0 if is_last else max((_overlap(text, each) for each in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of a text that is the start of a stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
