"""A conversation with a model: what was said, and the prompt that the model is given for the next answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
        prompt: What the model was given, token by token.
        num_left_out: How many exchanges before it did not fit into the prompt.
    """

    message: str
    answer: Generated
    prompt: Example
    num_left_out: int

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
        prompt, num_left_out = self._prompt(message)
        request = GenerationRequest(
            prompt.prompt_ids(),
            self.settings,
            self.seed,
            num_likeliest=0,  # for the ids of the answer, which `/tokens` shows
            listener=listener,
            is_cancelled=is_cancelled,
        )
        (answer,) = self.model.answer_requests([request])
        self.exchanges.append(Exchange(message, answer, prompt, num_left_out))
        return self.exchanges[-1]

    def reset(self) -> None:
        """Forget what was said. The system message and the settings stay."""
        self.exchanges.clear()

    def record(self) -> dict[str, Any]:
        """The conversation as a record that `fit` can read; answers that were cut or stopped get the weight 0.

        Raises:
            UserError: If nothing was said yet.
        """
        if not self._answered():
            raise UserError("there is nothing to save yet: no message has an answer.")
        messages: list[dict[str, Any]] = [{"role": "system", "content": self.system}] if self.system else []
        for exchange in self._answered():
            answer: dict[str, Any] = {"role": "assistant", "content": exchange.answer.text}
            if not exchange.answer.ended:
                answer["weight"] = 0
            messages += [{"role": "user", "content": exchange.message}, answer]
        made_by = {
            "model": self.model.name,
            "template": self.model.encoder.template.name,
            "temperature": self.settings.temperature,
            "top_p": self.settings.top_p,
            "max_new_tokens": self.settings.max_new_tokens,
            "seed": self.seed,
        }
        return {"messages": messages, "provenance": made_by}

    def _answered(self) -> list[Exchange]:
        """The exchanges that are part of the next prompt. No template can write an empty answer."""
        return [exchange for exchange in self.exchanges if exchange.answer.text.strip()]

    def _prompt(self, message: str) -> tuple[Example, int]:
        """The prompt for the next answer, and how many of the oldest exchanges do not fit."""
        turns = self._system_turn()
        for exchange in self._answered():
            turns += [Message(Role.USER, exchange.message), Message(Role.ASSISTANT, exchange.answer.text)]
        turns.append(Message(Role.USER, message))
        return fitted_prompt(
            self.model.encoder,
            turns,
            context=self.model.context_length,
            max_new_tokens=self.settings.max_new_tokens,
        )

    def _system_turn(self) -> list[Message]:
        return [Message(Role.SYSTEM, self._system)] if self._system else []
