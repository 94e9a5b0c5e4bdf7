"""Starting a command must not import modules it does not need. Checked by name, not by time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEAVY = {
    "accelerate", "datasets", "lightning", "nltk", "pandas", "peft", "rouge_score", "sympy", "tensorboard", "torch",
    "transformers",
}  # fmt: skip

# modules that Lightning and transformers import themselves are not counted
TRAINING = {"accelerate", "lightning", "sympy", "tensorboard", "torch", "transformers"}

ALLOWED = {
    "import lit_sft.__main__": set(),
    "import lit_sft.cli.export": set(),
    "from lit_sft.__main__ import main; main(['--help'])": set(),
    "from lit_sft.__main__ import main; main(['fit', '--help'])": set(),
    "from lit_sft.__main__ import main; main(['lint', '--help.all'])": set(),
    "from lit_sft.__main__ import main; main(['evaluate', '-h'])": set(),
    "import data_modules.encoding.pool": {"transformers"},
    "import lit_sft.cli.commands": TRAINING,
    "import lit_sft.preview.command, callbacks": TRAINING,
}


def imported_by(code: str) -> set[str]:
    """Top-level modules imported in a fresh interpreter after running `code`."""
    report = f"{code}\nimport sys, json\nprint()\nprint(json.dumps([name for name in sys.modules if '.' not in name]))"
    said = subprocess.run([sys.executable, "-c", report], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return set(json.loads(said.splitlines()[-1]))


@pytest.mark.parametrize("code", ALLOWED)
def test_start_up_imports_only_the_heavy_modules_it_needs(code: str) -> None:
    assert imported_by(code) & HEAVY <= ALLOWED[code]


def test_stored_examples_are_written_and_read_without_pandas(tmp_path: Path) -> None:
    code = f"""
import numpy as np
from pathlib import Path
from data_modules.encoding.example import Example
from data_modules.encoding.example_store import *
path = Path({str(tmp_path)!r}) / "x.arrow"
example = Example(np.arange(3, dtype=np.int32), np.ones(3, np.uint8), np.zeros(3, np.int16), "x:1")
write_batches(path, [record_batch([example])])
store = ExampleStore(path)
assert store[0].input_ids.tolist() == [0, 1, 2] and store.lengths.tolist() == [3]
"""
    assert "pandas" not in imported_by(code)


def test_every_module_is_imported_without_what_only_posix_has() -> None:
    code = """
import importlib, os, pkgutil, signal, sys
import lightning, matplotlib.pyplot, peft, rouge_score.rouge_scorer, sacrebleu, scipy.stats, transformers
import torch.distributed.tensor, torch.utils.tensorboard
for name in ("fcntl", "grp", "posix", "pwd", "readline", "resource", "termios"):
    sys.modules[name] = None
for name in ("fork", "forkpty", "getuid", "geteuid", "killpg", "mkfifo", "register_at_fork", "sched_getaffinity"):
    delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGSTOP"):
    delattr(signal, name)
num, lacking = 0, []
for top in ("data_modules", "lit_sft", "callbacks"):
    for module in pkgutil.walk_packages(importlib.import_module(top).__path__, f"{top}."):
        try:
            importlib.import_module(module.name)
            num += 1
        except ModuleNotFoundError as error:
            if error.name in ("fcntl", "grp", "posix", "pwd", "readline", "resource", "termios"):
                raise
            lacking.append(error.name)  # an extra that is not installed
print()
print(num, *lacking)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    num, *lacking = done.stdout.splitlines()[-1].split()
    assert int(num) > 300
    assert set(lacking) <= {"gradio", "openai", "ray", "starlette", "uvicorn", "prometheus_client", "lm_eval"}
