"""A trial on disk: its commands, what state it is in, and what it left behind."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_modules.errors import UserError
from lit_sft.ablation.budget import Plan, arguments_of, settings_of
from lit_sft.ablation.study import Settings, Study, Trial
from lit_sft.checkpoints.best import best_of
from lit_sft.files import digest, read_json, write_json
from lit_sft.settings.reading import as_options

CALLBACKS = ("callbacks.LossModeAblation", "callbacks.TrialRecord")
"""What a report reads; names, because this layer knows no callbacks."""


@dataclass(frozen=True)
class TrialFiles:
    """The files of a trial, and what they say.

    Attributes:
        study: It is part of.
        trial: Which.
    """

    study: Study
    trial: Trial

    @property
    def run(self) -> Path:
        """Its run folder."""
        return self.trial.folder / "version_0"

    @property
    def log(self) -> Path:
        return self.trial.folder / "log.txt"

    @property
    def tested(self) -> Path:
        """The checkpoint that is tested; the last one too where no validation could choose a best."""
        checkpoints = self.run / "checkpoints"
        best = best_of(checkpoints) if self.study.checkpoint == "best" else None
        return best or checkpoints / "last.ckpt"

    @property
    def result(self) -> Path:
        return result_of(self.run, self.study.checkpoint)

    @property
    def is_done(self) -> bool:
        return self.result.is_file()

    def failure(self) -> str | None:
        """Why it failed, if it did."""
        found = _known(self.trial.folder / "failure.json")
        return str(found.get("reason", "for a reason that is lost")) if found is not None else None

    def fail(self, reason: str, *, by: Literal["plan", "run"] = "run") -> None:
        """Write down why: its settings cannot be run (`plan`), or it was run and failed."""
        self.trial.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.trial.folder / "failure.json", {"reason": reason, "by": by})

    def forgive(self, *, also_runs: bool) -> None:
        """Let it be tried again: always if its settings were at fault, which are right now."""
        found = _known(self.trial.folder / "failure.json")
        if found is not None and (also_runs or found.get("by") == "plan"):
            (self.trial.folder / "failure.json").unlink(missing_ok=True)

    def progress(self) -> dict[str, Any]:
        """`step`, `of` and `train_loss` of its training; empty before its first step."""
        return _known(self.run / "trial.json") or {}

    @property
    def is_trained(self) -> bool:
        return (self.run / "fit.json").is_file()

    def clear(self) -> None:
        """Remove what is left of a run that did not come to its first checkpoint, so that its name is free."""
        if not self.is_trained and not any((self.run / "checkpoints").glob("*.ckpt")):
            shutil.rmtree(self.run, ignore_errors=True)

    def command(self, plan: Plan) -> list[str]:
        """What is left of it to do: `fit` from the beginning or from its last checkpoint, or `test`."""
        python = [sys.executable, "-m", "lit_sft"]
        if self.is_trained:
            return [*python, "test", str(self.tested), "--answers", str(self.study.answers), *self._trusted(plan)]
        if any((self.run / "checkpoints").glob("*.ckpt")):
            return [*python, "fit", "--resume", str(self.run), *self._trusted(plan)]
        return [*python, "fit", *self.arguments(plan)]

    def _trusted(self, plan: Plan) -> list[str]:
        """Options that let a run name what its study names: a run's own config is not trusted with it."""
        code, trust = plan.code.get(self.trial.arm.name), "model.backbone.trust_remote_code"
        given = {name: value for name, value in self._settings().items() if name == trust}
        return [*(("--run.allow_code", ",".join(sorted(code))) if code else ()), *as_options(given)]

    def _settings(self) -> Settings:
        return settings_of(self.study, self.trial.arm, self.trial.seed)

    def arguments(self, plan: Plan) -> list[str]:
        """Options of `fit`."""
        key = self.trial.arm.name, self.trial.seed
        settings = {
            **self._settings(),
            "trainer.max_steps": plan.amounts[key].steps,
            "trainer.max_epochs": -1,
            "trainer.check_val_every_n_epoch": None,
            "trainer.val_check_interval": plan.intervals[key],
            "run.root": str(self.trial.folder.parent),
            "run.name": self.trial.folder.name,
        }
        added = [f"--trainer.callbacks+={name}" for name in CALLBACKS if name not in plan.callbacks[key[0]]]
        return [*arguments_of(self.study, settings), *added]

    def define(self, plan: Plan, *, anew: bool = False) -> None:
        """Write down what the trial is, or check that it still is what was written down.

        Args:
            plan: With its length.
            anew: Begin it again if it has changed.

        Raises:
            UserError: If it has changed.
        """
        key = self.trial.arm.name, self.trial.seed
        definition = {
            "arm": self.trial.arm.name,
            "seed": self.trial.seed,
            "settings": self._settings(),
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
            if not anew:
                raise UserError(
                    f"{self.trial.folder}: was begun otherwise ({'; '.join(changes)}). A trial keeps its settings: "
                    "give the study another `name`, or remove this folder; one that failed begins anew by --retry."
                )
            shutil.rmtree(self.run, ignore_errors=True)
        self.trial.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, definition)


def _known(path: Path) -> dict[str, Any] | None:
    """What a file says of a trial; nothing where it is damaged, which must not end a study."""
    try:
        return read_json(path)
    except (UserError, OSError):
        return {}


def _changes(known: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not as it was, by name, with what it was and is."""
    changes = []
    for name in now:
        before, after = known.get(name), now[name]
        if isinstance(before, dict) and isinstance(after, dict):
            changes += _changes({**dict.fromkeys(after), **before}, {**dict.fromkeys(before), **after})
        elif before != after:
            changes.append(f"{name} was {json.dumps(before)}, is {json.dumps(after)}")
    return changes


def result_of(run: Path, checkpoint: str) -> Path:
    """Where `test` writes what it found of a checkpoint, `last` or `best`."""
    last = run / "result_last.json"
    # which of the checkpoints was the best may have been lost since the last one was tested
    is_apart = checkpoint == "last" and (last.is_file() or best_of(run / "checkpoints") is not None)
    return last if is_apart else run / "result.json"
