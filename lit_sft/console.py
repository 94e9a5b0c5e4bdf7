"""What commands print: lines and cells of tables as they are, whoever named what stands in them."""

from __future__ import annotations

import logging
import sys
import threading
import warnings

from rich.console import Console
from rich.text import Text

from lit_sft.printable import printable

_USELESS = (
    ".*does not have many workers.*",
    "Total length of `list` across ranks is zero.*",
    "The dirpath has changed from.*",
    "You're resuming from a.*",
    "Checkpoint directory .* exists and is not empty.*",
    "The number of training batches .* is smaller than the logging interval.*",
    ".*LeafSpec.*",
    ".*`isinstance\\(treespec.*",
)
"""Warnings of libraries that hold for every run."""


def print_line_on(console: Console, line: str, *, keep_lines: bool = False) -> None:
    """Print a line: nothing in it is markup, paths are not wrapped, and nothing in it steers the terminal."""
    console.print(printable(line, keep_lines=keep_lines), markup=False, highlight=False, soft_wrap=True)


def cell(text: str) -> Text:
    """A cell or title of a table, likewise."""
    return Text(printable(text))


console = Console()
"""Where commands print."""


def print_line(line: str) -> None:
    """Print a line as it is: paths are neither markup nor wrapped."""
    print_line_on(console, line, keep_lines=True)


def quieten(command: str) -> None:
    """Hide what libraries print on every run and that tells the user nothing about this one."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    threading.excepthook = _print_thread_error
    for name in ("lightning.pytorch", "lightning.fabric"):  # the seed is in config.yaml
        logging.getLogger(name).setLevel(logging.WARNING)
    if command != "fit":  # what a callback of the training kept is of no use to the other commands
        warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`, callbacks used to create the check")
    for message in _USELESS:
        warnings.filterwarnings("ignore", message)


def _print_thread_error(stopped: threading.ExceptHookArgs) -> None:
    """In one line: TensorBoard writes in a thread of its own, which a full disk ends; the run says so itself."""
    if isinstance(stopped.exc_value, OSError):
        print(f"a thread that writes has ended: {stopped.exc_value}", file=sys.stderr)
    else:
        threading.__excepthook__(stopped)
