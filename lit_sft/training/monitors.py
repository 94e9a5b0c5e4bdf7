"""Checks the metrics that callbacks monitor before a run starts, rather than after its first epoch."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateMonitor

from data_modules.errors import UserError
from data_modules.rendering.masking import MASKS
from data_modules.wording import did_you_mean
from lit_sft.checkpoints.callback import RunCheckpoint
from lit_sft.metrics.preferences import PREFERENCE_METRICS
from lit_sft.metrics.segments import SEGMENTS

_PARTS = (*SEGMENTS, *MASKS)
_FIGURES = ("nll", "perplexity", "bits_per_byte")
_NAMED = ("val/loss", "train/loss", "train/lr", "step", "epoch")
_OF_PARTS = tuple(f"val/{metric}/{part}" for metric in _FIGURES for part in _PARTS)

_OWN_PACKAGES = ("lit_sft", "callbacks", "lightning")


def check_monitors(callbacks: Iterable[Callback], *, pairs: bool = False) -> None:
    """Reject callbacks that monitor a metric that is never logged.

    Our callbacks list the metrics that they log in an attribute `logs`; a name ending in `/` covers everything below
    it. If there are third-party callbacks, nothing is checked, because they may log anything.

    Args:
        callbacks: The trainer's.
        pairs: Whether the model trains on preference pairs, which have metrics of their own.

    Raises:
        UserError: If a metric is unknown; names the closest ones and lists all.
    """
    callbacks = list(callbacks)
    if any(type(callback).__module__.partition(".")[0] not in _OWN_PACKAGES for callback in callbacks):
        return
    logged = [name for callback in callbacks for name in getattr(callback, "logs", ())]
    logged += [f"val/{name}" for name in PREFERENCE_METRICS if pairs]
    if any(isinstance(callback, LearningRateMonitor) for callback in callbacks):
        logged.append("lr-")
    known = {*_NAMED, *_OF_PARTS, *logged}
    families = tuple(name for name in logged if name[-1] in "/-")
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and monitor not in known and not monitor.startswith(families):
            is_run = isinstance(callback, RunCheckpoint)
            where = "--checkpoint.monitor" if is_run else f"{type(callback).__name__}'s monitor"
            raise UserError(f"{where} {monitor}: {_advice(monitor, known, logged)}")


def _advice(monitor: str, known: set[str], logged: list[str]) -> str:
    nearest = did_you_mean(monitor, known, num=3)
    expected = f"{nearest} Expected" if nearest else "expected"
    metrics = ", ".join(f"val/{metric}/PART" for metric in _FIGURES)
    return (
        f"no such metric; {expected} {', '.join([*_NAMED, *logged])}, or {metrics}, where PART is one of "
        f"{', '.join(_PARTS)}."
    )
