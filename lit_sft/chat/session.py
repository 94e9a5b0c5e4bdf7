"""A conversation with a model: what was said, and the prompt that the model is given for the next answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_modules.encoding.example import Example
from data_modules.errors import UserError
from data_modules.records.conversation import Message, Role
from data_modules.rendering.segments import SegmentKind
from lit_sft.models.fitted_prompt import fitted_prompt, whole_prompt
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
            that fitted, and the message.
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
    """

    def __init__(self, model: LoadedModel, settings: GenerationSettings, *, system: str = "", seed: int = 0) -> None:
        self.model, self.settings, self.seed = model, settings, seed
        self.exchanges: list[Exchange] = []
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
            whole_prompt(self.model.encoder, [*self._system_turn(), Message(Role.USER, "Hello")])
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
        given, prompt, num_left_out = self._prompt(message)
        request = GenerationRequest(
            prompt.prompt_ids(),
            self.settings,
            self.seed,
            num_likeliest=0,  # for the ids of the answer, which `/tokens` shows
            listener=listener,
            is_cancelled=is_cancelled,
        )
        (answer,) = self.model.answer_requests([request])
        exchange = Exchange(message, answer, given, prompt, num_left_out, request.settings, request.seed)
        self.exchanges.append(exchange)
        return exchange

    def reset(self) -> None:
        """Forget what was said. The system message and the settings stay."""
        self.exchanges.clear()

    @property
    def answered(self) -> list[Exchange]:
        """The exchanges that are part of the next prompt. No template can write an empty answer."""
        return [exchange for exchange in self.exchanges if exchange.answer.text.strip()]

    def _prompt(self, message: str) -> tuple[tuple[Message, ...], Example, int]:
        """The prompt for the next answer, and how many of the oldest exchanges do not fit."""
        system, turns = self._system_turn(), list[Message]()
        for exchange in self.answered:
            turns += [Message(Role.USER, exchange.message), Message(Role.ASSISTANT, exchange.answer.text)]
        turns.append(Message(Role.USER, message))
        prompt, num_left_out = fitted_prompt(
            self.model.encoder,
            [*system, *turns],
            context=self.model.context_length,
            max_new_tokens=self.settings.max_new_tokens,
        )
        return (*system, *turns[2 * num_left_out :]), prompt, num_left_out

    def _system_turn(self) -> list[Message]:
        return [Message(Role.SYSTEM, self._system)] if self._system else []
