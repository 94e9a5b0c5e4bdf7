"""Chatting over a pipe and in a pseudo-terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from lit_sft.__main__ import main
from lit_sft.chat import conversing
from lit_sft.chat.conversing import answer_lines
from lit_sft.chat.session import ChatSession
from lit_sft.chat.slash_commands import Quit
from lit_sft.models.generation import GenerationSettings
from lit_sft.models.loaded import LoadedModel
from lit_sft.printable import printable
from tests.waiting import LONGEST

_WIDTH = 80
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def session(model: LoadedModel) -> ChatSession:
    return ChatSession(model, GenerationSettings(max_new_tokens=8))


def piped(session: ChatSession, text: str | bytes) -> tuple[list[str], bool]:
    answers = io.StringIO()
    has_all = answer_lines(session, io.BytesIO(text.encode() if isinstance(text, str) else text), answers)
    return answers.getvalue().split("\n")[:-1], has_all


def test_every_line_of_a_pipe_gets_one_line(session: ChatSession, model: LoadedModel) -> None:
    lines, has_all = piped(session, "\ufeffHello\r\n你好\n//x\nlast")
    again = ChatSession(model, session.settings)
    assert lines == [printable(again.ask(text).answer.text) for text in ("Hello", "你好", "/x", "last")]
    assert has_all


def test_a_line_that_cannot_be_answered_gets_an_empty_line_and_a_reason(
    session: ChatSession, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, has_all = piped(session, b"\n\xff\n" + b"x" * 600 + b"\nHello\n")
    assert [bool(line) for line in lines] == [False, False, False, True]
    assert not has_all
    said = capsys.readouterr().err
    assert "line 1: the message is empty" in said
    assert "line 2: not UTF-8 text" in said
    assert re.search(r"line 3: the message: \d+ tokens with the template; expected fewer than 512", said)


def test_commands_over_a_pipe_write_no_answers(
    session: ChatSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = f"/system Be brief.\n/temperature 0\nHello\n/save {tmp_path}/chat.jsonl\n/reset\n/quit\nnot read\n"
    lines, has_all = piped(session, commands)
    assert len(lines) == 1
    assert has_all
    record = json.loads((tmp_path / "chat.jsonl").read_text())
    assert [message["content"] for message in record["messages"]][:2] == ["Be brief.", "Hello"]
    assert f"3 messages added to {tmp_path}/chat.jsonl" in capsys.readouterr().err


def test_save_says_when_a_conversation_is_several_records_and_spares_other_files(
    session: ChatSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("secret\n")
    commands = f"Hello\n/system Be brief.\nAgain\n/save {tmp_path}/chat.jsonl\n/save {tmp_path}/key\n/save \0\n"
    lines, has_all = piped(session, commands)
    assert (len(lines), has_all) == (2, False)
    first, second = (json.loads(line) for line in (tmp_path / "chat.jsonl").read_text().splitlines())
    assert [message["role"] for message in first["messages"]] == ["user", "assistant"]
    assert second["messages"][0] == {"role": "system", "content": "Be brief."}
    said = capsys.readouterr().err
    assert "7 messages added" in said
    assert "as 2 records: the system message was changed" in said
    assert f"line 5: /save {tmp_path}/key:1: not a conversation that `/save` wrote" in said
    assert "line 6: /save" in said
    assert (tmp_path / "key").read_text() == "secret\n"


def test_a_conversation_that_is_saved_again_adds_only_its_new_answers(
    session: ChatSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, other = tmp_path / "chat.jsonl", tmp_path / "other.jsonl"
    commands = f"Hello\n/save {path}\n/save {path}\nAgain\n/save {path}\n/save {other}\n"
    assert piped(session, commands)[1] is False
    said = capsys.readouterr().err
    assert "line 3: this conversation is saved there already; there are no new answers." in said
    assert "answers that this file has already are context with the weight 0" in said
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [[made and made["end"] for made in row["provenance"]["answers"]] for row in rows] == [["cut"], [None, "cut"]]
    assert [message["content"] for message in rows[1]["messages"]][::2] == ["Hello", "Again"]
    assert len(other.read_text().splitlines()) == 1
    path.unlink()
    assert piped(session, f"/save {path}\n") == ([], True)
    assert json.loads(path.read_text()) == json.loads(other.read_text())
    assert piped(session, f"/reset\nNew\n/save {path}\n")[1]
    assert len(path.read_text().splitlines()) == 2


def test_ctrl_c_during_a_command_does_not_end_the_program(
    session: ChatSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(["/tokens", "/quit"])

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt if next(commands) else Quit

    commands = iter([True, False])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    monkeypatch.setattr(conversing, "run_command", interrupted)
    conversing.converse(session)
    assert not [*lines, *commands]
    assert "(Ctrl-D or /quit leaves)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/tokns", "/tokns: no such command; did you mean /tokens?"),
        ("/tokens", "/tokens: the model was not given anything yet; send a message first."),
        ("/temperature warm", "/temperature warm: not a number; expected one such as 0.7, or 0 for greedy."),
        ("/temperature -1", "/temperature -1: expected at least 0."),
        ("/save", "/save: needs a file, such as `/save chat.jsonl`."),
        ("/save chat.jsonl", "there is nothing to save yet: no message has an answer."),
        (
            "/save /no/place/a.jsonl",
            "/save /no/place/a.jsonl: there is no folder /no/place; create it, or choose another.",
        ),
        ("/save ~nobody-at-all/a.jsonl", "/save ~nobody-at-all/a.jsonl: no such user; write the folder out."),
    ],
)
def test_a_wrong_command_is_explained(
    session: ChatSession, line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert piped(session, f"{line}\n") == ([], False)
    assert f"line 1: {message}" in capsys.readouterr().err


def test_one_token_is_not_tokens(session: ChatSession, capsys: pytest.CaptureFixture[str]) -> None:
    session.settings = replace(session.settings, max_new_tokens=1)
    assert piped(session, "Hello\n")[1]
    assert "(cut after 1 token)" in capsys.readouterr().err


def test_a_file_in_the_home_folder_can_be_named_by_a_tilde(
    session: ChatSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert piped(session, "Hello\n/save ~/chat.jsonl\n")[1]
    assert [path.name for path in tmp_path.iterdir()] == ["chat.jsonl"]


def test_control_characters_of_an_answer_do_not_reach_the_terminal(session: ChatSession) -> None:
    (line,), _ = piped(session, "Hello\n")
    assert all(unicodedata.category(character) not in ("Cc", "Zl", "Zp") for character in line)


def test_a_wrong_option_or_model_is_one_message(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["chat", str(tmp_path), "--temperature", "-1"]) == 2
    assert capsys.readouterr().err == "lit_sft chat: --temperature -1: expected at least 0.\n"
    assert main(["chat", "--run.root", str(tmp_path)]) == 2
    assert "no run with a checkpoint" in capsys.readouterr().err
    assert main(["chat", str(tmp_path)]) == 2
    assert "this folder contains no model" in capsys.readouterr().err


class PseudoTerminal:
    """A chat in a terminal of 80 columns."""

    def __init__(self, *arguments: str) -> None:
        self.master, terminal = pty.openpty()
        settings = {"TERM": "xterm", "COLUMNS": str(_WIDTH), "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lit_sft", "chat", *arguments],
            stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
            preexec_fn=_take_terminal, env=os.environ | settings,
        )  # fmt: skip
        os.close(terminal)
        self.seen = ""
        self._raw = b""

    def __enter__(self) -> PseudoTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def type(self, text: str) -> None:
        self.seen, self._raw = "", b""
        os.write(self.master, text.encode())

    def wait_for(self, pattern: str, *, again: str = "") -> str:
        """Read until the output since the last input matches; returns that output.

        Args:
            pattern: What to wait for.
            again: Typed again after every second without output. Python loses a Ctrl-C that comes between the prompt
                and the moment when it begins to wait for a key.
        """
        gives_up_at = time.monotonic() + LONGEST
        while not re.search(pattern, self.seen):
            assert time.monotonic() < gives_up_at, self.seen
            is_readable = select.select([self.master], [], [], 1.0)[0]
            if again and not is_readable:
                os.write(self.master, again.encode())
            if is_readable:
                try:
                    self._raw += os.read(self.master, 4096)
                except OSError:  # the other end is closed
                    break
                self.seen = _ESCAPES.sub("", self._raw.decode("utf-8", "replace")).replace("\r", "")
        assert re.search(pattern, self.seen), self.seen
        return self.seen


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches the process as a signal


def width(line: str) -> int:
    """Columns of a line on a terminal."""
    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in line)


def test_chat_in_a_terminal(folder: str) -> None:
    with PseudoTerminal(folder, "--temperature", "0", "--max_new_tokens", "8000") as chat:
        check_chat(chat)


def check_chat(chat: PseudoTerminal) -> None:
    chat.wait_for(r"/help lists the commands.*\n> $")
    chat.type("你好\x7f们，请说说山上的羊和草地上的花还有村子里的人们今天都在做什么呢\n")
    streamed = chat.wait_for(r"什么呢\n[^\n]{20}")  # the answer goes on for 8,000 tokens
    assert "你好\b\b们，请" in streamed  # deleting the wide character goes back two columns
    chat.type("\x03")
    chat.wait_for(r"\(stopped\)\n> $")
    chat.type("/tokens\n")
    table = chat.wait_for(r"tokens of prompt, [\d,]+ of answer.*\n> $").splitlines()
    assert all(width(line) <= _WIDTH for line in table[:-2])
    head = next(line for line in table if line.startswith("part"))
    (user,) = (line.rstrip() for line in table if line.startswith("user"))
    start = width(head[: head.index("ids")])
    ids = user.rpartition("  ")[2]
    assert ids.startswith("228 189 160")  # the first bytes of 你; the deleted 好 was not sent
    assert width(user[: -len(ids)]) == start
    chat.type("\x03")
    chat.wait_for(r"\(Ctrl-D or /quit leaves\)\n> $", again="\x03")
    chat.type("/quit\n")
    assert chat.process.wait() == 0
