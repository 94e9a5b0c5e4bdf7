"""Lightning's ModelCheckpoint with a reliable record of the best checkpoint."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor

from data_modules.errors import UserError, UserNotice
from lit_sft.checkpoints.best import Scored, write_best
from lit_sft.checkpoints.digests import is_intact
from lit_sft.checkpoints.header import read_header

BEST_NAME = "best"
_NAME_OF_EACH = "step_{step}"


class RunCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoints of a run and records which they are (see `lit_sft.checkpoints.best`).

    Differences from Lightning's own callback:

    - A score counts only if it is finite and was measured on the weights being saved.
    - In a copied or moved run folder, scores are kept, and only files in the current folder are touched.
    - A missing or replaced file is dropped from the ranking, so that the next best one is saved.
    - With `save_top_k` other than 1, files are named `step_N` by default, since no fixed name can mean the best.
    - Without validation, nothing is saved as `best`; `last.ckpt` holds the same weights.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.save_last = None  # RunKeeper writes last.ckpt
        if self.filename == BEST_NAME and self.save_top_k not in (0, 1):
            self.filename = _NAME_OF_EACH
        self._steps: dict[str, int] = {}
        self._recorded: list[Scored] = []
        self._validated_at: int | None = None
        self._before_validation: Tensor | None = None
        self._is_restored = False

    @property
    def state_key(self) -> str:
        """Same key as Lightning's own callback, so that scores of older runs are found."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop ranking if the run never validates, in every ModelCheckpoint: they then keep the newest."""
        super().setup(trainer, pl_module, stage)
        for callback in trainer.checkpoint_callbacks if stage == "fit" and not _validates(trainer) else ():
            if isinstance(callback, ModelCheckpoint) and not is_measured_in_training(callback.monitor):
                callback.monitor = None
        if self.monitor is None and self.filename == BEST_NAME:
            self.save_top_k = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reject other ModelCheckpoints that would overwrite this one's files."""
        for other in trainer.checkpoint_callbacks:
            if other is self or not isinstance(other, ModelCheckpoint) or other.dirpath != self.dirpath:
                continue
            if shared := (_names(self) | {"last.ckpt"}) & _names(other):
                raise UserError(
                    f"`trainer.callbacks`: a ModelCheckpoint would overwrite the run's own {min(shared)}; set "
                    "`--checkpoint` instead, or give it another `filename` or `dirpath`."
                )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the restored ranking with the files on disk, and record it."""
        super().on_train_start(trainer, pl_module)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping):
                _check_validated(trainer, callback.monitor)
        if self._is_restored:
            # read by one process: others may not see the disk, and all must rank the same files
            found = trainer.strategy.broadcast(self._steps_found() if trainer.is_global_zero else {})
            self._drop_lost(found, is_own=Path(str(trainer.ckpt_path)).resolve().parent == Path(str(self.dirpath)))
        self._recorded = self._ranked()
        if trainer.is_global_zero:
            self._record([])

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the monitored metric, to see whether this validation updates it."""
        self._before_validation = trainer.callback_metrics.get(self.monitor or "")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a checkpoint if the current weights rank high enough."""
        if not trainer.sanity_checking:
            self._validated_at = trainer.global_step
        super().on_validation_end(trainer, pl_module)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether the score of the current weights is good enough to save them."""
        if current is None or not self._is_measured(trainer):
            return False
        # -1 keeps every file; one whose score is not finite is never the best
        return (self.save_top_k == -1 or bool(current.isfinite())) and super().check_monitor_top_k(trainer, current)

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state, and the step of each file."""
        return {**super().state_dict(), "steps": self._steps, "validated_at": self._validated_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, with paths in the current run folder."""
        state = _moved(state_dict, Path(str(self.dirpath)))
        super().load_state_dict(state)
        self._steps, self._validated_at = state["steps"], state.get("validated_at")
        self._is_restored = True

    def _is_measured(self, trainer: Trainer) -> bool:
        """Whether the monitored metric was measured on the current weights, not in an earlier validation."""
        if is_measured_in_training(self.monitor):
            return True
        is_new = trainer.callback_metrics.get(self.monitor or "") is not self._before_validation
        return is_new and self._validated_at == trainer.global_step

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        # recorded before the file exists and before the one it replaces is removed: after a kill at any moment, the
        # first file of the record that exists is the best
        self._steps[filepath] = trainer.global_step
        self._steps = {path: step for path, step in self._steps.items() if path in self.best_k_models}
        before, self._recorded = self._recorded, self._ranked()
        if trainer.is_global_zero:
            self._record(before)
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero:
            self._record([])

    def _ranked(self) -> list[Scored]:
        scores = self.best_k_models.items()
        return [Scored(os.path.basename(path), float(score), self._steps.get(path, -1)) for path, score in scores]

    def _record(self, before: list[Scored]) -> None:
        """Record the ranking, including files of the previous ranking that still exist."""
        folder = Path(str(self.dirpath))
        replaced = [old for old in before if old not in self._recorded and (folder / old.file).exists()]
        write_best(folder, self.monitor, self.mode, [*self._recorded, *replaced])

    def _steps_found(self) -> dict[str, int | None]:
        """The steps stored in the ranked files; None for a missing or damaged file."""
        found = {path: _step_of(Path(path)) for path in self.best_k_models}
        best = self.best_model_path  # only this one is verified in full: there may be many
        if found.get(best) is not None and not is_intact(Path(best)):
            found[best] = None
        return found

    def _drop_lost(self, found: dict[str, int | None], *, is_own: bool) -> None:
        """Drop missing, damaged and replaced files from the ranking, and the worst if there are too many.

        Args:
            found: The steps of all ranked files.
            is_own: Whether this run wrote them and should still have them.
        """
        lost = [path for path, step in found.items() if step is None or step != self._steps.get(path, step)]
        self._steps |= {path: step for path, step in found.items() if step is not None}
        for path in lost:
            del self.best_k_models[path]
        best, worst = (min, max) if self.mode == "min" else (max, min)
        while 0 < self.save_top_k < len(self.best_k_models):
            del self.best_k_models[worst(self.best_k_models, key=self._score)]
        if lost and is_own:
            names, rest = (", ".join(map(os.path.basename, paths)) for paths in (lost, self.best_k_models))
            warnings.warn(
                f"{self.dirpath}: {names}: missing, damaged or from a different step than recorded. The best "
                f"checkpoint will be chosen from {f'{rest} and ' if rest else ''}the next validations.",
                UserNotice,
                stacklevel=2,
            )
        if self.monitor is None:
            return
        paths = self.best_k_models
        self.best_model_path = best(paths, key=self._score) if paths else ""
        self.best_model_score = paths[self.best_model_path] if paths else None
        self.kth_best_model_path = worst(paths, key=self._score) if paths else ""
        if paths:
            self.kth_value = paths[self.kth_best_model_path]

    def _score(self, path: str) -> float:
        return float(self.best_k_models[path])


def is_measured_in_training(monitor: str | None) -> bool:
    """Whether a metric is measured throughout training, not only in validations."""
    return monitor is not None and (monitor in ("step", "epoch") or monitor.startswith("train/"))


def _validates(trainer: Trainer) -> bool:
    return trainer.limit_val_batches != 0 and bool(trainer.datamodule.val_dataloader())  # type: ignore[attr-defined]


def _names(callback: ModelCheckpoint) -> set[str]:
    """The file names that a callback would write at two different steps."""
    steps = ({"step": torch.tensor(step)} for step in (1, 2))
    return {os.path.basename(callback.format_checkpoint_name(dict(metrics))) for metrics in steps}


def _check_validated(trainer: Trainer, monitor: str | None) -> None:
    if monitor is not None and monitor.startswith("val/") and not _validates(trainer):
        raise UserError(
            f"EarlyStopping's monitor {monitor}: never measured, because this run has no validation rows; set "
            "`--data.val` or `--data.val_fraction`, or monitor train/loss."
        )


def _moved(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The state of a callback, with its paths moved to `folder`; files elsewhere are left out."""
    before = Path(str(state.get("dirpath", folder)))

    def moved(path: str) -> str:
        return str(folder / Path(path).relative_to(before)) if path and Path(path).is_relative_to(before) else ""

    paths = {name: moved(state[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
    by_path = {
        name: {moved(path): value for path, value in state.get(name, {}).items() if moved(path)}
        for name in ("best_k_models", "steps")
    }
    return {**state, **paths, **by_path, "dirpath": str(folder)}


def _step_of(checkpoint: Path) -> int | None:
    """The step of a checkpoint, read without its weights; None if it cannot be read."""
    step = (read_header(checkpoint) or {}).get("global_step")
    return step if isinstance(step, int) else None
