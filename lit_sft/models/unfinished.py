"""Answers that are being generated: their text so far, and whether they are finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from lit_sft.models.next_token import NextToken, TokenLogprob
from lit_sft.models.text_stream import TextStream, text_of


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer, as soon as it is certain. The joined texts of all pieces are the answer.

    Attributes:
        text: Whole characters. Only the last piece may have none.
        logprobs: The tokens since the piece before, if log-probabilities were requested.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


Listener = Callable[[Piece], None]


class UnfinishedAnswer:
    """One answer, token by token.

    Args:
        tokenizer: Decodes.
        end_token_id: Ends the answer.
        max_tokens: The most tokens that it may have.
        stop: Strings that end it.
        listener: Called with every piece.
        is_cancelled: Whether to end it now; asked before the first token and after each.
        when_finished: Called once no token follows, after the last piece; not if it was cancelled before it was begun.

    Attributes:
        max_tokens: As given.
        ids: The tokens so far, without the end token.
        has_ended: Whether the model ended it.
        is_cancelled: Whether it was cancelled.
        is_finished: Whether no token follows.
        logprobs: Of the tokens so far, with the end token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        end_token_id: int,
        max_tokens: int,
        *,
        stop: Sequence[str] = (),
        listener: Listener | None = None,
        is_cancelled: Callable[[], bool] | None = None,
        when_finished: Callable[[UnfinishedAnswer], None] | None = None,
    ) -> None:
        self.ids: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.has_ended = False
        self.max_tokens = max_tokens
        self._tokenizer, self._end_token_id = tokenizer, end_token_id
        self._listener = listener
        self._asks_to_stop = is_cancelled or (lambda: False)
        self._when_finished = when_finished or (lambda answer: None)
        self._texts: list[str] = []
        # text that nobody reads on the way is decoded at the end, in one go
        self._stream = TextStream(tokenizer, stop) if stop or listener else None
        self._num_told = 0
        self.is_cancelled = self._asks_to_stop()
        self.is_finished = self.is_cancelled

    @property
    def stopped_by(self) -> str | None:
        """The stop string that ended it."""
        return self._stream.stopped_by if self._stream else None

    @property
    def text(self) -> str:
        """The text, once it is finished."""
        return "".join(self._texts) if self._stream else text_of(self._tokenizer, self.ids)

    def add(self, token: int, logprob: TokenLogprob | None = None) -> None:
        """Add the next token; without effect once the answer is finished."""
        if self.is_finished:
            return
        if logprob is not None:
            self.logprobs.append(logprob)
        if token == self._end_token_id:
            self.has_ended = True
        else:
            self.ids.append(token)
            self._pass_on(self._stream.push(token) if self._stream else "")
        self.is_cancelled = not self.has_ended and self.stopped_by is None and self._asks_to_stop()
        is_full = len(self.ids) >= self.max_tokens
        self.is_finished = self.has_ended or self.stopped_by is not None or is_full or self.is_cancelled
        if self.is_finished:
            self._pass_on(self._stream.finish() if self._stream else "", is_last=True)
            self._when_finished(self)

    def _pass_on(self, text: str, *, is_last: bool = False) -> None:
        self._texts.append(text)
        news = tuple(self.logprobs[self._num_told :]) if text or is_last else ()
        if self._listener and (text or news):
            self._num_told = len(self.logprobs)
            self._listener(Piece(text, news))


class AddTokens(StoppingCriteria):  # type: ignore[misc]
    """Adds the latest token of each row to its answer; a row is done when its answer is finished.

    Args:
        answers: One for each row.
        chosen: Chose the tokens.
    """

    def __init__(self, answers: Sequence[UnfinishedAnswer], chosen: NextToken) -> None:
        self._answers, self._chosen = answers, chosen

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Look at the latest tokens, the last column of the (B, T) ids.

        Returns:
            Which rows are done, (B,) bool.
        """
        for row, (answer, token) in enumerate(zip(self._answers, input_ids[:, -1].tolist(), strict=True)):
            if not answer.is_finished:
                answer.add(token, self._chosen.logprob(row, token))
        finished = [answer.is_finished for answer in self._answers]
        return torch.tensor(finished, dtype=torch.bool, device=input_ids.device)
