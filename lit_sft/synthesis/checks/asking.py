"""How a rule asks a model."""

from __future__ import annotations

from collections.abc import Callable

Messages = tuple[tuple[str, str], ...]
"""Role and content of each message to a model."""

Ask = Callable[[Messages], str]
"""Sends messages to a model and returns the text of its reply; raises `EndpointError` if there is none."""
