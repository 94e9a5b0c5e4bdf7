from __future__ import annotations

import inspect
import re
from datetime import timedelta
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_sft.checkpoints.rules import check_checkpoint_settings

DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(ModelCheckpoint).parameters.items()} | {
    "monitor": "val/loss", "filename": "best", "enable_version_counter": False, "auto_insert_metric_name": False,
}  # fmt: skip
OUTSIDE = "expected a plain name inside the run folder"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"save_top_k": 3},
        {"save_top_k": -1},
        {"save_top_k": 0},
        {"save_last": True},
        {"monitor": None},
        {"monitor": None, "save_top_k": -1, "every_n_train_steps": 10},
        {"monitor": "train/loss", "every_n_train_steps": 10},
        {"monitor": "benchmark/general/accuracy", "mode": "max"},
        {"filename": None, "save_top_k": 3, "auto_insert_metric_name": True},
        {"filename": "{epoch}-{step}", "save_top_k": 3},
        {"filename": "step_{step:05d}_loss_{val/loss:.3f}", "save_top_k": -1},
        {"filename": "{epoch}"},
        {"filename": "{epoch}", "save_top_k": 2, "enable_version_counter": True},
    ],
)
def test_unambiguous_settings_are_accepted(settings: dict[str, Any]) -> None:
    check_checkpoint_settings(DEFAULTS | settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dirpath": "/elsewhere"}, "--checkpoint.dirpath /elsewhere: .* set `--run.root`"),
        ({"mode": "most"}, "--checkpoint.mode most: expected min or max"),
        ({"save_on_exception": True}, "--checkpoint.save_on_exception true: .* `--run.checkpoint_minutes`"),
        ({"save_top_k": -2}, "--checkpoint.save_top_k -2: expected"),
        ({"save_top_k": 2, "monitor": None}, "--checkpoint.save_top_k 2: .* set `--checkpoint.monitor`"),
        (
            {"every_n_train_steps": 7},
            "every_n_train_steps 7: .* no val/loss .*--trainer.val_check_interval",
        ),
        ({"train_time_interval": timedelta(minutes=5)}, "--checkpoint.train_time_interval 0:05:00: .* no val/loss"),
        ({"filename": "../../x"}, OUTSIDE),
        ({"filename": "/tmp/x"}, OUTSIDE),
        ({"filename": "a/{step}"}, OUTSIDE),
        ({"filename": "{step:/>9}"}, OUTSIDE),
        ({"filename": ".."}, OUTSIDE),
        ({"filename": "a\\b"}, OUTSIDE),
        ({"filename": "a\0b"}, OUTSIDE),
        ({"filename": "\x1b[2J"}, OUTSIDE),
        ({"filename": "{step:>300}"}, OUTSIDE),
        ({"filename": "{val/loss:.2f}", "auto_insert_metric_name": True}, f"{OUTSIDE}.*auto_insert_metric_name false"),
        ({"filename": "last"}, "last.ckpt is reserved for the last step"),
        ({"filename": "last-v{step}"}, "last.ckpt is reserved for the last step"),
        ({"filename": "{step"}, "cannot be filled in"),
        ({"filename": "{step:q}"}, "cannot be filled in"),
        ({"filename": "{epoch}", "save_top_k": 3}, "several files would get the same name; add {step}"),
        ({"filename": "{step!r}", "save_top_k": -1}, "several files would get the same name"),
    ],
)
def test_settings_with_outside_files_or_an_ambiguous_best_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        check_checkpoint_settings(DEFAULTS | settings)
    assert re.match(rf"--checkpoint\.{next(iter(settings))}\b", str(refused.value))
