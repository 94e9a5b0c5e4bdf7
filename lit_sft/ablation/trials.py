"""A trial on disk: its commands, its state and its results."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_modules.errors import UserError
from lit_sft.ablation.budget import Plan, arguments_of, settings_of
from lit_sft.ablation.study import Settings, Study, Trial
from lit_sft.checkpoints.best import best_of
from lit_sft.files import digest, read_json, write_json
from lit_sft.own_packages import program
from lit_sft.settings.reading import as_options

CALLBACKS = ("callbacks.LossModeAblation", "callbacks.TrialRecord")
"""Callbacks that write what reports read; by name, because this layer does not import callbacks."""

CALLBACKS_OF_TEXT = ("callbacks.PerplexityMonitor", "callbacks.TrialRecord")
"""The same for text runs, which have no masks to compare."""


@dataclass(frozen=True)
class TrialFiles:
    """The files of a trial.

    Attributes:
        study: The study.
        trial: The trial.
    """

    study: Study
    trial: Trial

    @property
    def run(self) -> Path:
        """The trial's run folder."""
        return self.trial.folder / "version_0"

    @property
    def log(self) -> Path:
        """Output of the trial's commands."""
        return self.trial.folder / "log.txt"

    @property
    def tested(self) -> Path:
        """The checkpoint to test; the last one if no validation has chosen a best."""
        checkpoints = self.run / "checkpoints"
        best = best_of(checkpoints) if self.study.checkpoint == "best" else None
        return best or checkpoints / "last.ckpt"

    @property
    def result(self) -> Path:
        """Result file of the tested checkpoint."""
        return result_of(self.run, self.study.checkpoint)

    @property
    def is_done(self) -> bool:
        """Whether the trial has been trained and tested."""
        return self.result.is_file()

    def failure(self) -> str | None:
        """Why the trial failed, or None."""
        found = _read_or_empty(self.trial.folder / "failure.json")
        return str(found.get("reason", "unknown reason")) if found is not None else None

    def record_failure(self, reason: str, *, by: Literal["plan", "run"] = "run") -> None:
        """Record a failure: of its settings (`plan`), or of its run."""
        self.trial.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.trial.folder / "failure.json", {"reason": reason, "by": by})

    def clear_failure(self, *, include_runs: bool) -> None:
        """Remove a recorded failure: of settings always, since they are valid now; of a run only if asked."""
        found = _read_or_empty(self.trial.folder / "failure.json")
        if found is not None and (include_runs or found.get("by") == "plan"):
            (self.trial.folder / "failure.json").unlink(missing_ok=True)

    def progress(self) -> dict[str, Any]:
        """`step`, `of` and `train_loss` of the training; empty before the first step."""
        return _read_or_empty(self.run / "trial.json") or {}

    @property
    def is_trained(self) -> bool:
        """Whether training is complete."""
        return (self.run / "fit.json").is_file()

    def clear(self) -> None:
        """Remove a run without a checkpoint, so that its folder can be used again."""
        if not self.is_trained and not any((self.run / "checkpoints").glob("*.ckpt")):
            shutil.rmtree(self.run, ignore_errors=True)

    def command(self, plan: Plan) -> list[str]:
        """The next command: `fit` from the start or from the last checkpoint, or `test`."""
        if self.is_trained:
            return self._test(self.tested, plan)
        if any((self.run / "checkpoints").glob("*.ckpt")):
            return [*program(), "fit", "--resume", str(self.run), *self._trusted(plan)]
        return [*program(), "fit", *self.arguments(plan)]

    def commands(self, plan: Plan) -> list[list[str]]:
        """All remaining commands: `fit`, unless training is complete, and `test`."""
        if self.is_trained:
            return [self.command(plan)]
        # without a checkpoint's name, `test` takes the best one, which is known only after training
        tested = self.run if self.study.checkpoint == "best" else self.tested
        return [self.command(plan), self._test(tested, plan)]

    def _test(self, tested: Path, plan: Plan) -> list[str]:
        return [*program(), "test", str(tested), "--answers", str(self.study.answers), *self._trusted(plan)]

    def _trusted(self, plan: Plan) -> list[str]:
        """Options that allow the code that the study names, since a run's own config cannot."""
        code, trust = plan.code.get(self.trial.arm.name), "model.backbone.trust_remote_code"
        given = {name: value for name, value in self.settings.items() if name == trust}
        return [*(("--run.allow_code", ",".join(sorted(code))) if code else ()), *as_options(given)]

    @property
    def settings(self) -> Settings:
        """Settings on top of the base config, without the trial's length."""
        return settings_of(self.study, self.trial.arm, self.trial.seed)

    def arguments(self, plan: Plan) -> list[str]:
        """Options of `fit`."""
        key = self.trial.arm.name, self.trial.seed
        settings = {
            **self.settings,
            "trainer.max_steps": plan.amounts[key].steps,
            "trainer.max_epochs": -1,
            "trainer.check_val_every_n_epoch": None,
            "trainer.val_check_interval": plan.intervals[key],
            "run.root": str(self.trial.folder.parent),
            "run.name": self.trial.folder.name,
        }
        callbacks = CALLBACKS_OF_TEXT if plan.is_text.get(key[0]) else CALLBACKS
        added = [f"--trainer.callbacks+={name}" for name in callbacks if name not in plan.callbacks[key[0]]]
        return [*arguments_of(self.study, settings), *added]

    def define(self, plan: Plan, *, restart: bool = False) -> None:
        """Write the trial's definition, or check that it has not changed.

        Args:
            plan: With the trial's length.
            restart: Start over if the definition has changed.

        Raises:
            UserError: If the definition has changed.
        """
        key = self.trial.arm.name, self.trial.seed
        definition = {
            "arm": self.trial.arm.name,
            "seed": self.trial.seed,
            "settings": self.settings,
            "base": [digest(Path(file).read_text(encoding="utf-8")) for file in self.study.base],
            "data": plan.data[key[0]],
            "steps": plan.amounts[key].steps,
            "validations": self.study.validations,
            "answers": self.study.answers,
            "checkpoint": self.study.checkpoint,
        }
        path = self.trial.folder / "definition.json"
        known = read_json(path)
        if known is not None and (changes := _changes(known, json.loads(json.dumps(definition)))):
            if not restart:
                raise UserError(
                    f"{self.trial.folder}: was started with different settings ({'; '.join(changes)}). "
                    "Choose another `name` for the study, or remove this folder; --retry restarts failed trials."
                )
            shutil.rmtree(self.run, ignore_errors=True)
        self.trial.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, definition)


def _read_or_empty(path: Path) -> dict[str, Any] | None:
    """Read a JSON file of a trial; empty if it is damaged, which must not stop a study."""
    try:
        return read_json(path)
    except (UserError, OSError):
        return {}


def _changes(known: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Changed values by name, with the old and the new one."""
    changes = []
    for name in now:
        before, after = known.get(name), now[name]
        if isinstance(before, dict) and isinstance(after, dict):
            changes += _changes({**dict.fromkeys(after), **before}, {**dict.fromkeys(before), **after})
        elif before != after:
            changes.append(f"{name} was {json.dumps(before)}, is now {json.dumps(after)}")
    return changes


def result_of(run: Path, checkpoint: str) -> Path:
    """Where `test` writes the result of a checkpoint, `last` or `best`."""
    last = run / "result_last.json"
    # the record of the best checkpoint may have been lost since the last one was tested
    is_apart = checkpoint == "last" and (last.is_file() or best_of(run / "checkpoints") is not None)
    return last if is_apart else run / "result.json"
