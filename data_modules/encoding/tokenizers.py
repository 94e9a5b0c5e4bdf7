"""Loads tokenizers, and counts the bytes of text behind each token."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers.decoders import ByteLevel
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import PreTrainedTokenizerBase

from data_modules.digests import check_digests
from data_modules.encoding.model_names import check_model_name
from data_modules.errors import UserError
from data_modules.wording import reason_of


def token_sizes(tokenizer: PreTrainedTokenizerBase, num_rows: int, end_token_id: int) -> npt.NDArray[np.int64]:
    """Count the UTF-8 bytes and characters of text behind each token. Special and end tokens have none.

    The space that SentencePiece tokenizers put before every segment counts.

    Args:
        tokenizer: Byte-level or SentencePiece-like.
        num_rows: Size of the result: the rows of the model's embedding, which may exceed the vocabulary.
        end_token_id: The token that ends answers.

    Returns:
        (num_rows, 2) int64: bytes and characters. A character of several tokens counts for the first.
    """
    counts = np.zeros((num_rows, 2), dtype=np.int64)
    written = dict(_vocabulary(tokenizer))
    counts[list(written), 0] = list(map(len, written.values()))
    counts[list(written), 1] = [len(data.translate(None, _CONTINUING)) for data in written.values()]
    counts[[*special_ids(tokenizer), end_token_id]] = 0
    return counts


_CONTINUING = bytes(range(0x80, 0xC0))
"""Bytes that continue a character."""


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, bytes]]:
    """The `bytes_of_tokens` of all tokens, several times as fast as one by one."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode  # imports torch too

    byte_of = {ord(character): chr(byte) for byte, character in bytes_to_unicode().items()}
    letters, added = set(map(chr, byte_of)), set(tokenizer.get_added_vocab().values())
    is_byte_level, written = _is_byte_level(tokenizer), bytes_of_tokens(tokenizer)
    for token, index in tokenizer.get_vocab().items():
        if is_byte_level and index not in added and letters.issuperset(token):
            yield index, token.translate(byte_of).encode("latin-1")
        else:
            yield index, written(index)


def _is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    return "ByteLevel" in str(tokenizer.backend_tokenizer.decoder)


def num_ids(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the highest token id: the rows that an embedding needs, even if some ids are unused."""
    count: int = max(len(tokenizer), 1 + max(tokenizer.get_vocab().values()))
    return count


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of all tokens flagged as special, with or without a role such as eos."""
    flagged = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return flagged | set(tokenizer.all_special_ids)


def bytes_of_tokens(tokenizer: PreTrainedTokenizerBase) -> Callable[[int], bytes]:
    """A function from token id to its UTF-8 bytes; for a special token, its name."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode  # imports torch too

    bytes_of = {character: byte for byte, character in bytes_to_unicode().items()}
    added = set(tokenizer.get_added_vocab().values())
    is_byte_level = _is_byte_level(tokenizer)

    def _bytes(index: int) -> bytes:
        token = str(tokenizer.convert_ids_to_tokens(index))
        if index in added:
            return token.encode()
        if is_byte_level and bytes_of.keys() >= set(token):
            return bytes(bytes_of[character] for character in token)
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            return bytes.fromhex(token[3:5])
        return token.replace("\u2581", " ").encode()

    return _bytes


def is_beginning(data: bytes) -> bool:
    """Whether more bytes could make these UTF-8 text: a character may be unfinished, but nothing is wrong."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True


@lru_cache(maxsize=4)
def bytes_per_token(tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> list[int] | None:
    """The bytes of each token; None unless the tokens of a text in Unicode's form NFC are always its bytes.

    Args:
        tokenizer: A fast tokenizer.
        num_tokens: How many tokens it has, because tokens may be added to it.
    """
    backend = tokenizer.backend_tokenizer
    is_plain = backend.normalizer is None or isinstance(backend.normalizer, NFC)
    if not (is_plain and isinstance(backend.decoder, ByteLevel)):
        return None
    found = {index: len(data) for index, data in _vocabulary(tokenizer)}
    sizes = [0] * (1 + max(found, default=num_tokens))
    for index, size in found.items():
        sizes[index] = size
    return sizes


def fewest_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """A lower bound of the tokens of a text, without encoding it: each covers at most as much as the longest one.

    Args:
        tokenizer: A fast tokenizer.
        text: Any.

    Returns:
        0 unless the tokenizer is one whose tokens are the bytes of a text.
    """
    longest = _longest_token(tokenizer, len(tokenizer))
    if longest is None:
        return 0
    size, lost = longest
    if tokenizer.backend_tokenizer.normalizer is not None and not text.isascii():
        size *= _COMPOSED
    return -(-len(text.encode().translate(None, lost)) // size)


_COMPOSED = 16
"""Bytes that one can stand for in form NFC: a character is composed of at most four, of at most four bytes each."""


@lru_cache(maxsize=4)
def _longest_token(tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> tuple[int, bytes] | None:
    """The most bytes of text that a token can cover, and the bytes that no token covers; None if there is no limit.

    Args:
        tokenizer: A fast tokenizer.
        num_tokens: How many tokens it has, because tokens may be added to it.
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode  # imports torch too

    sizes, backend = bytes_per_token(tokenizer, num_tokens), tokenizer.backend_tokenizer
    # some added tokens cover all white space beside them
    is_greedy = any(token.lstrip or token.rstrip for token in tokenizer.added_tokens_decoder.values())
    if sizes is None or is_greedy or not isinstance(backend.model, BPE) or not _keeps_text(backend.pre_tokenizer):
        return None
    of_byte = {byte: backend.model.token_to_id(character) for byte, character in bytes_to_unicode().items()}
    return max(sizes), bytes(byte for byte, index in of_byte.items() if index is None)


def _keeps_text(splitter: PreTokenizer | None) -> bool:
    """Whether a pre-tokenizer only splits a text, as far as is known."""
    if splitter is None:
        return False
    settings = json.loads(splitter.__getstate__())
    parts = settings["pretokenizers"] if settings["type"] == "Sequence" else [settings]
    return all(
        part["type"] in ("ByteLevel", "Digits") or (part["type"] == "Split" and part["behavior"] != "Removed")
        for part in parts
    )


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a fast tokenizer by name or folder.

    Raises:
        UserError: If there is none, or its files have changed since they were exported.
    """
    from transformers import AutoTokenizer  # imports torch, which encoding does not need

    if not name:
        raise UserError("no tokenizer: set `--model.backbone.pretrained` or `--model.backbone.tokenizer`.")
    check_model_name(name)
    if Path(name).is_dir():
        check_digests(Path(name), weights=False)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        # damaged files raise any of a dozen exception types
        raise UserError(
            f"{name}: no tokenizer could be loaded from this folder or hub name ({reason_of(error)}). "
            "Check the path and the connection, or set `--model.backbone.tokenizer FOLDER`."
        ) from None
    if not len(tokenizer):
        raise UserError(f"{name}: no tokenizer in this folder; set `--model.backbone.tokenizer FOLDER`.")
    if not tokenizer.is_fast:
        raise UserError(f"{name}: this tokenizer has no fast version (tokenizer.json); convert it first.")
    # off from the start, or the tokenizer's digest would change when they are turned off later
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    # no warning about long conversations: they are shortened later
    tokenizer.model_max_length = 10**9
    return tokenizer
