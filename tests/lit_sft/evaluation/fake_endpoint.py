"""A server of chat completions on this machine that fails in every way endpoints do."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lit_sft.evaluation.judge import EndpointJudge
from lit_sft.evaluation.suite import JudgeSettings
from lit_sft.evaluation.win_rate import Pair, SetVerdicts, judge_pairs

FLOOD = 500


class Endpoint:
    """A server of chat completions that prefers the longer answer, or replies with the result of `reply`."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.seen: list[tuple[str, str]] = []
        """Path and `Authorization` of each request."""
        self.error = ""
        """Message of a 401 response."""
        self.usage: Any = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        self.faults: dict[str, str] = {}
        """Maps a word in the request to the fault of its first attempt; `always X`: of every attempt."""
        self.reply: Callable[[str], str] = prefer_longer
        self.flooded = 0
        """Number of 64 KB chunks sent by floods."""
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.seen.append((self.path, self.headers["Authorization"]))
                endpoint.answer(self, body["messages"][0]["content"])

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def answer(self, handler: BaseHTTPRequestHandler, prompt: str) -> None:
        with self._lock:
            self.requests.append(prompt)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            word = next((word for word in self.faults if word in prompt), "")
            fault = self.faults.get(word, "")
            if fault and not fault.startswith("always"):
                del self.faults[word]
        try:
            self._send(handler, prompt, fault.removeprefix("always "))
        except OSError:
            pass  # the client has hung up
        finally:
            with self._lock:
                self._at_once -= 1

    def _send(self, handler: BaseHTTPRequestHandler, prompt: str, fault: str) -> None:
        message = {"role": "assistant", "content": self.reply(prompt)}
        choices = [] if fault == "empty" else [{"index": 0, "finish_reason": "stop", "message": message}]
        about = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
        data = json.dumps({**about, "choices": choices, "usage": self.usage})
        if fault == "401":
            data = json.dumps({"error": {"message": self.error}})
        if fault == "malformed":
            data = data[:-20] + "]]"
        if fault == "deep":
            data = "[" * 100_000 + "]" * 100_000
        if fault == "html":
            data = "<html>Sign in</html>"
        if fault == "hang":
            handler.connection.recv(1)  # until the client hangs up
            return
        if fault.startswith("flood"):
            self._flood(handler, int(fault.removeprefix("flood ")))
            return
        handler.send_response(int(fault) if fault.isdigit() else 200)
        handler.send_header("Content-Type", "text/html" if fault == "html" else "application/json")
        if fault == "429":
            handler.send_header("Retry-After", "0.1")
        handler.send_header("Content-Length", str(len(data.encode())))
        handler.end_headers()
        if fault == "drip":
            self._drip(handler, data)
            return
        handler.wfile.write(data.encode()[: 40 if fault == "truncated" else None])

    def _flood(self, handler: BaseHTTPRequestHandler, status: int) -> None:
        """Far more than anybody should read, until the client hangs up."""
        handler.send_response(status)
        handler.send_header("Location", self.address)
        handler.end_headers()
        for _ in range(FLOOD):
            handler.wfile.write(b"x " * 2**15)
            self.flooded += 1

    def _drip(self, handler: BaseHTTPRequestHandler, data: str) -> None:
        """Sends a byte now and then without ever finishing: each read is in time, the whole reply is not."""
        pause = threading.Event()
        for byte in data.encode()[:-1]:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            pause.wait(0.02)
        handler.connection.recv(1)  # until the client hangs up


def prefer_longer(prompt: str) -> str:
    first, second = re.findall(r"<answer_[AB]>\n(.*?)\n</answer_[AB]>", prompt, re.DOTALL)
    winner = "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"
    return json.dumps({"winner": winner})


def settings_of(server: Endpoint, **changed: Any) -> JudgeSettings:
    return JudgeSettings(
        **{"sets": [], "model": "m", "endpoint": server.address, "timeout": 600.0, "retries": 2} | changed
    )


def pairs(count: int) -> list[Pair]:
    return [Pair(f"i{n}", f"question number{n}.", "short", "long answer" if n % 3 else "brief") for n in range(count)]


def judged(server: Endpoint, folder: Path, some: list[Pair], **changed: Any) -> SetVerdicts:
    settings = settings_of(server, **changed)
    judge = EndpointJudge(settings, folder / "replies.jsonl")
    price = settings.price_read / 1e6, settings.price_written / 1e6
    return SetVerdicts(judge_pairs(judge, some, settings.concurrency, lambda: None), price)
