"""Keeps the paths of worker sockets short, even if the folder for temporary files has a long path."""

from __future__ import annotations

import multiprocessing.util
import os
import tempfile

_MOST_BYTES = 107
"""Longest socket path on Linux."""

_NAME_BYTES = len("/pymp-abcdefgh/listener-abcdefgh")


def shorten_socket_paths() -> None:
    """Put worker sockets in /tmp if the path of the temporary folder is too long.

    Otherwise, in older versions of Python, workers fail to hand over their first batch and the main process hangs.
    """
    if len(os.fsencode(tempfile.gettempdir())) + _NAME_BYTES <= _MOST_BYTES:
        return
    usual, tempfile.tempdir = tempfile.tempdir, "/tmp"
    multiprocessing.current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]
    try:
        multiprocessing.util.get_temp_dir()  # created once for this process and its workers, removed at exit
    finally:
        tempfile.tempdir = usual
