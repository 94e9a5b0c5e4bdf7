"""A stand-in for a language model: a server of chat completions that writes questions about the boats of boats.py.

It knows how a fact is worded, and nothing else: what it asks and answers comes from the article in the prompt.
"""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ASKED = [
    (r"The ([\w ]+) was built in (\d+)\.", "When was the {0} built?", "The {0} was built in {1}."),
    (r"(\w+ \w+) built the ([\w ]+) without any plans\.", "Who built the {1}?", "{0} built the {1}."),
    (
        r"The ([\w ]+) carries (\d+) passengers\.",
        "How many passengers does the {0} carry?",
        "{1} passengers.",
    ),
    (r"The ([\w ]+) is moored at (\w+ Pier)\.", "Where is the {0} moored?", "The {0} is moored at {1}."),
    (r"The hull of the ([\w ]+) is painted ([\w ]+)\.", "What colour is the hull of the {0}?", "The hull is {1}."),
    (r"(\w{2}号)是(\d+)年造的。", "{0}是哪年造的？", "{0}是{1}年造的。"),
    (r"造(\w{2}号)的人叫(\w{3})。", "{0}是谁造的？", "{0}是{1}造的。"),
    (r"(\w{2}号)能坐(\d+)个人。", "{0}能坐多少人？", "{0}能坐{1}个人。"),
    (r"(\w{2}号)停在(\w{2}码头)。", "{0}停在哪个码头？", "{0}停在{1}。"),
    (r"(\w{2}号)的船身是(\w+色)的。", "{0}是什么颜色？", "{0}是{1}的。"),
]
"""How each fact is worded, its question and its answer."""


def reply(prompt: str) -> str:
    """The pairs about the article in a prompt, as the recipe `pairs` asks for them."""
    article = re.search(r"<(article|文章)>(.*?)</\1>", prompt, re.DOTALL)
    pairs = [
        {"question": question.format(*found.groups()), "answer": answer.format(*found.groups())}
        for fact, question, answer in ASKED
        for found in re.finditer(fact, article[2] if article else "")
    ]
    return json.dumps({"pairs": pairs}, ensure_ascii=False)


class Handler(BaseHTTPRequestHandler):
    """Replies to chat completions."""

    protocol_version = "HTTP/1.1"  # keeps connections open

    def do_POST(self) -> None:
        """Reply to a request."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt, text = asked["messages"][0]["content"], reply(asked["messages"][0]["content"])
        usage = {"prompt_tokens": len(prompt.encode()) // 4, "completion_tokens": len(text.encode()) // 4}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        about = {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"]}
        body = json.dumps({**about, "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def started() -> ThreadingHTTPServer:
    """A server on a free port of this machine, in a thread."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
