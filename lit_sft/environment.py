"""Works around environments without a home folder, a user name or a UTF-8 terminal."""

from __future__ import annotations

import getpass
import io
import locale
import os
import stat
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, TextIO

from data_modules.errors import UserNotice
from lit_sft.printable import printable

_UTF8 = ["-X", "utf8=1"]


def use_utf8() -> None:
    """Restart this process in UTF-8 mode if the locale uses another encoding.

    Configs and records are UTF-8, but libraries read files in the locale's encoding: Latin-1 would silently garble
    every prompt. The terminal keeps its encoding, except under `python -E` and `-I`, where it cannot be set.
    """
    if sys.flags.utf8_mode or locale.getencoding().lower().replace("-", "") == "utf8":
        return
    if sys.orig_argv[1:3] == _UTF8:
        return  # already restarted
    terminal = os.environ.get("PYTHONIOENCODING", "").partition(":")[0] or locale.getencoding()
    settings = {"PYTHONUTF8": "1", "PYTHONIOENCODING": f"{terminal}:backslashreplace"}
    sys.stdout.flush()
    # the option too: -E and -I ignore the variable, and the first of several such options wins
    os.execve(sys.executable, [sys.executable, *_UTF8, *sys.orig_argv[1:]], os.environ | settings)


def settle() -> None:
    """Prepare the process for users without a name or home folder, and for terminals that are not UTF-8.

    Containers often run under a user id without a name and without HOME. torch, transformers and matplotlib then fail
    or write to a folder named `~`.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(_private_folder())
        print(f"lit_sft: user {os.getuid()} has no home folder; caches go to {os.environ['HOME']}", file=sys.stderr)
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"user{os.getuid()}"
    for stream in (sys.stdout, sys.stderr):
        # an ASCII or Latin-1 terminal shows other characters as escapes, such as \u27e6
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().replace("-", "").startswith("utf"):
            stream.reconfigure(errors="backslashreplace")


def show_notices() -> None:
    """From now on, show a `UserNotice` as one line, without the place in the code; other warnings as before."""
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> Any:
        if not issubclass(category, UserNotice):
            return usual(message, category, filename, lineno, file, line)
        return print(f"lit_sft: warning: {printable(str(message))}", file=file or sys.stderr)

    warnings.showwarning = show


def _private_folder() -> Path:
    """A temporary folder that no other user can write to."""
    folder = Path(tempfile.gettempdir()) / f"lit_sft-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if is_own else Path(tempfile.mkdtemp(prefix="lit_sft-"))
