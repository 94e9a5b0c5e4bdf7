"""One encoded example: token ids, and the kind and turn of every token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_modules.rendering.masking import Kinds, Turns
from data_modules.rendering.segments import SegmentKind


@dataclass(frozen=True, slots=True)
class Example:
    """One encoded document. Ids and kinds are built together, so they cannot drift apart.

    Attributes:
        input_ids: Tokens, (T,) int32.
        kinds: SegmentKind of each token, (T,) uint8.
        turns: Turn of each token, (T,) int16.
        origin: Where the record is, `file:line`.
    """

    input_ids: npt.NDArray[np.int32]
    kinds: Kinds
    turns: Turns
    origin: str

    def __len__(self) -> int:
        return len(self.input_ids)

    def prompt_ids(self) -> list[int]:
        """The prompt for inference: everything before the final answer; all of a bare prompt or document."""
        is_last = self.turns == self.turns.max(initial=0)
        is_untrained = (self.kinds == SegmentKind.CONTEXT_ANSWER) & is_last
        final = np.flatnonzero((self.kinds == SegmentKind.FINAL_ANSWER) | is_untrained)
        return list(map(int, self.input_ids[: final[0]] if len(final) else self.input_ids))

    def answer_ids(self) -> list[int]:
        """The final answer with its end token; empty if there is none, or its record excludes it from training."""
        return list(map(int, self.input_ids[self.kinds == SegmentKind.FINAL_ANSWER]))
