"""Waits for another process."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

LONGEST = 1800.0
"""Timeout in seconds: longer than any slow machine needs."""


def wait_until(
    condition: Callable[[], object], process: subprocess.Popen[bytes] | None = None, *, interval: float = 0.01
) -> None:
    """Wait until a condition holds; fail if the process that should bring it about ends first."""
    gives_up_at = time.monotonic() + LONGEST
    while not condition():
        if process is not None and process.poll() is not None:
            assert condition(), f"the process ended with status {process.returncode}"
            return
        assert time.monotonic() < gives_up_at, "still waiting after half an hour: something hangs"
        time.sleep(interval)
