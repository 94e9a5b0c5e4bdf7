"""Reads HTTP responses of an endpoint: replies, and errors in one line without credentials, both of bounded length."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from data_modules.errors import UserError
from data_modules.wording import kind_of
from lit_sft.credentials import Secrets, without_credentials
from lit_sft.endpoint.chat import EndpointError, Reply, count_of, without_surrogates

_LONGEST_ERROR = 2**12
"""Bytes of an error response that are read and masked; one line of `_LONGEST_REASON` characters is shown."""
_LONGEST_REASON = 200
_LONGEST_PAUSE = 60.0

# status codes worth retrying, and those that rule out any further request
_RETRIED = (408, 409, 429)
_REFUSED = (401, 402, 403, 404, 407, 408, 429)


async def beginning(parts: AsyncIterator[bytes], limit: int) -> bytes:
    """Read the first bytes of a body, and no more."""
    body = bytearray()
    async for part in parts:
        body += part
        if len(body) >= limit:
            break
    return bytes(body[:limit])


async def refuse_errors(secrets: Secrets, response: Any) -> None:
    """Turn an error response into an `EndpointError` before its body is read; the client would read any length of it.

    Raises:
        EndpointError: If the response is an error; contains the beginning of its message.
    """
    if response.is_success or (response.has_redirect_location and _is_short(response.headers.get("content-length"))):
        return
    try:
        body = await beginning(response.aiter_bytes(), _LONGEST_ERROR)
    except Exception:  # of the HTTP transport; the status is known even if the body cannot be read
        body = b""
    raise _status_error(int(response.status_code), _message_of(body), secrets, pause=_retry_after(response.headers))


def _status_error(status: int, message: str, secrets: Secrets, **details: Any) -> EndpointError:
    reason = _line(message, secrets)
    return EndpointError(
        f"Error code: {status}{_phrase(status)}{f': {reason}' if reason else ''}",
        is_answer=status < 500 and status not in _REFUSED,
        is_transient=status >= 500 or status in _RETRIED,
        status=status,
        **details,
    )


def error_line(error: BaseException, secrets: Secrets) -> str:
    """The type and message of an error, in one line."""
    return f"{type(error).__name__}: {_line(str(error), secrets)}"


def read_reply(body: bytes, secrets: Secrets) -> Reply:
    """The text and token counts of a chat completion.

    Raises:
        EndpointError: If it is none, has no text, or is an error; some gateways send those with the status 200.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        shown = _line(body[:_LONGEST_ERROR].decode("utf-8", "replace"), secrets)[:60]
        text = f"not a chat completion: not JSON; it begins with {shown!r}"
        raise EndpointError(text, is_answer=True, may_be_billed=True) from None
    try:
        if isinstance(value, dict) and value.get("error") and not value.get("choices"):
            raise _error_inside(value["error"], secrets)
        return _reply_of(value)
    except UserError as error:
        raise EndpointError(str(error), is_answer=True, may_be_billed=True) from None


def _error_inside(error: Any, secrets: Secrets) -> EndpointError:
    code, message = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, error)
    text, status = message if isinstance(message, str) else "", str(code)
    if re.fullmatch("[45][0-9]{2}", status):
        return _status_error(int(status), text, secrets, may_be_billed=True)
    return EndpointError(f"an error without a code: {_line(text, secrets)}", is_answer=True, may_be_billed=True)


def _reply_of(value: Any) -> Reply:
    try:
        choice = value["choices"][0]
        message = choice["message"]
        content = message["content"]
    except (KeyError, IndexError, TypeError):
        raise UserError("not a chat completion: expected `choices` with a `message`.") from None
    if content is not None and not isinstance(content, str):
        raise UserError(f"not a chat completion: `content` is {kind_of(content)}; expected a string.")
    if content is None and isinstance(message.get("refusal"), str):
        content = message["refusal"]  # instead of a structured reply that the model refuses to give
    usage, reason = value.get("usage"), choice.get("finish_reason")
    counts = usage if isinstance(usage, dict) else {}
    return Reply(
        without_surrogates(content or ""),
        count_of(counts.get("prompt_tokens")),
        count_of(counts.get("completion_tokens")),
        reason if isinstance(reason, str) and re.fullmatch(r"\w{1,32}", reason) else "",
    )


def _is_short(length: str | None) -> bool:
    """Whether a redirect declares a short body; the client reads it all."""
    return length is not None and length.isdecimal() and len(length) < 10 and int(length) <= _LONGEST_ERROR


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:  # a non-standard status code
        return ""


def _message_of(body: bytes) -> str:
    """The message of an error in OpenAI's format, else the whole body."""
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, RecursionError, LookupError, TypeError):
        message = None
    return message if isinstance(message, str) else body.decode("utf-8", "replace")


def _line(text: str, secrets: Secrets) -> str:
    """The beginning of a text in one line, masked before it is cut."""
    line = " ".join(text[:_LONGEST_ERROR].split())
    return secrets.mask(without_credentials(line))[:_LONGEST_REASON]


def _retry_after(headers: Any) -> float | None:
    """Seconds that a server asks us to wait: a number, or a date by the server's own clock; None if it does not say."""
    text, date = (str(headers.get(name) or "").strip() for name in ("retry-after", "date"))
    if re.fullmatch(r"\d{1,6}(\.\d*)?", text):
        seconds = float(text)
    else:
        try:
            seconds = (parsedate_to_datetime(text) - parsedate_to_datetime(date)).total_seconds()
        except (ValueError, TypeError):  # no date, or one of the two without a time zone
            return None
    return min(seconds, _LONGEST_PAUSE) if seconds > 0 else None
