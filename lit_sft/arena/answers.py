"""An answer while it is written: any thread may read it or stop it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

from lit_sft.models.generation import GenerationSettings

State = Literal["waiting", "writing", "done", "cut", "stopped", "failed"]
"""Of an answer. It is `cut` if it reached its maximum number of tokens, `stopped` if the user stopped it."""


@dataclass(frozen=True, slots=True)
class Written:
    """An answer at one moment.

    Attributes:
        text: What was written so far.
        state: Whether it is being written, or how it ended.
        note: What the text does not show, such as why it failed; may be empty.
        is_refused: Whether it failed because the model cannot be given the message, which is too long, for example.
    """

    text: str = ""
    state: State = "waiting"
    note: str = ""
    is_refused: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether nothing follows."""
        return self.state not in ("waiting", "writing")


class Answer:
    """An answer of one model. Thread-safe; once it is finished, it does not change.

    Args:
        settings: How it is sampled.
        seed: Of the sampling.
    """

    def __init__(self, settings: GenerationSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self._written = Written()
        self._lock = threading.Lock()

    @property
    def written(self) -> Written:
        """What there is of it now."""
        return self._written

    @property
    def is_finished(self) -> bool:
        """Whether nothing follows. Whoever writes it asks this after every token, and stops."""
        return self._written.is_finished

    def add(self, text: str) -> None:
        """Append text; without effect once the answer is finished."""
        with self._lock:
            if not self.is_finished:
                self._written = Written(self._written.text + text, "writing")

    def replace(self, text: str) -> None:
        """Set the whole text so far; without effect once the answer is finished."""
        with self._lock:
            if not self.is_finished:
                self._written = Written(text, "writing")

    def finish(self, state: State, note: str = "", *, is_refused: bool = False) -> None:
        """End it; without effect if it is finished already."""
        with self._lock:
            if not self.is_finished:
                self._written = Written(self._written.text, state, note, is_refused)

    def stop(self) -> None:
        """End it now, with what there is of it."""
        self.finish("stopped")
