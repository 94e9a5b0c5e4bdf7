"""A server of chat completions that fails at known rates, each fault drawn from the request, so that runs repeat."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FAULTS = ("429", "429 bare", "500", "hang", "drop", "cut")
"""Faults of single attempts: too many requests with and without Retry-After, a server error, no reply until the client
hangs up, a connection closed without a byte, and one closed in the middle of the reply."""

Write = Callable[[dict[str, Any]], str]
"""Writes the text of a reply to a request."""


@dataclass(frozen=True)
class Draw:
    """Draws from a request, not from the time or the order of requests.

    Attributes:
        seed: Of all draws.
        rates: Probability of each fault of an attempt; see FAULTS.
    """

    seed: int = 0
    rates: Mapping[str, float] | None = None

    def number(self, *of: object) -> float:
        """A number below 1."""
        return random.Random(hashlib.sha256(repr((self.seed, *of)).encode()).digest()).random()

    def fault(self, digest: str, attempt: int) -> str:
        """The fault of an attempt; empty for none."""
        drawn = self.number(digest, attempt)
        for fault, rate in (self.rates or {}).items():
            drawn -= rate
            if drawn < 0:
                return fault
        return ""


class StubServer:
    """A server of chat completions on this machine.

    Args:
        write: Writes the text of a reply to the body of a request.
        draw: Draws the faults.
        latency: Seconds before each reply.
    """

    def __init__(self, write: Write, draw: Draw | None = None, *, latency: float = 0.0) -> None:
        self.write, self.draw, self.latency = write, draw or Draw(), latency
        self.usage: Callable[[dict[str, Any], str], Any] = _usage
        self.attempts = Counter[str]()
        """Attempts by request."""
        self.replies = Counter[str]()
        """Complete replies by request, as they would be billed."""
        self.faults = Counter[str]()
        self.bodies: list[dict[str, Any]] | None = None
        """Every request, if a list is put here; large tests keep none."""
        self.headers: list[dict[str, str]] | None = None
        self.message = "as drawn"
        """Of error responses."""
        self.dies_after: int | None = None
        """Replies after which every connection is closed."""
        self.body = ""
        """Sent instead of every reply, if given."""
        self.under_way = 0
        self.too_many = {"Retry-After": "0.02"}
        """Headers of a 429 response."""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # keeps connections
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                with stub._counted():
                    try:
                        stub.answer(self, raw)
                    except OSError:
                        self.close_connection = True  # the client has hung up

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Print nothing: clients that hang up are killed processes."""

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self) -> None:
        self._ended.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, raw: bytes) -> None:
        body = json.loads(raw)
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
        with self._lock:
            self.attempts[digest] += 1
            if self.bodies is not None:
                self.bodies.append(body)
            if self.headers is not None:
                self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            has_died = self.dies_after is not None and self.replies.total() >= self.dies_after
            is_gone = self._ended.is_set() or has_died
            fault = "drop" if is_gone else self.draw.fault(digest, self.attempts[digest])
            self.faults[fault] += 1
        if self.latency:
            self._ended.wait(self.latency)
        if fault:
            self._fail(handler, fault)
            return
        text = self.body or self._completion(body)
        with self._lock:
            self.replies[digest] += 1
        self._send(handler, 200, text)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self.under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self.under_way -= 1

    def _completion(self, body: dict[str, Any]) -> str:
        text = self.write(body)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        about = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
        return json.dumps({**about, "choices": [choice], "usage": self.usage(body, text)})

    def _fail(self, handler: BaseHTTPRequestHandler, fault: str) -> None:
        if fault[:3].isdigit():
            headers = self.too_many if fault == "429" else {}
            self._send(handler, int(fault[:3]), json.dumps({"error": {"message": self.message}}), headers)
            return
        handler.close_connection = True
        if fault == "hang":
            handler.connection.recv(1)  # until the client hangs up
        elif fault == "cut":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b'{"choices": [{"mess')
        handler.connection.shutdown(socket.SHUT_RDWR)

    def _send(
        self, handler: BaseHTTPRequestHandler, status: int, text: str, headers: Mapping[str, str] | None = None
    ) -> None:
        handler.send_response_only(status)
        length = str(len(text.encode()))
        for name, value in {"Content-Type": "application/json", "Content-Length": length, **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(text.encode())


def _usage(body: dict[str, Any], text: str) -> dict[str, int]:
    """A token for every four bytes."""
    size = sum(len(message["content"].encode()) for message in body["messages"])
    return {"prompt_tokens": size // 4 + 1, "completion_tokens": len(text.encode()) // 4 + 1}


def serve(write: Write, *, latency: float) -> None:
    """Serve until standard input ends; prints the address. For a process of its own: `stub_process`."""
    server = StubServer(write, latency=latency)
    print(server.address, flush=True)
    sys.stdin.read()
    server.close()


@contextmanager
def stubs(usual: Write) -> Iterator[Callable[..., StubServer]]:
    """Gives a function that starts servers, which record their requests, and stops them in the end.

    Args:
        usual: Writes their replies, unless the function is given another writer.
    """
    started: list[StubServer] = []

    def _start(write: Write = usual, draw: Draw | None = None) -> StubServer:
        server = StubServer(write, draw)
        server.bodies, server.headers = [], []
        started.append(server)
        return server

    yield _start
    for server in started:
        server.close()


@contextmanager
def stub_process(write: str, *, latency: float) -> Iterator[str]:
    """Serve from another process, whose work does not slow down this one; gives the address.

    Args:
        write: Module and name of a function, such as `tests.lit_sft.synthesis.writer:write_pairs`.
        latency: Seconds before each reply.
    """
    module, name = write.split(":")
    code = f"from {module} import {name}; from {__name__} import serve; serve({name}, latency={latency})"
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()
