"""Why a run ended, and what to change to continue it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason as Reason
from torch import Tensor

from data_modules.wording import counted


def keep_stopped(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Keep a run stopped on resuming if EarlyStopping ended it, unless its current settings allow more.

    Lightning would train another epoch, and would use the patience of the checkpoint instead of the settings'.

    Args:
        trainer: About to restore its callbacks; does not train if the run stays stopped.
        checkpoint: The checkpoint to resume from. The states of EarlyStopping are updated to the current settings, in
            place, as Lightning's hook expects.
    """
    states, metrics = checkpoint.get("callbacks", {}), checkpoint.get("figures", {})
    for callback in _early_stopping(trainer.callbacks):  # type: ignore[attr-defined]
        state = states.get(callback.state_key)
        if state is None:
            continue
        state["patience"] = callback.patience
        if _still_stops(callback, state, metrics.get(callback.monitor.removeprefix("val/"))):
            trainer.should_stop = True
        else:
            state.update(stopping_reason=Reason.NOT_STOPPED.value, stopping_reason_message=None)


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a run ended.

    Attributes:
        reason: In words.
        advice: What to change to continue.
        is_early: Whether it ended before the limits of its settings.
    """

    reason: str
    advice: str
    is_early: bool

    def __str__(self) -> str:
        return f"{self.reason}; {self.advice}"


def what_ended(trainer: Trainer) -> Ending | None:
    """Why a trainer's run ended; None if unknown."""
    for callback in _early_stopping(trainer.callbacks):  # type: ignore[attr-defined]
        if callback.stopping_reason != Reason.NOT_STOPPED:
            advice = "to continue, loosen EarlyStopping or remove it (`trainer.callbacks` in the run's config.yaml)"
            return Ending(_reason(callback), f"{advice}, then `fit --resume`", is_early=True)
    limits = [name for name, is_reached in _limits(trainer).items() if is_reached]
    if not limits:
        return None
    options = " and ".join(f"--trainer.{name}" for name in limits)
    return Ending(f"{' and '.join(limits)} reached", f"to continue, raise {options}", is_early=False)


def _limits(trainer: Trainer) -> dict[str, bool]:
    epochs: int = trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    return {
        "max_steps": 0 < trainer.max_steps <= trainer.global_step,
        "max_epochs": 0 < (trainer.max_epochs or 0) <= epochs,
        "max_time": any((left := timer.time_remaining()) is not None and left <= 0 for timer in timers),
    }


def _early_stopping(callbacks: Iterable[Callback]) -> list[EarlyStopping]:
    return [callback for callback in callbacks if isinstance(callback, EarlyStopping)]


def _still_stops(callback: EarlyStopping, state: dict[str, Any], value: float | None) -> bool:
    """Whether the reason that stopped a run still applies under the current settings.

    Args:
        callback: With the current settings.
        state: The callback's state in the checkpoint.
        value: The monitored metric in the checkpoint. None if unknown: thresholds then count as unchanged.
    """
    reason = Reason(state.get("stopping_reason", Reason.NOT_STOPPED.value))
    if reason == Reason.PATIENCE_EXHAUSTED:
        return bool(state["wait_count"] >= callback.patience)
    if reason == Reason.NON_FINITE_METRIC:
        return callback.check_finite
    if reason == Reason.STOPPING_THRESHOLD:
        return _is_past(callback, value, callback.stopping_threshold, sign=1)
    if reason == Reason.DIVERGENCE_THRESHOLD:
        return _is_past(callback, value, callback.divergence_threshold, sign=-1)
    return False


def _is_past(callback: EarlyStopping, value: float | None, threshold: float | None, *, sign: int) -> bool:
    if threshold is None or value is None:
        return threshold is not None
    return bool(callback.monitor_op(Tensor([sign * value]), Tensor([sign * threshold])))


def _reason(callback: EarlyStopping) -> str:
    monitor, best = callback.monitor, float(callback.best_score)
    return {
        Reason.PATIENCE_EXHAUSTED: f"EarlyStopping: {monitor} did not improve on {best:.6g} in "
        f"{counted(callback.wait_count, 'validation')} (patience {callback.patience})",
        Reason.STOPPING_THRESHOLD: f"EarlyStopping: {monitor} passed its threshold {callback.stopping_threshold}",
        Reason.DIVERGENCE_THRESHOLD: f"EarlyStopping: {monitor} passed {callback.divergence_threshold}",
        Reason.NON_FINITE_METRIC: f"EarlyStopping: {monitor} was not finite",
    }[callback.stopping_reason]
