"""The loop of a chat: lines in, answers out, on a terminal or over a pipe."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import BinaryIO, TextIO

from data_modules.errors import UserError
from data_modules.wording import counted
from lit_sft.chat.session import ChatSession, Exchange
from lit_sft.chat.slash_commands import Quit, is_command, message_of, run_command
from lit_sft.console import error_console, print_error_line, print_line
from lit_sft.files import error_line
from lit_sft.models.fitted_prompt import about_left_out, is_empty_answer
from lit_sft.models.unfinished import Piece
from lit_sft.printable import printable

_PROMPT = "> "


def converse(session: ChatSession) -> None:
    """Talk on a terminal until the user leaves. Answers appear as they are made; Ctrl-C stops one."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives `input` a history and an editor that knows wide characters
    while True:
        try:
            _respond(session, input(_PROMPT))
        except EOFError:
            print_line("")
            return
        except Quit:
            return
        except KeyboardInterrupt:  # at the prompt, in a command, or just after an answer that it was to stop
            print_line("\n(Ctrl-D or /quit leaves)")
        except UnicodeDecodeError:
            print_line("not valid text in the encoding of this terminal; nothing was sent")
        except (UserError, OSError) as error:
            print_line(error_line(error))


def answer_lines(session: ChatSession, lines: BinaryIO, answers: TextIO) -> bool:
    """Answer messages over a pipe: each line is a message, and each answer is a line.

    Line breaks in answers are written as `↵`. A line without an answer gives an empty line. What commands say, and what
    goes wrong, goes to stderr.

    Args:
        session: The conversation; it goes on from line to line.
        lines: Messages and commands, UTF-8.
        answers: Where answers are written.

    Returns:
        Whether no line was refused.
    """
    has_all = True
    for number, raw in enumerate(iter(lines.readline, b""), start=1):
        place, text = f"line {number}", ""
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8", "replace").rstrip("\r\n")
        try:
            if is_command(line):
                run_command(session, line, error_console)
            else:
                raw.decode()
                text = _answered(session, line, place)
        except Quit:
            break
        except (UserError, OSError, UnicodeDecodeError) as error:
            reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error_line(error)
            print_error_line(f"{place}: {reason}")
            has_all = False
        if not is_command(line):
            answers.write(printable(text) + "\n")
            answers.flush()
    return has_all


def _answered(session: ChatSession, line: str, place: str) -> str:
    exchange = session.ask(message_of(line))
    _warn(exchange, f"{place}: ")
    return exchange.answer.text


def _respond(session: ChatSession, line: str) -> None:
    """Run a command, or send a message and show the answer as it is made."""
    if not line.strip():
        return
    if is_command(line):
        run_command(session, line, error_console)
        return
    with _stopping() as stop:
        try:
            exchange = session.ask(message_of(line), _show, stop.is_set)
        except KeyboardInterrupt:  # the second Ctrl-C, if the model does not get to its next token
            print_line("\n(stopped; the message is not part of the conversation)")
            return
    print_line("")
    _warn(exchange, "")


def _show(piece: Piece) -> None:
    sys.stdout.write(printable(piece.text, keep_lines=True))
    sys.stdout.flush()


def _warn(exchange: Exchange, place: str) -> None:
    """Say what the text of an answer does not show."""
    answer = exchange.answer
    if left_out := about_left_out(exchange.num_left_out):
        print_error_line(f"{place}({left_out})")
    if answer.is_cut:
        print_error_line(f"{place}(cut after {counted(answer.num_tokens, 'token')})")
    elif answer.is_cancelled:
        print_error_line(f"{place}(stopped)")
    elif is_empty_answer(answer.text):
        print_error_line(f"{place}(an empty answer, which the next prompts leave out)")


@contextlib.contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Set an event on Ctrl-C instead of interrupting the program; the second Ctrl-C interrupts."""
    stop = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
