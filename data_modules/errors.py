"""`UserError` and `UserNotice`. They live in the lowest layer because every layer uses them."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in the user's input: an option, a config, a record, a file.

    The message names the place, what was found, what was expected and how to fix it. Commands print it as one line;
    any other `ValueError` is a bug and keeps its traceback.
    """


class UserNotice(UserWarning):
    """Something about the user's input that a run can go on with. Commands print it as one line."""
