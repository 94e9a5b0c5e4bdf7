"""The serve command: what it is given, what it refuses, how it starts and stops."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs the extra `serve`")
pytest.importorskip("openai", reason="needs the extra `endpoint`")

import openai
from transformers import PreTrainedTokenizerFast

from data_modules.errors import UserError
from lit_sft.models.adapters import causal_lm
from lit_sft.serve.command import main, read_key
from tests.lit_sft.models.test_generation import build
from tests.lit_sft.serve.running import HELLO

KEY = "correct-horse-battery-staple"


@pytest.fixture
def folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> str:
    causal_lm(build("gpt2", tokenizer)).save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


def test_a_key_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert read_key(str(tmp_path / "key"), "") == read_key(None, KEY) == KEY
    assert read_key(None, "") == ""
    with pytest.raises(UserError, match="LIT_SFT_SERVE_KEY is set too; use one of them"):
        read_key(str(tmp_path / "key"), KEY)


@pytest.mark.parametrize(
    "key", ["too-short", "a key with spaces in it", "ключ-ключ-ключ-ключ", "", "sixteen\x01letters!"]
)
def test_a_key_that_is_too_short_or_cannot_be_sent_is_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "key").write_text(key)
    with pytest.raises(UserError, match="expected a key of at least 16 letters") as raised:
        read_key(str(tmp_path / "key"), "")
    assert not key or key not in str(raised.value)


def test_a_key_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--key_file .*nothing: No such file"):
        read_key(str(tmp_path / "nothing"), "")
    (tmp_path / "key").write_bytes(b"\xff" * 20)
    with pytest.raises(UserError, match="not text"):
        read_key(str(tmp_path / "key"), "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "other machines could use the models without a key. Set LIT_SFT_SERVE_KEY"),
        (["--batch_size", "0"], "--batch_size 0: expected at least 1."),
        (["--max_waiting", "-1"], "--max_waiting -1: expected at least 1."),
        (["--host", "a..b"], "--host a..b --port 8000: cannot listen there (not a name of a machine); choose another"),
        (["--port", "70000"], "--port 70000: expected 0 to 65535."),
        (["{folder}", "a={folder}", "tiny={folder}"], "a second model named tiny; name it as in other="),
        (["=x"], "=x: expected NAME=MODEL"),
        (["x="], "x=: expected NAME=MODEL"),
        (["{folder}/nothing"], "no such folder"),
        (["--run.root", "{folder}"], "no run with a checkpoint"),
        (["--device", "cuda:99"], "--device cuda:99: PyTorch finds no such device on this machine"),
        (["--device", "toaster"], "--device toaster: no such device; expected auto, cpu, cuda"),
        (["--batch_sise", "1"], "--batch_sise: no such option; did you mean --batch_size?"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_before_the_server_starts(
    folder: str, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIT_SFT_SERVE_KEY", KEY if "a..b" in arguments else "")
    given = [each.format(folder=folder) for each in arguments]
    models = [] if set(given) & {"--run.root", "=x", "x="} or folder in str(given) else [folder]
    with pytest.raises(UserError) as raised:
        main(["serve", *models, *given])
    assert message in str(raised.value)


def test_a_port_that_is_taken_is_refused(folder: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: cannot listen there .*; choose another port"):
            main(["serve", folder, "--port", str(port)])


def test_it_starts_answers_with_the_key_and_stops_at_ctrl_c(folder: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lit_sft", "serve", f"small={folder}", "--port", "0"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env=os.environ | {"LIT_SFT_SERVE_KEY": KEY, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "clients must send" in line:
                break
        address = re.search(r"http://127\.0\.0\.1:\d+/v1", "".join(lines))
        assert address, lines
        with openai.OpenAI(base_url=address[0], api_key=KEY, max_retries=0) as client:
            found = client.chat.completions.create(model="small", messages=HELLO, max_tokens=3)  # type: ignore[arg-type]
        assert found.usage is not None
        assert found.usage.completion_tokens == 3
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 0
    assert rest.splitlines()[-1] == "serve: stopped"
    assert re.search(r"\d\d:\d\d:\d\d /v1/chat/completions small 200, \d+ \+ 3 tokens, ", rest)
    assert KEY not in "".join(lines) + rest
