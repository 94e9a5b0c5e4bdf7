"""Checks of data settings that the command line makes only in part, or not at all for Python callers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data_modules.errors import UserError
from data_modules.wording import did_you_mean, shortened


def check_choices(known: Mapping[str, Sequence[str | None]], **values: object) -> None:
    """Refuse values that are not among the choices of their settings; see `check_choice`."""
    for name, value in values.items():
        check_choice(name, value, known[name])


def check_choice(name: str, value: object, choices: Sequence[str | None]) -> None:
    """Refuse a value that is not one of the choices.

    Args:
        name: Name of the data setting.
        value: What was given.
        choices: All valid values; None if the setting may be left out.

    Raises:
        UserError: If it is none of them.
    """
    if value in choices:
        return
    words = [choice for choice in choices if choice is not None]
    hint = did_you_mean(str(value), words)
    raise UserError(
        f"--data.{name} {shortened(str(value), 40)}: expected one of {', '.join(words)}{f'; {hint}' if hint else '.'}"
    )


def check_sizes(batch_size: int, eval_batch_size: int | None, token_budget: int) -> None:
    """Refuse batch sizes and a token budget below 1.

    Raises:
        UserError: If one is too small.
    """
    for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
        if size is not None and size < 1:
            raise UserError(f"--data.{name} {size}: expected at least 1 row.")
    if token_budget < 1:
        raise UserError(f"--data.token_budget {token_budget}: expected at least 1 token; a usual value is 16384.")
