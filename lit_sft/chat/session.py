"""A conversation with a model: what was said, and the prompt that the model is given for the next answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_modules.encoding.example import Example
from data_modules.errors import UserError
from data_modules.records.conversation import Message
from data_modules.rendering.segments import SegmentKind
from lit_sft.models.fitted_prompt import fitted_prompt, is_empty_answer, turns_of, whole_prompt
from lit_sft.models.generation import Generated, GenerationRequest, GenerationSettings
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.unfinished import Listener


@dataclass(frozen=True, slots=True)
class Exchange:
    """A message and the answer to it.

    Attributes:
        message: What the user wrote.
        answer: What the model wrote.
        given: What the model was given, message by message: the system message if there was one, the exchanges before
            that fitted, and the message, joined with those before it whose answers were empty.
        prompt: The same, token by token.
        num_left_out: How many exchanges before it did not fit into the prompt.
        settings: How the answer was generated.
        seed: Of the sampling.
    """

    message: str
    answer: Generated
    given: tuple[Message, ...]
    prompt: Example
    num_left_out: int
    settings: GenerationSettings
    seed: int

    @property
    def tokens(self) -> Example:
        """The prompt and the answer as they were, token by token."""
        ids = np.asarray([each.token for each in self.answer.logprobs], dtype=np.int32)
        turn = int(self.prompt.turns[-1]) + 1
        return Example(
            np.concatenate([self.prompt.input_ids, ids]),
            np.concatenate([self.prompt.kinds, np.full(len(ids), SegmentKind.FINAL_ANSWER, dtype=np.uint8)]),
            np.concatenate([self.prompt.turns, np.full(len(ids), turn, dtype=np.int16)]),
            "the conversation",
        )


class ChatSession:
    """A conversation of several turns, rendered by the template that the model was trained with.

    Args:
        model: Answers.
        settings: How answers are generated.
        system: The system message; empty for none.
        seed: Determines the sampling, together with what was said.

    Attributes:
        settings: As given; may be replaced at any time.
        exchanges: What was said, oldest first.
        num_saved: How many of its answers are in each file that it was saved to.
    """

    def __init__(self, model: LoadedModel, settings: GenerationSettings, *, system: str = "", seed: int = 0) -> None:
        self.model, self.settings, self.seed = model, settings, seed
        self.exchanges: list[Exchange] = []
        self.num_saved: dict[Path, int] = {}
        self._system = ""
        self.system = system

    @property
    def system(self) -> str:
        """The system message; empty for none. Setting it changes what the model is given from the next answer on."""
        return self._system

    @system.setter
    def system(self, text: str) -> None:
        before, self._system = self._system, text.strip()
        try:
            # some templates have no place for it
            whole_prompt(self.model.encoder, turns_of(self._system, [], "Hello"))
        except UserError:
            self._system = before
            raise

    def ask(
        self, message: str, listener: Listener | None = None, is_cancelled: Callable[[], bool] | None = None
    ) -> Exchange:
        """Send a message and wait for the answer.

        Args:
            message: Not empty.
            listener: Called with every piece of the answer.
            is_cancelled: Whether to stop the answer; asked after every token.

        Raises:
            UserError: If the message is empty, or too long for the model. The conversation stays as it was.
        """
        if not message.strip():
            raise UserError("the message is empty; expected text.")
        said = [(exchange.message, exchange.answer.text) for exchange in self.exchanges]
        fitted = fitted_prompt(
            self.model.encoder,
            turns_of(self._system, said, message),
            context=self.model.context_length,
            max_new_tokens=self.settings.max_new_tokens,
        )
        request = GenerationRequest(
            fitted.tokens.prompt_ids(),
            self.settings,
            self.seed,
            num_likeliest=0,  # for the ids of the answer, which `/tokens` shows
            listener=listener,
            is_cancelled=is_cancelled,
        )
        (answer,) = self.model.answer_requests([request])
        exchange = Exchange(
            message, answer, fitted.turns, fitted.tokens, fitted.num_left_out, request.settings, request.seed
        )
        self.exchanges.append(exchange)
        return exchange

    def reset(self) -> None:
        """Forget what was said. The system message and the settings stay."""
        self.exchanges.clear()
        self.num_saved.clear()

    @property
    def answered(self) -> list[Exchange]:
        """The exchanges whose answers are part of the next prompt: empty ones are left out."""
        return [exchange for exchange in self.exchanges if not is_empty_answer(exchange.answer.text)]
