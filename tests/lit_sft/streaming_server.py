"""A server of streamed chat completions."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StreamingServer:
    """A server whose replies are written in the given pieces.

    It can break off before the end of a reply, or answer everything with a page as a proxy does.
    """

    def __init__(self) -> None:
        self.pieces: list[str] = ["He", "llo", " 你好", "!"]
        self.reason = "stop"
        self.is_broken_off = False
        self.page = ""
        self.models = ["only"]
        self.error: tuple[int, str] | None = None
        self.is_without_limit_accepted = False
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.is_hung_up = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if server.page:
                    self._send_page()
                    return
                self._send(200, {"object": "list", "data": [_model(name) for name in server.models]})

            def do_POST(self) -> None:
                server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                has_limit = any("tokens" in name for name in server.bodies[-1])
                if server.error and (has_limit or not server.is_without_limit_accepted):
                    status, message = server.error
                    self._send(status, {"error": {"message": message}})
                    return
                if server.page:
                    self._send_page()
                    return
                self.send_response_only(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                try:
                    self._stream()
                except OSError:
                    server.is_hung_up.set()

            def _stream(self) -> None:
                for text in server.pieces:
                    self._event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})
                if server.is_broken_off:
                    return
                self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": server.reason}]})
                self._event({"choices": [], "usage": {"prompt_tokens": 3}})
                self.wfile.write(b"data: [DONE]\n\n")

            def _event(self, values: dict[str, Any]) -> None:
                self.wfile.write(f"data: {json.dumps({'id': 'x', 'object': 'c', **values})}\n\n".encode())
                self.wfile.flush()

            def _send_page(self) -> None:
                self.send_response_only(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(server.page.encode())

            def _send(self, status: int, values: dict[str, Any]) -> None:
                body = json.dumps(values).encode()
                self.send_response_only(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "x"}
