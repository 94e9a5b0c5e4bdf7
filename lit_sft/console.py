"""Console output of the commands: lines and table cells are printed literally, even if they contain markup."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

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
"""Library warnings that appear on every run and can be ignored."""


_LOGGERS = ("lightning.pytorch", "lightning.fabric")

_ASCII = str.maketrans({"“": '"', "”": '"', "±": "+/-", "…": "...", "·": "-"})
"""Stand-ins for the typographic signs of summaries on a terminal that lacks them, which would print their codes."""

console = Console()
"""Where commands print."""

error_console = Console(stderr=True)
"""Where they print what went wrong, or what is not part of their output."""


def print_line_on(console: Console, line: str, *, keep_lines: bool = False) -> None:
    """Print a line literally: no markup, no wrapping, no terminal control characters."""
    text = _for_terminal(console, printable(line, keep_lines=keep_lines))
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def cell(text: str, on: Console = console) -> Text:
    """A table cell or title, printed literally on a console."""
    return Text(_for_terminal(on, printable(text)))


def _for_terminal(console: Console, text: str) -> str:
    return text if console.encoding.startswith("utf") else text.translate(_ASCII)


def print_line(line: str) -> None:
    """Print a line literally, without markup or wrapping; line breaks are kept."""
    print_line_on(console, line, keep_lines=True)


def print_error_line(line: str) -> None:
    """Print a line literally on stderr."""
    print_line_on(error_console, line)


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a log record is a warning, or a remark that is not of Lightning itself."""
    return record.levelno >= logging.WARNING or "lightning" not in Path(record.pathname).parts


def quieten(command: str) -> None:
    """Hide library messages that appear on every run."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    threading.excepthook = _print_thread_error
    for name in _LOGGERS:  # the seed is in config.yaml
        logging.getLogger(name).setLevel(logging.WARNING)
    remarks = logging.getLogger("lightning.pytorch.utilities.rank_zero")  # ours go there too
    remarks.setLevel(logging.INFO)
    if _is_ours not in remarks.filters:
        remarks.addFilter(_is_ours)
    if command != "fit":  # other commands do not need the saved state of training callbacks
        warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`, callbacks used to create the check")
    for message in _USELESS:
        warnings.filterwarnings("ignore", message)


@contextlib.contextmanager
def quiet(command: str) -> Iterator[None]:
    """Hide those messages inside a block; afterwards, a Python program has its own settings again."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels, hook = [logger.level for logger in loggers], threading.excepthook
    try:
        with warnings.catch_warnings():
            quieten(command)
            yield
    finally:
        threading.excepthook = hook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _print_thread_error(stopped: threading.ExceptHookArgs) -> None:
    """Print one line, without a traceback: on a full disk TensorBoard's writer thread fails, as does the run itself."""
    if isinstance(stopped.exc_value, OSError):
        print(f"a writer thread failed: {stopped.exc_value}", file=sys.stderr)
    else:
        threading.__excepthook__(stopped)
