"""Players for tests, whose answers are written step by step."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from data_modules.records.conversation import Message
from lit_sft.arena.answers import Answer
from lit_sft.models.generation import GenerationSettings


class ScriptedPlayer:
    """A model that writes what it is told to.

    Args:
        name: Its name.
        text: Its answer; `{message}` and `{seed}` are filled in.
        is_paused: Whether it writes only the first half until `go` is set.
    """

    def __init__(self, name: str, text: str = "{message} says {seed}", *, is_paused: bool = False) -> None:
        self.name, self.text = name, text
        self.go = threading.Event()
        if not is_paused:
            self.go.set()
        self.error = ""
        self.asked: list[tuple[list[Message], GenerationSettings, int]] = []
        self.answers: list[Answer] = []
        self.is_closed = False

    def begin(self, turns: Sequence[Message], settings: GenerationSettings, seed: int) -> Answer:
        self.asked.append((list(turns), settings, seed))
        answer = Answer(settings, seed)
        self.answers.append(answer)
        text = self.text.replace("{message}", turns[-1].content).replace("{seed}", str(seed))
        answer.add(text[: len(text) // 2])
        if self.go.is_set():
            self._finish(answer, text)
        else:
            threading.Thread(target=lambda: (self.go.wait(), self._finish(answer, text)), daemon=True).start()
        return answer

    def _finish(self, answer: Answer, text: str) -> None:
        if self.error:
            answer.finish("failed", self.error)
        answer.add(text[len(text) // 2 :])
        answer.finish("done")

    def digest(self) -> str:
        return f"digest of {self.name}"

    def close(self) -> None:
        self.is_closed = True
        self.go.set()
