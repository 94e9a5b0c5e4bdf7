"""Measures in a process of its own, so that memory and compiled code of one setting are not those of another."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def measured_apart(script: str, option: str, value: str) -> dict[str, Any]:
    """What this script prints with the same options and one more.

    Args:
        script: Its `__file__`. With the option, it prints its results as JSON in its last line.
        option: Says what to measure, such as `--base`.
        value: Of the option.
    """
    command = [sys.executable, script, *sys.argv[1:], option, value]
    found: dict[str, Any] = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
    return found
