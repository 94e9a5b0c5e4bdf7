"""What a user got wrong. Here, in the lowest layer, because every layer raises it."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user gave: an option, a config, a record, a file.

    Its message says where, what was found, what was expected and how to go on. A command prints it as one line; any
    other `ValueError` is a fault of the code and keeps its traceback.
    """
