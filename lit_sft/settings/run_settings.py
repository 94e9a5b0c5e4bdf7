"""Where a run keeps its files, and what its config may name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunSettings:
    """Where a run keeps its files.

    Attributes:
        root: Folder of all runs.
        name: Folder of runs like this one. None: the name of the last config file.
        checkpoint_minutes: Minutes between checkpoints, beside those at validations. None: no others.
        allow_changes: Whether a run may be resumed with settings or data other than those it started with.
        allow_code: On the command line only: modules or classes, between commas, that the config of a run may name
            beside those of this project, Lightning, torch and transformers. Opening the run then runs their code.
    """

    root: str = "runs"
    name: str | None = None
    checkpoint_minutes: float | None = 10.0
    allow_changes: bool = False
    allow_code: str | None = None
