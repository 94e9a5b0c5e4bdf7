"""Sockets by which worker processes hand over batches: their paths must be short, wherever temporary files go."""

from __future__ import annotations

import multiprocessing.util
import os
import tempfile

_MOST_BYTES = 107
"""That Linux takes for the path of a socket."""

_NAME_BYTES = len("/pymp-abcdefgh/listener-abcdefgh")


def shorten_socket_paths() -> None:
    """Let worker processes put their sockets into /tmp where the path of the folder for temporary files is too long.

    Older versions of Python make them there all the same: each worker fails to hand over its first batch, and the
    process that waits for it waits for ever.
    """
    if len(os.fsencode(tempfile.gettempdir())) + _NAME_BYTES <= _MOST_BYTES:
        return
    usual, tempfile.tempdir = tempfile.tempdir, "/tmp"
    multiprocessing.current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]
    try:
        multiprocessing.util.get_temp_dir()  # made once for this process and its workers, and removed at the end
    finally:
        tempfile.tempdir = usual
