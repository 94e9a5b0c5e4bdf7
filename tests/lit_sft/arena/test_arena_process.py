"""The arena as a command, with a real model and a server, in a real browser: `make test-arena`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lit_sft.arena.ballots import read_ballots
from lit_sft.arena.login_limit import MOST_GUESSES
from lit_sft.models.adapters import causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.votes import read_votes
from tests.conftest import MODELS
from tests.lit_sft.arena.browsing import Tab, a_browser
from tests.lit_sft.streaming_server import StreamingServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of gradio and its libraries
]

PASSWORD = "a-password-for-tests"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with a_browser() as opened:
        yield opened


@pytest.fixture
def folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> str:
    """A small model with random weights."""
    torch.manual_seed(1)
    model = causal_lm(build_backbone(BackboneSettings(config=MODELS["gpt2"]), tokenizer))
    model.save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


class Proxy:
    """Counts connections of programs that want to reach anything but this machine."""

    def __init__(self) -> None:
        self.num_connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            self.num_connections += 1
            connection.close()


@contextmanager
def arena(*arguments: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start the command; gives the page's address and the process."""
    pytest.importorskip("gradio", reason="needs `make test-arena`, which installs gradio")
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "lit_sft", "arena", "--port", "0", *arguments],
        stdout=subprocess.PIPE, text=True, env=os.environ | environment,
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().removeprefix("arena: ").strip()
    print(f"\nstarted in {time.monotonic() - begin:.1f} s: {address}")
    try:
        yield address, process
    finally:
        process.kill()
        process.communicate()


def test_a_model_and_a_server_answer_and_nobody_else_is_asked(browser: Any, folder: str, tmp_path: Path) -> None:
    server, proxy, votes = StreamingServer(), Proxy(), tmp_path / "new" / "votes.jsonl"
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), proxy.address)
    given = ["--models", f"tiny={folder}", f"far=http://{server.place}", "--votes", str(votes), "--seed", "1"]
    with arena(*given, "--max_new_tokens", "8", **proxies, NO_PROXY="127.0.0.1", no_proxy="127.0.0.1") as (
        address,
        process,
    ):
        tab = Tab(browser.new_context(), address)
        tab.send("你好")
        tab.wait_for_text("Hello 你好!")
        tab.wait_until_enabled("Send")
        assert len(tab.answers()) == 2
        tab.show_blind()
        tab.send("Which?")
        tab.wait_until_enabled("Left is better").click()
        tab.wait_for_text("Your vote: Left is better. It is saved")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        assert proxy.num_connections == 0
        assert tab.requests
        assert all(request.startswith((address, "data:")) for request in tab.requests)
    (vote,) = read_votes(votes, pytest.fail)
    sides = {side.model: side for side in (vote.left, vote.right)}
    assert sides["far"].answer == "Hello 你好!"
    assert (len(sides["tiny"].digest), sides["far"].digest) == (16, "")
    assert {side.seed for side in sides.values()} == {1}
    assert read_ballots([votes]).groups.keys() == {"people"}
    server.close()


def test_a_page_that_others_can_reach_asks_for_the_password(browser: Any, folder: str, tmp_path: Path) -> None:
    given = ["--models", f"tiny={folder}", "--votes", str(tmp_path / "votes.jsonl"), "--host", "0.0.0.0"]
    with arena(*given, LIT_SFT_ARENA_PASSWORD=PASSWORD) as (address, _):
        page = browser.new_context().new_page()
        page.goto(address.replace("0.0.0.0", "127.0.0.1"))
        for password in ("wrong", PASSWORD):
            page.get_by_label("username").fill("anna")
            page.get_by_label("password").fill(password)
            page.get_by_role("button", name="Login").click()
            if password == "wrong":
                page.get_by_text("Incorrect Credentials").wait_for()
                assert page.locator(".message textarea").count() == 0
        page.locator(".message textarea").wait_for()
        refused = browser.new_context().request.post(
            f"{address.replace('0.0.0.0', '127.0.0.1')}gradio_api/queue/join", data={"data": [], "fn_index": 0}
        )
        assert refused.status == 401
        guess = {"username": "anna", "password": "wrong"}
        login = f"{address.replace('0.0.0.0', '127.0.0.1')}login"
        statuses = [browser.new_context().request.post(login, form=guess).status for _ in range(MOST_GUESSES)]
        assert statuses == [400] * (MOST_GUESSES - 1) + [429]  # one was wrong before
        page.reload()
        page.locator(".message textarea").wait_for()  # who is in stays in
