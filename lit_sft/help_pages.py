"""`--help` of every command instantly: from pages that were made from the real parsers, which take seconds to import.

`make help-pages` makes the pages again; a test fails when they are out of date.
"""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_modules.errors import UserError
from data_modules.wording import did_you_mean

PAGES = Path(__file__).with_name("help_pages.json")

Option = dict[str, Any]
"""`flags` (or the name of an argument without any), `value` as shown after them, and `help`."""

SECTIONS = {
    "data": ("data",),
    "model": ("model",),
    "trainer": ("trainer",),
    "run": ("run", "checkpoint"),
}
"""Sections of settings by the topic of `--help.TOPIC`."""

_MODEL = ("model.backbone.pretrained", "model.backbone.config", "model.backbone.tokenizer")
_RECORDS = ("data.train", "data.format", "data.columns", "data.template", "data.mask", "data.max_length")
_DEVICES = ("trainer.accelerator", "trainer.devices", "trainer.precision")

ESSENTIAL: dict[str, dict[str, tuple[str, ...]]] = {
    "fit": {
        "Which model": (
            *_MODEL,
            "model.backbone.tuning",
            "model.backbone.lora.rank",
            "model.optimizer.lr",
            "model.optimizer.schedule",
            "model.optimizer.warmup_ratio",
        ),
        "Which data": (
            "data.train",
            "data.val",
            "data.test",
            *_RECORDS[1:],
            "data.batch_size",
            "data.token_budget",
        ),
        "How long, and where": (
            "trainer.max_epochs",
            "trainer.max_steps",
            "trainer.accumulate_grad_batches",
            *_DEVICES,
            "run.root",
            "run.name",
        ),
    },
    "find-lr": {
        "Which model and data": (*_MODEL, "model.optimizer.name", "data.train", *_RECORDS[1:], "data.batch_size"),
        "Where": (*_DEVICES, "trainer.accumulate_grad_batches", "run.root"),
    },
    "validate": {"Which data, and where": ("data.val", *_DEVICES, "run.root")},
    "test": {"Which data, and where": ("data.test", *_DEVICES, "model.generation.max_new_tokens", "run.root")},
    "predict": {
        "Which prompts, and where": (
            "data.predict",
            *_DEVICES,
            "model.generation.max_new_tokens",
            "model.generation.temperature",
            "run.root",
        )
    },
    "preview": {"Which model and data": (*_MODEL, *_RECORDS, "run.root")},
    "lint": {"Which model and data": (*_MODEL, *_RECORDS, "run.root")},
}
"""Settings that `--help` shows, by command and group; the rest is under `--help.TOPIC`."""


_CLASSES = (
    "--trainer.callbacks.help CLASS, and the like for accelerator, strategy, logger, profiler and plugins: the "
    "settings of a class."
)


def help_page(argv: Sequence[str]) -> str | None:
    """The help that a command line asks for.

    Args:
        argv: The command and its arguments.

    Returns:
        The page; None if no help is asked for, or the command has no page and must be imported.

    Raises:
        UserError: If there is no such topic.
    """
    command, *arguments = argv
    topic = next((a for a in arguments if a in ("-h", "--help") or a.startswith("--help.")), None)
    if topic is None:
        return None
    pages = json.loads(PAGES.read_text(encoding="utf-8"))
    if command not in pages["commands"] or (topic.startswith("--help.") and command not in ESSENTIAL):
        return None
    options = settings(pages, is_text=_is_text(arguments))
    page = pages["commands"][command]
    if command not in ESSENTIAL:
        return _rendered(command, page, page["groups"])
    if topic in ("-h", "--help"):
        essential = [
            {"title": title, "options": [options[name] for name in names if name in options]}
            for title, names in ESSENTIAL[command].items()
        ]
        own = [group for group in page["groups"] if not group["is_detail"]]
        return _rendered(command, page | {"epilog": _epilog()}, [*own, *essential])
    name = topic.removeprefix("--help.")
    if name not in (*SECTIONS, "all"):
        advice = did_you_mean(name, [*SECTIONS, "all"]) or f"expected one of {', '.join(SECTIONS)}, all."
        raise UserError(f"{topic}: no such help; {advice}")
    shown = SECTIONS if name == "all" else {name: SECTIONS[name]}
    sections = [section for sections in shown.values() for section in sections]
    groups = [{"title": section, "options": _of_section(options, section)} for section in sections]
    own = [group for group in page["groups"] if name == "all" or (name == "run" and group["is_detail"])]
    return _rendered(command, page | {"epilog": _CLASSES if "trainer" in sections else None}, [*own, *groups])


def settings(pages: Mapping[str, Any], *, is_text: bool = False) -> dict[str, Option]:
    """Every setting by its name, such as `data.mask`.

    Args:
        pages: The pages.
        is_text: Whether the data is plain text.
    """
    data = pages["sections"]["data_of_text" if is_text else "data"]
    others = [option for name, part in pages["sections"].items() if not name.startswith("data") for option in part]
    return {option["flags"][-1].lstrip("-"): option for option in [*data, *others]}


def _of_section(options: Mapping[str, Option], section: str) -> list[Option]:
    return [option for name, option in options.items() if name.startswith(f"{section}.")]


def _is_text(arguments: Sequence[str]) -> bool:
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    return any(a == "--data_module=text" or (a, after) == ("--data_module", "text") for a, after in pairs)


def _epilog() -> str:
    topics = ", ".join(f"--help.{name}" for name in SECTIONS)
    return f"{topics}: every setting of these sections. --help.all: all of them."


def _rendered(command: str, page: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> str:
    """A page as argparse formats it, at the width of the terminal."""
    width = shutil.get_terminal_size().columns
    usage = textwrap.fill(page["usage"], max(width - 8, 40), subsequent_indent=" " * 7, break_on_hyphens=False)
    parser = argparse.ArgumentParser(
        prog=f"python -m lit_sft {command}",
        usage=usage.replace("%", "%%"),
        description=page["description"],
        epilog=page.get("epilog"),
        add_help=False,
    )
    for group in groups:
        shown = parser.add_argument_group(group["title"].rstrip(":"))
        for option in group["options"]:
            _add(shown, option)
    return parser.format_help()


def _add(group: Any, option: Option) -> None:
    text = option["help"].replace("%", "%%")
    if not option["flags"]:
        group.add_argument(option["value"], help=text)
    elif option["value"]:
        group.add_argument(*option["flags"], metavar=option["value"], help=text)
    else:
        group.add_argument(*option["flags"], action="store_true", help=text)
