"""Log-probabilities of tokens as the API writes them: objects for chats, parallel lists for completions."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lit_sft.models.next_token import TokenLogprob


class ReportedTokens:
    """Which tokens belong to the text of an answer, as its pieces arrive.

    A token is reported with the piece that has its first character. Those of a stop string are not reported.

    Args:
        bytes_of: The bytes of a token.
        hidden: A token that is not reported either. None: there is none.
    """

    def __init__(self, bytes_of: Callable[[int], bytes], hidden: int | None) -> None:
        self._bytes_of, self._hidden = bytes_of, hidden
        self._waiting: deque[tuple[int, TokenLogprob]] = deque()
        self._decoder = _decoder()
        self._start = self._length = 0  # characters of the tokens, and of the text

    def add(self, text: str, tokens: Iterable[TokenLogprob]) -> list[TokenLogprob]:
        """Add a piece of the answer; returns the tokens to report with it."""
        for token in tokens:
            if token.token != self._hidden:
                self._waiting.append((self._start, token))
                self._start += len(self._decoder.decode(self._bytes_of(token.token)))
        self._length += len(text)
        found = []
        while self._waiting and self._waiting[0][0] < self._length:
            found.append(self._waiting.popleft()[1])
        return found

    def rest(self, *, is_stopped: bool) -> list[TokenLogprob]:
        """The tokens that are left at the end; those of a stop string are not part of the answer."""
        return [] if is_stopped else [token for _, token in self._waiting]


def _decoder() -> codecs.IncrementalDecoder:
    """Wrong bytes become replacement characters, as in the text."""
    return codecs.getincrementaldecoder("utf-8")("replace")


def shown(data: bytes) -> str:
    """A token as a string. Parts of characters are written in the API's way, `bytes:\\xe7\\xbe`."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def chat_logprobs(tokens: Sequence[TokenLogprob], bytes_of: Callable[[int], bytes]) -> dict[str, Any]:
    """The `logprobs` of a choice of a chat completion."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        data = bytes_of(token)
        return {"token": shown(data), "logprob": logprob, "bytes": list(data)}

    content = [
        {**entry(each.token, each.logprob), "top_logprobs": [entry(*likely) for likely in each.likeliest]}
        for each in tokens
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(
    tokens: Sequence[TokenLogprob | None], ids: Sequence[int], bytes_of: Callable[[int], bytes], offset: int
) -> dict[str, Any]:
    """The `logprobs` of a choice of a completion.

    Args:
        tokens: One for each id; None for the first token of an echoed prompt, which nothing predicts.
        ids: Token ids.
        bytes_of: The bytes of a token.
        offset: Characters of the text before them.
    """
    texts, offsets, decoder = [shown(bytes_of(each)) for each in ids], [], _decoder()
    for each in ids:
        offsets.append(offset)
        offset += len(decoder.decode(bytes_of(each)))
    likeliest = [None if each is None else _by_text(each, bytes_of) for each in tokens]
    return {
        "tokens": texts,
        "token_logprobs": [None if each is None else each.logprob for each in tokens],
        "top_logprobs": likeliest if any(likeliest) else None,
        "text_offset": offsets,
    }


def _by_text(token: TokenLogprob, bytes_of: Callable[[int], bytes]) -> dict[str, float]:
    """The likeliest tokens, and the one that was taken, by their text; of several with the same text, the likeliest."""
    found: dict[str, float] = {}
    for index, logprob in (*token.likeliest, (token.token, token.logprob)) if token.likeliest else ():
        found.setdefault(shown(bytes_of(index)), logprob)
    return found
