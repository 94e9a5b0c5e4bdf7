"""Builds Lightning's Trainer from settings: atomic checkpoints, and progress lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer

from lit_sft.checkpoints.atomic_io import AtomicCheckpointIO
from lit_sft.console import print_line
from lit_sft.training.accelerators import accelerator_of
from lit_sft.training.progress_lines import lines_without_terminal


def build_trainer(
    settings: Mapping[str, Any], *, callbacks: Sequence[Callback] = (), last: Sequence[Callback] = (), **changes: Any
) -> Trainer:
    """Build a trainer.

    Args:
        settings: Arguments of Lightning's Trainer, with classes already built.
        callbacks: Added to the callbacks of the settings.
        last: Callbacks to run after all others, including those that print progress.
        **changes: Arguments that override the settings.
    """
    given = {**settings, **changes}
    own = lines_without_terminal([*_as_list(given["callbacks"]), *callbacks], given["enable_progress_bar"], print_line)
    given["callbacks"] = [*own, *last]
    given["accelerator"] = accelerator_of(given["accelerator"])
    if not _is_sharded(given["strategy"]):
        given["plugins"] = [*_as_list(given["plugins"]), AtomicCheckpointIO()]
    return Trainer(**given)


def _as_list(value: Any) -> list[Any]:
    """A setting that may be one thing, several or none, as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _is_sharded(strategy: object) -> bool:
    """Whether a strategy writes checkpoints in its own format."""
    return any(name in str(strategy).lower() for name in ("fsdp", "deepspeed"))
