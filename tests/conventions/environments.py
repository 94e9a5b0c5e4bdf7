"""An environment for each trainer, made from its pinned requirements and kept for the next run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("LIT_SFT_TRAINERS", HERE.parents[1] / "build" / "trainers"))


def python_of(trainer: str) -> Path:
    """Python of a trainer's environment, which is made first if its requirements changed or it is missing."""
    folder, wanted = FOLDER / trainer, _digest(trainer)
    done = folder / "installed"
    if not done.exists() or done.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        started = time.monotonic()
        _install(trainer, folder)
        done.write_text(wanted, encoding="utf-8")
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
        print(f"{trainer}: installed in {time.monotonic() - started:.0f} s, {size:,.0f} MiB")
    return folder / "bin" / "python"


def _install(trainer: str, folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    for file, *options in ((f"{trainer}.txt",), (f"{trainer}.nodeps.txt", "--no-deps")):
        requirements = HERE / "requirements" / file
        if requirements.exists():
            command = [str(folder / "bin" / "pip"), "install", "--quiet", *options, "-r", str(requirements)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{trainer} cannot be installed:\n{done.stderr[-3000:]}"


def _digest(trainer: str) -> str:
    files = sorted((HERE / "requirements").glob(f"{trainer}.*"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files) + sys.version.encode()).hexdigest()


def losses_of_trl(driver: str, job: dict[str, Any], folder: Path) -> Any:
    """What a driver of TRL's trainers saves: losses, gradients and so on, for each of the job's settings.

    Args:
        driver: File name in `drivers/`.
        job: What the driver reads, except where it writes.
        folder: For the files that pass between us.
    """
    out = folder / "out.pt"
    (folder / "job.json").write_text(json.dumps(job | {"out": str(out)}), encoding="utf-8")
    command = [str(python_of("trl")), str(HERE / "drivers" / driver), str(folder / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)
