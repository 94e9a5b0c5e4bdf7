"""Run folders: `runs/<name>/version_N` with config.yaml, checkpoints/, model/, logs and results."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from lit_sft.checkpoint_digests import is_intact


@dataclass(frozen=True)
class RunSettings:
    """Where a run keeps its files.

    Attributes:
        root: Folder of all runs.
        name: Folder of runs like this one. None: the name of the last config file.
        checkpoint_minutes: Minutes between checkpoints, beside those at validations. None: no others.
        allow_changes: Whether a run may be resumed with other settings or data than it was begun with.
        allow_code: On the command line only: modules or classes, between commas, that the config of a run may name
            beside those of this project, Lightning, torch and transformers. Opening the run then runs their code.
    """

    root: str = "runs"
    name: str | None = None
    checkpoint_minutes: float | None = 10.0
    allow_changes: bool = False
    allow_code: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """The folder of one run."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        """The Hugging Face folder."""
        return self.folder / "model"

    def remove_if_empty(self) -> None:
        """Remove the folder if nothing was written to it."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()
            self.folder.parent.rmdir()

    def best_checkpoint(self) -> Path:
        """The best checkpoint by validation loss, else the last.

        Raises:
            ValueError: If there is none yet.
        """
        for name in ("best.ckpt", "last.ckpt"):
            if (self.checkpoints / name).exists():
                return self.checkpoints / name
        raise ValueError(f"{self.checkpoints}: no checkpoint; did the run end before its first one? Run `fit` again.")


def new_run(root: str, name: str) -> Run:
    """Make the next free folder `<root>/<name>/version_N`.

    Raises:
        ValueError: If it cannot be made.
    """
    if Path(name).name != name:
        raise ValueError(f"--run.name {name}: expected a plain name; set the folder of all runs by `--run.root`.")
    parent = Path(root) / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        taken = [int(p.name[8:]) for p in parent.glob("version_*") if p.name[8:].isdigit()]
        folder = parent / f"version_{max(taken, default=-1) + 1}"
        folder.mkdir()
    except OSError as error:
        raise ValueError(f"--run.root {root}: cannot make a folder there ({error.strerror}); choose another.") from None
    return Run(folder)


def find_run(path: str | None, root: str = "runs") -> tuple[Run, Path]:
    """A run and the checkpoint of it to use.

    Args:
        path: A run folder, a checkpoint inside one, or None for the newest run under `root`.
        root: Folder of all runs.

    Raises:
        ValueError: If there is no such run.
    """
    if path is None:
        run = _newest_run(root)
        return run, run.best_checkpoint()
    given = Path(path)
    if given.suffix == ".ckpt":
        if not given.is_file():
            raise ValueError(f"{path}: no such checkpoint.")
        run, checkpoint = Run(given.parent.parent), given
    else:
        run = Run(given)
        checkpoint = None
    _check_run(run, path)
    return run, checkpoint or run.best_checkpoint()


def find_resumable(path: str | None, root: str = "runs") -> tuple[Run, Path, list[Path]]:
    """A run and the checkpoint to resume it from: of those that are whole, the one of the latest step.

    Args:
        path: A run folder, a checkpoint inside one, or None for the newest run under `root`.
        root: Folder of all runs.

    Returns:
        The run, the checkpoint, and what cannot be read and was passed over.

    Raises:
        ValueError: If there is no such run, or no checkpoint to resume from.
    """
    named = path is not None and path.endswith(".ckpt")
    run = _newest_run(root) if path is None else Run(Path(path).parent.parent if named else Path(path))
    _check_run(run, path)
    candidates = [Path(str(path))] if named else sorted(run.checkpoints.glob("*.ckpt"))
    if not candidates:
        raise ValueError(f"{run.checkpoints}: no checkpoint file to resume from. Run `fit` again.")
    progress = {checkpoint: _progress(checkpoint) for checkpoint in candidates}
    whole = [checkpoint for checkpoint in candidates if progress[checkpoint] is not None]
    broken = [checkpoint for checkpoint in candidates if progress[checkpoint] is None]
    if not whole:
        raise ValueError(
            f"{run.checkpoints}: no whole checkpoint here ({', '.join(c.name for c in broken)}: damaged or cut short). "
            "Run `fit` again."
        )
    return run, max(whole, key=lambda checkpoint: progress[checkpoint] or ()), broken


def _check_run(run: Run, named: str | None) -> None:
    if not run.config.is_file():
        raise ValueError(
            f"{named}: no run folder (it has no config.yaml); expected one such as runs/quickstart/version_0."
        )


def _progress(checkpoint: Path) -> tuple[int, int, float] | None:
    """How far a checkpoint is: steps, batches, and when it was written. None: it is not whole, or only weights."""
    import torch

    try:
        if not is_intact(checkpoint):
            return None
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        batches = state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"]
        return int(state["global_step"]), int(batches), checkpoint.stat().st_mtime
    except Exception:
        # a broken file ends in any of a dozen exception types
        return None


def _newest_run(root: str) -> Run:
    """The run that was started last and has a checkpoint."""
    configs = [
        path for path in Path(root).glob("*/version_*/config.yaml") if any(path.parent.glob("checkpoints/*.ckpt"))
    ]
    if not configs:
        raise ValueError(
            f"{root}: no run with a checkpoint here. Train one first "
            "(`python -m lit_sft fit --config configs/quickstart.yaml`), or name a run folder."
        )
    return Run(max(configs, key=lambda path: path.stat().st_mtime).parent)
