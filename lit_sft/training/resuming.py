"""Makes a resumed run end exactly, bit for bit, as the uninterrupted run would have."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

from data_modules.errors import UserError, UserNotice
from lit_sft.files import digest
from lit_sft.models.backbone import BackboneSettings
from lit_sft.models.base_weights import quick_identity
from lit_sft.models.continued_adapter import adapter_identity
from lit_sft.models.objectives import ObjectiveSettings
from lit_sft.training.data import TrainingData
from lit_sft.training.optimization import OptimizerSettings

_LONGEST_VALUE = 60

_FREE = {f"--model.backbone.{name}" for name in ("gradient_checkpointing", "compile", "trust_remote_code")}
"""Settings that do not change results."""


_CHANGED = {
    "tokenizer": "the tokenizer has changed",
    "layout of the template": "the text of the template has changed",
    "version of the encoding": "this version of the code encodes records differently",
}
"""Properties other than settings; compared by digest."""


def seed_batch(seed: int, epoch: int, batch_idx: int, rank: int) -> None:
    """Seed torch for one batch, so that dropout depends only on the batch's position.

    No random state needs to be saved, and random draws between batches do not affect training.
    """
    # SeedSequence mixes bits well, so neighbouring batches get unrelated seeds
    state = np.random.SeedSequence((seed, epoch, batch_idx, rank)).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))


def rewind_to_step(loops: dict[str, Any], accumulate: int, num_batches: float) -> None:
    """Set a checkpoint to resume at the first batch after the last optimiser step.

    Inside an accumulation window, the gradients accumulated so far are not in the checkpoint and the weights are those
    from before the window, so its batches are repeated. If `max_steps` ends a run within an epoch or at its end,
    Lightning counts the epoch as done too early and would skip the rest of it, or the next one.

    Args:
        loops: State of Lightning's loops in the checkpoint; changed in place, as Lightning's hook expects.
        accumulate: Batches per accumulation window.
        num_batches: Batches per epoch.
    """
    batches, epochs = loops["fit_loop"]["epoch_loop.batch_progress"], loops["fit_loop"]["epoch_progress"]
    done = batches["current"]["processed"]
    if done >= num_batches:
        if epochs["current"]["processed"] == epochs["current"]["ready"]:
            _begin_next_epoch(batches, epochs)
        return
    for counts in (epochs["current"], epochs["total"]):
        counts.update(dict.fromkeys(("processed", "completed"), max(0, counts["ready"] - 1)))
    batches["is_last_batch"] = False
    # when a batch has started, it already counts as ready
    if done % accumulate or batches["current"]["ready"] > done:
        for counts in (batches["current"], batches["total"]):
            first = counts["processed"] - done % accumulate
            counts.update(dict.fromkeys(("ready", "started", "processed", "completed"), first))


def _begin_next_epoch(batches: dict[str, Any], epochs: dict[str, Any]) -> None:
    """Set the counters to the start of the next epoch."""
    for counts in (epochs["current"], epochs["total"]):
        over = counts["ready"]
        counts.update(ready=over + 1, started=over + 1, processed=over, completed=over)
    batches["is_last_batch"] = False
    batches["current"].update(dict.fromkeys(("ready", "started", "processed", "completed"), 0))


def run_identity(
    trainer: Trainer,
    data: TrainingData,
    backbone: BackboneSettings,
    optimizer: OptimizerSettings,
    objective: ObjectiveSettings,
) -> dict[str, str]:
    """Everything that a run's metrics depend on, except its length: settings by name, with values as JSON."""
    settings = {
        **data.identity(),
        "--data.batch_size x --trainer.devices": data.batch_size * trainer.world_size,
        "--trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
        **_flat("--model.backbone", asdict(backbone)),
        "--model.backbone.pretrained": quick_identity(backbone.pretrained),
        "--model.backbone.adapter": backbone.adapter and digest(adapter_identity(backbone.adapter))[:16],
        **_flat("--model.optimizer", optimizer.identity()),
        **_flat("--model.objective", objective.identity()),
        "--trainer.precision": str(trainer.precision),
        "--trainer.gradient_clip_val": trainer.gradient_clip_val,
    }
    return {
        name: json.dumps(value, sort_keys=True, default=str) for name, value in settings.items() if name not in _FREE
    }


_OPTIMIZER = "--model.optimizer.name "


def check_identity(saved: dict[str, str], present: dict[str, str], *, allow_changes: bool) -> None:
    """Check that a checkpoint belongs to a run with the current settings and data.

    Raises:
        UserError: If they differ. With `allow_changes`, a warning lists the differences instead, unless the optimiser
            is another one, which cannot read the saved state.
    """
    changes = [
        _change(name, saved.get(name), present.get(name))
        for name in sorted({*saved, *present})
        # as values: 16 and 16.0 are the same setting
        if json.loads(saved.get(name, "null")) != json.loads(present.get(name, "null"))
    ]
    if not changes:
        return
    if allow_changes and (optimizer := next((each for each in changes if each.startswith(_OPTIMIZER)), "")):
        raise UserError(
            f"{optimizer}: a checkpoint holds the state of its own optimiser. Keep the optimiser, or start a new run "
            "from the weights: set `--model.backbone.pretrained` to the exported model."
        )
    if allow_changes:
        warnings.warn(f"resumed with changes: {'; '.join(changes)}.", UserNotice, stacklevel=2)
        return
    are_records = [change.startswith("the records") for change in changes]
    restore = [
        *(["the original files"] if any(are_records) else []),
        *(["the original settings (see the run's config.yaml)"] if not all(are_records) else []),
    ]
    raise UserError(
        f"this checkpoint belongs to a run with different settings or data: {'; '.join(changes)}. Restore "
        f"{' and '.join(restore)}, or accept the change with `--run.allow_changes true`."
    )


def _change(name: str, before: str | None, now: str | None) -> str:
    if name.startswith("-") and max(len(before or ""), len(now or "")) <= _LONGEST_VALUE:
        return f"{name} was {before or 'unset'} and is now {now or 'unset'}"
    if name.startswith("records of "):
        split = name.removeprefix("records of ")
        if before is None or now is None:
            return f"the records of {split} were {_given(before)} and are now {_given(now)}"
        return f"the records of {split} have been changed, added, removed or reordered since"
    return _CHANGED.get(name, f"{name} has changed")


def _given(digest: str | None) -> str:
    return "not given" if digest is None else "given"


def _flat(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(f"{prefix}.{name}", value) if isinstance(value, dict) else {f"{prefix}.{name}": value}
    return flat
