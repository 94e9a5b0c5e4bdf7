"""What the system may not have told Python: a home folder, a user's name, a terminal of UTF-8."""

from __future__ import annotations

import getpass
import io
import locale
import os
import stat
import sys
import tempfile
from pathlib import Path

_UTF8 = ["-X", "utf8=1"]


def use_utf8() -> None:
    """Begin this process again in UTF-8 mode where the locale has another encoding.

    Configs and records are UTF-8 everywhere, while libraries read files in the locale's encoding: Latin-1 would garble
    every prompt without a word. The terminal keeps its own encoding, except under
    `python -E` and `-I`, which leave no way to set it.
    """
    if sys.flags.utf8_mode or locale.getencoding().lower().replace("-", "") == "utf8":
        return
    if sys.orig_argv[1:3] == _UTF8:
        return  # never twice
    terminal = os.environ.get("PYTHONIOENCODING", "").partition(":")[0] or locale.getencoding()
    settings = {"PYTHONUTF8": "1", "PYTHONIOENCODING": f"{terminal}:backslashreplace"}
    sys.stdout.flush()
    # the option too: -E and -I ignore the variable, and of several such options the first one counts
    os.execve(sys.executable, [sys.executable, *_UTF8, *sys.orig_argv[1:]], os.environ | settings)


def settle() -> None:
    """Make every command run for users that the system does not know, and on terminals that lack our signs.

    Containers often run under a number that belongs to no user and has no HOME. torch, transformers and matplotlib then
    fail, or write into a folder named `~`.
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
        # what a terminal of ASCII or Latin-1 cannot show is printed as its code, such as \u27e6
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().replace("-", "").startswith("utf"):
            stream.reconfigure(errors="backslashreplace")


def _private_folder() -> Path:
    """A folder for temporary files that no other user can have put anything into."""
    folder = Path(tempfile.gettempdir()) / f"lit_sft-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if is_own else Path(tempfile.mkdtemp(prefix="lit_sft-"))
