"""Finds role headers, tool results and padding in ids alone, by the text of the tokens."""

from __future__ import annotations

import re
from functools import cached_property

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from data_modules.encoding.tokenizers import bytes_of_tokens
from lit_sft.lint.labels import Flags

Ids = npt.NDArray[np.int64]

END_TOKENS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|return|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "</s>",
)
"""Tokens that end an answer in common chat formats; those in the vocabulary count, and the tokenizer's eos."""

_ENDS = rb"(?:<\|im_end\|>|<\|eot_id\|>|<\|eom_id\|>|<end_of_turn>|<\|end\|>|<\|endoftext\|>|</s>)"
_TEMPLATE = re.compile(
    rb"<\|im_start\|>[^\n]{0,40}\n"
    rb"|<\|start_header_id\|>[^\n]{0,40}?<\|end_header_id\|>\n\n"
    rb"|<start_of_turn>\w{1,20}\n"
    rb"|<\|(?:system|user|assistant|tool)\|>\n?"
    rb"|\[/?INST\]|<</?SYS>>"
    rb"|^### ?(?:Instruction|Input|Response|Human|Assistant):\n?"
    rb"|^(?:USER|ASSISTANT): ?"
    rb"|(?<=<\|im_end\|>)\s+|(?<=<end_of_turn>)\s+|(?<=</s>)\s+",
    re.MULTILINE,
)
"""Role headers of common chat formats, and white space after an end token."""

_TOOL_RESULT = re.compile(
    rb"<\|im_start\|>(?:tool|function|observation)\n.*?<\|im_end\|>"
    rb"|<tool_response>.*?</tool_response>"
    rb"|<\|start_header_id\|>(?:ipython|tool)<\|end_header_id\|>.*?"
    + _ENDS
    + rb"|\[TOOL_RESULTS\].*?\[/TOOL_RESULTS\]",
    re.DOTALL,
)


class TokenText:
    """Reads the text of ids.

    Args:
        tokenizer: The tokenizer that made them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer, self._bytes_of = tokenizer, bytes_of_tokens(tokenizer)
        self._known: dict[int, bytes] = {}

    @property
    def pad_id(self) -> int | None:
        """The pad token."""
        pad = self._tokenizer.pad_token_id
        return None if pad is None else int(pad)

    @cached_property
    def end_ids(self) -> Ids:
        """Tokens that end answers."""
        vocabulary = self._tokenizer.get_vocab()
        ids = {vocabulary[token] for token in END_TOKENS if token in vocabulary}
        eos = self._tokenizer.eos_token_id
        return np.array(sorted(ids | ({int(eos)} if eos is not None else set())), dtype=np.int64)

    def is_end(self, ids: Ids) -> Flags:
        """Whether each token ends an answer."""
        return np.isin(ids, self.end_ids)

    def template_and_tool_results(self, ids: Ids) -> tuple[Flags, Flags]:
        """Which tokens belong to a role header (or follow an end token), and which to the result of a tool.

        A token belongs to the text that its first byte is in.
        """
        parts = [self._text(index) for index in ids.tolist()]
        starts = np.cumsum([0, *map(len, parts)])[:-1]
        text = b"".join(parts)
        return self._inside(_TEMPLATE, text, starts), self._inside(_TOOL_RESULT, text, starts)

    def is_padding(self, ids: Ids) -> Flags:
        """Which tokens look like padding: a run of pad tokens at an end. If they also end answers, all but the first.

        Without a known pad token, an end token that occurs several times at the end is taken for it.
        """
        padding = np.zeros(len(ids), dtype=bool)
        for pad in (self.pad_id, int(ids[-1]) if len(ids) and ids[-1] in self.end_ids else None):
            if pad is None:
                continue
            others = np.flatnonzero(ids != pad)
            if not len(others):
                continue
            tail = int(others[-1]) + 1
            # the first may be the end of the answer, unless the answer has ended
            keeps = pad in self.end_ids and not self._has_ended(ids[:tail])
            padding[tail + keeps :] = True
            if self.pad_id is not None and pad == self.pad_id:
                padding[: int(others[0])] = True
        return padding

    def decode(self, ids: Ids) -> str:
        """The text of ids."""
        return b"".join(map(self._text, ids.tolist())).decode("utf-8", "replace")

    def _has_ended(self, ids: Ids) -> bool:
        """Whether ids end with an end token, apart from white space."""
        for index in ids[::-1][:3].tolist():
            if index in self.end_ids:
                return True
            if self._text(index).strip():
                return False
        return False

    def _inside(self, pattern: re.Pattern[bytes], text: bytes, starts: Ids) -> Flags:
        inside = np.zeros(len(starts), dtype=bool)
        for match in pattern.finditer(text):
            first, stop = np.searchsorted(starts, match.span())
            inside[first:stop] = True
        return inside

    def _text(self, index: int) -> bytes:
        found = self._known.get(index)
        if found is None:
            found = self._known[index] = self._bytes_of(index) if index >= 0 else b""
        return found
