"""The script compares what `init` expects of a step with the peak of one, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.documents import ROOT


def test_case_gives_the_bytes_expected_and_those_measured() -> None:
    case = json.dumps(["full", "32-true", False, 1024])
    command = [sys.executable, str(ROOT / "benchmarks" / "init_memory.py"), "--case", case]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    expected, measured = json.loads(done.stdout.splitlines()[-1])
    assert expected > 16 * 900_000  # the state of the weights alone
    assert measured > 0
