"""Makes the pages of `--help` from the real parsers: `make help-pages`."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import re
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NoReturn, Union, get_args, get_origin
from unittest.mock import patch

from lit_sft.__main__ import COMMANDS
from lit_sft.help_pages import ESSENTIAL, PAGES, SECTIONS, Option

OTHERS = {"tokenizer": "its commands have pages of their own, which are quick to import"}
"""Commands without a page, and why."""

_SECTIONS = tuple(section for sections in SECTIONS.values() for section in sections)


class Captured(Exception):
    """Carries a parser that was asked for its help."""


def made_pages() -> dict[str, Any]:
    """The pages as they should be."""
    commands = {}
    for command in COMMANDS:
        if command not in OTHERS:
            parser = parser_of(command)
            commands[command] = _page(parser, without=_SECTIONS if command in ESSENTIAL else ())
    fit, text = parser_of("fit"), parser_of("fit", "--data_module", "text")
    sections = {section: _options(fit._actions, section) for section in _SECTIONS}
    about = {name: purpose for name, (_, purpose) in COMMANDS.items()}
    return {
        "about": about,
        "commands": commands,
        "sections": {**sections, "data_of_text": _options(text._actions, "data")},
    }


def parser_of(command: str, *arguments: str) -> argparse.ArgumentParser:
    """The real parser of a command."""
    module, function = COMMANDS[command][0].split(":")
    with _captured():
        try:
            getattr(importlib.import_module(module), function)([command, *arguments, "--help"])
        except Captured as found:
            parser: argparse.ArgumentParser = found.args[0]
            return parser
    raise AssertionError(f"{command} --help printed nothing")


@contextmanager
def _captured() -> Iterator[None]:
    def capture(self: argparse.ArgumentParser, *rest: Any) -> NoReturn:
        raise Captured(self)

    with patch.object(argparse.ArgumentParser, "print_help", capture), patch.dict(os.environ, {"COLUMNS": "10000"}):
        yield


def _page(parser: argparse.ArgumentParser, without: Iterable[str]) -> dict[str, Any]:
    with patch.dict(os.environ, {"COLUMNS": "10000", "NO_COLOR": "1"}):
        usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    groups = []
    for group in parser._action_groups:
        own = [action for action in group._group_actions if action.dest.partition(".")[0] not in without]
        if shown := [_option(action) for action in own if _is_shown(action)]:
            is_detail = any("--ckpt_path" in option["flags"] for option in shown)  # arguments of Lightning's methods
            groups.append({"title": group.title, "is_detail": is_detail, "options": shown})
    return {"usage": usage, "description": parser.description, "epilog": parser.epilog, "groups": groups}


def _options(actions: Iterable[argparse.Action], section: str) -> list[Option]:
    found = [_option(action) for action in actions if _is_shown(action)]
    return [option for option in found if option["flags"] and option["flags"][-1].startswith(f"--{section}.")]


def _is_shown(action: argparse.Action) -> bool:
    # links, and help of classes or config files of single sections: only in the real parser's help
    extra = ("_ActionConfigLoad", "_ActionHelpClassPath", "ActionLink")
    return action.help != argparse.SUPPRESS and type(action).__name__ not in extra


def _option(action: argparse.Action) -> Option:
    flags = [flag for flag in action.option_strings if not flag.endswith("+")]
    if not hasattr(action, "_typehint"):
        return {"flags": flags, "value": _value(action), "help": _plain(_expanded(action))}
    default = "null" if action.default is None else json.dumps(action.default, default=str)
    help_text = f"{_plain(action.help or '')} (default: {default.strip(chr(34))})"
    value = action.metavar if isinstance(action.metavar, str) else type_in_words(action._typehint)
    return {"flags": flags, "value": value.strip("\b"), "help": help_text}


def _expanded(action: argparse.Action) -> str:
    values = {**vars(action), "prog": "python -m lit_sft"}
    return (action.help or "") % values


def _value(action: argparse.Action) -> str:
    """What argparse shows after the flags, or the name of an argument without any."""
    if action.nargs == 0:
        return ""
    usual = action.dest.upper() if action.option_strings else action.dest
    name = str(action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else usual))
    name = name.strip("\b")
    if action.option_strings and action.nargs in ("+", "?"):
        return f"{name} [{name} ...]" if action.nargs == "+" else f"[{name}]"
    return name


def _plain(text: str) -> str:
    """Help without the marks of reStructuredText, and without Lightning's own defaults, which are not always ours."""
    text = re.sub(r":\w+:`~?([^`]+)`", lambda found: found[1].rpartition(".")[2], text)
    text = re.sub(r"\s*Defaults?:? (to )?``.*?``\.?", "", text)
    return " ".join(text.replace("``", "").split())


def type_in_words(kind: Any) -> str:
    """A type as it is shown after an option, the same in every version of Python.

    Example:
        >>> type_in_words(int | None), type_in_words(list[str]), type_in_words(Literal["a", "b"])
        ('INT', 'LIST', '{a,b}')
    """
    words = {int: "INT", float: "FLOAT", str: "TEXT", bool: "{true,false}", dict: "MAPPING"}
    if kind in words:
        return words[kind]
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        parts = [part for part in get_args(kind) if part is not type(None)]
        choices = [str(choice) for part in parts if get_origin(part) is Literal for choice in get_args(part)]
        # sorted, because typing keeps one order of equal unions, whichever was made first
        others = sorted({type_in_words(part) for part in parts if get_origin(part) is not Literal})
        return "|".join([*others, *([f"{{{','.join(dict.fromkeys(choices))}}}"] if choices else [])])
    if origin is Literal:
        return f"{{{','.join(map(str, get_args(kind)))}}}"
    if inspect.isclass(origin):
        return "MAPPING" if issubclass(origin, dict) else "LIST"
    return str(getattr(kind, "__name__", kind)).upper()


if __name__ == "__main__":
    pages = made_pages()
    text = json.dumps(pages, indent=1, ensure_ascii=False)
    # one line for each option, so that a change is one line of a diff
    text = re.sub(
        r"\{\s+(\"flags\": \[[^]]*\]),\s+(\"value\")",
        lambda f: f"{{{' '.join(f[1].split()).replace('[ ', '[').replace(' ]', ']')}, {f[2]}",
        text,
    )
    text = re.sub(r'("value": ".*?"),\n\s+("help": ".*")\n\s+\}', r"\1, \2}", text)
    PAGES.write_text(f"{text}\n", encoding="utf-8")
    print(f"{PAGES}: {len(text.splitlines()):,} lines")
