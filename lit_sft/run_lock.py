"""One writer a run folder."""

from __future__ import annotations

from pathlib import Path

from lit_sft.locks import FileLock


def lock_run(folder: Path) -> FileLock:
    """Keep other processes from training in a run folder, until the lock is released or this process ends.

    Raises:
        ValueError: If another process trains there, with its name, or if this one cannot write there.
    """

    def refusal(owner: str) -> str:
        return f"{folder}: being written by {owner}. Wait for it to end or stop it, or start a new run."

    try:
        return FileLock(folder / "run.lock", refusal)
    except OSError as error:
        raise ValueError(f"{folder}: cannot write there ({error.strerror}).") from None
