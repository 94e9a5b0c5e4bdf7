"""How long examples may be, and whether a limit is too small for the records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from data_modules.encoding.ledger import is_limit_too_small, too_small_limit
from data_modules.errors import UserError

_DEFAULT_MAX_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class LengthLimits:
    """Limits on the length of examples, in tokens.

    Attributes:
        max_length: Maximum number of tokens in an example.
        context_length: Maximum number of tokens the model can read. None: unknown.
        answer_length: Tokens reserved for the answer to a prompt.
    """

    max_length: int
    context_length: int | None
    answer_length: int

    def of(self, split: str) -> int:
        """Maximum number of tokens in an example of a split, less the room for the answer when predicting."""
        if split != "predict":
            return self.max_length
        room = (self.context_length or 2 * self.max_length) - self.answer_length
        return max(1, min(self.max_length, room))

    def check(self, split: str, ledger: dict[str, Any]) -> None:
        """Refuse a limit that is too small for the records of an empty split.

        Args:
            split: Name of the split.
            ledger: Its `Ledger.to_dict()`.

        Raises:
            UserError: If the split is empty because its records are too long.
        """
        limit = self.of(split)
        if not is_limit_too_small(ledger):
            return
        if limit < self.max_length:  # the answer needs the rest
            raise UserError(
                f"--model.generation.max_new_tokens {self.answer_length} leaves {limit} of the model's "
                f"{self.context_length} tokens for a prompt, and no {split} record fits; lower it."
            )
        raise UserError(too_small_limit(ledger, split, limit))


def resolve_block_size(name: str, size: int | None, context_length: int | None) -> int:
    """The size of text blocks or windows: the user's choice, else the model's context length, at most 1024.

    Args:
        name: The setting.
        size: Its value. None: the default.
        context_length: Maximum number of tokens the model can read. None: unknown.

    Raises:
        UserError: If it is below 2, or the model cannot read as many tokens.
    """
    if size is None:
        return min(_DEFAULT_MAX_LENGTH, context_length or _DEFAULT_MAX_LENGTH)
    if size < 2:
        raise UserError(f"--data.{name} {size}: expected at least 2 tokens, as the first is not predicted.")
    if context_length is not None and size > context_length:
        raise UserError(
            f"--data.{name} {size}: the model reads at most {context_length} tokens; set it to {context_length} or "
            "less, or choose a model with a longer context."
        )
    return size


def resolve_max_length(max_length: int | None, context_length: int | None) -> int:
    """The maximum length of examples: the user's choice, else the model's context length, at most 1024.

    Raises:
        UserError: If the model cannot read examples of this length.
    """
    if max_length is None:
        return min(_DEFAULT_MAX_LENGTH, context_length or _DEFAULT_MAX_LENGTH)
    if context_length is not None and max_length > context_length:
        raise UserError(
            f"--data.max_length {max_length}: the model reads at most {context_length} tokens; set it to "
            f"{context_length} or less, or choose a model with a longer context."
        )
    return max_length
