"""How JSON is asked for: by schema, as any JSON object, or in words alone, whichever the server accepts."""

from __future__ import annotations

import threading
from typing import Any, Literal

from lit_sft.endpoint.chat import EndpointError, Request

Structured = Literal["auto", "json_schema", "json_object", "none"]

_FORMS = ("json_schema", "json_object", "none")
_REFUSALS = (400, 415, 422, 500, 501)
"""Status codes with which servers refuse what they do not support; of 500, which has other reasons too, after all
retries."""


class ReplyForm:
    """The form in which a server is asked for JSON. Thread-safe.

    With `auto`, a server that refuses one form is asked for the next. What it accepted first is kept: later refusals
    have other reasons.

    Args:
        setting: The form, or `auto`.
    """

    def __init__(self, setting: Structured) -> None:
        self._forms = _FORMS if setting == "auto" else (setting,)
        self._first = 0
        self._is_accepted = False
        self._lock = threading.Lock()

    def for_request(self, request: Request) -> str:
        """The form to try first."""
        return self._forms[self._first] if request.schema is not None else "none"

    def after(self, form: str, error: EndpointError) -> str | None:
        """The form to try after a refusal; None if the error has another reason."""
        with self._lock:
            if self._is_accepted or error.status not in _REFUSALS or form not in self._forms[:-1]:
                return None
            return self._forms[self._forms.index(form) + 1]

    def accept(self, form: str) -> bool:
        """Keep a form that the server accepted. Returns whether it is another one than was tried first so far."""
        with self._lock:
            if self._is_accepted or form not in self._forms:
                return False
            is_other, self._first, self._is_accepted = form != self._forms[self._first], self._forms.index(form), True
            return is_other


def response_format(form: str, request: Request) -> dict[str, Any] | None:
    """The `response_format` of a request; None for none."""
    if request.schema is None or form == "none":
        return None
    if form == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": dict(request.schema)}}
