"""Errors as OpenAI's API reports them: a status and an object with message, type, param and code.

Source: https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_modules.errors import UserError

ORIGIN = "the conversation"
"""Where a conversation comes from, for errors about it."""

_SECONDS_BEFORE_RETRY = 1


@dataclass
class ApiError(Exception):
    """A request that is refused or has failed.

    Attributes:
        status: The HTTP status.
        message: What is wrong and how to fix it.
        param: The field of the request that is wrong; None if it is not one field.
        code: A name for programs.
        kind: `invalid_request_error`, or `server_error` if the request was fine.
        headers: Of the response.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    kind: str = "invalid_request_error"
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message

    def body(self) -> dict[str, Any]:
        """The body of the response."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def invalid(param: str | None, message: str, code: str | None = None) -> ApiError:
    """A request with a wrong field."""
    return ApiError(400, message, param, code)


def reason_for_client(error: UserError) -> str:
    """Why a prompt is refused, without the advice to those who train on it, which names settings of a run."""
    parts = re.split(r"(?<=[.;]) ", str(error).removeprefix(f"{ORIGIN}: "))
    return " ".join(part for part in parts if "`--" not in part).rstrip(";.") + "."


def overloaded(message: str) -> ApiError:
    """The queue is full; clients try again by themselves."""
    headers = {"retry-after": str(_SECONDS_BEFORE_RETRY)}
    return ApiError(503, message, code="overloaded", kind="server_error", headers=headers)


def stopping() -> ApiError:
    """The server is shutting down, so there is no answer."""
    return failed("The server is shutting down.", status=503)


def failed(message: str, code: str | None = None, status: int = 500) -> ApiError:
    """The request was fine, the server was not."""
    return ApiError(status, message, code=code, kind="server_error")
