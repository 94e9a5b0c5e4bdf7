"""Locks a run folder for one training process, and each test result for one test."""

from __future__ import annotations

from pathlib import Path

from data_modules.errors import UserError
from lit_sft.locks import FileLock


def lock_run(folder: Path) -> FileLock:
    """Keep other processes from training in a run folder, until the lock is released or this process ends.

    Raises:
        UserError: If another process is training there (the message names it), or the folder cannot be written.
    """

    return _lock(folder / "run.lock", folder, "Wait for it to end or stop it, or start a new run.")


def lock_test(result: Path) -> FileLock:
    """Keep other processes from writing the same test result, until the lock is released or this process ends.

    Args:
        result: The file that the test writes. A run can be tested while it trains, since the locks are separate.

    Raises:
        UserError: As in `lock_run`.
    """
    return _lock(result.with_suffix(".lock"), result, "Wait for it to end or stop it.")


def _lock(path: Path, written: Path, advice: str) -> FileLock:
    try:
        return FileLock(path, lambda owner: f"{written}: in use by {owner}. {advice}")
    except OSError as error:
        raise UserError(f"{path.parent}: cannot write there ({error.strerror}).") from None
