"""Log-probabilities of tokens as the API writes them: objects for chats, parallel lists for completions."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from data_modules.encoding.tokenizers import is_beginning
from lit_sft.models.next_token import TokenLogprob


class _Starts:
    """Where each token begins in a text: at its first character, also if earlier tokens hold a part of that."""

    def __init__(self) -> None:
        # wrong bytes become replacement characters, as in the text
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._length = 0

    def add(self, data: bytes) -> int:
        """Add the bytes of a token; returns the characters before it."""
        pending, _ = self._decoder.getstate()
        # bytes that it does not continue are a replacement character before it
        start = self._length + (bool(pending) and not is_beginning(pending + data[:1]))
        self._length += len(self._decoder.decode(data))
        return start


def starts_of(ids: Iterable[int], bytes_of: Callable[[int], bytes]) -> list[int]:
    """The characters before each token of a text."""
    starts = _Starts()
    return [starts.add(bytes_of(each)) for each in ids]


@dataclass(frozen=True, slots=True)
class Reported:
    """A token to report.

    Attributes:
        start: Characters of the text before it.
        id: Its id.
        logprob: What was found about it; None for the first token of an echoed prompt, which nothing predicts.
    """

    start: int
    id: int
    logprob: TokenLogprob | None


class ReportedTokens:
    """Which tokens belong to the text of an answer, as its pieces arrive.

    A token is reported with the piece that has its first character. Those of a stop string are not reported.

    Args:
        bytes_of: The bytes of a token.
        hidden: A token that is not reported either. None: there is none.
    """

    def __init__(self, bytes_of: Callable[[int], bytes], hidden: int | None) -> None:
        self._bytes_of, self._hidden = bytes_of, hidden
        self._waiting: deque[Reported] = deque()
        self._starts = _Starts()
        self._length = 0  # characters of the text

    def add(self, text: str, tokens: Iterable[TokenLogprob]) -> list[Reported]:
        """Add a piece of the answer; returns the tokens to report with it."""
        for token in tokens:
            if token.token != self._hidden:
                start = self._starts.add(self._bytes_of(token.token))
                self._waiting.append(Reported(start, token.token, token))
        self._length += len(text)
        found = []
        while self._waiting and self._waiting[0].start < self._length:
            found.append(self._waiting.popleft())
        return found

    def rest(self, *, is_stopped: bool) -> list[Reported]:
        """The tokens that are left at the end; those of a stop string are not part of the answer."""
        return [] if is_stopped else [*self._waiting]


def shown(data: bytes) -> str:
    """A token as a string. Parts of characters are written in the API's way, `bytes:\\xe7\\xbe`."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def chat_logprobs(tokens: Sequence[Reported], bytes_of: Callable[[int], bytes]) -> dict[str, Any]:
    """The `logprobs` of a choice of a chat completion."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        data = bytes_of(token)
        return {"token": shown(data), "logprob": logprob, "bytes": list(data)}

    content = [
        {**entry(each.token, each.logprob), "top_logprobs": [entry(*likely) for likely in each.likeliest]}
        for each in (token.logprob for token in tokens)
        if each is not None
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(
    tokens: Sequence[Reported], bytes_of: Callable[[int], bytes], *, has_likeliest: bool
) -> dict[str, Any]:
    """The `logprobs` of a choice of a completion.

    Args:
        tokens: Those to report.
        bytes_of: The bytes of a token.
        has_likeliest: Whether the likeliest tokens were requested; `top_logprobs` is null otherwise, as in the API.
    """
    found = [each.logprob for each in tokens]
    likeliest = [None if each is None else _by_text(each, bytes_of) for each in found]
    return {
        "tokens": [shown(bytes_of(each.id)) for each in tokens],
        "token_logprobs": [None if each is None else each.logprob for each in found],
        "top_logprobs": likeliest if has_likeliest else None,
        "text_offset": [each.start for each in tokens],
    }


def _by_text(token: TokenLogprob, bytes_of: Callable[[int], bytes]) -> dict[str, float]:
    """The likeliest tokens, and the one that was taken, by their text; of several with the same text, the likeliest."""
    found: dict[str, float] = {}
    for index, logprob in (*token.likeliest, (token.token, token.logprob)) if token.likeliest else ():
        found.setdefault(shown(bytes_of(index)), logprob)
    return found
