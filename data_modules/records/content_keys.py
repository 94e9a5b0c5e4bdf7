"""Keys of what conversations say. Those with equal keys stay in one split, whatever file or format they come from."""

from __future__ import annotations

import hashlib
import heapq
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal

from data_modules.records.conversation import Conversation, Message, Role
from data_modules.records.thinking import may_think, without_thinking

KeepTogether = Literal["exact", "normalized", "prompt"]
"""Which conversations count as the same, from few to many:

exact: the same text in every turn, apart from white space at the ends of lines and blank lines.
normalized: the same words and numbers in every turn, apart from case, punctuation, white space and Unicode variants.
prompt: the same words and numbers before the first answer, whatever the answers.

Conversations that are the same under one of them are the same under all that follow.
"""

_CJK = "\u2e80-\u9fff\uf900-\ufaff\uac00-\ud7af"
"""Scripts without spaces between words (and Hangul, where spacing varies)."""

# a sign between two digits is part of a number: 3.5 is not 35, and 2*3 is not 2/3
_TOKEN = re.compile(r"\d+(?:(?:\s*[^\w\s])+\s*\d+)*|[^\W\d_]+|[^\w\s]")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_BESIDE_CJK = re.compile(f"(?<=[{_CJK}]) | (?=[{_CJK}])")


def content_key(conversation: Conversation, keep_together: KeepTogether = "exact") -> str:
    """The key of a conversation: a digest of its text, independent of its format and of which answers are trained.

    Thinking does not count, so that `--data.thinking` moves no record to another split. Tools and their calls do,
    without the ids of calls. The text of a message with context (Alpaca's `input`) is both, joined by a line break, as
    most formats write it. The rejected answer of a preference pair counts too, unless only prompts are compared.

    Args:
        conversation: Any conversation or document.
        keep_together: Which conversations have equal keys.
    """
    turns, text_of = conversation.turns, exact_text
    if keep_together != "exact":
        text_of = normalized_text
    if keep_together == "prompt":
        turns = _before_first_answer(turns)
    digest = hashlib.blake2b(digest_size=16)
    for turn in turns:
        calls = _of_calls(turn, text_of) if turn.tool_calls else ()
        for part in (turn.role, text_of(_full_text(turn)), *calls):
            raw = part.encode()
            digest.update(len(raw).to_bytes(8, "little") + raw)
    for tool in conversation.tools:
        digest.update(b"tool" + text_of(tool).encode())
    if conversation.rejected is not None and keep_together != "prompt":
        digest.update(b"rejected" + content_key(conversation.rejected, keep_together).encode())
    return digest.hexdigest()


def document_key(text: str, keep_together: KeepTogether = "exact") -> str:
    """The `content_key` of a plain document.

    Args:
        text: Its text.
        keep_together: Which documents have equal keys.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (Role.TEXT.value, exact_text(text) if keep_together == "exact" else normalized_text(text)):
        raw = part.encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def hash_of(key: str) -> int:
    """A number from 0 to 2**64 - 1 by which records are chosen, whatever their order, file and format.

    Args:
        key: The content key of a record.
    """
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8, person=b"choice").digest(), "big")


def exact_text(text: str) -> str:
    """A text without white space at the ends of its lines, blank lines and indentation of the first line."""
    return "\n".join(filter(None, map(str.rstrip, text.strip().splitlines())))


def normalized_text(text: str) -> str:
    """The words, numbers and symbols of a text in NFKC and lower case, without punctuation, one space between words.

    A text of nothing but punctuation keeps it.
    """
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold()).replace("_", " ")
    tokens = [
        token if token.isalnum() else "".join(token.split())
        for token in _TOKEN.findall(plain)
        if not _is_punctuation(token)
    ]
    return _BESIDE_CJK.sub("", " ".join(tokens)) or "".join(text.split())


def _is_punctuation(token: str) -> bool:
    return len(token) == 1 and unicodedata.category(token)[0] in "PC"


def _full_text(turn: Message) -> str:
    content = without_thinking(turn.content) if turn.role is Role.ASSISTANT and may_think(turn) else turn.content
    return f"{content}\n{turn.context}" if turn.context else content


def _of_calls(turn: Message, text_of: Callable[[str], str]) -> list[str]:
    return [part for call in turn.tool_calls for part in (call.name, text_of(call.arguments))]


def _before_first_answer(turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """The opening turns; a document is its own prompt."""
    first = next((index for index, turn in enumerate(turns) if turn.role is Role.ASSISTANT), len(turns))
    return turns[:first]


def among_lowest(hashes: Iterable[int], count: int) -> Callable[[int], bool]:
    """Choose the records with the lowest hashes.

    Args:
        hashes: The hash of every record. Equal records have equal hashes and are counted one by one.
        count: How many to choose.

    Returns:
        A function that tells whether a record with a given hash is chosen. Call it once per record, in any order.
    """
    left = Counter(heapq.nsmallest(count, hashes))

    def is_chosen(number: int) -> bool:
        left[number] -= 1
        return left[number] >= 0

    return is_chosen
