"""The output of `predict`: a file with one row per prompt, and the first answers on the terminal."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch.callbacks import BasePredictionWriter

from data_modules.encoding.ledger import is_plain_text
from data_modules.errors import UserError
from lit_sft.fields import Fields
from lit_sft.files import json_line, read_json
from lit_sft.printable import excerpt, printable
from lit_sft.runs.data_report import dropped_lines
from lit_sft.settings.reading import Settings
from lit_sft.training.module import LitCausalLM

_SHOWN = 5
_CHARACTERS = 300


class PredictionWriter(BasePredictionWriter):
    """Writes predictions as JSON lines to a new file; no file is ever overwritten.

    Rows go to a temporary file that is renamed when complete. If the process is killed, that file remains, with the
    answers so far.

    Args:
        folder: Folder of predictions.jsonl, predictions_1.jsonl and so on.
        output: The file to write instead.

    Raises:
        UserError: If `output` exists, or cannot be written.
    """

    def __init__(self, folder: Path, output: Path | None = None) -> None:
        super().__init__(write_interval="batch")
        if output is not None and os.path.lexists(output):
            raise UserError(f"--output {output}: exists already; name another file, or remove it.")
        self._folder, self._output = folder, output
        self._stream: TextIO | None = None
        self.first: list[dict[str, Any]] = []
        """The first rows, to print."""
        self.counts = {"answers": 0, "empty": 0, "not ended": 0}

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the temporary file."""
        target = self._output or self._folder / "predictions.jsonl"
        target.parent.mkdir(parents=True, exist_ok=True)
        self._partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.partial")
        self._stream = self._partial.open("x", encoding="utf-8")

    def write_on_batch_end(self, trainer: Any, pl_module: Any, prediction: Any, *_: Any) -> None:
        """Write the rows of a batch."""
        assert self._stream is not None
        for row in prediction:
            self._stream.write(json_line(row))
            self.counts["answers"] += 1
            self.counts["empty"] += not row["answer"].strip()
            self.counts["not ended"] += not row["ended"]
        self.first += prediction[: _SHOWN - len(self.first)]

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Rename the complete file."""
        assert self._stream is not None
        self._stream.close()
        self._stream = None  # from here on, an error does not remove the complete file
        self.path = self._claimed()
        self._partial.replace(self.path)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Remove the temporary file."""
        if self._stream is not None:
            self._stream.close()
            self._partial.unlink(missing_ok=True)

    def report(self, log: Callable[[str], None], module: LitCausalLM) -> None:
        """Print the first answers, notes on all of them, and where they are."""
        for row in self.first:
            log(printable(row["origin"]))
            log(f"  prompt  {excerpt(row['question'], _CHARACTERS)}")
            ended = "" if row["ended"] else "  [not ended]"
            log(f"  answer  {excerpt(row['answer'], _CHARACTERS) or '(empty)'}{ended}")
        for line in self._notes(module):
            log(line)
        log(f"written {self.path}")

    def _notes(self, module: LitCausalLM) -> list[str]:
        answers, empty, endless = self.counts.values()
        limit = module.generation_settings.max_new_tokens
        notes = [f"{answers:,} answer{'s' * (answers != 1)}, {len(self.first):,} shown"]
        if empty:
            notes.append(f"{empty:,} answer{'s are' if empty > 1 else ' is'} empty")
        if endless:
            notes.append(
                f"{endless:,} not ended by the model: cut at {limit} tokens (`--model.generation.max_new_tokens`)"
            )
        ledger = module.data.ledgers.get("predict", {})
        if cut := ledger.get("truncated"):
            room = module.data.length_limit("predict")
            notes.append(
                f"{cut:,} prompt{'s were' if cut > 1 else ' was'} longer than {room:,} tokens and cut: raise "
                "`--data.max_length` as far as the model allows, or lower `--model.generation.max_new_tokens`"
            )
        if lost := ledger.get("dropped", 0):
            notes.append(f"{lost:,} prompt{'s were' if lost > 1 else ' was'} not answered: too long even when cut")
        if ledger:
            notes += map(printable, dropped_lines(module.data, "predict"))
        return notes

    def _claimed(self) -> Path:
        """Create an empty file under the final name.

        Raises:
            UserError: If another process has created the requested file in the meantime.
        """
        if self._output is None:
            names = (f"predictions{f'_{number}' if number else ''}.jsonl" for number in count())
            return next(path for path in (self._folder / name for name in names) if _is_made(path))
        if not _is_made(self._output):
            raise UserError(
                f"--output {self._output}: created by another process in the meantime; the answers of this one are in "
                f"{self._partial}."
            )
        return self._output


def without_training_data(settings: Settings, run: Path) -> Settings:
    """If prompts are given, the settings without the run's data files, so that these need not exist.

    Args:
        settings: Settings of `predict`.
        run: The run folder; its ledger records what it was trained on.

    Raises:
        UserError: If the ledger is damaged.
    """
    path = run / "ledger.json"
    ledger = read_json(path)
    if not settings.config.data.predict or not ledger or "train" not in ledger:
        return settings
    read = Fields(ledger, str(path)).fields("train").fields("tokens").fields("read")
    for kind in ("text", "user"):
        read.whole(kind)  # refuses a damaged file by name
    config = settings.config.clone()
    config.data.train = config.data.val = config.data.test = None
    config.data.text_prompts = config.data.text_prompts or (
        "beginning" if is_plain_text(ledger["train"]) else "question"
    )
    return replace(settings, config=config)


def _is_made(path: Path) -> bool:
    """Create an empty file; returns False if the name is taken."""
    try:
        path.open("x").close()
    except FileExistsError:
        return False
    return True
