"""One encoded example: token ids, and the kind and turn of every token."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from data_modules.rendering.masking import Flags, Kinds, LossMask, Reduction, Turns, Weights
from data_modules.rendering.segments import ASSISTANT_KINDS, FINAL_KINDS, SegmentKind


@dataclass(frozen=True, slots=True)
class Example:
    """One encoded document. Ids and kinds are built together, so they cannot drift apart.

    Attributes:
        input_ids: Tokens, (T,) int32.
        kinds: SegmentKind of each token, (T,) uint8.
        turns: Turn of each token, (T,) int16.
        origin: Where the record is, `file:line`.
        message_weights: How much each turn counts in the loss, above 0 and up to 1, (number of turns,) float32; empty
            if all count fully. Messages of weight 0 have a kind instead, CONTEXT_ANSWER.
        labelled: Which tokens another trainer would train, (T,); None without `--data.convention`.
        hash: The `hash_of` its record, by which a share of the examples is chosen.
        source: Index of its source in a mixture. -1: not from a mixture.
        rejected: For a preference pair, the prompt with the rejected answer, as a document of its own; this one has the
            chosen answer. They are in the same micro-batch. If only one answer was rated, the other document is the
            prompt.
    """

    input_ids: npt.NDArray[np.int32]
    kinds: Kinds
    turns: Turns
    origin: str
    message_weights: Weights = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    labelled: Flags | None = None
    hash: int = 0
    source: int = -1
    rejected: Example | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    def loss_weights(self, mask: LossMask, reduction: Reduction = "token") -> Weights:
        """The weight of each token in the loss: the mask's, after the reduction, times that of its message.

        The reduction knows nothing of messages' weights. So an answer of weight 0.5 counts half as much as the same
        answer of weight 1 under every reduction, and an example with one counts less than others.

        Args:
            mask: The loss mask.
            reduction: How the mask's weights are shared among tokens.

        Returns:
            (T,) float32.
        """
        weights = mask.token_weights(self.kinds, self.turns, reduction, self.labelled)
        if not len(self.message_weights):
            return weights
        return np.where(np.isin(self.kinds, ASSISTANT_KINDS), weights * self.message_weights[self.turns], weights)

    def prompt_ids(self) -> list[int]:
        """The prompt for inference: everything before the final answer; all of a bare prompt or document."""
        is_last = self.turns == self.turns.max(initial=0)
        is_untrained = (self.kinds == SegmentKind.CONTEXT_ANSWER) & is_last
        final = np.flatnonzero(np.isin(self.kinds, FINAL_KINDS) | is_untrained)
        return list(map(int, self.input_ids[: final[0]] if len(final) else self.input_ids))

    def answer_ids(self) -> list[int]:
        """The final answer with its thinking, tool calls and end token, unless they are not to be trained."""
        return list(map(int, self.input_ids[np.isin(self.kinds, FINAL_KINDS)]))
