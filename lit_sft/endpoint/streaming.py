"""Streams a reply from a model behind an OpenAI-compatible endpoint, for people who watch it being written.

`Endpoint` is for work: it retries, counts costs and gives up. Here, the user sees what failed and tries again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lit_sft.credentials import Secrets, read_address, without_credentials
from lit_sft.endpoint.chat import EndpointError, Request, without_surrogates
from lit_sft.endpoint.openai_client import body_of, openai_module, reaching
from lit_sft.endpoint.responses import error_line

_LONGEST_REPLY = 2**20
"""Characters of a reply, at most."""

_LIMITS = ("max_tokens", "max_completion_tokens")
"""Names of the limit of tokens: some servers refuse the first and name the second in their error."""


_TOO_LONG = ("context_length_exceeded", "maximum context length")
"""In errors of servers that refuse a prompt and a limit which together exceed the context."""


_CHECK = "check the address, which ends with /v1 for most servers"


class StreamingEndpoint:
    """A model behind an endpoint. Thread-safe.

    Args:
        address: Such as http://127.0.0.1:8080/v1; may contain a user and password, or a query.
        model: The model's name at the endpoint. None: the only one that it lists.
        key: API key; empty for none.
        timeout: Seconds without any part of the reply after which it has failed.

    Attributes:
        shown: The address without credentials.

    Raises:
        UserError: If the client is not installed, or the address is not an HTTP address.
    """

    def __init__(self, address: str, model: str | None, *, key: str = "", timeout: float = 120.0) -> None:
        place = read_address(address, setting="endpoint")
        self.shown = without_credentials(address)
        self._secrets = Secrets(key, *place.values)
        self._is_masked = bool(key or place.values)
        self._model = model
        self._client: Any = openai_module().OpenAI(**reaching(place, key), timeout=timeout)

    def stream(self, request: Request, on_text: Callable[[str], bool]) -> str:
        """Ask for a reply, and pass it on while it is written.

        Args:
            request: What to ask; its schema is not sent.
            on_text: Called with the whole text so far, without credentials, whenever there is more of it. Returns
                whether to go on.

        Returns:
            Why the reply ended, such as `stop` or `length`; empty if it was ended here.

        Raises:
            EndpointError: If there is no complete reply, such as if the endpoint does not say why it ended; the message
                contains no credentials.
        """
        try:
            return self._streamed(request, on_text, _LIMITS)
        except EndpointError:
            raise
        except Exception as error:  # the client's and the transport's, whose modules change with its version
            line = error_line(error, self._secrets)
            raise EndpointError(f"{line.rstrip('.')} ({self.shown})", is_answer=False) from None

    def model(self) -> str:
        """The model's name at the endpoint.

        Raises:
            EndpointError: If none was given and the endpoint does not list exactly one.
        """
        if self._model is None:
            try:
                names = sorted(each.id for each in self._client.models.list())
            except (AttributeError, TypeError, ValueError):  # the client does not check that it got a list
                raise EndpointError(f"{self.shown} sent no list of models; {_CHECK}", is_answer=True) from None
            if len(names) != 1:
                listed = ", ".join(names[:20]) or "none"
                raise EndpointError(
                    f"{self.shown} lists {len(names)} models ({self._secrets.mask(listed)}); name one, as in "
                    "NAME=MODEL@ADDRESS",
                    is_answer=True,
                )
            self._model = names[0]
        return self._model

    def close(self) -> None:
        """Close connections; replies that are being written fail."""
        self._client.close()

    def _streamed(self, request: Request, on_text: Callable[[str], bool], limits: tuple[str, ...]) -> str:
        """Ask with the first of the names of the limit; if the server refuses that, with the next or without one."""
        body = body_of(request, *limits[:1])
        try:
            stream = self._client.chat.completions.create(model=self.model(), messages=[], stream=True, extra_body=body)
        except Exception as error:
            if not limits or getattr(error, "status_code", None) != 400:
                raise
            if limits[1:] and limits[1] in str(error):
                return self._streamed(request, on_text, limits[1:])
            if not any(words in str(error) for words in _TOO_LONG):
                raise
            # without a limit, the reply can only be shorter: the context ends before the limit
            return self._streamed(request, on_text, ())
        with stream:
            return self._followed(stream, on_text)

    def _followed(self, stream: Any, on_text: Callable[[str], bool]) -> str:
        """Pass on the parts of a reply; returns why it ended."""
        text, reason, is_reply = "", "", False
        for part in stream:
            choices = getattr(part, "choices", None)
            is_reply = is_reply or isinstance(choices, list)
            choice = choices[0] if choices else None
            reason = (choice and choice.finish_reason) or reason
            new = without_surrogates((choice and choice.delta.content) or "")
            text += new
            if new and not on_text(self._secrets.mask(text) if self._is_masked else text):
                return ""
            if len(text) > _LONGEST_REPLY:
                raise EndpointError(f"the reply is longer than {_LONGEST_REPLY:,} characters", is_answer=True)
        if not is_reply:
            raise EndpointError(self._not_a_stream(stream), is_answer=True)
        if not reason:  # a connection that is closed too early looks like the end of a stream
            raise EndpointError(f"the reply ends without a finish_reason ({self.shown})", is_answer=True)
        return reason

    def _not_a_stream(self, stream: Any) -> str:
        """What came instead of a reply, such as the page of a proxy."""
        kind = self._secrets.mask(stream.response.headers.get("content-type", "")[:100]) or "no content type"
        return f"{self.shown} sent no chat completion ({kind}; expected text/event-stream); {_CHECK}"
