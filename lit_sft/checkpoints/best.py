"""The record of a run's best checkpoints: written by the run, read by everything else."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from data_modules.errors import UserError
from lit_sft.files import is_file_name, read_json, write_json

_RECORD = "best.json"


@dataclass(frozen=True, slots=True)
class Scored:
    """A checkpoint and its score.

    Attributes:
        file: Its name in the checkpoint folder.
        score: The monitored metric.
        step: Optimiser steps taken.
    """

    file: str
    score: float
    step: int


@dataclass(frozen=True, slots=True)
class Choice:
    """The checkpoint of a run to use.

    Attributes:
        path: The file.
        is_best: Whether it is the best by the monitored metric, not just the last.
        why: Why it was chosen, such as "best val/loss 1.2345, step 40".
    """

    path: Path
    is_best: bool
    why: str

    def __str__(self) -> str:
        return f"{self.path.name}: {self.why}"


def write_best(folder: Path, monitor: str | None, mode: str, checkpoints: Iterable[Scored]) -> None:
    """Record which checkpoints are the best.

    Args:
        folder: Folder of the checkpoints.
        monitor: The metric they are ranked by. None: they are not ranked.
        mode: Whether its best value is the `min` or the `max`.
        checkpoints: Existing checkpoints and any that is about to be written. If a kill leaves
            only some of them on disk, the first one that exists is the best.
    """
    sign = -1 if mode == "max" else 1
    ranked = sorted((c for c in checkpoints if math.isfinite(c.score)), key=lambda c: sign * c.score)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / _RECORD, {"monitor": monitor, "mode": mode, "checkpoints": [asdict(scored) for scored in ranked]}
    )


def choose(folder: Path) -> Choice:
    """The best checkpoint of a run, or its last one if none is marked best.

    Args:
        folder: Folder of the checkpoints.

    Raises:
        UserError: If there is no checkpoint, or the record of the best is damaged.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: expected a folder of checkpoints.")
    best, last, record = folder / "best.ckpt", folder / "last.ckpt", _read_record(folder)
    if record is not None:
        monitor, ranked = record
        there = [scored for scored in ranked if (folder / scored.file).exists()]
        if there:
            return Choice(folder / there[0].file, True, _why(monitor, there))
    elif best.exists():
        return Choice(best, True, "the best, by its name; this run recorded no scores")
    if last.exists():
        reason = f"; {record[1][0].file}, the best, is missing" if record and record[1] else "; none is marked best"
        return Choice(last, False, f"the last step{reason}")
    others = sorted(folder.glob("*.ckpt"))
    if missing := [path.name for path in others if not path.exists()]:
        raise UserError(f"{folder}: {', '.join(missing)}: broken links. Restore the files that they point to.")
    if others:
        names = ", ".join(path.name for path in others)
        raise UserError(f"{folder}: neither best.ckpt nor last.ckpt; name one of its checkpoints: {names}.")
    raise UserError(f"{folder}: no checkpoint; did the run end before its first one? Run `fit` again.")


def best_of(folder: Path) -> Path | None:
    """The checkpoint marked best; None if there is none."""
    with contextlib.suppress(UserError):
        choice = choose(folder)
        return choice.path if choice.is_best else None
    return None


def _why(monitor: str, there: list[Scored]) -> str:
    first = there[0]
    if any(other.file == first.file for other in there[1:]):
        return f"best {monitor}"  # the run was killed while replacing the file, so its step is not certain
    return f"best {monitor} {first.score:.6g}, step {first.step}"


def _advice(folder: Path) -> str:
    """Advice if the best checkpoint is unknown."""
    names = sorted(path.name for path in folder.glob("*.ckpt"))
    usual = [name for name in ("best.ckpt", "last.ckpt") if name in names]
    if not names:
        return "there is no checkpoint in that folder either. Copy the run again."
    remedy = f" (or remove that file to use {usual[0]})" if usual else ""
    return f"name a checkpoint instead of the run folder, such as {folder / (usual or names)[0]}{remedy}."


def _read_record(folder: Path) -> tuple[str, list[Scored]] | None:
    path = folder / _RECORD
    try:
        found = read_json(path)
        if found is None:
            return None
        ranked = [Scored(str(c["file"]), float(c["score"]), int(c["step"])) for c in found["checkpoints"]]
        monitor = str(found["monitor"])
    except (OSError, KeyError, TypeError, ValueError):
        raise UserError(f"{path}: damaged, so the best checkpoint is unknown; {_advice(folder)}") from None
    if outside := [scored.file for scored in ranked if not is_file_name(scored.file)]:
        raise UserError(f"{path}: names {outside[0]}, which is not a file in this folder; remove it from the list.")
    return monitor, ranked
