"""How OpenAI's client reaches an endpoint, and the body of its requests."""

from __future__ import annotations

import logging
from typing import Any

from data_modules.errors import UserError
from lit_sft.credentials import Address
from lit_sft.endpoint.chat import Request, without_surrogates

_NO_KEY = "EMPTY"
"""Sent without a key; the client would look for one in the environment."""


def openai_module() -> Any:
    """OpenAI's client, which writes nothing to the log.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import openai
    except ImportError:
        raise UserError("the openai client is not installed; `pip install 'lit_sft[endpoint]'`.") from None
    for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)  # they log addresses with their queries
    return openai


def reaching(place: Address, key: str) -> dict[str, Any]:
    """Arguments of a client that reaches an endpoint, and retries nothing by itself.

    Args:
        place: The address.
        key: API key; empty for none.
    """
    return {
        "api_key": key or _NO_KEY,
        "base_url": place.base,
        "default_query": place.query,
        "default_headers": {"Authorization": place.authorization} if place.authorization else None,
        "max_retries": 0,
    }


def body_of(request: Request, limit: str = "") -> dict[str, Any]:
    """The body of a request, without model and schema. What has its default is left out: some servers refuse it.

    Args:
        request: The request.
        limit: What the server calls the limit of tokens; empty to send none.
    """
    optional = {"top_p": None if request.top_p == 1.0 else request.top_p, "seed": request.seed}
    return {
        **({limit: request.max_tokens} if limit else {}),
        "messages": [{"role": role, "content": without_surrogates(content)} for role, content in request.messages],
        "temperature": request.temperature,
        **{name: value for name, value in optional.items() if value is not None},
    }
