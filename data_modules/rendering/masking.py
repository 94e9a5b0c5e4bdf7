"""Loss masks: the weight of each kind of token in the loss. A new mask is one line in MASKS.

Token ids never depend on the mask, so one forward pass scores a model under every mask.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_modules.errors import UserError
from data_modules.rendering.segments import FINAL_KINDS, PROMPT_KINDS, TRAINED_KINDS, SegmentKind

MaskName = Literal["whole_sequence", "output_only", "firefly_multi_turn"]
Reduction = Literal["token", "sample", "turn"]

Kinds = npt.NDArray[np.uint8]
Turns = npt.NDArray[np.int16]
Weights = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LossMask:
    """A weight for every segment kind.

    Attributes:
        name: What the user types.
        weights: Indexed by SegmentKind.
        by_convention: Whether the labels of another trainer decide, whatever the kinds.
    """

    name: str
    weights: tuple[float, ...]
    by_convention: bool = False

    def token_weights(
        self, kinds: Kinds, turns: Turns, reduction: Reduction = "token", labelled: Flags | None = None
    ) -> Weights:
        """The weight of each token of a document in the loss.

        Args:
            kinds: SegmentKind of each token, (T,).
            turns: Turn of each token, (T,).
            reduction: `token`: every supervised token counts equally. `sample`: every document counts equally, its
                weight 1 shared among its supervised tokens. `turn`: the same for every turn.
            labelled: Which tokens have a label by a convention, (T,). Other masks ignore it.

        Returns:
            (T,) float32. The first is zero: nothing predicts a document's first token.
        """
        weights = np.asarray(self.weights, dtype=np.float32)[kinds]
        if self.by_convention:
            weights = weights * (0 if labelled is None else labelled)
        weights[:1] = 0.0
        if reduction == "token":
            return weights
        groups = np.zeros_like(turns) if reduction == "sample" else turns
        totals = np.bincount(groups, weights=weights)[groups]
        return np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0, casting="same_kind")

    def supervises(self, kind: SegmentKind) -> bool:
        """Whether tokens of this kind have a weight in the loss."""
        return self.weights[kind] > 0


def _mask(name: MaskName, *kinds: SegmentKind) -> LossMask:
    return LossMask(name, tuple(float(kind in kinds) for kind in SegmentKind))


_NEVER_SUPERVISED = (SegmentKind.PADDING, SegmentKind.CONTEXT_ANSWER)

MASKS: dict[str, LossMask] = {
    mask.name: mask
    for mask in (
        _mask("whole_sequence", *(kind for kind in SegmentKind if kind not in _NEVER_SUPERVISED)),
        _mask("output_only", *FINAL_KINDS),
        _mask("firefly_multi_turn", *TRAINED_KINDS),
    )
}


def resolve_mask(name: MaskName, prompt_weight: float | None = None, answer_weight: float | None = None) -> LossMask:
    """The named mask, with other weights for prompt and answer tokens if they are given.

    The loss is divided by the sum of all weights, so only their ratio matters.

    Args:
        name: One of MASKS.
        prompt_weight: Weight of what the model reads, 0 to 1: system, user, template and tool result tokens. None: the
            mask's own, which is 1 for `whole_sequence` and 0 for the others.
        answer_weight: Weight of what the model emits and the mask supervises, 0 to 1: answers, thinking and tool calls.
            None: 1.

    Raises:
        UserError: If a weight is outside 0 to 1, or that of answers has no effect.
    """
    mask = MASKS[name]
    for option, weight in (("prompt_weight", prompt_weight), ("answer_weight", answer_weight)):
        if weight is not None and not 0 <= weight <= 1:
            raise UserError(f"--data.{option} {weight}: expected a weight between 0 and 1.")
    if prompt_weight is not None:
        weights = tuple(prompt_weight if kind in PROMPT_KINDS else mask.weights[kind] for kind in SegmentKind)
        mask = replace(mask, name=f"{mask.name}_prompt{prompt_weight:g}", weights=weights)
    if answer_weight is None:
        return mask
    if not any(mask.weights[kind] for kind in PROMPT_KINDS):
        raise UserError(
            f"--data.answer_weight {answer_weight}: has no effect if answers alone are trained, because the loss is "
            "divided by the sum of the weights. Set `--data.prompt_weight` too, or remove it."
        )
    weights = tuple(
        weight * (answer_weight if kind in TRAINED_KINDS else 1) for kind, weight in enumerate(mask.weights)
    )
    return replace(mask, name=f"{mask.name}_answer{answer_weight:g}", weights=weights)


def weights_identity(prompt_weight: float | None, answer_weight: float | None) -> dict[str, float | None]:
    """What a run depends on, by setting. The weight of answers only if it is set, so that older runs can be resumed."""
    answers = {} if answer_weight is None else {"--data.answer_weight": answer_weight}
    return {"--data.prompt_weight": prompt_weight, **answers}
