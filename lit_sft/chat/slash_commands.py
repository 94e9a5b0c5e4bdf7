"""Commands in a chat: lines that begin with a slash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from data_modules.errors import UserError
from data_modules.wording import counted, did_you_mean
from lit_sft.chat.saving import append_records, records_of
from lit_sft.chat.session import ChatSession
from lit_sft.chat.token_table import print_tokens
from lit_sft.console import print_line_on

Command = Callable[[ChatSession, str, Console], None]


class Quit(Exception):
    """The user wants to leave."""


def is_command(line: str) -> bool:
    """Whether a line is a command. A message can begin with two slashes; one of them is dropped."""
    return line.startswith("/") and not line.startswith("//")


def message_of(line: str) -> str:
    """The message in a line that is not a command."""
    return line[1:] if line.startswith("//") else line


def run_command(session: ChatSession, line: str, console: Console) -> None:
    """Run a command.

    Args:
        session: The conversation.
        line: Such as `/temperature 0.5`.
        console: Where to print what it says.

    Raises:
        UserError: If there is no such command, or its value is wrong.
        Quit: If the command is `/quit`.
    """
    name, _, value = line.strip().partition(" ")
    if name not in _COMMANDS:
        advice = did_you_mean(name, _COMMANDS) or "`/help` lists them."
        raise UserError(f"{name}: no such command; {advice} A message can begin with // instead.")
    _COMMANDS[name][0](session, value.strip(), console)


def _help(session: ChatSession, value: str, console: Console) -> None:
    width = max(len(f"{name} {values}") for name, (_, values, _) in _COMMANDS.items())
    for name, (_, values, meaning) in _COMMANDS.items():
        print_line_on(console, f"{f'{name} {values}':{width}}  {meaning}")
    print_line_on(console, f"{'Ctrl-C':{width}}  stop the answer")
    print_line_on(console, f"{'//...':{width}}  a message that begins with /")


def _reset(session: ChatSession, value: str, console: Console) -> None:
    session.reset()
    print_line_on(console, "a new conversation" + (", with the same system message" if session.system else ""))


def _system(session: ChatSession, value: str, console: Console) -> None:
    session.system = value
    print_line_on(console, "the system message is set" if value else "no system message")


def _temperature(session: ChatSession, value: str, console: Console) -> None:
    try:
        temperature = float(value) if value else session.settings.temperature
    except ValueError:
        raise UserError(f"/temperature {value}: not a number; expected one such as 0.7, or 0 for greedy.") from None
    try:
        session.settings = replace(session.settings, temperature=temperature)
    except UserError as error:
        raise UserError(f"/{error}") from None
    always = ": always the likeliest token" if temperature == 0 else ""
    print_line_on(console, f"temperature {temperature:g}{always}")


def _tokens(session: ChatSession, value: str, console: Console) -> None:
    if not session.exchanges:
        raise UserError("/tokens: the model was not given anything yet; send a message first.")
    print_tokens(console, session.exchanges[-1], session.model)


def _save(session: ChatSession, value: str, console: Console) -> None:
    if not value:
        raise UserError("/save: needs a file, such as `/save chat.jsonl`.")
    path = _file_of(value)
    place = path.absolute()
    # in a file that was removed meanwhile there is nothing
    num_saved = session.num_saved.get(place, 0) if path.exists() else 0
    records = records_of(session, num_saved=num_saved)
    try:
        append_records(path, records)
    except UserError as error:
        raise UserError(f"/save {error}") from None
    session.num_saved[place] = len(session.answered)
    num_messages = sum(len(record["messages"]) for record in records)
    print_line_on(console, f"{counted(num_messages, 'message')} added to {value}")
    if num_saved:
        print_line_on(console, "answers that this file has already are context with the weight 0")
    if len(records) > 1:
        print_line_on(
            console,
            f"as {len(records):,} records: the system message was changed, or the oldest exchanges no longer fitted; "
            "answers of earlier records are context with the weight 0",
        )


def _file_of(value: str) -> Path:
    """The file that a user named, without a shell to say which folder is meant by ~."""
    try:
        path = Path(value).expanduser()
    except RuntimeError:
        raise UserError(f"/save {value}: no such user; write the folder out.") from None
    if "\0" not in value and not path.absolute().parent.is_dir():
        raise UserError(f"/save {value}: there is no folder {path.absolute().parent}; create it, or choose another.")
    return path


def _quit(session: ChatSession, value: str, console: Console) -> None:
    raise Quit


_COMMANDS: dict[str, tuple[Command, str, str]] = {
    "/help": (_help, "", "list the commands"),
    "/reset": (_reset, "", "start a new conversation"),
    "/system": (_system, "TEXT", "set the system message for the next answers; without a text, remove it"),
    "/temperature": (_temperature, "T", "how freely to sample; 0 always takes the likeliest token"),
    "/tokens": (_tokens, "", "show the last prompt and answer token by token"),
    "/save": (_save, "FILE", "add the conversation to a file of JSON lines, which `fit` can read"),
    "/quit": (_quit, "", "leave, as does Ctrl-D"),
}
