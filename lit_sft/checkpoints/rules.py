"""Rejects settings of `--checkpoint` that a run cannot support, with advice on what to use instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from data_modules.errors import UserError
from lit_sft.checkpoints.callback import BEST_NAME, is_measured_in_training

_LONGEST_NAME = 200


def check_checkpoint_settings(settings: dict[str, Any]) -> None:
    """Check the checkpoint settings of a run that is about to start.

    Args:
        settings: Arguments of `ModelCheckpoint` by name.

    Raises:
        UserError: If a setting would put files outside the run folder, or make the best file ambiguous.
    """
    if settings["dirpath"] is not None:
        raise UserError(
            f"--checkpoint.dirpath {settings['dirpath']}: checkpoints are kept in the run folder; set `--run.root` and "
            "`--run.name` instead."
        )
    if settings["mode"] not in ("min", "max"):
        raise UserError(f"--checkpoint.mode {settings['mode']}: expected min or max.")
    if settings["save_on_exception"]:
        raise UserError(
            "--checkpoint.save_on_exception true: a failed step may have changed only some of the weights. Leave it "
            "out; `--run.checkpoint_minutes` sets how often last.ckpt is written."
        )
    _check_number(settings["save_top_k"], settings["monitor"])
    _check_schedule(settings)
    _check_filename(settings)


def _check_number(save_top_k: int, monitor: str | None) -> None:
    if save_top_k < -1:
        raise UserError(f"--checkpoint.save_top_k {save_top_k}: expected a number of files, or -1 for all of them.")
    if save_top_k > 1 and monitor is None:
        raise UserError(
            f"--checkpoint.save_top_k {save_top_k}: ranking needs a metric; set `--checkpoint.monitor`, or keep every "
            "file with -1."
        )


def _check_schedule(settings: dict[str, Any]) -> None:
    """Reject saving between validations, where there is no validation metric to rank by."""
    monitor = settings["monitor"]
    if monitor is None or is_measured_in_training(monitor):
        return
    for name in ("every_n_train_steps", "train_time_interval"):
        if settings[name]:
            raise UserError(
                f"--checkpoint.{name} {settings[name]}: weights between validations have no {monitor} to be ranked by. "
                "Validate when you want to save (`--trainer.val_check_interval`), keep files without ranking them "
                "(`--checkpoint.monitor null --checkpoint.save_top_k -1`), or write last.ckpt more often "
                "(`--run.checkpoint_minutes`)."
            )


def _check_filename(settings: dict[str, Any]) -> None:
    name = settings["filename"]
    files = [_filled_in(settings, step) for step in (1, 2)]
    for file in files:
        is_plain = Path(file).name == file and file.isprintable() and "\\" not in file and not file.startswith(".")
        if not is_plain or len(file.encode()) > _LONGEST_NAME:
            raise UserError(
                f"--checkpoint.filename {name!r}: expected a plain name inside the run folder, such as "
                "'{epoch}-{step}', or 'step_{step}_loss_{val/loss:.3f}' with `--checkpoint.auto_insert_metric_name "
                "false`."
            )
        if file == "last.ckpt" or file.startswith("last-"):
            raise UserError(
                f"--checkpoint.filename {name!r}: last.ckpt is reserved for the last step; choose another name."
            )
    is_kept_apart = files[0] != files[1] or settings["enable_version_counter"] or name == BEST_NAME
    if settings["save_top_k"] not in (0, 1) and not is_kept_apart:
        raise UserError(
            f"--checkpoint.filename {name!r} with `--checkpoint.save_top_k {settings['save_top_k']}`: several files "
            "would get the same name; add {step}, or set `--checkpoint.enable_version_counter true`."
        )


def _filled_in(settings: dict[str, Any], step: int) -> str:
    """The file name at a step, with all metrics 0."""
    names = ("filename", "auto_insert_metric_name")
    try:
        callback = ModelCheckpoint(**{name: settings[name] for name in names})
        return callback.format_checkpoint_name({"step": torch.tensor(step)})
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise UserError(
            f"--checkpoint.filename {settings['filename']!r}: cannot be filled in ({error}); expected names in single "
            "braces, such as '{epoch}-{step}'."
        ) from None
