"""Serves the arena's page on this machine, without analytics, share links or requests to anywhere else."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from data_modules.errors import UserError
from lit_sft.arena.login_limit import MOST_GUESSES, LoginLimit
from lit_sft.arena.page_parts import CSS

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'self'; "
    "object-src 'none'; frame-ancestors 'none'"
)
"""What a browser may load: nothing from elsewhere, whatever Gradio or a model's answer asks for. Gradio's own scripts
are partly inline and compile templates."""

LOOPBACK = ("127.0.0.1", "localhost")
"""Addresses that only this machine reaches."""


_ABOUT_LOGIN = f"Any user name will do. After {MOST_GUESSES} wrong passwords, wait a minute before you try again."


class _Guarded:
    """Adds the policy to responses, and refuses what pages of other sites send: Gradio would take files from them.

    Args:
        app: The ASGI application.
    """

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request."""
        if scope["type"] == "http" and _is_foreign(scope):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"sent by a page of another site"})
            return

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", _POLICY.encode()),
                    (b"referrer-policy", b"same-origin"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self._app(scope, receive, send_with_policy if scope["type"] == "http" else send)


def _is_foreign(scope: Any) -> bool:
    """Whether a request that may change something comes from a page of another site."""
    headers = dict(scope["headers"])
    origin = headers.get(b"origin", b"").decode("latin-1")
    is_own = origin.partition("://")[2] == headers.get(b"host", b"").decode("latin-1")
    return bool(origin) and scope["method"] not in ("GET", "HEAD") and not is_own


def serve_page(page: Any, *, host: str, port: int, password: str = "") -> str:
    """Start to serve a page in the background.

    Args:
        page: A page of Gradio's.
        host: The address to listen on.
        port: The port; 0 for a free one from 7860 on.
        password: What users must enter; empty for none.

    Returns:
        The page's address, with `host` in it.

    Raises:
        UserError: If the port is taken, or the address is not this machine's.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at import, too
    _bypass_proxies(host)

    def is_allowed(user: str, given: str) -> bool:
        return hmac.compare_digest(given.encode(), password.encode())

    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port or None,
            auth=is_allowed if password else None,
            auth_message=_ABOUT_LOGIN if password else None,
            app_kwargs={"middleware": _middleware(is_local=not password)},
            theme=_theme(),
            css=CSS,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            run_history=False,
            enable_monitoring=False,
            num_workers=0,
            footer_links=[],
            max_file_size="1kb",
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError:
        raise UserError(f"--port {port}: cannot be used on {host}; it may be taken. Choose another one.") from None
    return with_host(str(address), host)


def with_host(address: str, host: str) -> str:
    """The address of a page with the host that it listens on; Gradio has `localhost` for all of this machine's."""
    shown = f"[{host}]" if ":" in host else host
    return urlunsplit(urlsplit(address)._replace(netloc=f"{shown}:{urlsplit(address).port}"))


def _theme() -> Any:
    """Gradio's plain theme with fonts of the system, and with hints that are dark enough to read."""
    import gradio as gr

    plain = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return plain.set(
        body_text_color_subdued="*neutral_600",
        block_info_text_color="*neutral_600",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
        error_text_color_dark="#fca5a5",
    )


def _middleware(*, is_local: bool) -> list[Any]:
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # a page elsewhere can make its own name mean this machine (DNS rebinding), but its requests still carry that name
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK])
    return [Middleware(_Guarded), hosts if is_local else Middleware(LoginLimit)]


def _bypass_proxies(host: str) -> None:
    """Gradio asks its own server whether it is up, which must not go through the user's proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), *LOOPBACK, host)))
