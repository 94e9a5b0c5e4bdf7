"""Adds tokens to a pretrained model's tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from data_modules.encoding.tokenizers import load_tokenizer, num_ids
from data_modules.errors import UserError

_ORDINARY, _SPECIAL = "--model.backbone.add_tokens", "--model.backbone.add_special_tokens"


@dataclass(frozen=True)
class GivenTokenizer:
    """The tokenizer of a run, as its settings name it.

    Attributes:
        tokenizer: Name or folder, or a tokenizer.
        add_tokens: Ordinary tokens to add to it, if any.
        add_special_tokens: Special tokens to add to it, if any.
    """

    tokenizer: str | PreTrainedTokenizerBase
    add_tokens: Sequence[str] | None = None
    add_special_tokens: Sequence[str] | None = None

    def load(self) -> PreTrainedTokenizerBase:
        """The tokenizer, with the tokens that are added to a copy of it.

        Raises:
            UserError: If it cannot be loaded, or a token cannot be added.
        """
        given = load_tokenizer(self.tokenizer) if isinstance(self.tokenizer, str) else self.tokenizer
        return with_new_tokens(given, self.add_tokens or (), self.add_special_tokens or ())


def with_new_tokens(
    tokenizer: PreTrainedTokenizerBase, ordinary: Sequence[str], special: Sequence[str]
) -> PreTrainedTokenizerBase:
    """A copy of a tokenizer with more tokens, whose ids follow the others; the tokenizer itself if there are none.

    Args:
        tokenizer: A fast tokenizer.
        ordinary: Tokens that are part of a text, such as words: they are found wherever their text occurs.
        special: Markers: only a chat template produces them, and they are left out of decoded answers.

    Raises:
        UserError: If a token is empty, is given twice, or is one already.
    """
    given = [(_ORDINARY, text) for text in ordinary] + [(_SPECIAL, text) for text in special]
    if not given:
        return tokenizer
    _check(tokenizer, given)
    grown, size = copy.deepcopy(tokenizer), num_ids(tokenizer)
    grown.add_tokens([AddedToken(text, special=False) for text in ordinary])
    grown.add_tokens([AddedToken(text, special=True, normalized=False) for text in special], special_tokens=True)
    ids = grown.convert_tokens_to_ids([text for _, text in given])
    if sorted(ids) != list(range(size, size + len(given))):  # `tokenizers` counts entries, not ids
        raise UserError(
            f"{given[0][0]}: the ids of this tokenizer have gaps, so new tokens would get the ids of others. Use a "
            "tokenizer whose ids are numbered without gaps."
        )
    return grown


def _check(tokenizer: PreTrainedTokenizerBase, given: Sequence[tuple[str, str]]) -> None:
    vocabulary, seen = tokenizer.get_vocab(), set[str]()
    for option, text in given:
        if not text.strip():
            raise UserError(f"{option} {text!r}: a token needs at least one character that is not white space.")
        if text in seen:
            raise UserError(f"{option} {text!r}: given twice; leave one out.")
        seen.add(text)
        ids = [vocabulary[text]] if text in vocabulary else tokenizer.encode(text, add_special_tokens=False)
        if len(ids) == 1 and (text in vocabulary or tokenizer.decode(ids) == text):  # not an unknown token
            raise UserError(f"{option} {text!r}: already a token of this tokenizer (id {ids[0]}); leave it out.")
